"""Long work in slices: a generator that yields where it may be interrupted and returns its result.

The state package never waits and knows no event loop. Work that can last longer than a few milliseconds (executing a
block, updating the tree) is written as such a generator; whoever runs it decides what happens between two slices.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]


def run(work: Slices[T]) -> T:
    """Runs `work` to its end without a pause and returns its result; its exceptions pass through."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
