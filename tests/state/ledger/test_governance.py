"""Who is a validator: proposals, votes, when a change takes force, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from state import slices
from state.address import to_text
from state.codec import encode
from state.errors import InvariantError, Rejected
from state.hashing import sha256
from state.keys import Policy
from state.ledger import DEFAULT_PLUGINS, Environment
from state.ledger.context import Context
from state.ledger.domains.governance.records import read_agenda, reading
from state.ledger.domains.governance.rules import (
    CLOSED_KEPT_MAX,
    EXPIRY_AHEAD_MS_MAX,
    EXPIRY_MS_DEFAULT,
    FROM_HEIGHT_AHEAD_MAX,
    OPEN_PER_VALIDATOR_MAX,
)
from state.ledger.plugin import Plugin
from state.ledger.validators import decode_former, read_rule, rule_at, rule_key, rules_back
from state.transaction import decode_for_simulation
from state.tree import proof
from state.tree.prove import prove
from state.types import ValidatorSet
from tests.state.ledger.council import Council, consensus_key, hexed, node_key
from tests.state.ledger.world import START_MS, World, key, pay, validator


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
    assert [rule_at(rules_back(council.world), height).validators.n for height in range(5)] == [4, 4, 5, 5, 5]


def test_a_former_set_is_proved_by_the_state_alone():
    council = Council()
    council.decide(council.add(4))
    added = council.world.validators
    council.decide(council.propose(0, "remove", "v1"), (1, 2, 3))
    council.blocks(3)
    world = council.world
    value = world.state[rule_key(2)]
    assert decode_former(value) == (1, added)
    shown = prove(world.nodes, council.height, sha256(rule_key(2)))
    proof.verify(shown, world.head.state_root, rule_key(2), value)
    with pytest.raises(Rejected):
        proof.verify(shown, world.head.state_root, rule_key(2), world.state[rule_key(3)])


def test_a_minority_changes_nothing():
    council = Council(7)
    number = council.next_number
    votes = [council.vote(voter, number) for voter in (1, 2, 3)]
    assert council.block(council.add(7), *votes) == ["ok"] * 4
    council.blocks(2)
    assert council.status(number) == "open"
    assert council.names == [f"v{n}" for n in range(7)]


def test_a_validator_is_removed_and_its_operator_may_no_longer_vote():
    council = Council(5)
    council.decide(council.propose(0, "remove", "v3"), (1, 2, 4))
    assert council.names == ["v0", "v1", "v2", "v4"]
    council.block(council.add(3))
    assert council.block(council.vote(3, 2)) == ["not_authorised"]
    record = council.query("validator", name="v3")
    assert (record["in_force"], record["since"], record["until"], record["suspended"]) == (False, 1, 2, False)


def test_keys_are_rotated_and_the_operator_stays():
    council = Council()
    operator = council.query("validator", name="v2")["operator"]
    new = (consensus_key(22), node_key(22))
    council.decide(council.propose(0, "replace", "v2", keys=new), (1, 3))
    (rotated,) = [v for v in council.world.validators.validators if v.name == "v2"]
    assert (rotated.key, rotated.node_key) == (new[0].public.data, new[1].public.data)
    record = council.query("validator", name="v2")
    assert (record["key"], record["operator"], record["since"]) == (hexed(rotated.key), operator, 2)
    # Its vote is cast by the operator that it had, and counts for its new key.
    council.block(council.add(9), council.vote(2, 2))
    assert council.query("proposal", proposal=2)["approvals"] == ["v0", "v2"]


def test_a_node_key_alone_is_replaced():
    council = Council()
    given = council.fields_of(council.proposal(0, "replace", "v2", keys=(consensus_key(2), node_key(22))))
    tx = council.propose(0, "replace", "v2", node_key=given["node_key"], node_key_proof=given["node_key_proof"])
    council.decide(tx, (1, 3))
    (changed,) = [v for v in council.world.validators.validators if v.name == "v2"]
    assert (changed.key, changed.node_key) == (consensus_key(2).public.data, node_key(22).public.data)
    record = council.query("validator", name="v2")
    assert (record["since"], record["node_key"]) == (1, hexed(changed.node_key))


def test_an_operator_is_replaced_without_a_change_of_the_set():
    council = Council()
    before = council.world.validators
    number = council.decide(council.propose(0, "replace", "v2", operator=to_text(key(5).address)), (1, 3))
    assert council.world.validators == before
    assert read_rule(council.world).first == 1
    assert council.status(number) == "in_force"
    council.block(council.add(9))
    assert council.block(council.vote(2, 2)) == ["not_authorised"]
    assert council.block(council.vote(2, 2, signer=key(5))) == ["ok"]


def test_an_operator_may_be_several_keys():
    council = Council()
    policy = Policy.of(2, (key(5).public, key(6).public))
    council.decide(council.propose(0, "replace", "v2", operator=to_text(policy.address)), (1, 3))
    council.block(council.add(9))
    vote = council.world.ledger.build("governance_vote", {"proposal": 2, "by": "v2", "approve": True})
    signers = {policy.address: [key(5), key(6)]}
    tx = council.world.tx(policy.address, vote, keys=signers, policies={policy.address: policy})
    assert council.block(tx) == ["ok"]


def test_the_operator_need_not_be_the_sender():
    council = Council()
    operation = council.proposal(0, "remove", "v1")
    assert council.block(council.world.tx(key(1), operation)) == ["not_authorised"]
    council = Council(5)
    operation = council.proposal(0, "remove", "v1")
    assert council.block(council.world.tx(key(1), operation, signers=[consensus_key(0)])) == ["ok"]


# When


def test_a_stated_height_is_kept_and_waits_for_blocks_not_for_time():
    council = Council()
    number = council.decide(council.add(4, from_height=6))
    assert council.status(number) == "accepted"
    council.block(time_ms=council.world.head.time_ms + 50_000)
    council.blocks(2)
    assert (council.height, len(council.names)) == (4, 4)
    council.block()
    assert (council.height, len(council.names)) == (5, 5)
    assert read_rule(council.world).first == 6
    assert council.query("proposal", proposal=number)["height"] == 6


def test_one_change_takes_force_a_height_in_the_order_of_height_and_number():
    council = Council()
    later = council.decide(council.add(4, from_height=7))
    first = council.decide(council.add(5, by=1, from_height=6), (0, 2))
    second = council.decide(council.add(6, by=2, from_height=6), (0, 1))
    council.blocks(2)
    assert council.names == ["v0", "v1", "v2", "v3", "v5"]
    council.block()
    assert council.names == ["v0", "v1", "v2", "v3", "v5", "v6"]
    council.block()
    assert council.names == ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]
    assert [council.query("proposal", proposal=n)["height"] for n in (later, first, second)] == [8, 6, 7]


def test_changes_accepted_in_one_block_take_force_one_after_another():
    council = Council()
    proposals = [council.add(4), council.add(5, by=1)]
    votes = [council.vote(v, number) for number, voters in ((1, (1, 2)), (2, (0, 2))) for v in voters]
    assert council.block(*proposals, *votes) == ["ok"] * 6
    assert len(council.names) == 5
    council.block()
    assert len(council.names) == 6


def test_a_change_that_cannot_be_made_any_more_has_failed():
    council = Council(5)
    first = council.decide(council.propose(0, "remove", "v2", from_height=5), (1, 4, 3))
    second = council.decide(council.propose(0, "remove", "v3", from_height=5), (1, 4, 2))
    same = council.decide(council.propose(1, "remove", "v2", from_height=5), (0, 4, 3))
    council.blocks(3)
    assert council.names == ["v0", "v1", "v3", "v4"]
    told = [council.query("proposal", proposal=n) for n in (first, second, same)]
    assert [(p["status"], p["reason"]) for p in told] == [
        ("in_force", ""),
        ("failed", "validators_too_few"),
        ("failed", "validator_unknown"),
    ]


def test_a_proposal_whose_stated_height_has_come_is_closed():
    council = Council()
    number = council.next_number
    council.block(council.add(4, from_height=3))
    assert council.block(council.vote(1, number), council.vote(2, number)) == ["ok", "ok"]
    assert council.status(number) == "in_force"
    number = council.next_number
    council.block(council.add(5, from_height=5))
    council.block()
    assert council.status(number) == "open"
    assert council.block(council.vote(1, number)) == ["proposal_closed"]
    assert council.status(number) == "expired"


def test_a_proposal_expires_by_the_time_of_blocks():
    council = Council()
    expires_ms = council.world.head.time_ms + 5_000
    number = council.next_number
    council.block(council.add(4, expires_ms=expires_ms))
    assert council.block(council.vote(1, number), time_ms=expires_ms) == ["ok"]
    assert council.block(council.vote(2, number), time_ms=expires_ms + 1) == ["proposal_closed"]
    assert council.status(number) == "expired"
    assert council.query("proposals") == {"proposals": []}


def test_without_an_expiry_a_proposal_has_seven_days():
    council = Council()
    council.block(council.add(4))
    assert council.query("proposal", proposal=1)["expires_ms"] == council.world.head.time_ms + EXPIRY_MS_DEFAULT


# Votes


def test_a_vote_may_be_changed_until_the_decision_and_rejections_close():
    council = Council()
    council.block(council.add(4), council.vote(1, 1, False))
    council.block(council.vote(1, 1), council.vote(3, 1, False))
    told = council.query("proposal", proposal=1)
    assert (told["approvals"], told["rejections"], told["status"]) == (["v0", "v1"], ["v3"], "open")
    council.block(council.vote(1, 1, False))
    assert council.status(1) == "rejected"
    assert council.block(council.vote(1, 1)) == ["proposal_closed"]
    assert council.block(council.vote(1, 8)) == ["proposal_unknown"]


def test_votes_of_validators_who_left_do_not_count():
    council = Council(6)
    assert council.world.validators.quorum == 4
    council.block(council.add(8), council.vote(4, 1), council.vote(5, 1))
    for name, voters in (("v4", (1, 2, 3)), ("v5", (1, 2, 3))):
        council.decide(council.propose(0, "remove", name), voters)
    assert council.names == ["v0", "v1", "v2", "v3"]
    assert council.query("proposal", proposal=1)["approvals"] == ["v0"]
    council.block(council.vote(1, 1))
    assert council.status(1) == "open"
    council.block(council.vote(2, 1))
    assert council.status(1) == "in_force"


def test_the_quorum_is_that_of_the_set_in_force_when_votes_are_counted():
    council = Council(7)
    council.block(council.add(8), council.vote(1, 1), council.vote(2, 1))
    for name in ("v6", "v5", "v4"):
        number = council.next_number
        voters = [n for n in range(1, 7) if f"v{n}" in council.names and f"v{n}" != name]
        council.block(council.propose(0, "remove", name), *(council.vote(v, number) for v in voters[:4]))
    assert (len(council.names), council.world.validators.quorum) == (4, 3)
    assert council.status(1) == "open"
    # Nobody new has to approve: to vote again is to have the votes counted again.
    council.block(council.vote(2, 1))
    assert council.status(1) == "in_force"


def test_proposals_and_votes_are_told_by_events():
    council = Council()
    receipts = council.world.block(council.add(4), council.vote(1, 1), council.vote(2, 1))
    told = [council.world.ledger.receipt_to_json(receipt)["events"] for receipt in receipts]
    kinds = [[event["kind"].removeprefix("governance_") for event in events] for events in told]
    assert kinds == [["proposed", "voted"], ["voted"], ["voted", "decided"]]
    assert told[2][1]["fields"] == {"proposal": 1, "accepted": True}


# What is refused


REFUSED = [
    ("remove", "v9", {}, "validator_unknown"),
    ("remove", "v1", {}, "validators_too_few"),
    ("add", "v1", {"keys": (consensus_key(9), node_key(9))}, "validator_exists"),
    ("add", "v9", {"keys": (consensus_key(1), node_key(9))}, "key_in_use"),
    ("add", "v9", {"keys": (consensus_key(9), node_key(1))}, "key_in_use"),
    ("add", "v9", {"keys": (node_key(1), node_key(9))}, "key_in_use"),
    ("add", "v9", {"keys": (consensus_key(9), consensus_key(9))}, "key_in_use"),
    ("replace", "v9", {"keys": (consensus_key(9), node_key(9))}, "validator_unknown"),
    ("replace", "v1", {"keys": (consensus_key(2), node_key(9))}, "key_in_use"),
    ("replace", "v1", {"keys": (consensus_key(1), node_key(1))}, "change_empty"),
    ("add", "v9", {"keys": (consensus_key(9), node_key(9)), "key_proof": hexed(bytes(64))}, "possession_unproved"),
    (
        "replace",
        "v1",
        {"keys": (consensus_key(9), node_key(9)), "node_key_proof": "0x" + "11" * 64},
        "possession_unproved",
    ),
    (
        "replace",
        "v1",
        {"keys": (consensus_key(9), node_key(9)), "key": hexed(key(7).public.data)},
        "possession_unproved",
    ),
    ("add", "v9", {"keys": (consensus_key(9), node_key(9)), "from_height": 1}, "height_invalid"),
    (
        "add",
        "v9",
        {"keys": (consensus_key(9), node_key(9)), "from_height": FROM_HEIGHT_AHEAD_MAX + 2},
        "height_invalid",
    ),
    ("add", "v9", {"keys": (consensus_key(9), node_key(9)), "expires_ms": START_MS}, "expiry_invalid"),
    (
        "add",
        "v9",
        {"keys": (consensus_key(9), node_key(9)), "expires_ms": START_MS + EXPIRY_AHEAD_MS_MAX + 11},
        "expiry_invalid",
    ),
]


@pytest.mark.parametrize(("change", "name", "fields", "code"), REFUSED)
def test_what_cannot_be_is_refused_when_proposed(change, name, fields, code):
    council = Council()
    assert council.block(council.propose(0, change, name, **fields)) == [code]
    assert council.query("proposals", closed=True) == {"proposals": []}


def test_a_proof_for_another_chain_or_name_proves_nothing():
    council, other = Council(), Council(chain_id="test-2")
    for stolen in (
        other.fields_of(other.proposal(0, "add", "v9", keys=(consensus_key(9), node_key(9)))),
        council.fields_of(council.proposal(0, "add", "v8", keys=(consensus_key(9), node_key(9)))),
    ):
        stolen["validator"] = "v9"
        tx = council.world.tx(consensus_key(0), council.world.ledger.build("governance_propose", stolen))
        assert council.block(tx) == ["possession_unproved"]


MALFORMED = [
    {"change": "add"},
    {"change": "add", "key": "0x" + "11" * 32, "key_proof": "0x" + "11" * 64},
    {"change": "remove", "operator": None, "key": "0x" + "11" * 32, "key_proof": "0x" + "11" * 64},
    {"change": "replace"},
    {"change": "replace", "key": "0x" + "11" * 32},
    {"change": "replace", "node_key_proof": "0x" + "11" * 64},
    {"change": "abolish"},
    {"change": "remove", "validator": "V 1"},
    {"change": "remove", "validator": ""},
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_a_proposal_says_just_what_its_change_needs(fields):
    given = {"by": "v0", "validator": "v1", "from_height": 0, "expires_ms": 0, **fields}
    with pytest.raises(Rejected):
        Council().world.ledger.build("governance_propose", given)


def test_a_key_is_never_anybody_elses_again():
    council = Council()
    council.decide(council.propose(0, "replace", "v2", keys=(consensus_key(22), node_key(22))), (1, 3))
    for keys in ((consensus_key(2), node_key(9)), (consensus_key(9), node_key(2)), (node_key(2), node_key(9))):
        assert council.block(council.propose(0, "add", "v9", keys=keys)) == ["key_in_use"]
    # Its own former key it may have again.
    council.decide(council.propose(0, "replace", "v2", keys=(consensus_key(2), node_key(2))), (1, 3))
    assert council.world.validators == council.set_at(1)
    assert read_rule(council.world).first == council.height + 1


def test_small_sets_may_grow_and_rotate_but_not_shrink():
    council = Council(2)
    assert council.block(council.propose(0, "remove", "v1")) == ["validators_too_few"]
    council.decide(council.propose(0, "replace", "v1", keys=(consensus_key(7), node_key(7))), (1,))
    council.decide(council.add(2), (1,))
    assert len(council.names) == 3


def test_one_validator_alone_decides_where_it_is_alone():
    council = Council(1)
    council.decide(council.add(1), ())
    assert council.names == ["v0", "v1"]


def test_there_are_at_most_64_validators():
    council = Council(63)
    council.decide(council.add(63), tuple(range(1, 42)))
    assert len(council.names) == 64
    assert council.block(council.add(64)) == ["validators_too_many"]


def test_a_validator_has_few_open_proposals():
    council = Council(5)
    proposals = [council.propose(0, "remove", f"v{n % 4 + 1}") for n in range(OPEN_PER_VALIDATOR_MAX + 1)]
    assert council.block(*proposals) == ["ok"] * OPEN_PER_VALIDATOR_MAX + ["proposals_too_many"]
    assert council.block(council.propose(1, "remove", "v2")) == ["ok"]
    # An accepted one that waits for its height still has its place.
    council = Council(5)
    for n in range(OPEN_PER_VALIDATOR_MAX):
        council.decide(council.propose(0, "remove", f"v{n + 1}", from_height=100), tuple({1, 2, 3, 4} - {n + 1}))
    assert council.block(council.propose(0, "remove", "v2")) == ["proposals_too_many"]


def test_old_proposals_are_forgotten():
    council = Council(5)
    for _ in range(CLOSED_KEPT_MAX // 2 + 2):
        council.block(
            *[council.propose(0, "remove", "v1", expires_ms=council.world.head.time_ms + 15) for _ in range(2)]
        )
        council.block(time_ms=council.world.head.time_ms + 20)
    agenda = read_agenda(reading(council.world))
    assert len(agenda.closed) == CLOSED_KEPT_MAX
    assert council.world.get(encode(("governance", "proposal", 4))) is None
    with pytest.raises(Rejected, match="not_found"):
        council.query("proposal", proposal=1)
    assert council.status(agenda.closed[0]) == "expired"


def test_nobody_signs_for_a_validator_that_is_none():
    council = Council()
    tx = council.world.tx(consensus_key(9), council.proposal(9, "remove", "v1"))
    assert council.block(tx) == ["not_authorised"]
    with pytest.raises(Rejected, match="not_found"):
        council.query("validator", name="v9")


def test_a_proposal_is_simulated():
    council = Council()
    world = council.world
    unsigned = world.wire(consensus_key(0).address, council.proposal(0, "remove", "v1"))
    now = Environment(1, world.head.time_ms + 1)
    receipt = world.ledger.simulate(world, now, decode_for_simulation(unsigned, world.context))
    assert receipt.code == "validators_too_few"


# The invariant, and who may change a set


def _emptying(context: Context) -> None:
    context.change_validators(ValidatorSet.of([*context.validators.validators, validator(8)]))


def test_a_set_that_governance_did_not_change_stops_the_node():
    rogue = Plugin(name="rogue", summary="changes the set", block_end=_emptying)
    world = World({key(1).address: {"QNX": 5}}, plugins=(*DEFAULT_PLUGINS, rogue))
    with pytest.raises(InvariantError, match="record of the validator"):
        world.build(world.tx(key(1), pay(key(2).address, 1)))


def test_a_set_changes_only_at_the_end_of_a_block_once():
    def twice(context: Context) -> None:
        _emptying(context)
        context.change_validators(ValidatorSet.of(context.validators.validators[:4]))

    rogue = Plugin(name="rogue", summary="changes the set", block_end=twice)
    world = World({key(1).address: {"QNX": 5}}, plugins=(*DEFAULT_PLUGINS, rogue))
    with pytest.raises(InvariantError, match="changed once"):
        world.build(world.tx(key(1), pay(key(2).address, 1)))


def test_a_header_that_names_another_next_set_is_invalid():
    council = Council()
    txs = [council.add(4), council.vote(1, 1), council.vote(2, 1)]
    executed = council.world.build(*txs)
    assert executed is not None
    header = executed.block.header
    wrong = replace(header, next_validators_hash=header.validators_hash)
    with pytest.raises(Rejected) as caught:
        slices.run(council.world.executor.execute(wrong, executed.transactions))
    assert caught.value.data == {"rule": "next_validators"}
