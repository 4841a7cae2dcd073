"""Proofs that a key has a value, or has none, under a root; and their verifier.

This is all that someone needs who trusts only the root of a final block: it imports no database and no stored node.
The hash rules are those of state/tree/hashes.py.

A proof is the leaf at which the path of the key ends, or none if it ends in an empty subtree, and the siblings of the
path **from the bottom to the top**: siblings[0] stands beside that end, the last one is a child of the root. With n
siblings the end stands n bits deep. It is verified by folding: begin with the hash of the leaf (or the empty hash);
for i = 0 .. n-1 let b be bit n-1-i of the key's hash, bit 0 being its most significant; the new hash is
inner(current, siblings[i]) if b is 0, and inner(siblings[i], current) if b is 1. The last must be the root. Empty
siblings are given like all others, as the placeholder hash.

- Presence: the leaf has the key's hash and the value's hash.
- Absence: there is no leaf, or there is another key's leaf whose hash begins with the same n bits, so that it stands
  where the key's own leaf would have to stand.

Encoded: [leaf, siblings], where leaf is nil or [key hash, value hash], in the canonical encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from state.codec import decode, encode, expect_array, expect_bytes, expect_tuple
from state.errors import DecodeError, JsonValue, Rejected
from state.hashing import Hash, sha256
from state.tree.hashes import EMPTY, HASH_BYTES, KEY_BITS, bit_at, inner_hash, leaf_hash

PROOF_BYTES_MAX: Final = 16 + (KEY_BITS + 2) * (HASH_BYTES + 2)


@dataclass(frozen=True, slots=True)
class ProofLeaf:
    """The leaf at which a path ends."""

    key_hash: Hash
    value_hash: Hash


@dataclass(frozen=True, slots=True)
class Proof:
    """The end of a key's path, and the siblings on the way from there up to the root."""

    leaf: ProofLeaf | None
    siblings: tuple[Hash, ...]

    def encode(self) -> bytes:
        """Returns the canonical bytes, at most PROOF_BYTES_MAX."""
        leaf = None if self.leaf is None else (self.leaf.key_hash, self.leaf.value_hash)
        return encode((leaf, self.siblings))

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        """Reads canonical bytes; raises DecodeError for anything else."""
        end, path = expect_tuple(decode(data, bytes_max=PROOF_BYTES_MAX), 2, "proof")
        leaf = None
        if end is not None:
            key_hash, value_hash = expect_tuple(end, 2, "proof leaf")
            leaf = ProofLeaf(
                Hash(expect_bytes(key_hash, HASH_BYTES, "leaf key hash")),
                Hash(expect_bytes(value_hash, HASH_BYTES, "leaf value hash")),
            )
        siblings = expect_array(path, KEY_BITS, "siblings")
        return cls(leaf, tuple(Hash(expect_bytes(item, HASH_BYTES, "sibling")) for item in siblings))

    def to_json(self) -> dict[str, JsonValue]:
        """Returns {"leaf": null or {"key_hash", "value_hash"}, "siblings": [...]}, hashes as 0x-hex."""
        leaf: JsonValue = None
        if self.leaf is not None:
            leaf = {"key_hash": _hex(self.leaf.key_hash), "value_hash": _hex(self.leaf.value_hash)}
        return {"leaf": leaf, "siblings": [_hex(sibling) for sibling in self.siblings]}

    @classmethod
    def from_json(cls, value: Any) -> Proof:
        """Reads the form of `to_json`; raises DecodeError for anything else."""
        end, path = _fields(value, ("leaf", "siblings"), "proof")
        leaf = None
        if end is not None:
            leaf = ProofLeaf(*(_from_hex(part) for part in _fields(end, ("key_hash", "value_hash"), "leaf")))
        if type(path) is not list or len(path) > KEY_BITS:
            raise DecodeError(f"siblings must be a list of at most {KEY_BITS} hashes")
        return cls(leaf, tuple(_from_hex(item) for item in path))


def verify(proof: Proof, root: bytes, key: bytes, value: bytes | None) -> None:
    """Proves that under `root` the key has this value, or, with None, that it has none.

    `key` and `value` are the bytes themselves, not their hashes. Raises Rejected("proof_invalid") saying why.
    """
    key_hash = sha256(key)
    depth = len(proof.siblings)
    if depth > KEY_BITS:
        raise _invalid(f"a path has at most {KEY_BITS} siblings, this one {depth}")
    leaf = proof.leaf
    if value is not None:
        if leaf is None or leaf.key_hash != key_hash:
            raise _invalid("it shows that the key is absent, not that it has a value")
        if leaf.value_hash != sha256(value):
            raise _invalid("it shows another value of the key")
    elif leaf is not None:
        if leaf.key_hash == key_hash:
            raise _invalid("it shows a value of the key, not that the key is absent")
        if any(bit_at(leaf.key_hash, at) != bit_at(key_hash, at) for at in range(depth)):
            raise _invalid("its leaf does not stand on the path of the key")
    current = EMPTY if leaf is None else leaf_hash(leaf.key_hash, leaf.value_hash)
    for at, sibling in zip(range(depth - 1, -1, -1), proof.siblings, strict=True):
        on_right = bit_at(key_hash, at)
        current = inner_hash(sibling, current) if on_right else inner_hash(current, sibling)
    if current != root:
        raise _invalid("it leads to another root")


def _invalid(why: str) -> Rejected:
    return Rejected("proof_invalid", f"the proof does not hold: {why}")


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _from_hex(text: Any) -> Hash:
    """Reads a 0x-hex hash, lower case only, so that each proof has one JSON form."""
    if type(text) is str and len(text) == 2 + 2 * HASH_BYTES and text.startswith("0x"):
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            data = b""
        if _hex(data) == text:
            return Hash(data)
    raise DecodeError(f"a hash is 0x and {2 * HASH_BYTES} lower-case hexadecimal digits")


def _fields(value: Any, names: tuple[str, str], what: str) -> tuple[Any, Any]:
    if type(value) is not dict or sorted(value) != sorted(names):
        raise DecodeError(f"a {what} has exactly the fields {names[0]} and {names[1]}")
    return value[names[0]], value[names[1]]
