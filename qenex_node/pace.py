"""Keeps long work from holding the event loop: slices of a few milliseconds, then everyone else's turn."""

from __future__ import annotations

import time
from typing import Final, TypeVar

import trio

from state.slices import Slices
from state.store.snapshots.work import Work

T = TypeVar("T")

SLICE_SECONDS: Final = 0.003


class Pace:
    """Counts the time since the loop was last given away; `rest` gives it away once that is enough."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def tired(self) -> bool:
        """Whether the slice is used up."""
        return time.perf_counter() - self._began > SLICE_SECONDS

    async def rest(self) -> None:
        """Lets all other tasks run once, and begins a new slice."""
        await trio.lowlevel.checkpoint()
        self._began = time.perf_counter()


async def drive(work: Slices[T]) -> T:
    """Runs sliced work to its end with pauses for the other tasks, and returns its result.

    A cancellation falls between two slices and closes the work.
    """
    pace = Pace()
    try:
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if pace.tired:
                await pace.rest()
    finally:
        work.close()


async def drive_work(work: Work[T], share: float = 1.0) -> T:
    """Runs work that also waits for the disk, in slices as `drive` does and with the rest in a worker thread.

    `share` is how much of the loop's time it may take at most, from above 0 to 1: it rests between the slices.
    """
    pace = Pace()
    try:
        blocking = next(work)
        while True:
            try:
                if blocking is not None:
                    await trio.to_thread.run_sync(blocking)
                elif pace.tired:
                    await _rest(pace, share)
            except BaseException as error:
                blocking = work.throw(error)
            else:
                blocking = next(work)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        work.close()


async def _rest(pace: Pace, share: float) -> None:
    if share < 1.0:
        await trio.sleep(SLICE_SECONDS * (1 / share - 1))
    await pace.rest()
