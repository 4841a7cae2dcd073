"""Builds a whole tree from its leaves in key order, as for a genesis with millions of accounts.

Only the pages on the way to the newest key are open, at most 64; a page is finished as soon as a key beyond it comes.
The rows are those that `update` would put for the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Final

from state.errors import InvariantError
from state.hashing import Hash, sha256
from state.tree.hashes import EMPTY, HASH_BYTES, leaf_hash
from state.tree.node import (
    ALL_NODES,
    Page,
    Ref,
    encode_root,
    encode_value,
    nibble_at,
    page_key,
    value_key,
    version_bytes,
)

Rows = Generator[tuple[bytes, bytes], None, Hash]

_NO_COMMON: Final = -1


def build(pairs: Iterable[tuple[bytes, bytes]], version: int) -> Rows:
    """Yields the rows (node key, row) of the tree over `pairs`, and returns its root.

    `pairs` are (key hash, value) with strictly ascending key hashes; InvariantError is raised otherwise. The root
    record comes last, so a build that was broken off is seen.
    """
    rows: list[tuple[bytes, bytes]] = []
    builder = Builder(version, lambda node_key, row: rows.append((node_key, row)))
    for key, value in pairs:
        builder.add(key, value)
        yield from rows
        rows.clear()
    root = builder.finish()
    yield from rows
    return root


class Builder:
    """The same, for whoever has the pairs one by one: `add` each, then `finish`; rows go to `put` as they are done."""

    def __init__(self, version: int, put: Callable[[bytes, bytes], None]) -> None:
        """Takes the version that the rows are written by, and what takes (node key, row)."""
        self._version = version_bytes(version)
        self._put = put
        self._spine = _Spine(self._version, put)
        self._waiting: Ref | None = None
        self._last = b""
        self._shared = _NO_COMMON

    def add(self, key: bytes, value: bytes) -> None:
        """Takes the next pair (key hash, value); raises InvariantError unless key hashes ascend strictly."""
        if len(key) != HASH_BYTES:
            raise InvariantError(f"a tree key has {len(key)} bytes instead of {HASH_BYTES}")
        waiting = self._waiting
        if waiting is not None:
            common = _common_nibbles(self._last, key)
            self._spine.place(waiting, max(self._shared, common))
            self._spine.close_below(common)
            self._shared = common
        self._put(value_key(self._version, key), encode_value(value))
        self._waiting = leaf_hash(key, sha256(value)), self._version, key
        self._last = key

    def finish(self) -> Hash:
        """Puts what is still open and the root record, and returns the root."""
        top = self._waiting
        if top is not None and self._shared != _NO_COMMON:
            self._spine.place(top, self._shared)
            self._spine.close_below(_NO_COMMON)
            top = self._spine.top
        self._put(self._version, encode_root(self._version, top))
        return EMPTY if top is None else Hash(top[0])


def _common_nibbles(before: bytes, after: bytes) -> int:
    """The number of leading nibbles that two keys share; also proves that they ascend."""
    if before >= after:
        raise InvariantError("the pairs to build a tree from must have strictly ascending key hashes")
    difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
    return (8 * HASH_BYTES - difference.bit_length()) >> 2


class _Spine:
    """The open pages from the root to the newest key, by depth in nibbles."""

    def __init__(self, version: bytes, put: Callable[[bytes, bytes], None]) -> None:
        self.version = version
        self.put = put
        self.pages: list[Page] = []
        self.path = b""
        self.top: Ref | None = None

    def place(self, leaf: Ref, depth: int) -> None:
        """Puts a leaf into the page at `depth`, opening the pages down to it."""
        while len(self.pages) <= depth:
            self.pages.append(Page())
        self.path = leaf[2] or b""
        self.pages[depth].set(nibble_at(self.path, depth), leaf)

    def close_below(self, depth: int) -> None:
        """Finishes all open pages deeper than `depth`, deepest first, and puts their rows."""
        while len(self.pages) > depth + 1:
            page = self.pages.pop()
            digest = page.rehash(ALL_NODES)
            at = len(self.pages)
            node_key = page_key(self.version, at, self.path)
            self.put(node_key, page.encode(node_key))
            self.top = digest, self.version, None
            if at:
                self.pages[at - 1].set(nibble_at(self.path, at - 1), self.top)
