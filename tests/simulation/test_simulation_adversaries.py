"""Adversaries that stay within f: the chain stays one and goes on, and what they do is really hostile."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from consensus.messages import Kind, Suspect, Vote
from devnet.simulation.__main__ import report
from devnet.simulation.attacks import Groups
from devnet.simulation.cluster import correct_only, run
from devnet.simulation.liars import LIARS, WRONGS, Misproposer
from devnet.simulation.parcels import Spoken, Transactions
from devnet.simulation.plan import PLANS
from devnet.simulation.plan_attacks import attacker, liars, twin_pairs, twins
from devnet.simulation.schedule import SECOND
from devnet.simulation.settings import CORRECT, PUPPET, TWIN, Settings
from devnet.simulation.twins import RoundGate, partitions
from state.hashing import Hash
from state.types import Height, View

PLANNED = [("attacker", 0, 10), ("hostile", 0, 6), ("twins", 2_000, 6), ("twins", 8_000, 6), ("border", 0, 6)]
ATTACKED = (
    "attack: one decided, hidden",
    "attack: view opened, plain",
    "attack: view opened, floor",
    "attack: view opened, old",
    "attack: promise forgotten",
    "attack: border certified twice",
)


def test_every_law_holds_against_attackers_and_twins_whose_schemes_come_about():
    seen: Counter[str] = Counter()
    for plan, first, count in PLANNED:
        for seed in range(first, first + count):
            result = run(PLANS[plan](seed))
            assert result.violation is None, report(result, plan)
            assert result.height >= 10
            seen.update(result.counts)
    for event in (*ATTACKED, "evidence prepare", "view_entered new_view", "suspected view_change_unanswered"):
        assert seen[event], f"no run had the event {event!r}: the attacks have become too mild"


@pytest.mark.parametrize("name", LIARS)
def test_every_law_holds_against_the(name):
    for seed in range(3):
        settings = liars(seed)
        lying = tuple(CORRECT if conduct == CORRECT else name for conduct in settings.conducts)
        result = run(replace(settings, conducts=lying))
        assert result.violation is None, report(result, "liars")


@pytest.mark.parametrize("place", range(len(WRONGS)))
def test_a_block_that_is_invalid_in_one_way_is_never_final_and_costs_its_primary_the_view(place, monkeypatch):
    monkeypatch.setattr("devnet.simulation.liars.WRONGS", (WRONGS[place],))
    monkeypatch.setattr(Misproposer, "HONEST", 0.0)
    result = run(
        Settings(seed=place, conducts=("misproposer", *correct_only(3)), transactions=4, submit_until_us=SECOND)
    )
    assert result.violation is None
    assert result.view >= 1


def test_a_core_that_keeps_no_evidence_of_what_it_saw_is_caught(monkeypatch):
    monkeypatch.setattr("consensus.evidence.note", lambda core, found: None)
    violation = run(replace(liars(0), conducts=("liar", *correct_only(3)))).violation
    assert violation is not None
    assert violation.check == "evidence"


def test_twins_split_their_own_votes_and_a_view_has_its_partition():
    groups = (Groups(((0, 1), (2, 3, 4))), Groups(((0, 2, 4), (1, 3)), witnesses=(2,)))
    gate = RoundGate(groups)
    suspicion = Spoken(Suspect(Height(1), View(0), 0))
    commit = Spoken(Vote(Kind.COMMIT, Height(1), View(1), Hash(bytes(32)), 0))
    assert gate.takes(0, 2, suspicion, Kind.SUSPECT)
    assert not gate.takes(0, 1, suspicion, Kind.SUSPECT)
    assert not gate.takes(0, 2, commit, Kind.COMMIT)
    assert gate.takes(0, 4, commit, Kind.COMMIT)
    # What is no consensus message goes by the greatest view that was spoken of.
    assert not gate.takes(0, 2, Transactions(()), None)
    assert gate.takes(0, 1, Transactions(()), None)


def test_no_plan_has_more_faulty_validators_than_the_protocol_bears():
    for plan in (attacker, twins):
        drawn = Counter()
        for seed in range(6_700, 6_850):
            settings = plan(seed)
            faulty = sum(conduct in (TWIN, PUPPET) for conduct in settings.conducts)
            assert 1 <= faulty <= (settings.n - 1) // 3
            drawn[settings.n] += 1
        assert set(drawn) == {4, 5, 6, 7}


def test_the_first_seeds_of_twins_are_all_pairs_of_partitions():
    parted, pairs = partitions(5, 3), twin_pairs()
    assert len(parted) == len(set(parted)) == 1 + 15 + 25
    assert len(pairs) == len(set(pairs)) == 4 * len(parted) ** 2
    for seed in (0, 1, 2_000, len(pairs) - 1):
        settings, (twin, first, second) = twins(seed), pairs[seed]
        assert [index for index, conduct in enumerate(settings.conducts) if conduct == TWIN] == [twin]
        assert [groups.groups for groups in settings.rounds[:2]] == [first, second]
