"""Visits every row that one version of a tree references, and proves each on the way.

Nothing is taken on trust but the root: each page is rebuilt from its slots and compared byte for byte, each value is
compared with its leaf, each leaf must stand on its own path. For auditing a database and for copying a state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from state.errors import InvariantError
from state.tree.node import (
    ALL_NODES,
    Page,
    Ref,
    decode_page,
    encode_value,
    name_of,
    page_key,
    slots_of,
    value_key,
    version_bytes,
)
from state.tree.read import Reader, load, load_root, load_value


@dataclass(frozen=True, slots=True)
class Visited:
    """A stored row; for the value of a leaf also the key hash and the value."""

    node_key: bytes
    row: bytes
    key_hash: bytes | None = None
    value: bytes | None = None


def walk(reader: Reader, version: int) -> Iterator[Visited]:
    """Yields the root record and all pages and values of `version`, leaves in ascending order of their key hash.

    Raises InvariantError naming the first row that is missing, damaged or not what its parent commits to. The memory
    used is bounded by the depth of the tree.
    """
    root_key = version_bytes(version)
    top = load_root(reader, version)
    yield Visited(root_key, load(reader, root_key))
    pending: list[tuple[Ref, int, bytes]] = [] if top is None else [(top, 0, bytes(32))]
    while pending:
        ref, depth, path = pending.pop()
        if ref[1] > root_key:
            raise InvariantError(f"the tree of version {version} references a later version below depth {depth}")
        if ref[2] is None:
            visited, page = _visit_page(reader, ref, depth, path)
            for slot in reversed(slots_of(page.occupied)):
                child = page.get(slot)
                if child is not None:
                    if child[1] > ref[1]:
                        raise InvariantError(f"{name_of(visited.node_key)} references a later version")
                    pending.append((child, depth + 1, _extended(path, depth, slot)))
            yield visited
        else:
            yield _visit_value(reader, ref, ref[2], depth, path)


def _visit_page(reader: Reader, ref: Ref, depth: int, path: bytes) -> tuple[Visited, Page]:
    node_key = page_key(ref[1], depth, path)
    row = load(reader, node_key)
    page = decode_page(node_key, row)
    again = Page()
    for slot in slots_of(page.occupied):
        again.set(slot, page.get(slot))
    if not page.leaves ^ page.occupied and not page.occupied & (page.occupied - 1):
        raise InvariantError(f"{name_of(node_key)} holds one leaf alone, which should stand in its parent")
    digest = again.rehash(ALL_NODES)
    if again.encode(node_key) != row:
        raise InvariantError(f"{name_of(node_key)} has inner hashes that do not follow from its slots")
    if digest != ref[0]:
        raise InvariantError(f"{name_of(node_key)} does not have the hash that its parent commits to")
    return Visited(node_key, row), page


def _visit_value(reader: Reader, ref: Ref, key_hash: bytes, depth: int, path: bytes) -> Visited:
    node_key = value_key(ref[1], key_hash)
    if page_key(b"", depth, key_hash) != page_key(b"", depth, path):
        raise InvariantError(f"{name_of(node_key)} is referenced from a path that is not its own")
    value = load_value(reader, ref)
    return Visited(node_key, encode_value(value), key_hash, value)


def _extended(path: bytes, depth: int, slot: int) -> bytes:
    """`path`, padded with zeros to a whole key, with `slot` as its next nibble."""
    byte = depth >> 1
    return path[:byte] + bytes([path[byte] | (slot if depth & 1 else slot << 4)]) + path[byte + 1 :]
