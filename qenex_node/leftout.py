"""Does the primary leave out a transaction? Only then, if it takes others that came much later.

A plain delay proves nothing: a queue may be long. Each validator judges by the order in which it got to know them, and
each primary by its own blocks alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from qenex_node.mempool import Entry


class LeftOut:
    """Tells whether the primary leaves out a transaction: others that came much later were committed before it."""

    def __init__(self, bound_ms: int) -> None:
        """Takes how much later the others may have come."""
        self._bound_ms = bound_ms
        self._newest_ready_ms = 0

    def committed(self, entries: Iterable[Entry]) -> None:
        """Learns when the transactions of a block became ready here."""
        for entry in entries:
            if entry.ready_ms is not None:
                self._newest_ready_ms = max(self._newest_ready_ms, entry.ready_ms)

    def primary_changed(self) -> None:
        """Begins anew: what the last primary preferred is no fault of the next."""
        self._newest_ready_ms = 0

    def judge(self, oldest: Entry | None) -> bool:
        """Returns whether the transaction that is ready longest was passed over for too long."""
        return (
            oldest is not None
            and oldest.ready_ms is not None
            and self._newest_ready_ms - oldest.ready_ms > self._bound_ms
        )
