"""The primary's block size follows how long blocks take."""

from __future__ import annotations

from qenex_node.budget import TARGET_MS, UNITS_MIN, UNITS_START, UNITS_STEP, BlockBudget, phases_ms


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


def test_far_apart_the_way_of_the_messages_makes_no_block_smaller() -> None:
    budget = BlockBudget(20_000)
    budget.committed(UNITS_START, TARGET_MS + 150, travel_ms=150)
    assert budget.units == UNITS_START + UNITS_STEP


def test_the_network_is_given_half_as_much_again_at_most() -> None:
    budget = BlockBudget(20_000)
    budget.committed(UNITS_START, TARGET_MS * 2, travel_ms=TARGET_MS)
    assert budget.units == UNITS_START * 2 // 3


def test_three_phases_travel_one_way_each_with_the_nearest_of_a_quorum() -> None:
    assert phases_ms([100.0, 4.0, 300.0], 2) == 150
    assert phases_ms([100.0, None, None], 2) == 0
    assert phases_ms([], 0) == 0
