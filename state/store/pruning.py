"""Forgetting old states: which heights can still be read, deleting the rows of others, and getting their space back.

Blocks, certificates and receipts are kept for ever; only rows of the tree go. Each commit has listed the rows that it
made stale (the O records), so pruning a height is deleting the rows of one list, in one batch with the list itself: a
crash leaves a height whole or gone. LevelDB frees the space when it rewrites the files concerned, which it does in its
own time; `reclaim` makes it do so once enough of the database is waste.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from state.slices import Slices
from state.store import chain, files
from state.store.database import Database
from state.store.keys import META, META_GARBAGE, META_OLDEST, NODE, STALE, STATE, VOTE, after, height_bytes, seal
from state.tree.node import KEY_NIBBLES, VERSION_BYTES

GARBAGE_BYTES_MIN: Final = 256 * 1024
"""Less waste than this is not worth a compaction."""

IDLE_SHARE: Final = 0.08
BUSY_SHARE: Final = 1.0
"""Reclaiming rewrites the whole state, which costs a busy node more than LevelDB's own pace does: the share is of all
that there is, waste included, so this is where LevelDB has fallen far behind."""

PAGE_BYTES_TYPICAL: Final = 1100
VALUE_BYTES_TYPICAL: Final = 120

_SLICE_ROWS: Final = 512
_PIECE_BYTES: Final = 32 * 1024 * 1024
_KEY_BYTES: Final = 56
"""Longer than the part of a key by which records are many."""


class Pruner:
    """Which states a database holds, and how it forgets the others. `keep_heights` None keeps all."""

    def __init__(self, database: Database, keep_heights: int | None) -> None:
        self._database = database
        self._keep = keep_heights
        self._reclaiming = threading.Lock()
        self._stopping = False
        self.oldest = int.from_bytes(database.need(META_OLDEST), "big")
        self.garbage = int.from_bytes(database.get(META_GARBAGE) or b"", "big")

    def behind(self, head: int) -> int:
        """How many heights are to be pruned."""
        return 0 if self._keep is None else max(0, head - self._keep + 1 - self.oldest)

    def prune(self, head: int) -> Slices[int]:
        """Forgets all heights but the newest ones; returns how many rows went.

        The writes are not synced: what a power failure undoes is pruned again. Safe in a worker thread.
        """
        rows = 0
        for height in range(self.oldest + 1, self.oldest + 1 + self.behind(head)):
            rows += yield from self.forget_before(height)
        return rows

    def forget_before(self, height: int) -> Slices[int]:
        """Deletes the rows that no version from `height` on references: the state before it is gone then.

        Reads of that state are refused first; those that have begun see the database as it was then.
        """
        self.oldest = height
        stale = chain.read_stale(self._database, height)
        batch = self._database.batch(sync=False)
        freed = 0
        for count, row_key in enumerate(stale, 1):
            batch.delete(NODE + row_key)
            freed += PAGE_BYTES_TYPICAL if _is_page(row_key) else VALUE_BYTES_TYPICAL
            if count % _SLICE_ROWS == 0:
                yield
        batch.delete(STALE + height_bytes(height))
        batch.put(META_OLDEST, seal(META_OLDEST, height_bytes(height)))
        yield
        self._database.write(batch)
        self.garbage += freed
        yield
        return len(stale)

    def reclaim_due(self, *, idle: bool) -> bool:
        """Whether enough of the database is waste for `reclaim`; an idle node does it sooner."""
        if self.garbage < GARBAGE_BYTES_MIN:
            return False
        share = IDLE_SHARE if idle else BUSY_SHARE
        return self.garbage > share * files.directory_bytes(self._database.path)

    def reclaim(self) -> None:
        """Rewrites the ranges in which records are overwritten and deleted. For a worker thread: takes seconds.

        LevelDB goes on taking writes meanwhile. `stop` makes it end after the piece that it is at.
        """
        with self._reclaiming:
            counted = self.garbage
            ranges = [(letter, after(letter)) for letter in (META, VOTE, STALE, STATE)]
            ranges.append((NODE, NODE + height_bytes(self.oldest + 1)))
            for start, stop in ranges:
                for piece in self._pieces(start, stop):
                    if self._stopping:
                        return
                    self._database.compact(*piece)
            self.garbage -= counted

    def _pieces(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Cuts a range into pieces that are compacted in some tenths of a second each, halving it by its keys."""
        size = self._database.approximate_bytes
        low, high = start, stop
        middle = _between(low, high)
        while size(start, stop) > _PIECE_BYTES and low < middle < high:
            if not size(start, middle):
                low = middle
            elif not size(middle, stop):
                high = middle
            else:
                yield from self._pieces(start, middle)
                yield from self._pieces(middle, stop)
                return
            middle = _between(low, high)
        yield start, stop

    def stop(self) -> None:
        """Ends a running `reclaim` and waits for it; later ones do nothing."""
        self._stopping = True
        with self._reclaiming:
            pass


def _between(start: bytes, stop: bytes) -> bytes:
    """The key half-way between two, as numbers."""
    low, high = (int.from_bytes(key.ljust(_KEY_BYTES, b"\0")[:_KEY_BYTES], "big") for key in (start, stop))
    return ((low + high) // 2).to_bytes(_KEY_BYTES, "big").rstrip(b"\0")


def garbage_record(garbage: int) -> tuple[bytes, bytes]:
    """Returns key and value of the record of how much waste there is."""
    return META_GARBAGE, seal(META_GARBAGE, garbage.to_bytes(8, "big"))


def _is_page(row_key: bytes) -> bool:
    return len(row_key) > VERSION_BYTES and row_key[VERSION_BYTES] < KEY_NIBBLES
