"""A node's home directory: where everything lies, how it is made, and how it is opened.

    config.toml             what the operator chose (qenex_node/config.py)
    genesis.json            the chain's genesis document, the same on every node
    genesis.state           the file of genesis accounts, if the document names one
    keys/node.json          the node key: who this node is to its peers
    keys/validator.json     the validator key: what signs votes (validators only)
    keys/validator.unused   stands until vote records are created for that key
    validator.card.json     the public card that other institutions need (validators only)
    data/                   the database: chain, state, vote records
    snapshots/              snapshots of the state, made here or fetched

Vote records are created once, with the key's first chain, and `start` never creates them. `keys/validator.unused` says
that the key has not signed yet: a home whose database was lost lacks it, gets its database back without vote records,
and must `recover` before it signs anything again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from p2p.identity import NodeKey
from qenex_node.cards import Card, make_card
from qenex_node.config import Config, load
from qenex_node.configfile import render
from qenex_node.jsonfiles import read_json, write_json
from qenex_node.keystore import Passphrase, inspect_key, read_key, write_key
from qenex_node.options import store_options
from state.errors import Rejected
from state.genesis import Genesis
from state.keys import ED25519, SigningKey

GENESIS_FILE_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Home:
    """The paths of one home directory; nothing is read or made by asking for them."""

    path: Path

    @property
    def config_file(self) -> Path:
        """What the operator chose."""
        return self.path / "config.toml"

    @property
    def node_key_file(self) -> Path:
        """The node key."""
        return self.path / "keys" / "node.json"

    @property
    def validator_key_file(self) -> Path:
        """The validator key."""
        return self.path / "keys" / "validator.json"

    @property
    def unused_marker(self) -> Path:
        """Stands as long as the validator key has no vote records and never had any."""
        return self.path / "keys" / "validator.unused"

    @property
    def card_file(self) -> Path:
        """The validator's public card."""
        return self.path / "validator.card.json"

    @property
    def data(self) -> Path:
        """The database."""
        return self.path / "data"

    @property
    def snapshots(self) -> Path:
        """The snapshots."""
        return self.path / "snapshots"


@dataclass(frozen=True)
class NodeHome:
    """A home that is ready to be started: its configuration and its chain are read and fit together."""

    home: Home
    config: Config
    genesis: Genesis

    @cached_property
    def is_validator(self) -> bool:
        """Whether the node is to vote."""
        return self.config.node.role == "validator"

    @property
    def state_file(self) -> Path | None:
        """The file of genesis accounts, None if genesis names none."""
        return None if self.genesis.state_file is None else self.home.path / self.config.chain.state_file


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """A node's private keys; `validator` is None on a full node."""

    node: NodeKey
    validator: SigningKey | None


def create_home(
    path: Path,
    config: Config,
    *,
    passphrase: bytes | None,
    node_key: SigningKey | None = None,
    validator_key: SigningKey | None = None,
) -> Home:
    """Makes a home with keys and configuration and, for a validator, its public card; keys are new unless given.

    Raises Rejected("home_exists") rather than touch a home that is there.
    """
    home = Home(path)
    for taken in (home.config_file, home.path / "keys", home.data):
        if taken.exists():
            raise Rejected("home_exists", f"{taken} exists already: choose another home, nothing was changed")
    (path / "keys").mkdir(parents=True, mode=0o700)
    name = config.node.name
    node_key = node_key or SigningKey.generate(ED25519)
    write_key(home.node_key_file, node_key, name=name, purpose="node", passphrase=passphrase)
    if config.node.role == "validator":
        validator_key = validator_key or SigningKey.generate(ED25519)
        write_key(home.validator_key_file, validator_key, name=name, purpose="validator", passphrase=passphrase)
        home.unused_marker.write_text("This key has signed no vote yet. Do not copy or restore this file.\n")
        write_json(home.card_file, make_card(name, validator_key, node_key, config.p2p.advertise).to_json())
    home.config_file.write_text(render(config), encoding="utf-8")
    return home


def install_chain(home: Home, genesis_file: Path, state_file: Path | None = None) -> bool:
    """Gives a home its chain: genesis document, database and, for a key that never signed, vote records.

    Returns whether vote records were created; if not, a validator must `recover` before it signs. Raises
    Rejected("chain_exists") if the home has a database, and whatever makes the genesis document unusable.
    """
    config = load(home.config_file)
    if home.data.exists():
        raise Rejected("chain_exists", f"{home.data} exists already: nothing was changed")
    genesis = read_genesis(genesis_file)
    _check_genesis_hash(config, genesis)
    node_home = NodeHome(home, config, genesis)
    installed = home.path / config.chain.genesis_file
    if installed.exists() and read_genesis(installed).hash != genesis.hash:
        raise Rejected("chain_exists", f"{installed} is of another chain: nothing was changed")
    _install_state_file(node_home, state_file)
    if not installed.exists():
        shutil.copyfile(genesis_file, installed)
    create_database(node_home)
    return create_vote_records(node_home)


def _install_state_file(node_home: NodeHome, given: Path | None) -> None:
    """Puts the state file that genesis names in its place, linked where that can be, for it may be large."""
    place, named = node_home.state_file, node_home.genesis.state_file
    if place is None or named is None:
        return
    source = given or place
    if not source.is_file():
        raise Rejected("state_file_missing", "genesis names a state file by hash: give it with --state-file")
    if sha256_of_file(source) != named.sha256:
        raise Rejected("state_file_wrong", f"{source} is not the state file that genesis names")
    if place.exists():
        return
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def create_database(node_home: NodeHome) -> None:
    """Makes the database of a chain at height 0, without vote records."""
    from state.ledger import Ledger
    from state.store import Store

    path, options = node_home.home.data, store_options(node_home.config)
    try:
        store = Store.create(path, node_home.genesis, Ledger(), state_file=node_home.state_file, options=options)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    store.close()


def create_vote_records(node_home: NodeHome) -> bool:
    """Creates vote records for a validator key that never had any; returns whether it did.

    The marker goes first: a crash between the two leaves a home that must `recover`, never one that forgets votes.
    """
    home = node_home.home
    if not home.unused_marker.exists():
        return False
    home.unused_marker.unlink()
    _sync_directory(home.unused_marker.parent)
    from state.ledger import Ledger
    from state.store import Store

    store = Store.open(home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        store.create_votes(inspect_key(home.validator_key_file).public.data)
    finally:
        store.close()
    return True


def open_home(path: Path) -> NodeHome:
    """Reads a home's configuration and genesis document.

    Raises Rejected: "home_missing", "config_invalid", "chain_missing", "genesis_invalid", "genesis_wrong".
    """
    home = Home(path)
    if not home.config_file.is_file():
        raise Rejected("home_missing", f"{path} is no node's home: make one with `qenex init --home {path}`")
    config = load(home.config_file)
    genesis_file = path / config.chain.genesis_file
    if not genesis_file.is_file() or not home.data.is_dir():
        raise Rejected(
            "chain_missing", f"{path} has no chain yet: `qenex init --home {path} --genesis FILE` gives it one"
        )
    genesis = read_genesis(genesis_file)
    _check_genesis_hash(config, genesis)
    return NodeHome(home, config, genesis)


def read_keys(node_home: NodeHome, passphrase: Passphrase | None) -> NodeKeys:
    """Returns the node's private keys; raises Rejected as `keystore.read_key` does."""
    home = node_home.home
    node_key = read_key(home.node_key_file, passphrase)
    if node_key.scheme != ED25519:
        raise Rejected("keystore_damaged", f"{home.node_key_file}: a node key is of scheme ed25519")
    validator_key = read_key(home.validator_key_file, passphrase) if node_home.is_validator else None
    if validator_key is not None and validator_key.scheme != ED25519:
        raise Rejected("keystore_damaged", f"{home.validator_key_file}: a validator key is of scheme ed25519")
    return NodeKeys(NodeKey(node_key.seed), validator_key)


def read_genesis(path: Path) -> Genesis:
    """Returns the genesis document of a file; raises Rejected("genesis_invalid")."""
    return Genesis.from_json(read_json(path, GENESIS_FILE_BYTES_MAX, "genesis_invalid"))


def read_card(path: Path) -> Card:
    """Returns the card of a file, proved; raises Rejected("card_invalid")."""
    return Card.from_json(read_json(path, 64 * 1024, "card_invalid"))


def sha256_of_file(path: Path) -> bytes:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _check_genesis_hash(config: Config, genesis: Genesis) -> None:
    wanted = config.chain.genesis_hash
    if wanted and wanted != "0x" + genesis.hash.hex():
        raise Rejected(
            "genesis_wrong", f"genesis has the hash 0x{genesis.hash.hex()}, the configuration wants {wanted}"
        )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
