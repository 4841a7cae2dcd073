"""The primary's block size follows how long blocks take."""

from __future__ import annotations

from qenex_node.budget import TARGET_MS, UNITS_MIN, UNITS_START, UNITS_STEP, BlockBudget


def test_it_grows_by_a_step_when_a_full_block_is_quick() -> None:
    budget = BlockBudget(20_000)
    budget.committed(UNITS_START, 50)
    assert budget.units == UNITS_START + UNITS_STEP


def test_a_small_block_says_nothing_about_larger_ones() -> None:
    budget = BlockBudget(20_000)
    budget.committed(3, 5)
    assert budget.units == UNITS_START


def test_it_shrinks_to_what_the_time_allows_when_a_block_is_slow() -> None:
    budget = BlockBudget(20_000)
    budget.committed(UNITS_START, TARGET_MS * 4)
    assert budget.units == UNITS_START // 4


def test_it_never_falls_below_its_floor_nor_rises_above_the_chains_bound() -> None:
    budget = BlockBudget(UNITS_START + 100)
    for _ in range(20):
        budget.failed()
    assert budget.units == UNITS_MIN
    for _ in range(100):
        budget.committed(budget.units, 1)
    assert budget.units == UNITS_START + 100
