"""Builds a whole tree from its leaves in key order, as for a genesis with millions of accounts.

Only the pages on the way to the newest key are open, at most 64; a page is finished as soon as a key beyond it comes.
The rows are those that `update` would put for the same pairs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
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
    written_by = version_bytes(version)
    spine = _Spine(written_by)
    waiting: Ref | None = None
    shared = _NO_COMMON
    for key, value in pairs:
        if len(key) != HASH_BYTES:
            raise InvariantError(f"a tree key has {len(key)} bytes instead of {HASH_BYTES}")
        if waiting is not None:
            common = _common_nibbles(waiting[2] or b"", key)
            spine.place(waiting, max(shared, common))
            yield from spine.close_below(common)
            shared = common
        yield value_key(written_by, key), encode_value(value)
        waiting = leaf_hash(key, sha256(value)), written_by, key
    top = waiting
    if waiting is not None and shared != _NO_COMMON:
        spine.place(waiting, shared)
        yield from spine.close_below(_NO_COMMON)
        top = spine.top
    yield written_by, encode_root(written_by, top)
    return EMPTY if top is None else Hash(top[0])


def _common_nibbles(before: bytes, after: bytes) -> int:
    """The number of leading nibbles that two keys share; also proves that they ascend."""
    if before >= after:
        raise InvariantError("the pairs to build a tree from must have strictly ascending key hashes")
    difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
    return (8 * HASH_BYTES - difference.bit_length()) >> 2


class _Spine:
    """The open pages from the root to the newest key, by depth in nibbles."""

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.pages: list[Page] = []
        self.path = b""
        self.top: Ref | None = None

    def place(self, leaf: Ref, depth: int) -> None:
        """Puts a leaf into the page at `depth`, opening the pages down to it."""
        while len(self.pages) <= depth:
            self.pages.append(Page())
        self.path = leaf[2] or b""
        self.pages[depth].set(nibble_at(self.path, depth), leaf)

    def close_below(self, depth: int) -> Generator[tuple[bytes, bytes], None, None]:
        """Finishes all open pages deeper than `depth`, deepest first, and yields their rows."""
        while len(self.pages) > depth + 1:
            page = self.pages.pop()
            digest = page.rehash(ALL_NODES)
            at = len(self.pages)
            node_key = page_key(self.version, at, self.path)
            yield node_key, page.encode(node_key)
            self.top = digest, self.version, None
            if at:
                self.pages[at - 1].set(nibble_at(self.path, at - 1), self.top)
