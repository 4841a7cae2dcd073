"""Who is a validator: proposals, votes, when a change takes force, and what is refused."""

from __future__ import annotations

import pytest

from state.evidence import Offence
from state.ledger.validators import read_rule, read_rule_at
from tests.state.ledger.council import Council, consensus_key, hexed, node_key


def test_a_quorum_adds_a_validator_from_the_next_height_on():
    council = Council()
    before = council.world.validators
    number = council.decide(council.add(4))
    header = council.world.head
    assert council.names == ["v0", "v1", "v2", "v3", "v4"]
    assert header.validators_hash == before.hash
    assert header.next_validators_hash == council.world.validators.hash != before.hash
    assert read_rule(council.world) == (2, council.world.validators)
    council.blocks(2)
    assert council.world.head.validators_hash == council.world.validators.hash
    assert council.status(number) == "in_force"
    assert [read_rule_at(council.world, height).validators.n for height in range(5)] == [4, 4, 5, 5, 5]


def test_evidence_is_recorded_and_suspends_from_the_next_height_on():
    council = Council(5)
    council.blocks(2)
    assert council.block(evidence=[council.evidence("v2", 1)]) == []
    assert council.names == ["v0", "v1", "v3", "v4"]
    record = council.query("validator", name="v2")
    assert (record["in_force"], record["suspended"], record["until"], record["evidence_count"]) == (False, True, 4, 1)
    assert record["offences"] == [{"height": 1, "view": 0, "kind": "prepare"}]
    assert council.world.build(evidence=[council.evidence("v2", 1)]) is None
    council.decide(council.add(2, by=0), (1, 3))
    assert council.names == ["v0", "v1", "v2", "v3", "v4"]


def test_a_block_with_evidence_of_another_key_is_invalid():
    council = Council()
    forged = council.forged(1, 1, 0, Offence.PREPARE, council.set_at(1), consensus_key(3))
    assert council.world.build(evidence=[forged]) is None


@pytest.mark.parametrize("change", ["add", "replace"])
def test_a_change_without_possession_is_refused(change: str):
    council = Council()
    name = "v4" if change == "add" else "v1"
    wrong = {"key_proof": hexed(bytes(64)), "node_key_proof": hexed(bytes(64))}
    tx = council.propose(0, change, name, keys=(consensus_key(7), node_key(7)), **wrong)
    assert council.block(tx) == ["possession_unproved"]
