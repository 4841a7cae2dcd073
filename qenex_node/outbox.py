"""What consensus wants to say leaves only once what it must remember is durable.

The core's effects come in order: a `persist` binds every later send. Records that come while a write is under way are
gathered into the next synced write (group commit), with the sends that they bind; with nothing to write, a send leaves
at once. If a write fails, nothing that it binds is ever sent: the error ends the node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

R = TypeVar("R")

Write = Callable[[Sequence[R]], Awaitable[None]]


class Outbox(Generic[R]):
    """The queue between the core's effects and the world; `R` is the type of a durable record."""

    def __init__(self, write: Write[R]) -> None:
        """Takes what writes records in one synced batch and returns when they are durable."""
        self._write = write
        self._records: list[R] = []
        self._sends: list[Callable[[], None]] = []
        self._writing = False
        self._wake = trio.Event()
        self.writes = 0

    def persist(self, records: Sequence[R]) -> None:
        """Queues records for the next write."""
        self._records.extend(records)
        self._wake.set()

    def send(self, action: Callable[[], None]) -> None:
        """Runs `action` once all records queued so far are durable: now, if they are."""
        if self._writing or self._records:
            self._sends.append(action)
        else:
            action()

    async def run(self) -> None:
        """Writes and sends until cancelled; raises what `write` raises."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._records or self._sends:
                records, self._records = self._records, []
                sends, self._sends = self._sends, []
                if records:
                    self._writing = True
                    await self._write(records)
                    self._writing = False
                    self.writes += 1
                for action in sends:
                    action()
