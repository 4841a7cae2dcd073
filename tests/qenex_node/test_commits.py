"""The head moves in one place: once a height, durable before anyone hears of it, and never to two blocks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio

from qenex_node import metrics as m
from state.block import Block
from state.errors import InvariantError
from tests.qenex_node.node_parts import Parts, run
from tests.state.store.store_support import certify


def test_consensus_and_sync_may_both_bring_a_height_and_it_is_committed_once(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        certificate = certify(parts.chain.genesis, block.header)
        async with trio.open_nursery() as both:
            both.start_soon(parts.commits.certified, block, certificate, "consensus")
            both.start_soon(parts.commits.certified, block, certificate, "sync")
        assert parts.store.head == block.header
        blocks = [parts.metrics.value(m.CHAIN_BLOCKS, way) for way in ("consensus", "sync")]
        assert sorted(blocks) == [0, 1]

    run(test)


def test_two_certified_blocks_at_one_height_halt_the_node(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        one, two = (parts.proposed_by_another(parts.chain.pay(0, n)).block for n in (1, 2))
        await parts.commits.certified(one, certify(parts.chain.genesis, one.header), "sync")
        with pytest.raises(InvariantError, match="forked"):
            await parts.commits.certified(two, certify(parts.chain.genesis, two.header), "sync")

    run(test)


def test_a_certified_block_that_does_not_execute_here_halts_the_node_before_anything_is_written(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        wrong = parts.chain.pay(0, 1, sequence=7)
        valid = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        block = Block.of(valid.header, [wrong])
        with pytest.raises(InvariantError):
            await parts.commits.certified(block, certify(parts.chain.genesis, block.header), "sync")
        assert parts.store.head.height == 0
        assert parts.core.inputs == []

    run(test)


def test_waiting_clients_are_told_and_the_mempool_lets_go(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        tx, rival = parts.chain.pay(0, 1), parts.chain.pay(0, 2)
        later = parts.chain.pay(0, 3, sequence=1)
        parts.wait_for_block(rival, later)
        block = parts.proposed_by_another(tx).block
        woken: list[int] = []

        async def wait() -> None:
            await parts.fates.wait_settled([tx.id, rival.id], math.inf)
            woken.append(parts.store.head.height)

        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await parts.commits.certified(block, certify(parts.chain.genesis, block.header), "sync")
        assert woken == [1]
        assert [waiting_tx.id for waiting_tx in parts.mempool.candidates()] == [later.id]
        gone = parts.mempool.gone(rival.id)
        assert gone is not None
        assert gone.code == "sequence_used"
        for known in (tx, rival):
            parts.gossip.on_transactions(parts.network.peers[0], [known.wire])
        assert parts.gossip.queued_bytes == 0

    run(test)
