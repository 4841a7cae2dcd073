"""Reading one version of a stored tree: its root, and the value of a key as it was then.

`load_*` turn rows into values and name the row that is missing or damaged; all other modules read through them.
"""

from __future__ import annotations

from typing import Protocol

from state.errors import InvariantError
from state.hashing import Hash, sha256
from state.tree.hashes import EMPTY, leaf_hash
from state.tree.node import (
    Page,
    Ref,
    decode_page,
    decode_root,
    decode_value,
    name_of,
    nibble_at,
    page_key,
    value_key,
    version_bytes,
)


class Reader(Protocol):
    """Where stored rows come from: a database, or an overlay of rows not yet committed."""

    def get(self, node_key: bytes, /) -> bytes | None:
        """Returns the row under `node_key`, or None."""


def load(reader: Reader, node_key: bytes) -> bytes:
    """Returns the row under `node_key`; raises InvariantError naming it if it is missing."""
    data = reader.get(node_key)
    if data is None:
        raise InvariantError(f"{name_of(node_key)} is missing")
    return data


def load_root(reader: Reader, version: int) -> Ref | None:
    """Returns what the root of `version` is: a page, the only leaf, or None for the empty tree."""
    node_key = version_bytes(version)
    return decode_root(node_key, load(reader, node_key))


def load_page(reader: Reader, node_key: bytes) -> Page:
    """Returns the page under `node_key`, checked."""
    return decode_page(node_key, load(reader, node_key))


def load_value(reader: Reader, leaf: Ref) -> bytes:
    """Returns the value of a leaf; raises InvariantError unless it has the hash that the tree commits to."""
    digest, version, key_hash = leaf
    if key_hash is None:
        raise InvariantError("a value was asked of a page")
    node_key = value_key(version, key_hash)
    value = decode_value(node_key, load(reader, node_key))
    if leaf_hash(key_hash, sha256(value)) != digest:
        raise InvariantError(f"{name_of(node_key)} is damaged: it does not have the hash of its leaf")
    return value


def root(reader: Reader, version: int) -> Hash:
    """Returns the root hash of the tree at `version`; raises InvariantError if that version is not stored."""
    ref = load_root(reader, version)
    return EMPTY if ref is None else Hash(ref[0])


def read(reader: Reader, version: int, key_hash: bytes) -> bytes | None:
    """Returns the value that the key with this hash had at `version`, or None if it had none."""
    ref = load_root(reader, version)
    depth = 0
    while ref is not None and ref[2] is None:
        page = load_page(reader, page_key(ref[1], depth, key_hash))
        ref = page.get(nibble_at(key_hash, depth))
        depth += 1
    if ref is None or ref[2] != key_hash:
        return None
    return load_value(reader, ref)
