"""The node's configuration: every key with its meaning, unit, default and bounds, declared once.

The commented file that `qenex init` writes and the table in docs/operations.md are made from these declarations
(configfile.py), and reading refuses whatever they do not allow. Configuration is one operator's choice; what all
validators must share stands in the genesis document (state/genesis.py) and is not here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from state.errors import Rejected
from state.limits import NAME_LENGTH_MAX, TRANSACTION_BYTES_MAX

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * 1024 * 1024

_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}\Z")
_NODE_KEY: Final = re.compile(r"0x[0-9a-f]{64}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]{1,253}\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """What is declared about one key; `low` and `high` bound integers, `check` raises ValueError for a bad text.

    A `reloadable` key is read again on SIGHUP; all others need a restart.
    """

    doc: str
    unit: str = ""
    low: int = 0
    high: int = 2**63 - 1
    choices: tuple[str, ...] = ()
    reloadable: bool = False
    check: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A peer to dial: `who` is a validator's or full node's name, or its node key as 0x-hex."""

    who: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FullNodeEntry:
    """A full node that may connect: a name for people, and its Ed25519 node key (32 bytes)."""

    name: str
    node_key: bytes


def parse_address(text: str) -> tuple[str, int]:
    """Returns (host, port) of "host:port" or "[v6 host]:port"; raises ValueError."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not _HOST.match(host) or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host, int(port)


def parse_peer(text: str) -> PeerEntry:
    """Returns the peer of "name@host:port" or "0x<node key>@host:port"; raises ValueError."""
    who, separator, address = text.partition("@")
    if not separator or not (_NAME.match(who) or _NODE_KEY.match(who)):
        raise ValueError(f"{text!r} is not name@host:port or 0x<node key>@host:port")
    return PeerEntry(who, *parse_address(address))


def parse_node_key(text: str) -> bytes:
    """Returns the key of "0x<node key>"; raises ValueError."""
    if not _NODE_KEY.match(text):
        raise ValueError(f"{text!r} is not 0x and 64 hex digits")
    return bytes.fromhex(text[2:])


def parse_full_node(text: str) -> FullNodeEntry:
    """Returns the full node of "name=0x<node key>"; raises ValueError."""
    name, separator, key = text.partition("=")
    if not separator or not _NAME.match(name) or not _NODE_KEY.match(key):
        raise ValueError(f"{text!r} is not name=0x<64 hex digits>")
    return FullNodeEntry(name, bytes.fromhex(key[2:]))


def _name(text: str) -> None:
    if not _NAME.match(text):
        raise ValueError(f"{text!r}: use a-z, 0-9, '.', '_' and '-', at most {NAME_LENGTH_MAX}")


def _host(text: str) -> None:
    if not _HOST.match(text):
        raise ValueError(f"{text!r} is not a host name or an IP address")


def _address_or_empty(text: str) -> None:
    if text:
        parse_address(text)


def _hash_or_empty(text: str) -> None:
    if text and not _NODE_KEY.match(text):
        raise ValueError(f"{text!r} is not 0x and 64 hex digits")


def _key(default: Any, doc: str, **declared: Any) -> Any:
    return field(default=default, metadata={"key": Key(doc, **declared)})


@dataclass(frozen=True, slots=True)
class NodeSection:
    """Who this node is."""

    name: str = _key("node", "The node's name; a validator's is the one that genesis gives it.", check=_name)
    role: str = _key(
        "validator",
        "A validator votes; a full node follows the chain and serves clients.",
        choices=("validator", "full"),
    )


@dataclass(frozen=True, slots=True)
class ChainSection:
    """Which chain it follows. Paths are taken from the home directory."""

    genesis_file: str = _key("genesis.json", "The genesis document, the same on every node.")
    genesis_hash: str = _key(
        "",
        "The genesis hash that all institutions agreed on; start refuses another. Empty: not checked.",
        check=_hash_or_empty,
    )
    state_file: str = _key("genesis.state", "The file of genesis accounts, if genesis names one by hash.")


@dataclass(frozen=True, slots=True)
class RpcSection:
    """JSON-RPC, WebSocket, /health and /ready, on one listener."""

    host: str = _key(
        "127.0.0.1", "The address to listen on; it has no passwords, so keep it off public networks.", check=_host
    )
    port: int = _key(27101, "The port to listen on; 0 takes a free one.", high=65535)
    allowed_hosts: tuple[str, ...] = _key(
        (), "Names in Host headers that are answered beside localhost and all IP addresses.", check=_host
    )
    allowed_origins: tuple[str, ...] = _key((), "Origins of web pages that may call it; none by default.")
    connections_max: int = _key(
        512, "Connections at a time; a further one takes the place of the idlest.", low=8, high=65536
    )
    connections_per_address_max: int = _key(256, "Connections at a time from one address.", low=1, high=65536)
    body_bytes_max: int = _key(
        MIB,
        "The largest request body or WebSocket message.",
        unit="bytes",
        low=2 * TRANSACTION_BYTES_MAX + 4 * KIB,
        high=64 * MIB,
    )
    batch_max: int = _key(1000, "Calls in one batch.", low=1, high=2000)
    subscriptions_max: int = _key(1024, "Subscriptions of all connections.", low=0, high=65536)
    subscriptions_per_connection_max: int = _key(32, "Subscriptions of one connection.", low=0, high=4096)
    outbox_bytes_max: int = _key(
        8 * MIB,
        "What may wait to be read by one WebSocket; a slower reader is dropped.",
        unit="bytes",
        low=8 * MIB,
        high=GIB,
    )
    idle_seconds_max: int = _key(60, "How long a connection may say nothing.", unit="s", low=1, high=86_400)
    wait_ms_max: int = _key(
        120_000, "The longest wait for a commit that a call may ask for.", unit="ms", low=100, high=600_000
    )


@dataclass(frozen=True, slots=True)
class MetricsSection:
    """/metrics for Prometheus, on a listener of its own."""

    enabled: bool = _key(True, "Whether /metrics is served.")
    host: str = _key("127.0.0.1", "The address to listen on.", check=_host)
    port: int = _key(27102, "The port to listen on; 0 takes a free one.", high=65535)


@dataclass(frozen=True, slots=True)
class P2pSection:
    """The other nodes. Validators may connect, and former and coming ones as full nodes; others if they are named."""

    listen_host: str = _key("0.0.0.0", "The address to listen on.", check=_host)
    listen_port: int = _key(27100, "The port to listen on; 0 takes a free one.", high=65535)
    advertise: str = _key(
        "", "host:port at which peers reach this node. Empty: it is not told.", check=_address_or_empty
    )
    peers: tuple[str, ...] = _key(
        (),
        "Peers to dial: name@host:port or 0x<node key>@host:port; names are those of validators and of "
        "permitted_full_nodes.",
        check=parse_peer,
        reloadable=True,
    )
    permitted_full_nodes: tuple[str, ...] = _key(
        (), "Full nodes that may connect: name=0x<node key>.", check=parse_full_node, reloadable=True
    )
    denied_nodes: tuple[str, ...] = _key(
        (),
        "Node keys, 0x<node key>, that may not connect though they were a validator's; one in force always may.",
        check=parse_node_key,
        reloadable=True,
    )


@dataclass(frozen=True, slots=True)
class ConsensusSection:
    """This validator's own timers; no two validators need the same."""

    progress_timeout_ms: int = _key(
        1000, "How long work may wait for a commit before the primary is suspected.", unit="ms", low=50, high=600_000
    )
    progress_timeout_max_ms: int = _key(
        30_000,
        "What that doubles up to while views fail: more than twice the time of a full block on the worst "
        "network to be survived.",
        unit="ms",
        low=100,
        high=3_600_000,
    )
    left_out_ms: int = _key(
        10_000,
        "How long blocks that had room may leave out a transaction before the primary is suspected.",
        unit="ms",
        low=500,
        high=3_600_000,
    )
    silence_heights: int = _key(
        0,
        "How many heights a start waits and watches, signing nothing, for votes of its own key that another process "
        "makes; 0 waits for none. For a validator that was moved to another machine.",
        high=1000,
    )
    silence_ms: int = _key(
        10_000,
        "How long no block may come until that wait ends, too: a network that stands still has nobody to watch.",
        unit="ms",
        low=1_000,
        high=600_000,
    )
    block_target_ms: int = _key(
        500,
        "How long a block may take from proposal to commit; as a primary, the node makes blocks smaller beyond it.",
        unit="ms",
        low=20,
        high=60_000,
    )


@dataclass(frozen=True, slots=True)
class MempoolSection:
    """Transactions that wait for a block."""

    count_max: int = _key(20_000, "Waiting transactions in all.", low=1, high=1_000_000)
    bytes_max: int = _key(64 * MIB, "Their bytes in all.", unit="bytes", low=TRANSACTION_BYTES_MAX, high=4 * GIB)
    account_count_max: int = _key(4_000, "Waiting transactions of one account.", low=1, high=1_000_000)
    account_bytes_max: int = _key(8 * MIB, "Their bytes.", unit="bytes", low=TRANSACTION_BYTES_MAX, high=4 * GIB)
    sequence_ahead_max: int = _key(
        1024, "How far a sequence may run ahead of the first that its lane lacks.", low=1, high=1_000_000
    )
    queue_bytes_max: int = _key(
        32 * MIB,
        "What may wait for its signatures to be checked; further transactions are refused.",
        unit="bytes",
        low=MIB,
        high=GIB,
    )


@dataclass(frozen=True, slots=True)
class StorageSection:
    """The database."""

    keep_heights: int = _key(
        10_000,
        "Heights whose state can be read and proved; older state is pruned, blocks stay. 0 keeps all (an archive).",
        unit="heights",
        high=2**40,
    )
    index_accounts: bool = _key(True, "Whether an account's transactions can be listed.")
    cache_bytes: int = _key(
        64 * MIB, "What the database keeps of its files in memory.", unit="bytes", low=MIB, high=64 * GIB
    )
    write_buffer_bytes: int = _key(
        16 * MIB,
        "What the database collects in memory before it makes a file of it; it takes up to twice that.",
        unit="bytes",
        low=MIB,
        high=GIB,
    )
    min_free_bytes: int = _key(
        512 * MIB, "Free disk space below which the node stops voting.", unit="bytes", low=16 * MIB, high=2**50
    )


@dataclass(frozen=True, slots=True)
class SnapshotsSection:
    """Snapshots of the state, by which new nodes join without executing the whole chain."""

    interval_heights: int = _key(
        20_000,
        "A snapshot is made at each height that this divides; the same on all nodes, so that several serve the same "
        "one. 0 makes none.",
        unit="heights",
        high=2**40,
    )
    keep: int = _key(2, "How many of the newest are kept.", low=1, high=100)


@dataclass(frozen=True, slots=True)
class SyncSection:
    """How a node that is behind catches up."""

    snapshot_gap_heights: int = _key(
        20_000,
        "How far behind a node must be to begin anew with a peer's snapshot, without the blocks up to it. 0 fetches "
        "every block; an archive (storage.keep_heights = 0) always does.",
        unit="heights",
        high=2**40,
    )


@dataclass(frozen=True, slots=True)
class LoggingSection:
    """What it says, on standard error."""

    format: str = _key("human", "Lines for people, or one JSON object a line.", choices=("human", "json"))
    level: str = _key(
        "info", "The least level that is written.", choices=("debug", "info", "warning", "error"), reloadable=True
    )


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; every section and key has a default."""

    node: NodeSection = NodeSection()
    chain: ChainSection = ChainSection()
    rpc: RpcSection = RpcSection()
    metrics: MetricsSection = MetricsSection()
    p2p: P2pSection = P2pSection()
    consensus: ConsensusSection = ConsensusSection()
    mempool: MempoolSection = MempoolSection()
    storage: StorageSection = StorageSection()
    snapshots: SnapshotsSection = SnapshotsSection()
    sync: SyncSection = SyncSection()
    logging: LoggingSection = LoggingSection()

    @property
    def peers(self) -> tuple[PeerEntry, ...]:
        """The peers to dial."""
        return tuple(map(parse_peer, self.p2p.peers))

    @property
    def full_nodes(self) -> tuple[FullNodeEntry, ...]:
        """The full nodes that may connect."""
        return tuple(map(parse_full_node, self.p2p.permitted_full_nodes))

    @property
    def denied_node_keys(self) -> frozenset[bytes]:
        """The node keys that may not connect unless their validator is in force."""
        return frozenset(map(parse_node_key, self.p2p.denied_nodes))


SECTIONS: Final[Mapping[str, Any]] = {item.name: type(item.default) for item in fields(Config)}


def keys_of(section: Any) -> dict[str, Field[Any]]:
    """Returns the keys of a section or its class; each has its `Key` as metadata["key"]."""
    return {item.name: item for item in fields(section)}


def _refuse(source: str, message: str) -> Rejected:
    return Rejected("config_invalid", f"{source}: {message}")


def _unknown(source: str, what: str, name: str, known: list[str]) -> Rejected:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return _refuse(source, f"{what} {name!r} is unknown; did you mean {nearest[0]!r}?")


def load(path: Path) -> Config:
    """Reads a configuration file; raises Rejected("config_invalid") naming file, key and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refuse(str(path), f"it cannot be read: {error}") from None
    return parse(text, str(path))


def parse(text: str, source: str = "config.toml") -> Config:
    """Reads a configuration from its text; absent keys take their defaults. Raises Rejected("config_invalid")."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refuse(source, f"it is not TOML: {error}") from None
    sections: dict[str, Any] = {}
    for name, values in document.items():
        if name not in SECTIONS:
            raise _unknown(source, "section", name, list(SECTIONS))
        if not isinstance(values, dict):
            raise _refuse(source, f"{name!r} is a section: write [{name}]")
        sections[name] = _section(name, values, source)
    config = Config(**sections)
    _check_relations(config, source)
    return config


def _section(name: str, values: dict[str, Any], source: str) -> Any:
    declared = keys_of(SECTIONS[name])
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in declared:
            everywhere = [f"{section}.{item}" for section, kind in SECTIONS.items() for item in keys_of(kind)]
            local = difflib.get_close_matches(key, list(declared), n=1, cutoff=0.6)
            known = [f"{name}.{local[0]}"] if local else everywhere
            raise _unknown(source, "key", f"{name}.{key}", known)
        try:
            read[key] = _value(declared[key], value)
        except ValueError as error:
            raise _refuse(source, f"{name}.{key}: {error}") from None
    return SECTIONS[name](**read)


def _value(declared: Field[Any], value: Any) -> Any:
    """Returns `value` as the key's type; raises ValueError saying what is allowed."""
    key: Key = declared.metadata["key"]
    kind = type(declared.default)
    if kind is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError('a list of texts is wanted, ["...", "..."]')
        if len(set(value)) != len(value):
            raise ValueError("an item stands twice")
        for item in value:
            if key.check is not None:
                key.check(item)
        return tuple(value)
    fits = type(value) is kind
    if not fits:
        wanted = {int: "a whole number", bool: "true or false", str: "a text in quotes"}[kind]
        raise ValueError(f"{wanted} is wanted, not {value!r}")
    if kind is int and not key.low <= value <= key.high:
        raise ValueError(f"{value} is not from {key.low} to {key.high}")
    if kind is str and key.choices and value not in key.choices:
        raise ValueError(f"{value!r} is not one of {', '.join(key.choices)}")
    if kind is str and key.check is not None:
        key.check(value)
    return value


def _check_relations(config: Config, source: str) -> None:
    relations = (
        (
            config.consensus.progress_timeout_max_ms >= config.consensus.progress_timeout_ms,
            "consensus.progress_timeout_max_ms must not be below consensus.progress_timeout_ms",
        ),
        (
            config.consensus.block_target_ms * 2 <= config.consensus.progress_timeout_ms,
            "consensus.block_target_ms must be at most half of consensus.progress_timeout_ms",
        ),
        (
            config.mempool.account_count_max <= config.mempool.count_max,
            "mempool.account_count_max must not exceed mempool.count_max",
        ),
        (
            config.mempool.account_bytes_max <= config.mempool.bytes_max,
            "mempool.account_bytes_max must not exceed mempool.bytes_max",
        ),
        (
            len({entry.name for entry in config.full_nodes}) == len(config.full_nodes),
            "p2p.permitted_full_nodes names two nodes the same",
        ),
        (
            len({entry.node_key for entry in config.full_nodes}) == len(config.full_nodes),
            "p2p.permitted_full_nodes has one key twice",
        ),
    )
    for holds, message in relations:
        if not holds:
            raise _refuse(source, message)


@dataclass(frozen=True, slots=True)
class Reload:
    """What SIGHUP changed: the configuration from now on, and the keys whose new value needs a restart."""

    config: Config
    changed: tuple[str, ...]
    ignored: tuple[str, ...]


def reloaded(running: Config, read: Config) -> Reload:
    """Returns `running` with the reloadable keys of `read`; names the others that differ, which stay as they are."""
    changed: list[str] = []
    ignored: list[str] = []
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        old, new = getattr(running, name), getattr(read, name)
        taken: dict[str, Any] = {}
        for key, item in keys_of(old).items():
            if getattr(old, key) == getattr(new, key):
                continue
            if item.metadata["key"].reloadable:
                taken[key] = getattr(new, key)
                changed.append(f"{name}.{key}")
            else:
                ignored.append(f"{name}.{key}")
        sections[name] = replace(old, **taken)
    return Reload(Config(**sections), tuple(changed), tuple(ignored))
