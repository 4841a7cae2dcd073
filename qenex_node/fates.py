"""Who waits for which transaction: until enough validators hold it, or until its fate is final.

A waiter may wait for many transactions at once and is woken once, when the last of them is settled. Nothing here knows
what a fate means: the node tells `accepted` and `settled`, the waiter then looks at the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from state.types import TxId


@dataclass(slots=True, eq=False)
class _Waiter:
    remaining: int
    event: trio.Event = field(default_factory=trio.Event)


class Fates:
    """The waiters, by transaction; bounded by the callers, who each wait within a time limit."""

    def __init__(self) -> None:
        self._accepted: dict[TxId, list[_Waiter]] = {}
        self._settled: dict[TxId, list[_Waiter]] = {}

    def __len__(self) -> int:
        return len(self._accepted) + len(self._settled)

    def accepted(self, tx_id: TxId) -> None:
        """Wakes those who wait for the transaction to be held by enough validators."""
        _wake(self._accepted, tx_id)

    def settled(self, tx_ids: Iterable[TxId]) -> None:
        """Wakes all who wait for these transactions: they are committed, expired or dropped."""
        if not self._accepted and not self._settled:
            return
        for tx_id in tx_ids:
            _wake(self._accepted, tx_id)
            _wake(self._settled, tx_id)

    async def wait_accepted(self, tx_ids: Sequence[TxId], seconds: float) -> None:
        """Waits until all are accepted or settled, at most `seconds`."""
        await _wait(self._accepted, tx_ids, seconds)

    async def wait_settled(self, tx_ids: Sequence[TxId], seconds: float) -> None:
        """Waits until all are settled, at most `seconds`."""
        await _wait(self._settled, tx_ids, seconds)


def _wake(waiters: dict[TxId, list[_Waiter]], tx_id: TxId) -> None:
    for waiter in waiters.pop(tx_id, ()):
        waiter.remaining -= 1
        if waiter.remaining == 0:
            waiter.event.set()


async def _wait(waiters: dict[TxId, list[_Waiter]], tx_ids: Sequence[TxId], seconds: float) -> None:
    if not tx_ids:
        return
    waiter = _Waiter(len(tx_ids))
    for tx_id in tx_ids:
        waiters.setdefault(tx_id, []).append(waiter)
    try:
        with trio.move_on_after(seconds):
            await waiter.event.wait()
    finally:
        if waiter.remaining:
            for tx_id in tx_ids:
                queue = waiters.get(tx_id)
                if queue is not None and waiter in queue:
                    queue.remove(waiter)
                    if not queue:
                        del waiters[tx_id]
