"""Which votes stand together: one view alone, whatever is dropped for room, and a variant breaks this rule only."""

from __future__ import annotations

import pytest
from cluster import Cluster
from variants import MixedViews

from consensus.messages import Kind
from consensus.rules import Rules
from consensus.tally import VIEWS_KEPT_MAX, Tally
from state.hashing import Hash
from state.types import View

CLUSTER = Cluster(4, byzantine="abcd")
B, X = Hash(bytes(32)), Hash(bytes([1]) * 32)


@pytest.mark.parametrize("rules", [Rules(), MixedViews()], ids=["rules", "variant"])
def test_only_the_newest_views_of_a_sender_are_kept_and_their_votes_still_stand(rules: Rules) -> None:
    tally = Tally(rules)
    for view in range(3 * VIEWS_KEPT_MAX):
        for name in "abc":
            tally.add(CLUSTER.forger(name).vote(Kind.COMMIT, 1, view, B))
        assert tally.count(Kind.COMMIT, View(view), B) == 3
        assert len(tally.decided(3)) == 3
    assert tally.mask(Kind.COMMIT, 0) == 0
    assert tally.add(CLUSTER.forger("d").vote(Kind.COMMIT, 1, 0, B))[0] == (1 if type(rules) is Rules else 4)


def test_votes_of_two_views_stand_apart_and_the_variant_lets_them_stand_together() -> None:
    for rules, together in ((Rules(), 1), (MixedViews(), 3)):
        tally = Tally(rules)
        for view, name in enumerate("abc"):
            tally.add(CLUSTER.forger(name).vote(Kind.PREPARE, 1, view, B))
            tally.add(CLUSTER.forger(name).vote(Kind.COMMIT, 1, view, B))
        assert [tally.count(Kind.PREPARE, View(view), B) for view in range(3)] == [together] * 3
        assert len(tally.standing(Kind.PREPARE, View(1), B)) == together
        assert (tally.decided(3) is None) is (together == 1)
        assert tally.count(Kind.PREPARE, View(0), X) == 0
