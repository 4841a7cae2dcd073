"""Where the node tells of what happened, and where subscriptions wait for it.

Nothing is queued for anyone: the feed keeps the newest blocks and a count of happenings. A subscription holds a cursor
of its own, reads what it lacks, and sleeps while there is nothing. So no subscriber costs memory by being slow, and
none can miss a block or get one twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from state.block import Block
from state.types import Address, Certificate

RECENT_BLOCKS: Final = 64
RECENT_BYTES: Final = 8 * 1024 * 1024
RECENT_TRANSACTIONS: Final = 8_192


@dataclass(frozen=True, slots=True)
class CommittedBlock:
    """A block that just became final, with each transaction's encoded receipt and the accounts that it touched."""

    block: Block
    certificate: Certificate
    receipt_bytes: tuple[bytes, ...]
    touched: tuple[Sequence[Address], ...]


class Feed:
    """The newest blocks, and the bell for whoever waits for something to happen."""

    def __init__(self) -> None:
        self._recent: deque[tuple[CommittedBlock, int]] = deque()
        self._bytes = 0
        self._transactions = 0
        self._sleepers = trio.lowlevel.ParkingLot()
        self.count = 0

    def committed(self, committed: CommittedBlock) -> None:
        """Tells of a block, once the store has it as its head. Never waits."""
        size = sum(map(len, committed.block.transactions)) + sum(map(len, committed.receipt_bytes))
        recent = self._recent
        if recent and recent[-1][0].block.header.height + 1 != committed.block.header.height:
            # The chain was rolled back or jumped: what is remembered no longer stands in one row with it.
            self._forget(len(recent))
        recent.append((committed, size))
        self._bytes += size
        self._transactions += len(committed.receipt_bytes)
        while len(recent) > 1 and (
            len(recent) > RECENT_BLOCKS or self._bytes > RECENT_BYTES or self._transactions > RECENT_TRANSACTIONS
        ):
            self._forget(1)
        self.changed()

    def _forget(self, count: int) -> None:
        for _ in range(count):
            committed, size = self._recent.popleft()
            self._bytes -= size
            self._transactions -= len(committed.receipt_bytes)

    def changed(self) -> None:
        """Tells that status or evidence changed. Never waits."""
        self.count += 1
        self._sleepers.unpark_all()

    def recent(self, height: int) -> CommittedBlock | None:
        """Returns the block of `height` if it is among the newest."""
        if not self._recent:
            return None
        place = height - self._recent[0][0].block.header.height
        return self._recent[place][0] if 0 <= place < len(self._recent) else None

    async def wait_beyond(self, seen: int) -> None:
        """Waits until something happened after `count` was `seen`."""
        while self.count == seen:
            await self._sleepers.park()
