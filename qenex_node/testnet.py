"""A whole test network on one machine: keys, genesis, funded accounts and a wired home for each node.

Everything follows from one seed, so that the same seed gives the same network. Keys are written plain: whoever reads
the directory owns the network, which is right for tests and for nothing else.

    OUTPUT/testnet.json         what was made: seed, nodes, named accounts
    OUTPUT/genesis.json         the genesis document with the validators' cards
    OUTPUT/genesis.state        further accounts, if there are any
    OUTPUT/accounts/NAME.json   the named accounts' keys
    OUTPUT/<node>/              a home for each node
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from qenex_node.cards import make_card
from qenex_node.config import Config, load
from qenex_node.founding import Founding
from qenex_node.homes import Home, NodeHome, create_database, create_home, create_vote_records
from qenex_node.jsonfiles import read_json, write_json
from qenex_node.keystore import write_key
from state.address import to_text
from state.errors import Rejected
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset, StateFile
from state.hashing import sha256
from state.keys import ED25519, SigningKey
from state.limits import VALIDATORS_MAX
from state.types import Address, Amount, AssetCode, TimeMs, ValidatorSet

FORMAT: Final = "qenex-testnet"
VERSION: Final = 1
NAMED_ACCOUNTS: Final = ("treasury", "alice", "bob", "carol", "dave")
NATIVE: Final = AssetCode("QNX")
DECIMALS: Final = 2
TREASURY_AMOUNT: Final = Amount(10**15)
NAMED_AMOUNT: Final = Amount(10**8)
BULK_AMOUNT: Final = Amount(10**8)
SEEDED_TIME_MS: Final = 1_704_067_200_000
FULL_NODES_MAX: Final = 64
ACCOUNTS_MAX: Final = 10_000_000
PORTS_PER_NODE: Final = 3


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The ports of one node, all on its host's address."""

    p2p: int
    rpc: int
    metrics: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted. `accounts` are bulk accounts beside the named ones; `seed` None takes a random one.

    `config` is what all nodes' configurations start from.
    """

    validators: int = 4
    full_nodes: int = 0
    accounts: int = 0
    seed: str | None = None
    chain_id: str = "qenex-test"
    parameters: ChainParameters = field(default_factory=ChainParameters)
    config: Config = field(default_factory=Config)

    def check(self) -> None:
        """Raises Rejected("testnet_invalid") for counts out of bounds."""
        for count, least, most, what in (
            (self.validators, 1, VALIDATORS_MAX, "validators"),
            (self.full_nodes, 0, FULL_NODES_MAX, "full nodes"),
            (self.accounts, 0, ACCOUNTS_MAX, "accounts"),
        ):
            if not least <= count <= most:
                raise Rejected("testnet_invalid", f"a test network has {least} to {most} {what}, not {count}")

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names, validators first; a validator's place here is its index in the set."""
        validators = (f"validator-{number:02}" for number in range(1, self.validators + 1))
        full_nodes = (f"full-{number:02}" for number in range(1, self.full_nodes + 1))
        return (*validators, *full_nodes)


@dataclass(frozen=True, slots=True)
class NetworkNode:
    """One node of the network. `host` is where it listens, the loopback address but for a fault test's namespaces."""

    name: str
    role: str
    home: Path
    ports: NodePorts
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class NamedAccount:
    """A funded account with a key file."""

    name: str
    address: Address
    key_file: Path


@dataclass(frozen=True, slots=True)
class Network:
    """A network as it lies on the disk; `bulk_accounts` further accounts have the keys of `bulk_key(seed, 0 ...)`."""

    directory: Path
    chain_id: str
    genesis_hash: bytes
    seed: str
    nodes: tuple[NetworkNode, ...]
    accounts: tuple[NamedAccount, ...]
    bulk_accounts: int


def ports_from(base: int, count: int) -> tuple[NodePorts, ...]:
    """Returns the ports of `count` nodes: three in a row for each, from `base` on."""
    if not 1 <= base <= 65536 - PORTS_PER_NODE * count:
        raise Rejected("testnet_invalid", f"{count} nodes need {PORTS_PER_NODE * count} ports from {base} on")
    starts = range(base, base + PORTS_PER_NODE * count, PORTS_PER_NODE)
    return tuple(NodePorts(start, start + 1, start + 2) for start in starts)


def derived_key(seed: str, purpose: str, name: str) -> SigningKey:
    """Returns the Ed25519 key that a test network with this seed has for this purpose and name."""
    return SigningKey(ED25519, sha256(f"QENEX/testnet/1\x00{seed}\x00{purpose}\x00{name}".encode()))


def bulk_key(seed: str, index: int) -> SigningKey:
    """Returns the key of a bulk account."""
    return derived_key(seed, "bulk", str(index))


def create_testnet(directory: Path, plan: Plan, ports: Sequence[NodePorts]) -> Network:
    """Makes the whole network in `directory`, which is made and must hold no network yet.

    `ports` are the nodes', in the order of `plan.names`. The database is built once and copied to each home.
    """
    plan.check()
    if (directory / "testnet.json").exists():
        raise Rejected("home_exists", f"{directory} holds a test network already: nothing was changed")
    seed = plan.seed if plan.seed is not None else secrets.token_hex(16)
    time_ms = SEEDED_TIME_MS if plan.seed is not None else time.time_ns() // 1_000_000
    (directory / "accounts").mkdir(parents=True, exist_ok=True)
    founding = _found(directory, plan, seed, time_ms, ports)
    founding.write(directory / "genesis.json")
    nodes = _homes(directory, plan, seed, ports)
    _databases(directory, founding.genesis, nodes)
    accounts = tuple(_named_account(directory, seed, name) for name in NAMED_ACCOUNTS)
    testnet = Network(directory, plan.chain_id, founding.genesis.hash, seed, nodes, accounts, plan.accounts)
    _write(testnet)
    return testnet


def _found(directory: Path, plan: Plan, seed: str, time_ms: int, ports: Sequence[NodePorts]) -> Founding:
    cards = [
        make_card(name, derived_key(seed, "validator", name), derived_key(seed, "node", name), f"127.0.0.1:{place.p2p}")
        for name, place in zip(plan.names[: plan.validators], ports, strict=False)
    ]
    named = {name: derived_key(seed, "account", name).address for name in NAMED_ACCOUNTS}
    held = [
        GenesisAccount(address, ((NATIVE, TREASURY_AMOUNT if name == "treasury" else NAMED_AMOUNT),))
        for name, address in named.items()
    ]
    genesis = Genesis(
        chain_id=plan.chain_id,
        time_ms=TimeMs(time_ms),
        validators=ValidatorSet.of(card.validator for card in cards),
        parameters=replace(plan.parameters, native_asset=NATIVE),
        assets=(GenesisAsset(NATIVE, DECIMALS, named["treasury"]),),
        accounts=tuple(sorted(held, key=lambda account: account.address)),
        state_file=_write_bulk_accounts(directory / "genesis.state", seed, plan.accounts),
    )
    return Founding.of(genesis, cards)


def _write_bulk_accounts(path: Path, seed: str, count: int) -> StateFile | None:
    if count == 0:
        return None
    from state.ledger.account import Account, account_key
    from state.store import write_state_file

    keys = sorted((account_key(bulk_key(seed, index).address) for index in range(count)), key=sha256)
    value = Account.holding({NATIVE: BULK_AMOUNT}).encode()
    return write_state_file(path, ((key, value) for key in keys))


def _homes(directory: Path, plan: Plan, seed: str, ports: Sequence[NodePorts]) -> tuple[NetworkNode, ...]:
    names = plan.names
    full_keys = tuple(
        f"{name}=0x{derived_key(seed, 'node', name).public.data.hex()}" for name in names[plan.validators :]
    )
    nodes: list[NetworkNode] = []
    for index, (name, place) in enumerate(zip(names, ports, strict=True)):
        role = "validator" if index < plan.validators else "full"
        dialed = zip(names[: min(index, plan.validators)], ports, strict=False)
        config = replace(
            plan.config,
            node=replace(plan.config.node, name=name, role=role),
            p2p=replace(
                plan.config.p2p,
                listen_host="127.0.0.1",
                listen_port=place.p2p,
                advertise=f"127.0.0.1:{place.p2p}",
                peers=tuple(f"{other}@127.0.0.1:{its.p2p}" for other, its in dialed),
                permitted_full_nodes=full_keys,
            ),
            rpc=replace(plan.config.rpc, port=place.rpc),
            metrics=replace(plan.config.metrics, port=place.metrics),
        )
        create_home(
            directory / name,
            config,
            passphrase=None,
            node_key=derived_key(seed, "node", name),
            validator_key=derived_key(seed, "validator", name) if role == "validator" else None,
        )
        nodes.append(NetworkNode(name, role, directory / name, place))
    return tuple(nodes)


def _databases(directory: Path, genesis: Genesis, nodes: Sequence[NetworkNode]) -> None:
    """Gives each home the chain: the database is built in the first and copied to the others."""
    from state.store import copy_store

    first: Path | None = None
    for node in nodes:
        home = Home(node.home)
        node_home = NodeHome(home, load(home.config_file), genesis)
        shutil.copyfile(directory / "genesis.json", node.home / "genesis.json")
        if node_home.state_file is not None:
            node_home.state_file.hardlink_to(directory / "genesis.state")
        if first is None:
            create_database(node_home)
            first = home.data
        else:
            copy_store(first, home.data)
    for node in nodes:
        home = Home(node.home)
        create_vote_records(NodeHome(home, load(home.config_file), genesis))


def _named_account(directory: Path, seed: str, name: str) -> NamedAccount:
    key = derived_key(seed, "account", name)
    path = directory / "accounts" / f"{name}.json"
    write_key(path, key, name=name, purpose="account", passphrase=None)
    return NamedAccount(name, key.address, path)


def _write(testnet: Network) -> None:
    write_json(
        testnet.directory / "testnet.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "chain_id": testnet.chain_id,
            "genesis_hash": "0x" + testnet.genesis_hash.hex(),
            "seed": testnet.seed,
            "nodes": [
                {
                    "name": node.name,
                    "role": node.role,
                    "home": node.home.name,
                    "ports": {"p2p": node.ports.p2p, "rpc": node.ports.rpc, "metrics": node.ports.metrics},
                }
                for node in testnet.nodes
            ],
            "accounts": [
                {"name": account.name, "address": to_text(account.address), "key_file": f"accounts/{account.name}.json"}
                for account in testnet.accounts
            ],
            "bulk_accounts": testnet.bulk_accounts,
        },
    )


def read_testnet(directory: Path) -> Network:
    """Returns the network that lies in `directory`; raises Rejected("home_missing") or Rejected("version_unknown")."""
    path = directory / "testnet.json"
    document = read_json(path, 1024 * 1024, "home_missing")
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        version = document.get("version")
        raise Rejected("version_unknown", f"{path}: version {version!r} of a test network is unknown; known: {VERSION}")
    seed = document["seed"]
    return Network(
        directory,
        document["chain_id"],
        bytes.fromhex(document["genesis_hash"][2:]),
        seed,
        tuple(
            NetworkNode(node["name"], node["role"], directory / node["home"], NodePorts(**node["ports"]))
            for node in document["nodes"]
        ),
        tuple(
            NamedAccount(
                account["name"], derived_key(seed, "account", account["name"]).address, directory / account["key_file"]
            )
            for account in document["accounts"]
        ),
        document["bulk_accounts"],
    )
