"""Making, resuming and changing a network's homes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devnet.files import held_lock, network_document, read_network
from devnet.ports import FIRST_PORT, free_ports, is_free, taken
from devnet.prepare import Wish, add_node, prepare, wipe
from qenex_node.config import load
from qenex_node.homes import read_genesis
from qenex_node.testnet import Network, ports_from
from state.errors import Rejected

SMALL = Wish(validators=4, accounts=3, seed="seven")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return prepare(tmp_path_factory.mktemp("made"), SMALL)


def test_the_same_seed_makes_the_same_genesis_and_another_seed_another(made: Network, tmp_path: Path) -> None:
    same = prepare(tmp_path / "same", SMALL)
    other = prepare(tmp_path / "other", Wish(validators=4, accounts=3, seed="eight"))
    assert same.genesis_hash == made.genesis_hash
    assert [account.address for account in same.accounts] == [account.address for account in made.accounts]
    assert other.genesis_hash != made.genesis_hash


def test_a_home_is_resumed_as_it_is_and_asking_for_another_network_is_told(made: Network) -> None:
    assert prepare(made.directory, Wish()) == made
    for wish, what in ((Wish(validators=7), "--validators"), (Wish(seed="x"), "--seed"), (Wish(accounts=9), "--acc")):
        with pytest.raises(Rejected) as refused:
            prepare(made.directory, wish)
        assert refused.value.code == "devnet_differs"
        assert what in refused.value.message


def test_devnet_json_says_what_the_design_says(made: Network) -> None:
    document = network_document(made, {"validator-01": 42})
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    first = made.nodes[0]
    assert nodes[0] == {
        "name": "validator-01",
        "role": "validator",
        "pid": 42,
        "rpc": f"http://127.0.0.1:{first.ports.rpc}",
        "metrics": f"http://127.0.0.1:{first.ports.metrics}/metrics",
        "p2p": f"127.0.0.1:{first.ports.p2p}",
        "home": str(first.home),
    }
    assert [node["pid"] for node in nodes[1:]] == [None] * 3  # type: ignore[index, call-overload]
    assert set(document) == {"chain_id", "nodes", "accounts"}
    assert document["accounts"][0]["name"] == "treasury"  # type: ignore[index, call-overload]
    assert json.dumps(document)


def test_a_port_that_is_taken_moves_the_whole_network(made: Network) -> None:
    import socket

    victim = made.nodes[2].ports
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", victim.p2p))
        squatter.listen(1)
        assert taken(victim) == [victim.p2p]
        moved = prepare(made.directory, Wish())
    assert moved.nodes[2].ports != victim
    for node in moved.nodes:
        config = load(node.home / "config.toml")
        assert (config.p2p.listen_port, config.rpc.port, config.metrics.port) == (
            node.ports.p2p,
            node.ports.rpc,
            node.ports.metrics,
        )
    dialed = load(moved.nodes[3].home / "config.toml").p2p.peers
    assert f"validator-03@127.0.0.1:{moved.nodes[2].ports.p2p}" in dialed
    assert read_genesis(moved.directory / "genesis.json").hash == made.genesis_hash


def test_asked_ports_are_given_or_refused_by_number(tmp_path: Path) -> None:
    base = free_ports(4)[0].p2p
    network = prepare(tmp_path / "home", Wish(accounts=0), base_port=base)
    assert tuple(node.ports for node in network.nodes) == ports_from(base, 4)
    import socket

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", base + 4))
        squatter.listen(1)
        with pytest.raises(Rejected, match=str(base + 4)):
            prepare(tmp_path / "home", Wish(), base_port=base)


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for ports in free_ports(3):
        assert FIRST_PORT <= ports.p2p < ports.metrics < first_outgoing
        assert is_free(ports.rpc)


def test_a_further_full_node_is_permitted_by_all_and_dials_all_validators(tmp_path: Path) -> None:
    network = add_node(prepare(tmp_path / "home", SMALL))
    added = network.nodes[-1]
    assert (added.name, added.role) == ("full-01", "full")
    config = load(added.home / "config.toml")
    assert len(config.p2p.peers) == 4
    assert config.rpc.port == added.ports.rpc
    for node in network.nodes[:-1]:
        (entry,) = load(node.home / "config.toml").p2p.permitted_full_nodes
        assert entry.startswith("full-01=0x")
    assert prepare(tmp_path / "home", Wish()) == network
    with pytest.raises(Rejected):
        add_node(network, "full-01")
    with pytest.raises(Rejected):
        add_node(network, "../full-02")


def test_fresh_replaces_the_network_and_touches_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = prepare(home, Wish(accounts=0))
    (home / "notes.txt").write_text("mine")
    wipe(home)
    assert [entry.name for entry in home.iterdir()] == ["notes.txt"]
    with pytest.raises(Rejected) as refused:
        prepare(home, Wish())
    assert refused.value.code == "home_exists"
    (home / "notes.txt").unlink()
    assert prepare(home, Wish(accounts=0), fresh=True).genesis_hash != first.genesis_hash


def test_an_interrupted_making_is_begun_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".making" / "validator-01").mkdir(parents=True)
    assert len(prepare(home, Wish(accounts=0)).nodes) == 4
    assert not (home / ".making").exists()


def test_a_second_launcher_is_told_who_holds_the_home(tmp_path: Path) -> None:
    import os

    with held_lock(tmp_path):
        with pytest.raises(Rejected) as refused, held_lock(tmp_path):
            pass
        assert refused.value.code == "devnet_running"
        assert str(os.getpid()) in refused.value.message
    with held_lock(tmp_path):
        pass


def test_reading_a_network_that_is_not_up_says_so(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        read_network(tmp_path)
    assert refused.value.code == "devnet_down"
