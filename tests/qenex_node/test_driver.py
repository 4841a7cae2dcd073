"""The driver keeps the core's contract: durable before it is said, every question answered, nothing half done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from consensus.interface import (
    AskProposal,
    AskValidation,
    BodyAvailable,
    Broadcast,
    Commit,
    Committed,
    Complaint,
    Config,
    KnownBlock,
    NothingToPropose,
    Outcome,
    Persist,
    Proposed,
    Received,
    Report,
    ReportKind,
    RequestBody,
    Restored,
    Send,
    SetTimer,
    Tick,
    Validated,
    WorkChanged,
)
from consensus.messages import Decided, Suspect, encode_message, signing_preimage
from consensus.replica import Replica
from p2p.wire import Kind as Frame
from qenex_node import metrics as m
from state.errors import InvariantError, Rejected
from state.hashing import sha256
from state.types import Height, ValidatorSet, View
from tests.qenex_node.node_parts import Parts, run, settle
from tests.state.store.store_support import VALIDATOR_KEYS, VALIDATORS, certify

RECORD = (b"key", b"value")
WORK, DONE = WorkChanged(True), Complaint(None)


def suspect(parts: Parts, sender: int = 1, *, height: int = 1, forged: bool = False) -> Suspect:
    plain = Suspect(Height(height), View(0), sender)
    preimage = signing_preimage(plain, parts.chain.genesis.hash, VALIDATORS.hash)
    signature = VALIDATOR_KEYS[0 if forged else sender].sign(preimage)
    return Suspect(Height(height), View(0), sender, signature)


async def begin(parts: Parts, nursery: trio.Nursery) -> None:
    parts.driver.nursery = nursery
    nursery.start_soon(parts.driver.run)
    await settle()


def test_nothing_is_said_before_what_binds_it_is_durable(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        executed = parts.proposed_by_another(parts.chain.pay(0, 1))
        parts.commits.remember(executed)
        block_hash = executed.block.header.hash
        durable: list[Any] = []
        parts.network.on_flood = lambda: durable.append((parts.store.votes(), parts.store.body(block_hash)))
        message = suspect(parts)
        parts.core.answers[WorkChanged] = [Persist((RECORD,), bodies=(block_hash,)), Broadcast(message)]
        parts.driver.feed_input(WORK)
        assert parts.network.floods == []
        await settle()
        assert parts.network.floods == [(Frame.CONSENSUS, encode_message(message))]
        assert durable == [({b"key": b"value"}, executed.block)]

    run(test)


def test_a_record_taken_back_before_it_was_written_stays_away(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.answers[WorkChanged] = [Persist((RECORD, (b"other", b"1"))), Persist((), deletes=(b"key",))]
        parts.driver.feed_input(WORK)
        await settle()
        assert parts.store.votes() == {b"other": b"1"}

    run(test)


def test_a_vote_whose_body_is_not_at_hand_halts_the_node(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.answers[WorkChanged] = [Persist((RECORD,), bodies=(sha256(b"nowhere"),))]
        with pytest.raises(InvariantError):
            parts.driver.feed_input(WORK)

    run(test)


def test_a_body_that_a_committed_height_let_go_of_halts_nothing(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.chain.block()
        parts.core.answers[WorkChanged] = [Persist((RECORD,), bodies=(sha256(b"lost"),))]
        parts.driver.feed_input(WORK)
        await settle()
        assert parts.store.votes() == {b"key": b"value"}

    run(test)


@pytest.mark.parametrize("error", [KeyError("x"), Rejected("x", "y"), InvariantError("z")])
def test_any_error_of_the_core_halts_the_node(tmp_path: Path, error: Exception) -> None:
    """The peer layer would take another error for a fault of whoever sent the message, and go on."""

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.answers[Received] = [error]
        with pytest.raises(InvariantError):
            parts.driver.on_consensus(parts.network.peers[0], encode_message(suspect(parts)), b"raw")

    run(test)


def test_inputs_that_arise_in_a_step_follow_it(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        message = suspect(parts)
        parts.core.answers[WorkChanged] = [Broadcast(message), Broadcast(message)]
        parts.network.on_flood = lambda: parts.driver.feed_input(DONE)
        parts.driver.feed_input(WORK)
        assert parts.core.inputs == [WORK, DONE, DONE]

    run(test)


def test_the_core_is_told_the_time_when_it_asked_to_be(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        asked = round(trio.current_time() * 1000) + 250
        parts.core.answers[WorkChanged] = [SetTimer(asked)]
        parts.driver.feed_input(WORK)
        parts.core.answers[Tick] = [SetTimer(asked + 10_000)]
        ticked: list[float] = []
        step = parts.core.step

        def noting(event: Any) -> Any:
            if isinstance(event, Tick):
                ticked.append(event.now_ms)
            return step(event)

        parts.core.step = noting
        await trio.sleep(0.3)
        assert ticked
        assert asked <= ticked[0] <= asked + 2

    run(test)


# Messages of peers


def test_a_proved_message_is_passed_on_and_given_to_the_core_and_a_forged_one_neither(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        peer = parts.network.peers[0]
        good = suspect(parts)
        parts.driver.on_consensus(peer, encode_message(good), b"good")
        for bad in (encode_message(suspect(parts, forged=True)), b"garbage"):
            with pytest.raises(Rejected):
                parts.driver.on_consensus(peer, bad, b"bad")
        assert parts.network.relays == [b"good"]
        assert parts.core.inputs == [Received(good)]
        counted = {name: parts.metrics.value(m.CONSENSUS_MESSAGES, name) for name in ("taken", "bad_signature")}
        assert counted == {"taken": 1, "bad_signature": 1}
        assert parts.metrics.value(m.CONSENSUS_MESSAGES, "malformed") == 1

    run(test)


def test_what_does_not_verify_is_nobodys_fault_where_another_validator_set_may_be_in_force(tmp_path: Path) -> None:
    """A node that lags behind a change of the set cannot prove messages of later heights, and must not ban for it."""

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        peer = parts.network.peers[0]
        parts.driver.on_consensus(peer, encode_message(suspect(parts, height=2, forged=True)), b"ahead")
        certificate = certify(parts.chain.genesis, parts.proposed_by_another(parts.chain.pay(0, 1)).block.header)
        ahead = replace(certificate, height=Height(2))
        parts.driver.on_consensus(peer, encode_message(Decided(ahead)), b"ahead")
        assert parts.core.inputs == []
        assert parts.network.relays == []
        with pytest.raises(Rejected):
            parts.driver.on_consensus(peer, encode_message(suspect(parts, height=1, forged=True)), b"bad")

    run(test)


def test_a_message_for_one_validator_finds_it_though_another_set_comes_into_force_first(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        message = suspect(parts)
        parts.core.answers[WorkChanged] = [Persist((RECORD,)), Send(2, message)]
        parts.driver.feed_input(WORK)
        shifted = ValidatorSet(VALIDATORS.validators[1:])
        parts.store._rules[0] = parts.store._rules[0]._replace(validators=shifted)
        await settle()
        assert [len(peer.sent) for peer in parts.network.peers] == [0, 1, 0]

    run(test)


def test_a_message_that_the_core_refuses_is_counted_once_as_refused(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.answers[Received] = [Report(ReportKind.REJECTED, "not_primary")]
        parts.driver.on_consensus(parts.network.peers[0], encode_message(suspect(parts)), b"raw")
        assert parts.metrics.value(m.CONSENSUS_MESSAGES, "rejected") == 1
        assert parts.metrics.value(m.CONSENSUS_MESSAGES, "taken") == 0

    run(test)


def test_a_paused_node_passes_on_and_hears_but_says_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.driver.pause()
        for sender in (1, 2, 3):
            parts.driver.on_consensus(parts.network.peers[0], encode_message(suspect(parts, sender)), b"raw")
        for _ in range(100):
            parts.driver.work_changed()
            parts.driver.complain("left_out")
        assert len(parts.network.relays) == 3
        assert parts.driver.validators_reachable() == 4
        assert parts.core.inputs == []
        parts.driver.resume()
        assert parts.core.inputs == [WorkChanged(False), Complaint("left_out")]

    run(test)


def test_a_message_for_one_validator_goes_to_it_alone_or_through_all(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.network.peers[2].validator_key = None  # a full node in its place
        message = suspect(parts)
        parts.core.answers[WorkChanged] = [Send(2, message), Send(3, message), Send(99, message)]
        parts.driver.feed_input(WORK)
        assert [len(peer.sent) for peer in parts.network.peers] == [0, 1, 0]
        assert len(parts.network.floods) == 2

    run(test)


# A primary whose connection ends


def test_a_primary_that_is_gone_while_work_waits_is_suspected_after_a_short_grace(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.primary = 1
        primary, other, _ = parts.network.peers
        parts.driver.on_disconnected(primary)
        await trio.sleep(1)
        assert parts.core.of(Complaint) == []  # An idle chain needs no primary.
        parts.wait_for_block(parts.chain.pay(0, 1))
        parts.driver.work_changed()
        assert parts.core.of(Complaint) == [Complaint("primary_unreachable")]
        # The core drops it with the view: of the next primary it is not true, and of a later one it may be again.
        parts.core.primary = 2
        parts.core.answers[Received] = [Report(ReportKind.VIEW_ENTERED, "new_view")]
        parts.driver.on_consensus(other, encode_message(suspect(parts, 2)), b"raw")
        assert parts.core.of(Complaint)[1:] == [Complaint(None)]
        parts.core.primary = 1
        parts.driver.work_changed()
        parts.driver.on_connected(primary)
        assert parts.core.of(Complaint)[2:] == [Complaint("primary_unreachable"), Complaint(None)]

    run(test)


def test_what_the_last_primary_left_out_is_not_held_against_the_next_one(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.driver.complain("left_out")
        parts.core.answers[WorkChanged] = [Report(ReportKind.VIEW_ENTERED, "new_view")]
        parts.driver.work_changed()
        parts.driver.work_changed()
        assert parts.core.of(Complaint) == [Complaint("left_out"), Complaint(None)]

    run(test)


def test_a_connection_that_comes_back_or_a_word_through_others_is_no_reason(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.primary = 1
        parts.wait_for_block(parts.chain.pay(0, 1))
        primary, other, _ = parts.network.peers
        parts.driver.on_disconnected(primary)
        await trio.sleep(0.2)
        parts.driver.on_connected(primary)
        await trio.sleep(1)
        parts.driver.on_disconnected(other)
        await trio.sleep(1)
        parts.driver.on_disconnected(primary)
        await trio.sleep(0.15)
        parts.driver.on_consensus(other, encode_message(suspect(parts, 1)), b"raw")
        await trio.sleep(1)
        assert parts.core.of(Complaint) == []

    run(test)


def test_what_the_primary_said_before_it_died_does_not_show_it_alive(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        parts.core.primary = 1
        parts.core.proposal = sha256(b"accepted, and nothing waits in the mempool")
        primary, other, _ = parts.network.peers
        parts.driver.on_disconnected(primary)
        parts.driver.on_consensus(other, encode_message(suspect(parts, 1)), b"raw")
        await trio.sleep(0.3)
        assert parts.core.of(Complaint) == [Complaint("primary_unreachable")]

    run(test)


# Questions of the core


def test_a_proposal_is_built_from_what_waits_and_else_there_is_none(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        ask = AskProposal(Height(1), View(0))
        parts.core.answers[WorkChanged] = [ask]
        parts.driver.feed_input(WORK)
        await settle()
        assert parts.core.inputs == [WORK, NothingToPropose(Height(1), View(0))]
        tx = parts.chain.pay(0, 1)
        parts.wait_for_block(tx)
        parts.core.answers[WorkChanged] = [ask]
        parts.driver.feed_input(WORK)
        await settle()
        (proposed,) = parts.core.of(Proposed)
        assert proposed.wire_hashes == (tx.wire_hash,)
        assert parts.commits.executed(proposed.header.hash) is not None

    run(test)


def test_a_valid_proposal_is_called_valid_once_however_often_it_is_asked_about(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        tx = parts.chain.pay(0, 1)
        header = parts.proposed_by_another(tx).block.header
        parts.wait_for_block(tx)
        ask = AskValidation(header.hash, header, (tx.wire_hash,), True, 1)
        parts.core.answers[WorkChanged] = [ask, ask]
        parts.driver.feed_input(WORK)
        await settle()
        assert parts.core.of(Validated) == [Validated(header.hash, True, Outcome.VALID)]

    run(test)


def test_a_commit_is_durable_before_the_core_and_the_subscribers_hear_of_it(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        executed = parts.proposed_by_another(parts.chain.pay(0, 1))
        parts.commits.remember(executed)
        block = executed.block
        certificate = certify(parts.chain.genesis, block.header)
        parts.core.answers[WorkChanged] = [Persist((RECORD,)), Commit(block.header, block.wire_hashes, certificate)]
        parts.driver.feed_input(WORK)
        await settle()
        assert parts.store.head == block.header
        assert parts.core.of(Committed) == [Committed(block.header, certificate, VALIDATORS)]
        assert parts.feed.recent(1) is not None

    run(test)


def test_a_wanted_body_is_asked_of_its_holders_then_of_all_and_given_once(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        await begin(parts, nursery)
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        block_hash = block.header.hash
        one, two, _ = parts.network.peers
        parts.driver.bodies.on_body(one, block.encoded)
        assert parts.core.inputs == []
        parts.core.answers[WorkChanged] = [RequestBody(block_hash, (2, 99))]
        parts.driver.feed_input(WORK)
        await settle()
        assert (one.got(Frame.BODY_REQUEST), two.got(Frame.BODY_REQUEST)) == ([], [block_hash])
        await trio.sleep(0.6)
        assert one.got(Frame.BODY_REQUEST) == [block_hash]
        with pytest.raises(Rejected):
            parts.driver.bodies.on_body(one, block.encoded[:-1] + b"x")
        parts.driver.bodies.on_body(two, block.encoded)
        parts.driver.bodies.on_body(one, block.encoded)
        await settle()
        assert parts.core.of(BodyAvailable) == [BodyAvailable(block_hash, KnownBlock(block.header, block.wire_hashes))]
        asked = len(one.got(Frame.BODY_REQUEST))
        await trio.sleep(5)
        assert len(one.got(Frame.BODY_REQUEST)) == asked
        parts.driver.bodies.on_request(one, block_hash)
        assert one.got(Frame.BODY) == [block.encoded]

    run(test)


def test_a_body_is_not_read_for_whoever_does_not_read(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        executed = parts.chain.block()
        peer = parts.network.peers[0]
        peer.queued_bytes = 1 << 24
        parts.driver.bodies.on_request(peer, executed.block.header.hash)
        assert peer.sent == []

    run(test)


def test_a_full_node_follows_views_and_commits_and_writes_no_vote(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path, votes=False)
        config = Config(chain_id="store-1", genesis_hash=parts.chain.genesis.hash, key=None)
        store = parts.store
        restored = Restored(store.head, None, VALIDATORS, Height(1), None, lambda block_hash: None)
        parts.core = Replica(config, restored)
        parts._join()
        await begin(parts, nursery)
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        decided = Decided(certify(parts.chain.genesis, block.header, view=2))
        parts.driver.on_consensus(parts.network.peers[0], encode_message(decided), b"raw")
        await settle()
        assert parts.driver.snapshot.view == 2
        parts.driver.bodies.on_body(parts.network.peers[0], block.encoded)
        await settle()
        assert store.head == block.header
        assert not store.votes_exist
        assert parts.network.floods == []

    run(test)
