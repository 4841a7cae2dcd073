"""A bounded cache of decoded pages of the newest committed version.

It is filled only with what a committed update wrote, never by reading: several blocks may be executed for one height,
and the pages of those that are discarded have the same keys as the winner's. Every update rewrites each page that it
reads on its way down, so this alone keeps the pages that the next update needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from state.tree.node import Page

CACHE_PAGES_DEFAULT: Final = 16_384
"""About 3 KiB each."""


class PageCache:
    """Pages by row key, the least recently written dropped first."""

    __slots__ = ("_pages", "pages_max")

    def __init__(self, pages_max: int = CACHE_PAGES_DEFAULT) -> None:
        self.pages_max = pages_max
        self._pages: dict[bytes, Page] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def get(self, node_key: bytes) -> Page | None:
        """Returns the page under `node_key` if it is held. It is shared: copy it before a change."""
        return self._pages.get(node_key)

    def replace(self, stale: Iterable[bytes], pages: Iterable[tuple[bytes, Page]]) -> None:
        """Drops the rows that a committed update made stale, and takes the pages that it wrote."""
        held = self._pages
        for node_key in stale:
            held.pop(node_key, None)
        held.update(pages)
        excess = len(held) - self.pages_max
        if excess > 0:
            for node_key in list(held)[:excess]:
                del held[node_key]

    def clear(self) -> None:
        """Forgets all pages, as after a rollback."""
        self._pages.clear()
