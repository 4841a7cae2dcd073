"""The vectors of snapshots: written from docs/protocol.md alone, with nothing of the code that makes snapshots."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

from state.codec import encode
from state.hashing import Hash
from state.tree.hashes import root_of, subtree_root
from state.types import Header, ValidatorSet

Leaf = tuple[bytes, bytes, bytes]
"""(key hash, state key, value)."""


def hash_of(data: bytes) -> bytes:
    """SHA-256."""
    return sha256(data).digest()


def leaf_hash(key_hash: bytes, value: bytes) -> bytes:
    """The hash of a leaf."""
    return hash_of(b"JMT::LeafNode" + key_hash + hash_of(value))


def states() -> dict[str, tuple[dict[bytes, bytes], int]]:
    """States by name, and how many bytes a chunk may have."""
    many = {b"key %d" % n: b"value %d" % n for n in range(40)}
    skewed = {key: b"v" * 20 for n in range(9000) if hash_of(key := b"skewed %d" % n)[0] == 0xA7}
    return {
        "one record": ({b"hello": b"world"}, 1 << 20),
        "two records": ({b"hello": b"world", b"other": b""}, 1 << 20),
        "forty records in one chunk": (many, 1 << 20),
        "the same, as if a chunk had at most 250 bytes": (many, 250),
        "keys whose hashes begin alike, as if a chunk had at most 250 bytes": (skewed | {b"elsewhere": b"x"}, 250),
    }


def cut(leaves: list[Leaf], nibbles: int, bytes_max: int) -> tuple[list[bytes | None], list[bytes]]:
    """Parts and chunks of the leaves under one prefix, which they share."""
    if sum(len(key) + len(value) + 10 for _, key, value in leaves) <= bytes_max - 5:
        hashed = [(key_hash, leaf_hash(key_hash, value)) for key_hash, _, value in leaves]
        if not leaves:
            return [b""], []
        part = leaves[0][0] + hash_of(leaves[0][2]) if len(leaves) == 1 else subtree_root(hashed, 4 * nibbles)
        return [part], [encode([item for _, key, value in leaves for item in (key, value)])]
    parts: list[bytes | None] = [None]
    chunks: list[bytes] = []
    for nibble in range(16):
        below = [leaf for leaf in leaves if int(leaf[0].hex()[nibbles], 16) == nibble]
        more, made = cut(below, nibbles + 1, bytes_max)
        parts += more
        chunks += made
    return parts, chunks


def snapshot_vectors(header: Header, first: ValidatorSet, second: ValidatorSet) -> Any:
    """The content of snapshots.json: `header` is any, its state root and sets are replaced."""
    snapshots = []
    for place, (what, (state, bytes_max)) in enumerate(states().items()):
        following = second if place == 1 else first
        whole = replace(
            header,
            state_root=Hash(root_of(state)),
            validators_hash=first.hash,
            next_validators_hash=following.hash,
        )
        leaves = sorted((hash_of(key), key, value) for key, value in state.items())
        parts, chunks = cut(leaves, 0, bytes_max)
        given = None if following is first else second.to_value()
        manifest = encode((1, whole.to_value(), first.to_value(), given, parts))
        snapshots.append(
            {
                "what": what,
                "chunk_bytes_max": bytes_max,
                "state": [{"key": "0x" + key.hex(), "value": "0x" + value.hex()} for _, key, value in leaves],
                "manifest": "0x" + manifest.hex(),
                "manifest_hash": "0x" + hash_of(b"QENEX/snapshot/1\0" + manifest).hex(),
                "chunks": ["0x" + chunk.hex() for chunk in chunks],
            }
        )
    return {"snapshots": snapshots}
