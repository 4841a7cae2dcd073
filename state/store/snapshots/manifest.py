"""What a snapshot is: a manifest that proves itself against a header, and chunks that prove themselves against it.

A snapshot is all leaves of the state's tree at one height. A chunk holds the leaves whose key hashes begin with one
prefix, counted in nibbles; the prefixes of all chunks cut the tree without gap or overlap. How deep it is cut follows
from the state alone: a prefix is split while its leaves would not fit a chunk. So all nodes make the same snapshot of
a height, byte for byte, and one chunk may come from one node, the next from another.

    manifest = [version, header, validators, next validators or nil, [part ...]]
    part     = nil                          this prefix is split into its sixteen next nibbles, whose parts follow
             | 0 bytes                      no leaf has this prefix; there is no chunk
             | 32 bytes                     the hash of the subtree of two leaves or more; the next chunk
             | 64 bytes                     key hash | value hash of its only leaf; the next chunk
    chunk    = [state key, value, state key, value ...], in ascending order of SHA-256(state key)

Parts stand in the order of their prefixes, the one of the empty prefix first: the parts after a nil are its children.
They fold by the rules of the tree into the header's state root, and the two sets have the hashes that the header names
(nil: the set does not change). An only leaf is given as what it is made of, since the hash of an inner node could be
passed off as that of a leaf and would fold just as well. What a manifest does not prove is its header: that takes a
certificate, and a reason to trust its signers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from state.codec import decode, encode, expect_array, expect_tuple
from state.errors import DecodeError, InvariantError, Rejected
from state.hashing import TAG_SNAPSHOT, Hash, sha256, tagged
from state.limits import HEADER_BYTES_MAX, VALIDATORS_MAX
from state.slices import Slices
from state.tree.fold import NIBBLE_BITS, NOTHING, Subtree, fold, join_sixteen, lone_leaf, many_leaves
from state.tree.hashes import HASH_BYTES, leaf_hash
from state.tree.node import KEY_NIBBLES
from state.types import Header, ValidatorSet

SNAPSHOT_VERSION: Final = 1
CHUNK_BYTES_MAX: Final = 1024 * 1024
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
PARTS_MAX: Final = 1 << 16
_CHUNK_ITEMS_MAX: Final = 1 << 18
_LEAF_OVERHEAD_BYTES: Final = 10
"""The longest headers of a key and a value."""
_ARRAY_OVERHEAD_BYTES: Final = 5
_SLICE_LEAVES: Final = 256
_VALIDATOR_BYTES_MAX: Final = 128

if MANIFEST_BYTES_MAX < PARTS_MAX * (HASH_BYTES + 2) + HEADER_BYTES_MAX + 2 * VALIDATORS_MAX * _VALIDATOR_BYTES_MAX:
    raise InvariantError("limits contradict each other: a manifest holds as many parts as it may")

Leaf = tuple[Hash, bytes, bytes]
"""(SHA-256 of the state key, state key, value)."""


def weight_of(state_key: bytes, value: bytes) -> int:
    """Returns what a leaf counts against a chunk's bytes."""
    return len(state_key) + len(value) + _LEAF_OVERHEAD_BYTES


def fits_chunk(weight: int) -> bool:
    """Whether leaves that weigh this much in all are one chunk; otherwise their prefix is split."""
    return weight <= CHUNK_BYTES_MAX - _ARRAY_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's place: its number, its prefix (`nibbles` of them, in a whole key padded with zeros), and its part."""

    number: int
    nibbles: int
    prefix: bytes
    part: bytes

    @property
    def subtree(self) -> Subtree:
        """What its leaves must fold into."""
        return _subtree_of(self.part)


@dataclass(frozen=True)
class Manifest:
    """A checked manifest: its parts fold into the header's state root, its sets are those that the header names."""

    header: Header
    validators: ValidatorSet
    validators_next: ValidatorSet
    parts: tuple[bytes | None, ...]

    @classmethod
    def of(
        cls,
        header: Header,
        validators: ValidatorSet,
        validators_next: ValidatorSet,
        parts: Sequence[bytes | None],
    ) -> Manifest:
        """Returns the manifest of these parts; raises Rejected("snapshot_invalid") unless all fits together."""
        manifest = cls(header, validators, validators_next, tuple(parts))
        if header.height == 0:
            raise _invalid("height 0 is made from the genesis document")
        if validators.hash != header.validators_hash or validators_next.hash != header.next_validators_hash:
            raise _invalid("the validator sets are not those of the header")
        if _fold_parts(manifest.parts).hash != header.state_root:
            raise _invalid("the parts do not fold into the header's state root")
        return manifest

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes."""
        changed = self.header.validators_hash != self.header.next_validators_hash
        following = self.validators_next.to_value() if changed else None
        return encode((SNAPSHOT_VERSION, self.header.to_value(), self.validators.to_value(), following, self.parts))

    @cached_property
    def hash(self) -> Hash:
        """What names a snapshot: equal for all who made it of the same height."""
        return tagged(TAG_SNAPSHOT, self.encoded)

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks in order."""
        found: list[Chunk] = []
        for nibbles, prefix, part in _walk(self.parts):
            if part:
                found.append(Chunk(len(found), nibbles, prefix, part))
        return tuple(found)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Reads canonical bytes and checks them.

        Raises Rejected: "malformed", "version_unknown", "snapshot_invalid".
        """
        fields = decode(data, bytes_max=MANIFEST_BYTES_MAX)
        if type(fields) is tuple and fields and fields[0] != SNAPSHOT_VERSION:
            raise Rejected(
                "version_unknown", f"the snapshot has version {fields[0]!r}; this node reads {SNAPSHOT_VERSION}"
            )
        _, header_value, members, following, parts = expect_tuple(fields, 5, "manifest")
        header = Header.from_value(header_value)
        validators = ValidatorSet.from_value(members)
        if (following is None) != (header.validators_hash == header.next_validators_hash):
            raise DecodeError("the next validator set is given where it changes, and only there")
        validators_next = validators if following is None else ValidatorSet.from_value(following)
        for part in expect_array(parts, PARTS_MAX, "parts"):
            if part is not None and (type(part) is not bytes or len(part) not in (0, HASH_BYTES, 2 * HASH_BYTES)):
                raise DecodeError("a part is nil, or 0, 32 or 64 bytes")
        return cls.of(header, validators, validators_next, parts)


def part_of(subtree: Subtree, leaf: tuple[bytes, bytes] | None) -> bytes:
    """Returns the part that says this of a prefix; `leaf` is (key hash, value hash) of the only leaf."""
    if subtree.leaves == 0:
        return b""
    return subtree.hash if leaf is None else leaf[0] + leaf[1]


def encode_chunk(leaves: Sequence[Leaf]) -> bytes:
    """Returns the chunk of leaves in their order."""
    return encode([item for _, key, value in leaves for item in (key, value)])


def prove_chunk(chunk: Chunk, data: bytes) -> Slices[list[Leaf]]:
    """Returns the leaves of a chunk's bytes, proved to be all that the state has under its prefix.

    Raises Rejected("chunk_invalid") saying why.
    """
    leaves = yield from read_leaves(data)
    if not leaves:
        raise _wrong(chunk, "holds nothing")
    for key_hash in (leaves[0][0], leaves[-1][0]):
        if not has_prefix(key_hash, chunk.prefix, chunk.nibbles):
            raise _wrong(chunk, "holds a record that does not belong to it")
    hashed: list[tuple[bytes, Hash]] = []
    last = b""
    for count, (key_hash, _, value) in enumerate(leaves, 1):
        if key_hash <= last:
            raise _wrong(chunk, "is not in order of the hashes of its keys")
        last = key_hash
        hashed.append((key_hash, leaf_hash(key_hash, sha256(value))))
        if count % _SLICE_LEAVES == 0:
            yield
    found = yield from fold(hashed, chunk.nibbles * NIBBLE_BITS)
    if found.hash != chunk.subtree.hash:
        raise _wrong(chunk, "does not have the hash that the manifest gives it")
    return leaves


def has_prefix(key_hash: bytes, prefix: bytes, nibbles: int) -> bool:
    """Whether a key hash begins with the first `nibbles` of `prefix`."""
    whole = nibbles >> 1
    if key_hash[:whole] != prefix[:whole]:
        return False
    return not nibbles & 1 or key_hash[whole] >> 4 == prefix[whole] >> 4


def read_leaves(data: bytes) -> Slices[list[Leaf]]:
    """Returns the leaves of a chunk's bytes, nothing proved but their form; raises Rejected("chunk_invalid")."""
    try:
        items = expect_array(
            decode(data, bytes_max=CHUNK_BYTES_MAX, depth_max=1, items_max=_CHUNK_ITEMS_MAX), _CHUNK_ITEMS_MAX, "chunk"
        )
    except DecodeError as error:
        raise Rejected("chunk_invalid", f"a chunk is malformed: {error.message}") from error
    yield
    if len(items) % 2 or any(type(item) is not bytes for item in items):
        raise Rejected("chunk_invalid", "a chunk holds state keys and values by turns")
    leaves: list[Leaf] = []
    for at in range(0, len(items), 2):
        leaves.append((sha256(items[at]), items[at], items[at + 1]))
        if at % (2 * _SLICE_LEAVES) == 0:
            yield
    return leaves


def _walk(parts: Sequence[bytes | None]) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yields (nibbles, prefix, part) in order; raises Rejected if parts are missing or left over."""
    pending: list[tuple[int, bytes]] = [(0, bytes(HASH_BYTES))]
    for part in parts:
        if not pending:
            raise _invalid("there are more parts than the prefixes that are split ask for")
        nibbles, prefix = pending.pop()
        yield nibbles, prefix, part
        if part is None:
            if nibbles == KEY_NIBBLES:
                raise _invalid("a whole key cannot be split")
            pending += [(nibbles + 1, extended(prefix, nibbles, nibble)) for nibble in range(15, -1, -1)]
        elif len(part) == 2 * HASH_BYTES and not has_prefix(part, prefix, nibbles):
            raise _invalid("an only leaf does not have the prefix of its part")
    if pending:
        raise _invalid("parts are missing")


def extended(prefix: bytes, nibbles: int, nibble: int) -> bytes:
    """Returns `prefix`, a whole key of which `nibbles` are used and the rest is zero, with one more nibble."""
    at = nibbles >> 1
    return prefix[:at] + bytes([prefix[at] | (nibble if nibbles & 1 else nibble << 4)]) + prefix[at + 1 :]


def bucket_of(key_hash: bytes, nibbles: int) -> int:
    """Returns the first `nibbles` of a key hash as a number, at most four of them."""
    return int.from_bytes(key_hash[:2], "big") >> (16 - NIBBLE_BITS * nibbles)


def _fold_parts(parts: Sequence[bytes | None]) -> Subtree:
    """Folds parts from the last to the first: the sixteen children of a split stand on the stack when it comes."""
    for _ in _walk(parts):
        pass
    stack: list[Subtree] = []
    for part in reversed(parts):
        if part is not None:
            stack.append(_subtree_of(part))
            continue
        children = stack[:-17:-1]
        del stack[-16:]
        stack.append(join_sixteen(children))
    return stack[0]


def _subtree_of(part: bytes) -> Subtree:
    if not part:
        return NOTHING
    if len(part) == HASH_BYTES:
        return many_leaves(Hash(part))
    return lone_leaf(leaf_hash(part[:HASH_BYTES], part[HASH_BYTES:]))


def _invalid(why: str) -> Rejected:
    return Rejected("snapshot_invalid", f"the snapshot does not hold: {why}")


def _wrong(chunk: Chunk, why: str) -> Rejected:
    return Rejected("chunk_invalid", f"chunk {chunk.number} {why}", {"chunk": chunk.number})
