"""Evidence of equivocation: its form and proof, how it enters a block, and what it does to the offender."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.messages import Evidence, decode_message, encode_message
from state import slices
from state.block import Block, evidence_hash, vote_preimage
from state.codec import decode, encode
from state.errors import DecodeError, Rejected
from state.evidence import Offence, decode_evidence, in_block_order, verify_evidence
from state.execution import Executor
from state.hashing import ZERO_HASH, sha256
from state.ledger import DEFAULT_PLUGINS
from state.ledger.domains.governance.rules import OFFENCES_KEPT_MAX
from state.ledger.run import EVIDENCE_UNITS
from state.limits import EVIDENCE_MAX
from tests.state.ledger.council import Council, consensus_key, node_key
from tests.state.ledger.world import World, key, pay


@pytest.mark.parametrize("offence", list(Offence))
def test_a_proof_is_the_consensus_message_byte_for_byte(offence: Offence):
    council = Council()
    data = council.evidence("v2", 1, 3, offence)
    message = decode_message(data)
    assert isinstance(message, Evidence)
    assert encode_message(message) == data == decode_evidence(data).encode()
    assert verify_evidence(decode_evidence(data), council.world.genesis.hash, council.set_at(1)).name == "v2"


def value_of(data: bytes) -> list:
    return list(decode(data, bytes_max=4096))


WRONG_FORMS = [
    lambda v: v[:-1],
    lambda v: [8, *v[1:]],
    lambda v: [9, 5, *v[2:]],
    lambda v: [9, True, *v[2:]],
    lambda v: [*v[:2], 0, *v[3:]],
    lambda v: [*v[:4], 64, *v[5:]],
    lambda v: [*v[:5], v[6], v[5]],
    lambda v: [*v[:5], v[5], v[5]],
    lambda v: [*v[:5], (v[5][0], sha256(b""), v[5][2]), v[6]],
    lambda v: [*v[:5], (*v[5][:2], b"short"), v[6]],
]


@pytest.mark.parametrize("spoil", WRONG_FORMS)
def test_what_is_no_proof_by_its_form_is_refused(spoil):
    data = encode(tuple(spoil(value_of(Council().evidence("v1", 1)))))
    with pytest.raises(DecodeError):
        decode_evidence(data)
    with pytest.raises(DecodeError):
        decode_message(data)
    assert in_block_order([data]) == []


def test_a_proof_accuses_only_who_signed_both_halves_for_that_set():
    council = Council()
    good = decode_evidence(council.evidence("v1", 1, 2))
    genesis_hash, validators = council.world.genesis.hash, council.set_at(1)
    verify_evidence(good, genesis_hash, validators)
    wrong = [
        replace(good, offender=2),
        replace(good, offender=9),
        replace(good, view=3),
        replace(good, height=2),
        replace(good, offence=Offence.COMMIT),
        replace(good, offence=Offence.PRE_PREPARE),
        replace(good, second=replace(good.second, block_hash=b"\xff" * 32)),
    ]
    for proof in wrong:
        with pytest.raises(Rejected, match=r"signature_invalid|sender_unknown"):
            verify_evidence(proof, genesis_hash, validators)
    with pytest.raises(Rejected, match="signature_invalid"):
        verify_evidence(good, ZERO_HASH, validators)


def test_another_signature_check_can_be_handed_in():
    council = Council()
    forged = council.forged(1, 1, 0, Offence.PREPARE, council.set_at(1), consensus_key(7))
    world = council.world
    executor = Executor(world.ledger, world.context, world, verify=lambda key, message, signature: True)
    assert council.world.build(evidence=[forged]) is None
    executed = slices.run(executor.build(world.head.time_ms + 5, [], bytes(32), lambda: False, evidence=[forged]))
    assert executed is not None
    assert executed.block.evidence == (forged,)


# In blocks


def test_a_block_holds_evidence_in_order_beside_its_transactions():
    council = Council(7, evidence_suspends=0)
    council.blocks(3)
    items = [
        council.evidence("v5", 2),
        council.evidence("v1", 3, 1, Offence.COMMIT),
        council.evidence("v1", 3, 1, Offence.PREPARE),
        council.evidence("v1", 3),
        council.evidence("v0", 3),
    ]
    tx = council.world.tx(key(1), pay(key(2).address, 1))
    executed = council.world.build(tx, evidence=items)
    assert executed is not None
    header = executed.block.header
    assert executed.block.evidence == (items[0], items[4], items[3], items[2], items[1])
    assert header.evidence_hash == evidence_hash(executed.block.evidence) != evidence_hash(())
    assert header.units_used == executed.receipts[0].units + 5 * EVIDENCE_UNITS
    assert Block.decode(executed.block.encoded) == executed.block
    council.world.commit(executed)
    assert council.world.available(key(2).address) == 4
    assert council.query("validator", name="v1")["evidence_count"] == 3


def test_a_block_may_hold_evidence_alone_and_never_nothing():
    council = Council()
    assert council.world.build() is None
    executed = council.world.build(evidence=[council.evidence("v1", 1)])
    assert executed is not None
    assert executed.receipts == ()
    council.world.commit(executed)
    assert council.height == 1


def test_evidence_beyond_the_bound_waits_for_the_next_block():
    council = Council(evidence_suspends=0)
    items = [council.evidence("v1", 1, view) for view in range(EVIDENCE_MAX + 3)]
    first = council.world.build(evidence=items)
    assert first is not None
    assert len(first.block.evidence) == EVIDENCE_MAX
    council.block(evidence=items)
    council.block(evidence=items)
    assert council.query("validator", name="v1")["evidence_count"] == EVIDENCE_MAX + 3
    assert council.world.build(evidence=items) is None


def test_two_proofs_of_one_offence_count_once():
    council = Council(evidence_suspends=0)
    one = decode_evidence(council.evidence("v1", 1))
    validators = council.set_at(1)
    other_hash = sha256(b"three")
    preimage = vote_preimage(council.world.genesis.hash, validators.hash, 1, 1, 0, other_hash)
    third = replace(one.first, block_hash=other_hash, signature=consensus_key(1).sign(preimage))
    halves = sorted((one.first, third), key=lambda half: half.block_hash)
    other = replace(one, first=halves[0], second=halves[1])
    executed = council.world.build(evidence=[other.encode(), one.encode()])
    assert executed is not None
    assert executed.block.evidence == (min(one.encode(), other.encode()),)
    council.world.commit(executed)
    assert council.world.build(evidence=[other.encode(), one.encode()]) is None


def block_with(council: Council, evidence: list[bytes]):
    """Executes a block that an evil proposer made: a valid one with other evidence put in."""
    world = council.world
    executed = world.build(world.tx(key(1), pay(key(2).address, 1)))
    assert executed is not None
    header = replace(executed.block.header, evidence_hash=evidence_hash(evidence))
    return slices.run(world.executor.execute(header, executed.transactions, evidence))


def _spoiled(council: Council, name: str) -> list[bytes]:
    good, later = council.evidence("v1", 1, 0), council.evidence("v1", 1, 1)
    forged = council.forged(1, 1, 0, Offence.PREPARE, council.set_at(1), consensus_key(2))
    nobody = council.forged(9, 1, 0, Offence.PREPARE, council.set_at(1), consensus_key(2))
    ahead = council.forged(1, council.height + 2, 0, Offence.PREPARE, council.set_at(1), consensus_key(1))
    return {
        "garbage": [b"garbage"],
        "forged": [forged],
        "nobody": [nobody],
        "ahead": [ahead],
        "twice": [good, good],
        "out of order": [later, good],
        "recorded": [council.evidence("v2", 1)],
    }[name]


@pytest.mark.parametrize("name", ["garbage", "forged", "nobody", "ahead", "twice", "out of order", "recorded"])
def test_a_block_with_evidence_that_may_not_enter_is_invalid(name: str):
    council = Council(evidence_suspends=0)
    council.block(evidence=[council.evidence("v2", 1)])
    with pytest.raises(Rejected) as caught:
        block_with(council, _spoiled(council, name))
    assert caught.value.data == {"rule": "evidence"}


def test_evidence_that_the_header_does_not_name_makes_a_block_invalid():
    council = Council()
    executed = council.world.build(evidence=[council.evidence("v1", 1)])
    assert executed is not None
    with pytest.raises(Rejected) as caught:
        slices.run(council.world.executor.execute(executed.block.header, (), ()))
    assert caught.value.data == {"rule": "evidence"}


def test_too_much_evidence_makes_a_block_invalid():
    council = Council(evidence_suspends=0)
    with pytest.raises(Rejected) as caught:
        block_with(council, [council.evidence("v1", 1, view) for view in range(EVIDENCE_MAX + 1)])
    assert caught.value.data == {"rule": "count"}


def test_evidence_needs_a_ledger_that_takes_it():
    council = Council()
    without = tuple(plugin for plugin in DEFAULT_PLUGINS if plugin.name != "governance")
    world = World({key(1).address: {"QNX": 5}}, plugins=without)
    assert world.build(evidence=[council.evidence("v1", 1)]) is None


# What it does


def test_evidence_of_an_old_offence_enters_until_it_is_too_old():
    council = Council(5, evidence_age_heights=3)
    item = council.evidence("v1", 1)
    council.blocks(3)
    assert council.world.build(evidence=[item]) is not None
    council.block()
    assert council.world.build(evidence=[item]) is None


def test_an_offence_against_a_former_set_is_proved_by_that_set():
    council = Council(5)
    council.decide(council.propose(0, "remove", "v0"), (1, 2, 3))
    council.block()
    # v1 has the index 1 at height 1, and 0 from height 2 on.
    council.block(evidence=[council.evidence("v1", 1)])
    assert council.query("validator", name="v1")["evidence_count"] == 1


def test_evidence_of_a_former_validator_counts_for_its_record():
    council = Council(5)
    council.decide(council.propose(0, "remove", "v3"), (1, 2, 4))
    council.block(evidence=[council.evidence("v3", 1)])
    record = council.query("validator", name="v3")
    assert (record["evidence_count"], record["suspended"], record["until"]) == (1, False, 2)


def test_a_rotated_key_leaves_its_evidence_behind():
    council = Council(5)
    council.decide(council.propose(0, "replace", "v3", keys=(consensus_key(33), node_key(33))), (1, 2, 4))
    council.block(evidence=[council.evidence("v3", 1)])
    assert council.query("validator", name="v3")["evidence_count"] == 0
    assert "v3" in council.names


def test_an_offence_from_before_a_membership_does_not_suspend():
    council = Council(5)
    council.block(evidence=[council.evidence("v3", 1)])
    assert "v3" not in council.names
    council.decide(council.add(3), (1, 2))
    council.block(evidence=[council.evidence("v3", 1, 1)])
    record = council.query("validator", name="v3")
    assert (record["in_force"], record["suspended"], record["evidence_count"]) == (True, False, 2)
    council.block(evidence=[council.evidence("v3", council.height)])
    assert "v3" not in council.names


def test_where_the_chain_says_so_evidence_is_only_recorded():
    council = Council(5, evidence_suspends=0)
    council.block(evidence=[council.evidence("v3", 1)])
    assert council.query("validator", name="v3")["evidence_count"] == 1
    assert len(council.names) == 5


def test_nobody_is_suspended_where_fewer_than_four_would_remain():
    council = Council()
    council.block(evidence=[council.evidence("v3", 1)])
    assert len(council.names) == 4
    council.decide(council.add(4), (1, 2))
    assert len(council.names) == 5
    assert council.query("validator", name="v3")["suspended"] is False


def test_suspensions_come_one_a_height_and_before_proposals():
    council = Council(7)
    number = council.decide(council.propose(0, "remove", "v6", from_height=4), (1, 2, 3, 4))
    council.block(evidence=[council.evidence("v1", 1), council.evidence("v2", 1)])
    assert council.names == ["v0", "v2", "v3", "v4", "v5", "v6"]
    council.block()
    assert council.names == ["v0", "v3", "v4", "v5", "v6"]
    assert council.status(number) == "accepted"
    council.block()
    assert council.names == ["v0", "v3", "v4", "v5"]
    assert council.query("proposal", proposal=number)["height"] == 5


def test_whoever_is_to_be_suspended_and_left_already_is_passed_over():
    council = Council(6)
    remove = council.propose(0, "remove", "v1", from_height=4)
    council.decide(remove, (2, 3, 4))
    council.block(evidence=[council.evidence("v1", 1), council.evidence("v2", 1)])
    council.blocks(3)
    assert council.names == ["v0", "v3", "v4", "v5"]


def test_a_record_keeps_a_bounded_number_of_offences_and_forgets_old_ones():
    council = Council(evidence_suspends=0, evidence_age_heights=5)
    items = [council.evidence("v1", 1, view) for view in range(OFFENCES_KEPT_MAX + 4)]
    for start in range(0, len(items), EVIDENCE_MAX):
        if council.world.build(evidence=items[start : start + EVIDENCE_MAX]) is not None:
            council.block(evidence=items[start : start + EVIDENCE_MAX])
    record = council.query("validator", name="v1")
    assert record["evidence_count"] == len(record["offences"]) == OFFENCES_KEPT_MAX
    council.blocks(3)
    council.block(evidence=[council.evidence("v1", council.height)])
    record = council.query("validator", name="v1")
    assert (record["evidence_count"], len(record["offences"])) == (OFFENCES_KEPT_MAX + 1, 1)
