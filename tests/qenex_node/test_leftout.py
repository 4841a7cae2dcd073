"""A primary is accused of leaving out a transaction only where others that came much later were preferred."""

from __future__ import annotations

from typing import Any

from qenex_node.leftout import LeftOut
from qenex_node.mempool import Entry

BOUND_MS = 1_000


def entry(ready_ms: int | None) -> Entry:
    tx: Any = object()
    return Entry(tx, 1, 0, ready_ms)


def test_a_long_queue_alone_accuses_nobody() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(100), entry(200)])
    assert not left_out.judge(entry(150))
    assert not left_out.judge(entry(5_000))


def test_one_that_came_much_earlier_than_what_was_committed_was_left_out() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(10_000)])
    assert left_out.judge(entry(10_000 - BOUND_MS - 1))
    assert not left_out.judge(entry(10_000 - BOUND_MS))


def test_what_never_became_ready_counts_on_neither_side() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(None)])
    assert not left_out.judge(entry(None))
    assert not left_out.judge(None)


def test_a_new_primary_is_not_accused_of_what_the_last_one_preferred() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(10_000)])
    left_out.primary_changed()
    assert not left_out.judge(entry(100))
    left_out.committed([entry(10_000)])
    assert left_out.judge(entry(100))
