"""A bounded cache of the pages of the newest committed version, as rows that are known to be whole.

It is filled only with what a committed update wrote, never by reading: several blocks may be executed for one height,
and the pages of those that are discarded have the same keys as the winner's. Every update rewrites each page that it
reads on its way down, so this alone keeps the pages that the next update needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

CACHE_PAGES_DEFAULT: Final = 32_768
"""Seldom more than 1.3 KiB each, so about 40 MiB."""


class PageCache:
    """Rows of pages by key, the least recently written dropped first."""

    __slots__ = ("_rows", "pages_max")

    def __init__(self, pages_max: int = CACHE_PAGES_DEFAULT) -> None:
        self.pages_max = pages_max
        self._rows: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, node_key: bytes) -> bytes | None:
        """Returns the row of a page if it is held."""
        return self._rows.get(node_key)

    def replace(self, stale_pages: Iterable[bytes], pages: Iterable[tuple[bytes, bytes]]) -> None:
        """Drops the pages that a committed update made stale, and takes those that it put."""
        held = self._rows
        for node_key in stale_pages:
            held.pop(node_key, None)
        held.update(pages)
        excess = len(held) - self.pages_max
        if excess > 0:
            for node_key in list(islice(held, excess)):
                del held[node_key]

    def clear(self) -> None:
        """Forgets all pages, as after a rollback."""
        self._rows.clear()
