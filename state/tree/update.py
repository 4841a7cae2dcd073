"""One bulk update for each block: all changed keys in one pass down the tree and one pass of hashing up.

It reads stored rows and returns rows to put and rows that became stale; it never writes. An overlay that is discarded
therefore leaves no trace, and the store commits a tree in the same batch as its block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from state.errors import InvariantError
from state.hashing import Hash
from state.slices import Slices
from state.tree.cache import PageCache
from state.tree.hashes import EMPTY, HASH_BYTES, LEAF_TAG
from state.tree.node import (
    ALL_NODES,
    ANCESTORS,
    Page,
    Ref,
    encode_root,
    encode_value,
    nibble_at,
    page_place,
    value_key,
    version_bytes,
)
from state.tree.read import Reader, load_page, load_root

_UNINTERRUPTED_CHANGES_MAX: Final = 32
"""A subtree with at most so many changes is updated without a pause: about 1 ms."""

_UNINTERRUPTED_KEYS_MAX: Final = 4096
"""Keys that are put in order without a pause: less than 1 ms."""

Run = tuple[int, int, int]
"""A slot, and the changes [low, high) that fall into it."""


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a block does to the stored tree, for the store to commit.

    `stale` are the keys of the rows that `base_version` references and `version` no longer does: once no version
    before `version` is to be read, they can be deleted. `pages` and `stale_pages` are those among the two that are
    pages, for the cache.
    """

    version: int
    root: Hash
    puts: list[tuple[bytes, bytes]]
    stale: list[bytes]
    pages: list[tuple[bytes, bytes]]
    stale_pages: list[bytes]


def update(
    reader: Reader,
    base_version: int | None,
    new_version: int,
    changes: Mapping[bytes, bytes | None],
    cache: PageCache | None = None,
) -> Slices[TreeUpdate]:
    """Applies `changes` (key hash -> value, None deletes) to the tree of `base_version`, giving `new_version`.

    `base_version` None begins with the empty tree. Yields at safe points and returns the TreeUpdate. Without changes
    the result still has the root record of `new_version`. Deleting what is absent, or writing a value again, changes
    nothing. Raises InvariantError naming a stored row that is missing or damaged.
    """
    if base_version is not None and base_version >= new_version:
        raise InvariantError(f"tree version {new_version} cannot follow version {base_version}")
    keys = yield from _in_order(changes)
    work = _Update(reader, cache, version_bytes(new_version), keys, changes)
    base = None
    if base_version is not None:
        base = load_root(reader, base_version)
        work.stale.append(version_bytes(base_version))
    top = (yield from work.wide(base, 0, 0, len(keys))) if keys else base
    root_key = version_bytes(new_version)
    work.puts.append((root_key, encode_root(root_key, top)))
    root = EMPTY if top is None else Hash(top[0])
    return TreeUpdate(new_version, root, work.puts, work.stale, work.pages, work.stale_pages)


def commit_to_cache(cache: PageCache, committed: TreeUpdate) -> None:
    """Tells the cache of an update that is now durable; never to be called for one that may be discarded."""
    cache.replace(committed.stale_pages, committed.pages)


def _in_order(changes: Mapping[bytes, bytes | None]) -> Slices[list[bytes]]:
    """Returns the changed keys in ascending order; sorts by first byte before, to be able to pause in between."""
    for key in changes:
        if len(key) != HASH_BYTES:
            raise InvariantError(f"a tree key has {len(key)} bytes instead of {HASH_BYTES}")
    if len(changes) <= _UNINTERRUPTED_KEYS_MAX:
        return sorted(changes)
    buckets: list[list[bytes]] = [[] for _ in range(256)]
    for count, key in enumerate(changes, 1):
        buckets[key[0]].append(key)
        if count % _UNINTERRUPTED_KEYS_MAX == 0:
            yield
    keys: list[bytes] = []
    for bucket in buckets:
        if len(keys) // _UNINTERRUPTED_KEYS_MAX != (len(keys) + len(bucket)) // _UNINTERRUPTED_KEYS_MAX:
            yield
        bucket.sort()
        keys += bucket
    return keys


class _Update:
    """The changes of one block, in key order, and the rows that they give rise to."""

    __slots__ = ("cache", "changes", "keys", "pages", "puts", "reader", "stale", "stale_pages", "version")

    def __init__(
        self,
        reader: Reader,
        cache: PageCache | None,
        version: bytes,
        keys: list[bytes],
        changes: Mapping[bytes, bytes | None],
    ) -> None:
        self.reader = reader
        self.cache = PageCache(0) if cache is None else cache
        self.version = version
        self.keys = keys
        self.changes = changes
        self.puts: list[tuple[bytes, bytes]] = []
        self.stale: list[bytes] = []
        self.pages: list[tuple[bytes, bytes]] = []
        self.stale_pages: list[bytes] = []

    def wide(self, old: Ref | None, depth: int, low: int, high: int) -> Slices[Ref | None]:
        """`narrow` for a subtree with too many changes for one go: pauses between its children."""
        if high - low <= _UNINTERRUPTED_CHANGES_MAX:
            yield
            return self.narrow(old, depth, low, high)
        place = page_place(depth, self.keys[low])
        page = self._open(old, place, depth)
        dirty = 0
        for slot, start, end in self._runs(depth, low, high):
            before = page.get(slot)
            after = yield from self.wide(before, depth + 1, start, end)
            if after is not before:
                page.set(slot, after)
                dirty |= ANCESTORS[slot]
        return self._close(old, page, dirty, place)

    def narrow(self, old: Ref | None, depth: int, low: int, high: int) -> Ref | None:
        """Applies the changes [low, high) to the subtree `old` at `depth` nibbles and returns what it becomes.

        Returns `old` itself if nothing changes.
        """
        key = self.keys[low]
        if high - low == 1 and (old is None or old[2] is not None):
            if old is None or old[2] == key:
                return self._leaf(old, key, self.changes[key])
            if self.changes[key] is None:
                return old
        place = page_place(depth, key)
        page = self._open(old, place, depth)
        if high - low == 1:
            slot = nibble_at(key, depth)
            before = page.get(slot)
            after = self.narrow(before, depth + 1, low, high)
            if after is before:
                return old
            if after is not None and before is not None and after[2] == before[2]:
                digest = page.replace(slot, after[0], after[1])
                return self._put(old, page, digest, place)
            page.set(slot, after)
            return self._close(old, page, ANCESTORS[slot], place)
        dirty = 0
        for slot, start, end in self._runs(depth, low, high):
            before = page.get(slot)
            after = self.narrow(before, depth + 1, start, end)
            if after is not before:
                page.set(slot, after)
                dirty |= ANCESTORS[slot]
        return self._close(old, page, dirty, place)

    def _leaf(self, old: Ref | None, key: bytes, value: bytes | None) -> Ref | None:
        """Gives the leaf of `key`, if there is one, its new value."""
        if value is None:
            if old is not None:
                self.stale.append(value_key(old[1], key))
            return None
        digest = sha256(LEAF_TAG + key + sha256(value).digest()).digest()
        if old is not None:
            if old[0] == digest:
                return old
            self.stale.append(value_key(old[1], key))
        self.puts.append((value_key(self.version, key), encode_value(value)))
        return digest, self.version, key

    def _open(self, old: Ref | None, place: bytes, depth: int) -> Page:
        """Returns the page to work on.

        Where there was no page, changes meet an empty slot or a leaf: a page begins there with that leaf in it.
        """
        if old is None:
            return Page()
        key = old[2]
        if key is None:
            node_key = old[1] + place
            row = self.cache.get(node_key)
            return load_page(self.reader, node_key) if row is None else Page(row)
        page = Page()
        page.set(nibble_at(key, depth), old)
        return page

    def _close(self, old: Ref | None, page: Page, dirty: int, place: bytes) -> Ref | None:
        """Returns what the page has become: nothing, its only leaf, itself as before, or a new row."""
        if not dirty:
            return old
        occupied = page.occupied
        if not occupied & occupied - 1 and occupied == page.leaves:
            self._retire(old, place)
            return page.get(occupied.bit_length() - 1) if occupied else None
        if old is not None and old[2] is not None:
            dirty = ALL_NODES
        return self._put(old, page, page.rehash(dirty), place)

    def _put(self, old: Ref | None, page: Page, digest: bytes, place: bytes) -> Ref:
        self._retire(old, place)
        node_key = self.version + place
        put = (node_key, page.encode(node_key))
        self.puts.append(put)
        self.pages.append(put)
        return digest, self.version, None

    def _retire(self, old: Ref | None, place: bytes) -> None:
        """Notes that the page `old`, if it was one, is no longer referenced."""
        if old is not None and old[2] is None:
            node_key = old[1] + place
            self.stale.append(node_key)
            self.stale_pages.append(node_key)

    def _runs(self, depth: int, low: int, high: int) -> list[Run]:
        """Returns the slots that the changes [low, high) fall into, ascending, each with its own range."""
        keys = self.keys
        runs = []
        slot = nibble_at(keys[low], depth)
        if high - low > _UNINTERRUPTED_CHANGES_MAX:
            while low < high:
                slot = nibble_at(keys[low], depth)
                end = bisect_right(keys, slot, low + 1, high, key=lambda key: nibble_at(key, depth))
                runs.append((slot, low, end))
                low = end
            return runs
        for at in range(low + 1, high):
            following = nibble_at(keys[at], depth)
            if following != slot:
                runs.append((slot, low, at))
                slot, low = following, at
        runs.append((slot, low, high))
        return runs
