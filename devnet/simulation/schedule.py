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
        self.finished = False
        self._queue: list[tuple[int, int, Action]] = []
        self._serial = 0

    def after(self, delay_us: int, action: Action) -> None:
        """Lets `action` happen in so many microseconds from now (at once, but not within this call, for 0)."""
        self._serial += 1
        heapq.heappush(self._queue, (self.now_us + max(0, delay_us), self._serial, action))

    def at(self, time_us: int, action: Action) -> None:
        """Lets `action` happen at a time, or now if that is past."""
        self.after(time_us - self.now_us, action)

    def clear(self) -> None:
        """Forgets what was to happen."""
        self._queue.clear()

    def run(self, until_us: int) -> bool:
        """Acts until an action sets `finished`, or until the time is up; returns whether finished."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_us and not self.finished:
            self.now_us, _, action = pop(queue)
            self.actions_done += 1
            action()
        return self.finished
