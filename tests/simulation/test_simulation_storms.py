"""Networks under faults, liars and losses of power keep to every law, and go on once it is over."""

from __future__ import annotations

from collections import Counter

import pytest

from devnet.simulation.__main__ import report
from devnet.simulation.cluster import run
from devnet.simulation.plan import draw

SEEDS = 140
SEEDS_A_TEST = 20


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_every_law_holds_and_all_becomes_final_in(first):
    for seed in range(first, first + SEEDS_A_TEST):
        result = run(draw(seed))
        assert result.violation is None, report(result)


def test_storms_reach_what_they_are_for():
    seen: Counter[str] = Counter()
    for seed in range(10_000, 10_060):
        result = run(draw(seed))
        assert result.violation is None, report(result)
        seen.update(result.counts)
    for event in (
        "behind proven",
        "evidence commit",
        "evidence pre_prepare",
        "evidence prepare",
        "proposal not_yet",
        "proposed to add",
        "proposed to remove",
        "proposed to replace",
        "sets changed",
        "stopped storage_failed",
        "signing recovered",
        "suspected equivocation",
        "suspected left_out",
        "suspected no_progress",
        "suspected view_change_unanswered",
        "view_entered certificate",
        "view_entered new_view",
    ):
        assert seen[event], f"no run of sixty had the event {event!r}: the faults have become too mild"
