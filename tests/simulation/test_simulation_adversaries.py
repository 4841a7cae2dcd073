"""Adversaries that stay within f: the chain stays one and goes on, and what they do is really hostile."""

from __future__ import annotations

from collections import Counter

import pytest

from devnet.simulation.__main__ import report
from devnet.simulation.cluster import run
from devnet.simulation.plan import PLANS
from devnet.simulation.plan_attacks import attacker, twins
from devnet.simulation.settings import PUPPET, TWIN
from devnet.simulation.twins import partitions


@pytest.mark.parametrize(
    ("plan", "first", "count"), [("attacker", 0, 20), ("hostile", 0, 15), ("twins", 2_000, 15), ("twins", 8_000, 10)]
)
def test_every_law_holds_against(plan, first, count):
    for seed in range(first, first + count):
        result = run(PLANS[plan](seed))
        assert result.violation is None, report(result, plan)
        assert result.height >= 10


def test_no_plan_has_more_faulty_validators_than_the_protocol_bears():
    for plan in (attacker, twins):
        drawn = Counter()
        for seed in range(6_600, 6_900):
            settings = plan(seed)
            faulty = sum(conduct in (TWIN, PUPPET) for conduct in settings.conducts)
            assert 1 <= faulty <= (settings.n - 1) // 3
            drawn[settings.n] += 1
        assert set(drawn) == {4, 5, 6, 7}


def test_the_first_seeds_of_twins_are_all_pairs_of_partitions():
    parted = partitions(5, 3)
    assert len(parted) == len(set(parted)) == 1 + 15 + 25
    seen = {(twins(seed).conducts, twins(seed).rounds[:2]) for seed in range(4 * len(parted) ** 2)}
    assert len(seen) == 4 * len(parted) ** 2
