"""Evidence waits only while it may enter a block, is proposed and judged by hash, and is recorded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from consensus.evidence import contradiction
from consensus.interface import Report, ReportKind, WorkChanged
from consensus.messages import Kind, Vote, decode_message, signing_preimage
from p2p.wire import Kind as Frame
from qenex_node.bodies import BODIES_FETCHED_MAX, BODY_RETRY_SECONDS
from qenex_node.evidence import EvidencePool
from qenex_node.proposals import Verdict
from state.execution import Executor
from state.hashing import sha256
from state.store import Store
from state.store.snapshots import Snapshot, carry_votes, snapshot_head, write_database
from state.store.snapshots import run as drive_through
from state.types import Header, Height, View
from tests.qenex_node.node_parts import Parts, run, settle
from tests.state.store.store_support import LEDGER, VALIDATOR_KEYS, VALIDATORS, Chain


def proof(parts: Parts, *, height: int = 1, view: int = 0, blocks: bytes = b"ab", forged: bool = False) -> bytes:
    """Two PREPAREs of validator v2 for different blocks."""
    votes = []
    for name in blocks:
        vote = Vote(Kind.PREPARE, Height(height), View(view), sha256(bytes([name])), 2)
        preimage = signing_preimage(vote, parts.chain.genesis.hash, VALIDATORS.hash)
        votes.append(replace(vote, signature=VALIDATOR_KEYS[1 if forged else 2].sign(preimage)))
    return contradiction(votes[0], votes[1]).encode()


def pool(parts: Parts) -> EvidencePool:
    return parts.evidence


def test_only_what_may_enter_a_block_waits_and_one_proof_of_an_offence(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        pool(parts).take(proof(parts, forged=True))
        assert pool(parts).waiting == []
        several = [proof(parts, blocks=blocks) for blocks in (b"ab", b"cd", b"ef")]
        for item in several:
            pool(parts).take(item)
        assert pool(parts).waiting == [min(several)]

    run(test)


def test_evidence_of_a_height_that_is_not_reached_waits_until_it_is(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        several = [proof(parts, height=2, blocks=blocks) for blocks in (b"ab", b"cd", b"ef")]
        for item in several:
            pool(parts).take(item)
        item = min(several)
        assert pool(parts).waiting == []
        pool(parts).committed(parts.chain.block(parts.chain.pay(0, 1)).block)
        assert pool(parts).waiting == [item]

    run(test)


def test_an_idle_chain_makes_one_block_for_it_and_records_it_for_good(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        item = proof(parts)
        report = Report(ReportKind.EVIDENCE, "prepare", {}, decode_message(item))
        parts.core.answers[WorkChanged] = [report]
        parts.driver.work_changed()
        assert parts.core.of(WorkChanged) == [WorkChanged(False), WorkChanged(True)]
        executed = await parts.proposals.build()
        assert executed is not None
        assert executed.block.evidence == (item,)
        parts.chain.commit(executed)
        parts.evidence.committed(executed.block)
        again = EvidencePool(parts.store, parts.chain.executor)
        # The core has let go of it by now: the chain has it.
        assert again.restore([]) == [item]
        for found in (parts.evidence, again):
            found.take(item)
            assert found.waiting == []
            assert found.recorded_at((1, 0, 1, 2)) == 1
        parts.driver.work_changed()
        assert parts.core.of(WorkChanged)[-1] == WorkChanged(False)

    run(test)


@pytest.mark.parametrize("held", [True, False])
def test_a_proposal_with_evidence_is_judged_by_what_waits_here_or_by_the_body_of_a_peer(
    tmp_path: Path, held: bool
) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        item, tx = proof(parts), parts.chain.pay(0, 1)
        block = parts.chain.execute(tx, proposer=1, evidence=(item,)).block
        parts.wait_for_block(tx)
        if held:
            parts.evidence.take(item)
        verdicts: list[tuple[Verdict, str]] = []

        async def judge() -> None:
            verdicts.append(
                await parts.proposals.validate(
                    block.header, block.wire_hashes, first=True, source=VALIDATORS.validators[1].key
                )
            )

        nursery.start_soon(judge)
        await settle()
        one, two, _ = parts.network.peers
        assert one.got(Frame.BODY_REQUEST) == ([] if held else [block.header.hash])
        assert two.got(Frame.BODY_REQUEST) == []
        parts.driver.bodies.on_body(one, block.encoded)
        await settle()
        assert verdicts == [(Verdict.VALID, "")]

    run(test)


def test_proposals_whose_evidence_nobody_gives_do_not_keep_a_later_one_from_being_judged(tmp_path: Path) -> None:
    """A faulty primary that names evidence and gives it to nobody costs its view, not the height."""

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        tx = parts.chain.pay(0, 1)
        block = parts.chain.execute(tx, proposer=1, evidence=(proof(parts),)).block
        parts.wait_for_block(tx)
        verdicts: list[tuple[Verdict, str]] = []

        async def judge(header: Header) -> None:
            source = VALIDATORS.validators[1].key
            verdicts.append(await parts.proposals.validate(header, block.wire_hashes, first=True, source=source))

        for number in range(2 * BODIES_FETCHED_MAX):
            nursery.start_soon(judge, replace(block.header, evidence_hash=sha256(b"secret %d" % number)))
            await settle()
        nursery.start_soon(judge, block.header)
        await settle()
        one = parts.network.peers[0]
        assert block.header.hash in one.got(Frame.BODY_REQUEST)
        before = len(one.got(Frame.BODY_REQUEST))
        await trio.sleep(10 * BODY_RETRY_SECONDS)
        assert len(one.got(Frame.BODY_REQUEST)) - before <= 11 * BODIES_FETCHED_MAX
        parts.driver.bodies.on_body(one, block.encoded)
        await settle()
        assert verdicts == [(Verdict.VALID, "")]
        parts.proposals.height_committed()
        parts.driver.bodies.height_committed()

    run(test)


def test_whoever_connects_is_told_what_waits(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        item = proof(parts)
        parts.evidence.take(item)
        parts.driver.on_connected(parts.network.peers[0])
        assert parts.network.peers[0].got(Frame.CONSENSUS) == [item]

    run(test)


def test_evidence_of_heights_below_a_restored_base_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    """Vote records go with a node that begins anew with a snapshot, whose chain has no blocks up to its height."""

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        item, fresh = proof(parts, height=1), proof(parts, height=3)
        for target in range(3):
            parts.chain.block(parts.chain.pay(0, 10 + target))
        snapshot = Snapshot.open(drive_through(snapshot_head(parts.store, tmp_path / "snapshots")))
        new = Chain(tmp_path / "other")
        genesis, options = new.genesis, new.options
        drive_through(
            write_database(new.store.database.path, genesis, snapshot.manifest, snapshot.certificate, snapshot, options)
        )
        carry_votes(new.store.database)
        new.store.give_way()
        store = Store.open(tmp_path / "other", genesis, LEDGER, options)
        assert store.base_height == 3
        restored = EvidencePool(store, Executor(LEDGER, genesis.context, store))
        restored.restore([item, fresh])
        assert restored.waiting == [item, fresh]
        store.close()

    run(test)
