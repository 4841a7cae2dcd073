"""Simulated time: what happens next, and when. Knows nothing of who acts.

Times are whole microseconds since the simulation began, so that equal seeds give equal runs on every machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, TypeAlias

Action: TypeAlias = Callable[[], None]

MS: Final = 1_000
SECOND: Final = 1_000_000


class Schedule:
    """A queue of actions in order of time; those of one moment happen in the order in which they were added."""

    def __init__(self) -> None:
        self.now_us = 0
        self.actions_done = 0
        self._queue: list[tuple[int, int, Action]] = []
        self._serial = 0

    def after(self, delay_us: int, action: Action) -> None:
        """Lets `action` happen in so many microseconds from now (at once, but not within this call, for 0)."""
        self._serial += 1
        heapq.heappush(self._queue, (self.now_us + max(0, delay_us), self._serial, action))

    def at(self, time_us: int, action: Action) -> None:
        """Lets `action` happen at a time, or now if that is past."""
        self.after(time_us - self.now_us, action)

    def run(self, until_us: int, finished: Callable[[], bool]) -> bool:
        """Acts until `finished`, asked after each action, or until the time is up; returns whether finished."""
        while self._queue and self._queue[0][0] <= until_us:
            self.now_us, _, action = heapq.heappop(self._queue)
            self.actions_done += 1
            action()
            if finished():
                return True
        return False
