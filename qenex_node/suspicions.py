"""The node's own reasons to suspect the primary, told to the core as they come and go.

There are two: blocks leave out a transaction for too long, as the mempool sees it, and the primary's connection has
ended while work waits. The core drops a reason with the view that it was about, so one that lasts is told again; one
that is gone is taken back once. An idle chain suspects nobody for being away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from qenex_node.reach import Reach

PRIMARY_UNREACHABLE: Final = "primary_unreachable"


class Suspicions:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        reach: Reach,
        primary: Callable[[], bytes | None],
        works: Callable[[], bool],
        tell: Callable[[str | None], None],
    ) -> None:
        """Takes who is lost, the primary's key, whether work waits, and how the core is told."""
        self._reach = reach
        self._primary = primary
        self._works = works
        self._tell = tell
        self._left_out: str | None = None
        self._told: str | None = None

    def complain(self, reason: str | None) -> None:
        """Takes a reason that the mempool gives, or that there is none any more."""
        self._left_out = reason
        self.judge()

    def judge(self) -> None:
        """Tells the core the reason that there is now, and once when there is none any more."""
        reason = self._left_out or self._unreachable()
        if reason is not None or self._told is not None:
            self._told = reason
            self._tell(reason)

    def _unreachable(self) -> str | None:
        if not self._reach.any_lost:
            return None
        lost = self._reach.is_lost(self._primary(), trio.current_time())
        return PRIMARY_UNREACHABLE if lost and self._works() else None
