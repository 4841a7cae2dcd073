"""What the root of a state is: the hash rules of the Jellyfish Merkle tree, and the root of a set by definition.

The format is that of the Rust crate `jmt` over SHA-256, so that others' software can check our proofs. Key and value
are hashed first; the key's hash, read from its most significant bit, is the path from the root down:

    leaf  = SHA-256("JMT::LeafNode" | H(key) | H(value))
    inner = SHA-256("JMT::IntrnalNode" | left | right)      (spelt so; left is bit 0)
    empty = the 32 bytes "SPARSE_MERKLE_PLACEHOLDER_HASH__"

A subtree with one leaf is that leaf, at whatever depth, so the root depends on the set of pairs alone. `root_of` says
this in its shortest form; it is the specification that the stored tree is tested against, and is not meant to be fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from state.hashing import Hash, sha256

LEAF_TAG: Final = b"JMT::LeafNode"
INNER_TAG: Final = b"JMT::IntrnalNode"
EMPTY: Final = Hash(b"SPARSE_MERKLE_PLACEHOLDER_HASH__")

HASH_BYTES: Final = 32
KEY_BITS: Final = 256


def leaf_hash(key_hash: bytes, value_hash: bytes) -> Hash:
    """Returns the hash of the leaf that binds a key to a value, both given as their SHA-256."""
    return sha256(LEAF_TAG + key_hash + value_hash)


def inner_hash(left: bytes, right: bytes) -> Hash:
    """Returns the hash of an inner node with two subtrees; `left` holds the keys whose next bit is 0."""
    return sha256(INNER_TAG + left + right)


def bit_at(key_hash: bytes, depth: int) -> int:
    """Returns the bit that chooses the side at `depth` (0 is the root): the most significant bit comes first."""
    return key_hash[depth >> 3] >> (7 - (depth & 7)) & 1


def root_of(pairs: Mapping[bytes, bytes]) -> Hash:
    """Returns the root of the set of (key, value) pairs, by definition."""
    return subtree_root([(sha256(key), leaf_hash(sha256(key), sha256(pairs[key]))) for key in pairs])


def subtree_root(leaves: Sequence[tuple[bytes, bytes]], depth: int = 0) -> Hash:
    """Returns the hash of the subtree at `depth` over leaves (key hash, leaf hash) that share their first bits."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return Hash(leaves[0][1])
    left = [leaf for leaf in leaves if bit_at(leaf[0], depth) == 0]
    right = [leaf for leaf in leaves if bit_at(leaf[0], depth) == 1]
    return inner_hash(subtree_root(left, depth + 1), subtree_root(right, depth + 1))
