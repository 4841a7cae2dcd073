"""Does the primary leave out a transaction? Only then, if it takes others that came much later.

A plain delay proves nothing: a queue may be long. Each validator judges by the order in which it got to know them, and
each primary by the blocks that it made itself: one that it had to propose again shows what another preferred.
"""

from __future__ import annotations

from collections.abc import Iterable

from qenex_node.mempool import Entry


class LeftOut:
    """Tells whether the primary leaves out a transaction: others that came much later were committed before it."""

    def __init__(self, bound_ms: int) -> None:
        """Takes how much later the others may have come."""
        self._bound_ms = bound_ms
        self._newest_ready_ms: dict[bytes, int] = {}

    def committed(self, entries: Iterable[Entry], proposer: bytes) -> None:
        """Learns when the transactions of a block became ready here, and whose block it is, by its consensus key."""
        newest = max((entry.ready_ms for entry in entries if entry.ready_ms is not None), default=0)
        self._newest_ready_ms[proposer] = max(self._newest_ready_ms.get(proposer, 0), newest)

    def primary_changed(self) -> None:
        """Begins anew with a view: whoever was primary before has paid, and may be better the next time."""
        self._newest_ready_ms.clear()

    def judge(self, oldest: Entry | None, primary: bytes | None) -> bool:
        """Returns whether the primary passed over the transaction that is ready longest, for too long."""
        return (
            oldest is not None
            and oldest.ready_ms is not None
            and primary is not None
            and self._newest_ready_ms.get(primary, 0) - oldest.ready_ms > self._bound_ms
        )
