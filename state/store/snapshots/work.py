"""Long work that also waits for the disk: a generator whose runner decides where each of its parts is done.

It yields None where it may be interrupted, and a function where something must be called that may wait for the disk:
a node calls that in a worker thread, so that its event loop never waits. The next step sees it done; its exception is
raised where it was yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Blocking: TypeAlias = Callable[[], None]

Work: TypeAlias = Generator[Blocking | None, None, T]


def elsewhere(call: Callable[[], T]) -> Work[T]:
    """Has a function called that may wait for the disk, and returns its result."""
    held: list[T] = []
    yield lambda: held.append(call())
    return held[0]


def run(work: Work[T]) -> T:
    """Runs `work` to its end here and now and returns its result; its exceptions pass through."""
    try:
        blocking = next(work)
        while True:
            try:
                if blocking is not None:
                    blocking()
            except BaseException as error:
                blocking = work.throw(error)
            else:
                blocking = next(work)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
