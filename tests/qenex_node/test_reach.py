"""Who is within reach: heard lately, and not lost with a connection that ended."""

from __future__ import annotations

import pytest

from qenex_node.reach import IN_FLIGHT_SECONDS, LOST_SECONDS, REACHABLE_SECONDS, Reach
from tests.state.store.store_support import VALIDATOR_KEYS, VALIDATORS

KEYS = [key.public.data for key in VALIDATOR_KEYS]


def test_those_heard_lately_count_and_the_own_key_always_does() -> None:
    reach = Reach()
    for key, at in zip(KEYS, (0.0, 1.0, 2.0, 3.0), strict=False):
        reach.heard(key, at)
    assert reach.count(VALIDATORS, None, REACHABLE_SECONDS + 1.5) == 2
    assert reach.count(VALIDATORS, KEYS[0], REACHABLE_SECONDS + 1.5) == 3


@pytest.mark.parametrize(
    ("heard_after", "lost"), [(None, True), (IN_FLIGHT_SECONDS / 2, True), (IN_FLIGHT_SECONDS * 1.5, False)]
)
def test_a_validator_is_lost_unless_it_is_heard_later_than_its_last_words(
    heard_after: float | None, lost: bool
) -> None:
    reach = Reach()
    reach.lost(KEYS[1], 10.0)
    assert not reach.is_lost(KEYS[1], 10.0 + LOST_SECONDS / 2)
    if heard_after is not None:
        reach.heard(KEYS[1], 10.0 + heard_after)
    assert reach.is_lost(KEYS[1], 10.0 + LOST_SECONDS) is lost
    assert not reach.is_lost(KEYS[2], 10.0 + LOST_SECONDS)


def test_a_connection_made_again_ends_the_loss() -> None:
    reach = Reach()
    reach.lost(KEYS[1], 10.0)
    reach.joined(KEYS[1])
    assert not reach.any_lost
    assert not reach.is_lost(KEYS[1], 20.0)


def test_who_left_the_set_is_forgotten() -> None:
    reach = Reach()
    reach.lost(b"\x00" * 32, 10.0)
    reach.lost(KEYS[1], 10.0)
    reach.keep(VALIDATORS)
    assert not reach.is_lost(b"\x00" * 32, 20.0)
    assert reach.is_lost(KEYS[1], 20.0)
