"""A primary is accused of leaving out a transaction only where others that came much later were preferred."""

from __future__ import annotations

from typing import Any

from qenex_node.leftout import LeftOut
from qenex_node.mempool import Entry

BOUND_MS = 1_000
A, B = b"a", b"b"


def entry(ready_ms: int | None) -> Entry:
    tx: Any = object()
    return Entry(tx, 1, 0, ready_ms)


def test_a_long_queue_alone_accuses_nobody() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(100), entry(200)], A)
    assert not left_out.judge(entry(150), A)
    assert not left_out.judge(entry(5_000), A)


def test_one_that_came_much_earlier_than_what_was_committed_was_left_out() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(10_000)], A)
    assert left_out.judge(entry(10_000 - BOUND_MS - 1), A)
    assert not left_out.judge(entry(10_000 - BOUND_MS), A)


def test_what_never_became_ready_counts_on_neither_side() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(None)], A)
    assert not left_out.judge(entry(None), A)
    assert not left_out.judge(None, A)


def test_a_new_primary_is_not_accused_of_what_the_last_one_preferred() -> None:
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(10_000)], A)
    left_out.primary_changed()
    assert not left_out.judge(entry(100), A)
    left_out.committed([entry(10_000)], A)
    assert left_out.judge(entry(100), A)


def test_a_primary_is_not_accused_of_blocks_that_another_made() -> None:
    """The first block of a view is often one that its primary must propose again; and terms may end with heights."""
    left_out = LeftOut(BOUND_MS)
    left_out.committed([entry(10_000)], B)
    assert not left_out.judge(entry(100), A)
    assert not left_out.judge(entry(100), None)
    assert left_out.judge(entry(100), B)
