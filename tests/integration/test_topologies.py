"""Networks that are not fully meshed: messages get around by relay, and blocks are made all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from integration_support import assert_nothing_lost, load, pay, same_chain, trusting_client

from devnet.network import Devnet
from qenex_node.config import load as load_config
from qenex_node.configfile import render

ALL = ["validator-01", "validator-02", "validator-03", "validator-04"]


def join(net: Devnet, links: Mapping[str, Iterable[str]]) -> None:
    """Has each node dial the nodes named for it, and no others."""
    for name in net.names:
        file = net.node(name).home / "config.toml"
        config = load_config(file)
        addresses = [f"{other}@127.0.0.1:{net.node(other).ports.p2p}" for other in links.get(name, ())]
        file.write_text(render(replace(config, p2p=replace(config.p2p, peers=tuple(addresses)))))


def neighbours(net: Devnet, name: str) -> set[str]:
    return {peer["name"] for peer in net.call(name, "net_peers")["peers"]}


def test_four_validators_joined_only_in_a_line_make_blocks(tmp_path: Path) -> None:
    with Devnet(tmp_path / "net", accounts=100, autostart=False) as net:
        join(net, {ALL[0]: [ALL[1]], ALL[1]: [ALL[2]], ALL[2]: [ALL[3]]})
        net.start_all()
        net.wait_ready()
        assert neighbours(net, ALL[0]) == {ALL[1]}
        assert neighbours(net, ALL[3]) == {ALL[2]}
        net.fleet.publish()
        with trusting_client(net, ALL[3]) as client:
            pay(client, net.account_key("alice"), net.account_key("bob").address)
        with load(net, "--rate", "60", "--seconds", "4", "--accounts", "100") as under_way:
            assert_nothing_lost(under_way.result())
        same_chain(net, ALL)


def test_validators_joined_only_through_a_full_node_make_blocks(tmp_path: Path) -> None:
    with Devnet(tmp_path / "net", accounts=100, full_nodes=1, autostart=False) as net:
        join(net, {name: ["full-01"] for name in ALL})
        net.start_all()
        net.wait_ready(ALL)
        assert all(neighbours(net, name) == {"full-01"} for name in ALL)
        # What a client is told as accepted is held by another validator, though none is joined directly.
        with trusting_client(net, ALL[0]) as client:
            pay(client, net.account_key("alice"), net.account_key("bob").address)
        with trusting_client(net, "full-01") as client:
            pay(client, net.account_key("carol"), net.account_key("bob").address)
        same_chain(net, [*ALL, "full-01"])
