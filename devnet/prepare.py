"""Makes the network in a home on the first run and finds it again on later ones; gives ports, adds nodes, wipes.

The homes themselves are made by qenex_node/testnet.py; here is only what a network that comes and goes needs on top.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from devnet.files import LOCK_FILE, NETWORK_FILE, SOCKET_FILE
from devnet.ports import asked_ports, free_ports, taken
from qenex_node.config import Config, load
from qenex_node.configfile import render
from qenex_node.homes import NodeHome, create_database, create_home, create_vote_records, read_genesis
from qenex_node.jsonfiles import read_json, write_json
from qenex_node.testnet import (
    FULL_NODES_MAX,
    Network,
    NetworkNode,
    NodePorts,
    Plan,
    create_testnet,
    derived_key,
    read_testnet,
)
from state.errors import Rejected
from state.genesis import ChainParameters

TESTNET_FILE: Final = "testnet.json"
CHAIN_ID: Final = "qenex-devnet"
VALIDATORS_DEFAULT: Final = 4
ACCOUNTS_DEFAULT: Final = 1_000
_MAKING: Final = ".making"
_OURS: Final = (TESTNET_FILE, NETWORK_FILE, SOCKET_FILE, "genesis.json", "genesis.state", "accounts", _MAKING)
_NODE_FOLDER: Final = re.compile(r"(validator|full)-[0-9]{2}\Z")


@dataclass(frozen=True, slots=True)
class Wish:
    """What network is wanted. None is what the home has, or the default where there is none yet.

    `parameters` and `config` (which all nodes' configurations start from) count for a new network only.
    """

    validators: int | None = None
    full_nodes: int | None = None
    accounts: int | None = None
    seed: str | None = None
    parameters: ChainParameters = field(default_factory=ChainParameters)
    config: Config = field(default_factory=Config)

    def plan(self) -> Plan:
        """Returns the plan of a new network."""
        return Plan(
            validators=VALIDATORS_DEFAULT if self.validators is None else self.validators,
            full_nodes=self.full_nodes or 0,
            accounts=ACCOUNTS_DEFAULT if self.accounts is None else self.accounts,
            seed=self.seed,
            chain_id=CHAIN_ID,
            parameters=self.parameters,
            config=self.config,
        )

    def check(self, network: Network) -> None:
        """Raises Rejected("devnet_differs") if `network` is another one: asking for that is a mistake to be told."""
        full_nodes = sum(node.role == "full" for node in network.nodes)
        differences = [
            f"{what} {wanted}, but there it is {has}"
            for what, wanted, has in (
                ("--validators", self.validators, len(network.nodes) - full_nodes),
                ("--full-nodes", self.full_nodes, full_nodes),
                ("--seed", self.seed, network.seed),
                ("--accounts", self.accounts, network.bulk_accounts),
            )
            if wanted is not None and wanted != has
        ]
        if differences:
            raise Rejected(
                "devnet_differs", f"{network.directory} holds another network ({'; '.join(differences)}): see --fresh"
            )


def prepare(home: Path, wish: Wish, *, fresh: bool = False, base_port: int | None = None) -> Network:
    """Returns the network in `home` with ports that are free now, made as wished if there is none.

    Raises Rejected("devnet_differs") if the network there is another one, Rejected("home_exists") if the directory
    holds other things, Rejected("port_in_use").
    """
    if fresh:
        wipe(home)
    if (home / TESTNET_FILE).is_file():
        network = read_testnet(home)
        wish.check(network)
        return _with_usable_ports(network, base_port)
    return _make(home, wish.plan(), base_port)


def wipe(home: Path) -> None:
    """Removes a network from its home, and nothing else that may lie there."""
    if not home.is_dir():
        return
    for entry in home.iterdir():
        if entry.name not in _OURS and not _NODE_FOLDER.match(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _make(home: Path, plan: Plan, base_port: int | None) -> Network:
    """Makes the network aside and moves it in, testnet.json last: an interrupted attempt leaves nothing half made."""
    making = home / _MAKING
    home.mkdir(parents=True, exist_ok=True)
    foreign = [entry.name for entry in home.iterdir() if entry.name not in (LOCK_FILE, _MAKING)]
    if foreign:
        raise Rejected("home_exists", f"{home} holds no network but {min(foreign)}: choose another --home")
    if making.exists():
        shutil.rmtree(making)
    count = plan.validators + plan.full_nodes
    ports = free_ports(count) if base_port is None else asked_ports(base_port, count)
    create_testnet(making, plan, ports)
    entries = sorted(making.iterdir(), key=lambda entry: entry.name == TESTNET_FILE)
    for entry in entries:
        entry.rename(home / entry.name)
    making.rmdir()
    return read_testnet(home)


def _with_usable_ports(network: Network, base_port: int | None) -> Network:
    count = len(network.nodes)
    if base_port is not None:
        wanted = asked_ports(base_port, count)
    elif any(taken(node.ports) for node in network.nodes):
        wanted = free_ports(count)
    else:
        return network
    if tuple(node.ports for node in network.nodes) == wanted:
        return network
    return move_ports(network, wanted)


def move_ports(network: Network, ports: Sequence[NodePorts]) -> Network:
    """Gives a stopped network other ports: in each configuration, its own and its peers'."""
    nodes = tuple(replace(node, ports=place) for node, place in zip(network.nodes, ports, strict=True))
    by_name = {node.name: node.ports for node in nodes}
    for node in nodes:
        _change_config(node, partial(_config_with_ports, node=node, ports=by_name))
    document = _testnet_document(network.directory)
    for entry in document["nodes"]:
        entry["ports"] = _ports_json(by_name[entry["name"]])
    write_json(network.directory / TESTNET_FILE, document)
    return replace(network, nodes=nodes)


def _config_with_ports(config: Config, node: NetworkNode, ports: Mapping[str, NodePorts]) -> Config:
    addresses = {name: f"127.0.0.1:{place.p2p}" for name, place in ports.items()}
    peers = tuple(f"{peer.who}@{addresses.get(peer.who, f'{peer.host}:{peer.port}')}" for peer in config.peers)
    place = node.ports
    return replace(
        config,
        p2p=replace(config.p2p, listen_port=place.p2p, advertise=f"127.0.0.1:{place.p2p}", peers=peers),
        rpc=replace(config.rpc, port=place.rpc),
        metrics=replace(config.metrics, port=place.metrics),
    )


Route = Callable[[NetworkNode, NetworkNode], str]
"""At which host:port a dialer reaches a target."""


def direct(_: NetworkNode, target: NetworkNode) -> str:
    """Returns where the target listens."""
    return f"{target.host}:{target.ports.p2p}"


def reroute(network: Network, route: Route = direct) -> None:
    """Writes into the configurations of a stopped network where each node listens, and where it dials its peers."""
    by_name = {node.name: node for node in network.nodes}
    for node in network.nodes:
        _change_config(node, partial(_config_on_route, node=node, by_name=by_name, route=route))


def _config_on_route(config: Config, node: NetworkNode, by_name: Mapping[str, NetworkNode], route: Route) -> Config:
    peers = tuple(f"{peer.who}@{route(node, by_name[peer.who])}" for peer in config.peers)
    return replace(
        config,
        p2p=replace(config.p2p, listen_host=node.host, advertise=f"{node.host}:{node.ports.p2p}", peers=peers),
        rpc=replace(config.rpc, host=node.host),
        metrics=replace(config.metrics, host=node.host),
    )


def add_node(network: Network, name: str | None = None, *, role: str = "full") -> Network:
    """Returns the network with one node more at its end, its home made and permitted in all configurations.

    The running nodes read that on SIGHUP. One with the role of a validator has a key to vote with, and follows as a
    full node until governance makes it a validator. Raises Rejected("node_exists") or Rejected("testnet_invalid").
    """
    names = {node.name for node in network.nodes}
    numbers = (f"{role}-{number:02}" for number in range(1, FULL_NODES_MAX + 1))
    chosen = name or next((free for free in numbers if free not in names), None)
    if chosen is None or not _NODE_FOLDER.match(chosen) or not chosen.startswith(f"{role}-"):
        raise Rejected("testnet_invalid", f"a further node is called {role}-01 to {role}-{FULL_NODES_MAX}, not {name}")
    if chosen in names:
        raise Rejected("node_exists", f"there is a node {chosen} already")
    (ports,) = free_ports(1)
    node = NetworkNode(chosen, role, network.directory / chosen, ports)
    _make_home(network, node)
    entry = f"{chosen}=0x{derived_key(network.seed, 'node', chosen).public.data.hex()}"
    for other in network.nodes:
        _change_config(other, partial(_permitting, entry=entry))
    document = _testnet_document(network.directory)
    document["nodes"].append({"name": chosen, "role": role, "home": chosen, "ports": _ports_json(ports)})
    write_json(network.directory / TESTNET_FILE, document)
    return replace(network, nodes=(*network.nodes, node))


def _make_home(network: Network, node: NetworkNode) -> None:
    """Makes the home of a new node from a validator's configuration and the chain's beginning."""
    if node.home.exists():
        # Left by an attempt that was interrupted before testnet.json named it.
        shutil.rmtree(node.home)
    validators = [other for other in network.nodes if other.role == "validator"]
    config = load(validators[0].home / "config.toml")
    config = replace(
        config,
        node=replace(config.node, name=node.name, role=node.role),
        p2p=replace(config.p2p, peers=tuple(f"{other.name}@127.0.0.1:{other.ports.p2p}" for other in validators)),
    )
    config = _config_with_ports(config, node, {})
    home = create_home(
        node.home,
        config,
        passphrase=None,
        node_key=derived_key(network.seed, "node", node.name),
        validator_key=derived_key(network.seed, "validator", node.name) if node.role == "validator" else None,
    )
    shutil.copyfile(network.directory / "genesis.json", node.home / config.chain.genesis_file)
    node_home = NodeHome(home, config, read_genesis(network.directory / "genesis.json"))
    if node_home.state_file is not None:
        node_home.state_file.hardlink_to(network.directory / "genesis.state")
    create_database(node_home)
    if node_home.is_validator:
        create_vote_records(node_home)


def _permitting(config: Config, entry: str) -> Config:
    permitted = config.p2p.permitted_full_nodes
    if entry in permitted:
        return config
    return replace(config, p2p=replace(config.p2p, permitted_full_nodes=(*permitted, entry)))


def _change_config(node: NetworkNode, change: Callable[[Config], Config]) -> None:
    """Replaces a node's configuration file, whole or not at all: a running node may read it at any time."""
    path = node.home / "config.toml"
    temporary = path.with_name(".config.toml.new")
    temporary.write_text(render(change(load(path))), encoding="utf-8")
    temporary.replace(path)


def _testnet_document(directory: Path) -> Any:
    return read_json(directory / TESTNET_FILE, 1024 * 1024, "home_missing")


def _ports_json(ports: NodePorts) -> dict[str, int]:
    return {"p2p": ports.p2p, "rpc": ports.rpc, "metrics": ports.metrics}


def forget(home: Path, names: Iterable[str]) -> None:
    """Removes files of an earlier run that would tell of processes that are gone."""
    for name in names:
        with suppress(FileNotFoundError):
            (home / name).unlink()
