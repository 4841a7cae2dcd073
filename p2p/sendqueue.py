"""What waits to be written to one peer: lanes in order of urgency, bounded in bytes. No I/O, no clock.

Lanes leave in the order of `wire.Lane`, each first in, first out. One rule crosses them: a proposal must not overtake
the transactions that it names, or the peer would ask for what is already under way to it. A frame pushed
`after_transactions` while transactions wait takes these along into a stretch of its own, between the consensus lane and
the blocks lane: votes still pass, and neither the transactions nor the proposal wait for anything below.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from p2p.limits import QUEUE_BYTES_MAX
from p2p.wire import Lane


class SendQueue:
    """The frames queued for one peer."""

    def __init__(self, bytes_max: int = QUEUE_BYTES_MAX) -> None:
        """Takes the bound on queued bytes."""
        self._bytes_max = bytes_max
        self._lanes: Final = {lane: deque[bytes]() for lane in Lane}
        self._promoted: Final = deque[bytes]()
        self._order: Final = (
            self._lanes[Lane.CONSENSUS],
            self._promoted,
            self._lanes[Lane.BLOCKS],
            self._lanes[Lane.TRANSACTIONS],
            self._lanes[Lane.SYNC],
        )
        self.bytes = 0

    def push(self, frame: bytes, lane: Lane, *, after_transactions: bool = False) -> bool:
        """Queues a frame; returns False, and changes nothing, if the queue would pass its bound."""
        if self.bytes + len(frame) > self._bytes_max:
            return False
        self.bytes += len(frame)
        if after_transactions and (self._promoted or self._lanes[Lane.TRANSACTIONS]):
            self._promoted.extend(self._lanes[Lane.TRANSACTIONS])
            self._lanes[Lane.TRANSACTIONS].clear()
            self._promoted.append(frame)
        else:
            self._lanes[lane].append(frame)
        return True

    def take(self, bytes_max: int) -> bytes:
        """Removes and returns the most urgent frames, joined: as many as fit `bytes_max`, but at least one if any."""
        taken: list[bytes] = []
        size = 0
        for lane in self._order:
            while lane:
                if taken and size + len(lane[0]) > bytes_max:
                    self.bytes -= size
                    return b"".join(taken)
                frame = lane.popleft()
                taken.append(frame)
                size += len(frame)
        self.bytes -= size
        return b"".join(taken)

    def clear(self) -> None:
        """Forgets everything queued."""
        for lane in self._order:
            lane.clear()
        self.bytes = 0
