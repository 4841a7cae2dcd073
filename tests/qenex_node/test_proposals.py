"""Blocks are made within the budget, and those of others judged by what they hold and never by luck."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from p2p.wire import Kind
from qenex_node.proposals import Verdict
from state.ledger.registry import SIGNATURE_UNITS
from state.store import VoteBatch
from state.transaction import wire_hash_of
from state.types import Header, TimeMs, WireHash
from tests.qenex_node.node_parts import DRIFT_MS, Parts, run, settle
from tests.state.store.store_support import VALIDATOR_KEYS

WEIGHT = 1 + SIGNATURE_UNITS[1]
"""The units of a payment to one account with one signature."""


def test_a_block_takes_as_many_units_as_the_budget_says(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        transactions = [parts.chain.pay(0, 1, sequence=number) for number in range(10)]
        parts.wait_for_block(*transactions)
        parts.proposals.budget.units = 7 * WEIGHT + 1
        executed = await parts.proposals.build()
        assert executed is not None
        assert executed.transactions == tuple(transactions[:7])
        assert executed.block.header.units_used <= parts.proposals.budget.units

    run(test)


def test_the_first_transaction_is_taken_whatever_it_weighs(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.wait_for_block(parts.chain.pay(0, 1), parts.chain.pay(1, 2))
        parts.proposals.budget.units = 1
        executed = await parts.proposals.build()
        assert executed is not None
        assert len(executed.transactions) == 1

    run(test)


def test_there_is_no_block_without_work(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.wait_for_block(parts.chain.pay(0, 1, sequence=5))
        assert await parts.proposals.build() is None

    run(test)


async def judge(
    parts: Parts, header: Header, wire_hashes: Sequence[WireHash], *, first: bool = True
) -> tuple[Verdict, str]:
    source = VALIDATOR_KEYS[1].public.data
    return await parts.proposals.validate(header, wire_hashes, first=first, source=source)


@pytest.mark.parametrize(
    ("offset_ms", "first", "verdict"),
    [
        (DRIFT_MS, True, Verdict.VALID),
        (DRIFT_MS + 1, True, Verdict.NOT_YET),
        (DRIFT_MS + 1, False, Verdict.VALID),
        (-DRIFT_MS, True, Verdict.VALID),
        (-DRIFT_MS - 1, True, Verdict.INVALID),
        (-DRIFT_MS - 1, False, Verdict.VALID),
    ],
)
def test_only_a_first_proposal_is_held_against_the_clock(
    tmp_path: Path, offset_ms: int, first: bool, verdict: Verdict
) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        parts.wait_for_block(parts.chain.pay(0, 1))
        parts.now_ms = block.header.time_ms - offset_ms
        assert (await judge(parts, block.header, block.wire_hashes, first=first))[0] is verdict

    run(test)


def test_a_block_with_another_root_breaks_the_rule_of_that_name(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        tx = parts.chain.pay(0, 1)
        parts.wait_for_block(tx)
        header = parts.proposed_by_another(tx).block.header
        wrong = dataclasses.replace(header, state_root=header.tx_root)
        assert await judge(parts, wrong, (tx.wire_hash,)) == (Verdict.INVALID, "state_root")
        late = dataclasses.replace(header, time_ms=TimeMs(tx.not_after_ms + 1))
        parts.now_ms = late.time_ms
        assert await judge(parts, late, (tx.wire_hash,)) == (Verdict.INVALID, "deadline")

    run(test)


def test_what_is_missing_is_asked_of_the_proposer_first_and_then_of_all(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        nursery.start_soon(parts.gossip.run)
        tx = parts.chain.pay(0, 1)
        block = parts.proposed_by_another(tx).block
        verdicts: list[tuple[Verdict, str]] = []

        async def validate() -> None:
            verdicts.append(await judge(parts, block.header, block.wire_hashes))

        nursery.start_soon(validate)
        await settle()
        proposer, other, _ = parts.network.peers
        assert (len(proposer.got(Kind.TX_REQUEST)), len(other.got(Kind.TX_REQUEST))) == (1, 0)
        await trio.sleep(0.3)
        assert (len(proposer.got(Kind.TX_REQUEST)), len(other.got(Kind.TX_REQUEST))) == (2, 1)
        parts.driver.nursery = nursery
        parts.gossip.on_transactions(other, [tx.wire])
        await settle()
        assert verdicts == [(Verdict.VALID, "")]

    run(test)


def test_a_proposal_that_names_a_forged_transaction_is_invalid(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        parts.driver.nursery = nursery
        nursery.start_soon(parts.gossip.run)
        tx = parts.chain.pay(0, 1)
        wire = tx.wire[:-1] + bytes([tx.wire[-1] ^ 1])
        forged = dataclasses.replace(tx, wire=wire, wire_hash=wire_hash_of(wire))
        header = parts.proposed_by_another(forged).block.header
        verdicts: list[tuple[Verdict, str]] = []

        async def validate() -> None:
            verdicts.append(await judge(parts, header, (forged.wire_hash,)))

        nursery.start_soon(validate)
        await settle()
        parts.gossip.on_transactions(parts.network.peers[0], [forged.wire])
        await settle()
        assert verdicts == [(Verdict.INVALID, "transaction")]

    run(test)


def test_judging_ends_when_the_height_is_committed(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        verdicts: list[tuple[Verdict, str]] = []

        async def validate() -> None:
            verdicts.append(await judge(parts, block.header, block.wire_hashes))

        nursery.start_soon(validate)
        await settle()
        parts.chain.block(parts.chain.pay(1, 2))
        parts.proposals.height_committed()
        await settle()
        await validate()
        assert verdicts == [(Verdict.DROPPED, "")] * 2

    run(test)


def test_after_a_restart_a_stored_body_needs_nobody(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        block = parts.proposed_by_another(parts.chain.pay(0, 1)).block
        parts.store.write_votes(VoteBatch(bodies=(block,)))
        assert await judge(parts, block.header, block.wire_hashes, first=False) == (Verdict.VALID, "")
        assert all(peer.sent == [] for peer in parts.network.peers)
        assert parts.proposals.wire_of(block.wire_hashes[0]) == block.transactions[0]

    run(test)
