"""When a node is alive, ready, or must not vote, and that each answer says why."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from qenex_node.exitcodes import MEANINGS, ExitCode, exit_code_of
from qenex_node.health import DiskGuard, Readings, check_disk, not_ready, recovering
from qenex_node.rpc.view import Reason
from state.errors import Rejected

READY = Readings(
    head_height=100,
    target_height=100,
    validators_reachable=3,
    quorum=3,
    work_waiting_ms=0,
    clock_offset_ms=5.0,
)


def codes(**changes: Any) -> list[str]:
    return [reason.code for reason in not_ready(dataclasses.replace(READY, **changes))]


def test_a_quorum_within_reach_and_a_close_head_is_ready() -> None:
    assert codes() == []
    assert codes(target_height=108) == []
    assert codes(clock_offset_ms=None) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"validators_reachable": 2}, "no_quorum"),
        ({"target_height": 109}, "head_behind"),
        ({"vote_refusal": Reason("votes_missing", "no vote records")}, "votes_missing"),
        ({"work_waiting_ms": 10_001}, "stalled"),
        ({"clock_offset_ms": -2_001.0}, "clock_off"),
    ],
)
def test_each_reason_against_is_named(changes: dict[str, Any], code: str) -> None:
    assert codes(**changes) == [code]


def test_all_reasons_are_listed_the_most_important_first() -> None:
    reasons = not_ready(dataclasses.replace(READY, validators_reachable=1, target_height=500, work_waiting_ms=20_000))
    assert dict(reasons[0].data) == {"reachable": 1, "quorum": 3}
    assert [reason.code for reason in reasons] == ["no_quorum", "head_behind", "stalled"]


def test_a_recovery_says_what_it_waits_for_as_soon_as_that_is_known() -> None:
    known = recovering(12, 10, 9)
    assert known.code == "recovering"
    assert dict(known.data) == {"signed_at_most": 10, "recovers_at": 12, "blocks_left": 3}
    # The commit at that height may hold a vote of ours: then one more is waited for, at least.
    assert dict(recovering(12, 10, 12).data)["blocks_left"] == 1
    assert set(dict(recovering(None, None, 9).data).values()) == {None}


def test_low_disk_refuses_to_vote_until_there_is_some_slack() -> None:
    guard = DiskGuard(1000)
    said = [guard.refusal(free) is None for free in (1000, 999, 1050, 1100, 1050)]
    assert said == [True, False, False, True, True]
    reason = DiskGuard(1000).refusal(1)
    assert reason is not None
    assert reason.code == "disk_low"


def test_a_start_with_low_disk_is_refused_by_name() -> None:
    check_disk(1000, 1000)
    with pytest.raises(Rejected) as caught:
        check_disk(999, 1000)
    assert caught.value.code == "disk_low"
    assert exit_code_of(caught.value.code) == ExitCode.DISK_LOW


def test_every_exit_code_is_documented_and_unknown_refusals_have_one() -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert exit_code_of("never_heard_of") == ExitCode.REFUSED
