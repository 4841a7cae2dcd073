"""The value types that all folders share: heights, views and hashes, the validator set, header and certificate.

They are plain frozen values with their canonical encodings and hashes. They know no database, network or clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NewType

from state.codec import (
    decode,
    encode,
    expect_array,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, InvariantError
from state.hashing import TAG_HEADER, TAG_VALIDATORS, ZERO_HASH, Hash, tagged
from state.limits import (
    CERTIFICATE_BYTES_MAX,
    CHAIN_ID_LENGTH_MAX,
    HEADER_BYTES_MAX,
    NAME_LENGTH_MAX,
    VALIDATORS_MAX,
    VALIDATORS_MIN,
)

Height = NewType("Height", int)
View = NewType("View", int)
TimeMs = NewType("TimeMs", int)
Amount = NewType("Amount", int)
Address = NewType("Address", bytes)
TxId = NewType("TxId", bytes)
WireHash = NewType("WireHash", bytes)
AssetCode = NewType("AssetCode", str)
ValidatorIndex = NewType("ValidatorIndex", int)

HEADER_VERSION: Final = 1

VOTE_PREPARE: Final = 1
VOTE_COMMIT: Final = 2

__all__ = [
    "HEADER_VERSION",
    "VOTE_COMMIT",
    "VOTE_PREPARE",
    "ZERO_HASH",
    "Address",
    "Amount",
    "AssetCode",
    "Certificate",
    "ChainContext",
    "Hash",
    "Header",
    "Height",
    "TimeMs",
    "TxId",
    "Validator",
    "ValidatorIndex",
    "ValidatorSet",
    "View",
    "WireHash",
]


@dataclass(frozen=True, slots=True)
class ChainContext:
    """Which chain a signature is for: its name and the hash of its genesis document."""

    chain_id: str
    genesis_hash: Hash


@dataclass(frozen=True, slots=True)
class Validator:
    """One validator: a unique name, its Ed25519 consensus key and its Ed25519 node (TLS) key, 32 bytes each."""

    name: str
    key: bytes
    node_key: bytes

    def to_value(self) -> tuple[str, bytes, bytes]:
        """Returns the canonical array [name, key, node key]."""
        return (self.name, self.key, self.node_key)

    @classmethod
    def from_value(cls, value: Any) -> Validator:
        """Reads [name, key, node key]; raises DecodeError."""
        name, key, node_key = expect_tuple(value, 3, "validator")
        return cls(
            expect_str(name, NAME_LENGTH_MAX, "validator name"),
            expect_bytes(key, 32, "validator key"),
            expect_bytes(node_key, 32, "node key"),
        )


@dataclass(frozen=True)
class ValidatorSet:
    """The validators in force at a height, in order of their names; a validator's index is its place here.

    f = (n - 1) // 3 may be Byzantine; quorum = (n + f) // 2 + 1, so that two quorums share a correct validator for
    every n, not only for n = 3f + 1 (Castro and Liskov 1999, section 3, generalised).
    """

    validators: tuple[Validator, ...]

    def __post_init__(self) -> None:
        names = [validator.name for validator in self.validators]
        if not VALIDATORS_MIN <= len(names) <= VALIDATORS_MAX:
            raise DecodeError(f"a validator set has {VALIDATORS_MIN} to {VALIDATORS_MAX} members, not {len(names)}")
        if names != sorted(set(names)):
            raise DecodeError("validators must be in order of unique names")
        for keys in ([v.key for v in self.validators], [v.node_key for v in self.validators]):
            if len(set(keys)) != len(keys):
                raise DecodeError("two validators share a key")

    @classmethod
    def of(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Returns the set of these validators, put in order; raises DecodeError if names or keys repeat."""
        return cls(tuple(sorted(validators, key=lambda validator: validator.name)))

    @cached_property
    def n(self) -> int:
        """The number of validators."""
        return len(self.validators)

    @cached_property
    def f(self) -> int:
        """How many of them may be Byzantine."""
        return (self.n - 1) // 3

    @cached_property
    def quorum(self) -> int:
        """How many votes make a certificate."""
        return (self.n + self.f) // 2 + 1

    @cached_property
    def hash(self) -> Hash:
        """The hash that headers and vote preimages hold."""
        return tagged(TAG_VALIDATORS, encode(self.to_value()))

    @cached_property
    def _indexes(self) -> dict[bytes, int]:
        return {validator.key: index for index, validator in enumerate(self.validators)}

    def index_of(self, key: bytes) -> int | None:
        """Returns the index of the validator with this consensus key, or None."""
        return self._indexes.get(key)

    def primary(self, height: int, view: int, leader_term: int) -> int:
        """Returns the index of the primary of (height, view); `leader_term` 0 leaves the height out."""
        turn = height // leader_term if leader_term else 0
        return (view + turn) % self.n

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array of validators."""
        return tuple(validator.to_value() for validator in self.validators)

    @classmethod
    def from_value(cls, value: Any) -> ValidatorSet:
        """Reads an array of validators; raises DecodeError."""
        return cls(tuple(Validator.from_value(item) for item in expect_array(value, VALIDATORS_MAX, "validators")))


@dataclass(frozen=True)
class Header:
    """A block's header: it commits to the block's content and to the state after that very block.

    `version` selects rules, hash and tree. `time_ms` is since 1970 UTC and later than the parent's. `proposer` is the
    consensus key of whoever first proposed the block. The view is not part of it: votes carry the view, so that a
    re-proposed block keeps its hash.
    """

    version: int
    chain_id: str
    height: Height
    time_ms: TimeMs
    parent_hash: Hash
    tx_root: Hash
    receipts_root: Hash
    state_root: Hash
    validators_hash: Hash
    next_validators_hash: Hash
    proposer: bytes
    evidence_hash: Hash
    units_used: int

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array of all fields in their order here."""
        return (
            self.version,
            self.chain_id,
            self.height,
            self.time_ms,
            self.parent_hash,
            self.tx_root,
            self.receipts_root,
            self.state_root,
            self.validators_hash,
            self.next_validators_hash,
            self.proposer,
            self.evidence_hash,
            self.units_used,
        )

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes."""
        return encode(self.to_value())

    @cached_property
    def hash(self) -> Hash:
        """The block hash: it covers every field."""
        return tagged(TAG_HEADER, self.encoded)

    @classmethod
    def from_value(cls, value: Any) -> Header:
        """Reads the canonical array; raises DecodeError, naming an unknown version."""
        fields = expect_tuple(value, 13, "header")
        if fields[0] != HEADER_VERSION or type(fields[0]) is not int:
            raise DecodeError(f"header version {fields[0]!r} is unknown; this node reads version {HEADER_VERSION}")
        return cls(
            version=fields[0],
            chain_id=expect_str(fields[1], CHAIN_ID_LENGTH_MAX, "chain id"),
            height=Height(expect_int(fields[2], "height")),
            time_ms=TimeMs(expect_int(fields[3], "time")),
            parent_hash=Hash(expect_bytes(fields[4], 32, "parent hash")),
            tx_root=Hash(expect_bytes(fields[5], 32, "transaction root")),
            receipts_root=Hash(expect_bytes(fields[6], 32, "receipts root")),
            state_root=Hash(expect_bytes(fields[7], 32, "state root")),
            validators_hash=Hash(expect_bytes(fields[8], 32, "validators hash")),
            next_validators_hash=Hash(expect_bytes(fields[9], 32, "next validators hash")),
            proposer=expect_bytes(fields[10], 32, "proposer"),
            evidence_hash=Hash(expect_bytes(fields[11], 32, "evidence hash")),
            units_used=expect_int(fields[12], "units used"),
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Reads canonical bytes; raises DecodeError."""
        return cls.from_value(decode(data, bytes_max=HEADER_BYTES_MAX))


@dataclass(frozen=True, slots=True)
class Certificate:
    """A quorum of votes of one kind for one (height, view, block hash): q PREPAREs or q COMMITs.

    `signatures` is sorted by validator index: (index in the height's validator set, 64-byte Ed25519 signature).
    The form says nothing about truth: `state.block.verify_certificate` does.
    """

    kind: int
    height: Height
    view: View
    block_hash: Hash
    signatures: tuple[tuple[int, bytes], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind not in (VOTE_PREPARE, VOTE_COMMIT):
            raise InvariantError(f"no certificate is made of votes of kind {self.kind}")

    def to_value(self) -> tuple[Any, ...]:
        """Returns [kind, height, view, block hash, [[index, signature] ...]]."""
        return (self.kind, self.height, self.view, self.block_hash, self.signatures)

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return encode(self.to_value())

    @classmethod
    def from_value(cls, value: Any) -> Certificate:
        """Reads the canonical array, checking form and order; raises DecodeError."""
        kind, height, view, block_hash, signatures = expect_tuple(value, 5, "certificate")
        if type(kind) is not int or kind not in (VOTE_PREPARE, VOTE_COMMIT):
            raise DecodeError("a certificate's kind is 1 (PREPARE) or 2 (COMMIT)")
        pairs: list[tuple[int, bytes]] = []
        for item in expect_array(signatures, VALIDATORS_MAX, "certificate signatures"):
            index, signature = expect_tuple(item, 2, "certificate signature")
            expect_int(index, "validator index", limit=VALIDATORS_MAX)
            if pairs and pairs[-1][0] >= index:
                raise DecodeError("certificate signatures must be in order of validator index, each once")
            pairs.append((index, expect_bytes(signature, 64, "signature")))
        return cls(
            kind,
            Height(expect_int(height, "height")),
            View(expect_int(view, "view")),
            Hash(expect_bytes(block_hash, 32, "block hash")),
            tuple(pairs),
        )

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Reads canonical bytes; raises DecodeError."""
        return cls.from_value(decode(data, bytes_max=CERTIFICATE_BYTES_MAX))
