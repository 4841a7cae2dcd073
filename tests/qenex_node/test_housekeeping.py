"""What is done by the clock: what cannot enter goes, a suspicion ends with its cause, low disk stops voting by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from consensus.interface import Complaint
from qenex_node import housekeeping as housekeeping_module
from tests.qenex_node.node_parts import Parts, run
from tests.state.store.store_support import VALIDATOR_KEYS


def test_a_transaction_whose_key_was_rotated_away_is_dropped_after_some_patience(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        tx = parts.chain.pay(0, 1)
        parts.wait_for_block(tx)
        # Its sequence is used behind the mempool's back, which stands for any reason that the state gives later.
        parts.chain.block(parts.chain.pay(0, 2))
        parts.housekeeping.look_after_mempool()
        assert parts.mempool.by_id(tx.id) is not None
        parts.now_ms += housekeeping_module.RECHECK_AFTER_MS
        parts.housekeeping.look_after_mempool()
        assert parts.mempool.by_id(tx.id) is None
        assert parts.mempool.gone(tx.id) is not None

    run(test)


def test_a_complaint_is_made_while_it_holds_and_withdrawn_once_when_nothing_waits_any_more(tmp_path: Path) -> None:
    """An idle chain with a complaint that nobody withdraws would be told of a suspicion each second, for ever."""

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        old, young = parts.chain.pay(0, 1), parts.chain.pay(1, 2)
        parts.wait_for_block(old)
        parts.now_ms += 2_000
        parts.wait_for_block(young)
        parts.left_out.committed(
            [entry] if (entry := parts.mempool.by_id(young.id)) else [], VALIDATOR_KEYS[0].public.data
        )
        parts.housekeeping.look_after_mempool()
        parts.housekeeping.look_after_mempool()
        for tx in (old, young):
            parts.mempool.drop(tx.id, "test", "gone")
        for _ in range(3):
            parts.housekeeping.look_after_mempool()
        assert parts.core.of(Complaint) == [Complaint("left_out"), Complaint("left_out"), Complaint(None)]

    run(test)


def test_low_disk_pauses_the_node_by_name_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 0
    monkeypatch.setattr(housekeeping_module, "free_bytes", lambda path: free)

    async def test(nursery: trio.Nursery) -> None:
        nonlocal free
        parts = Parts(tmp_path)
        nursery.start_soon(parts.housekeeping.run)
        await trio.sleep(0.01)
        assert parts.driver.paused
        assert parts.sync.paused
        assert parts.housekeeping.disk_refusal is not None
        assert parts.housekeeping.disk_refusal.code == "disk_low"
        free = 1 << 40
        await trio.sleep(housekeeping_module.DISK_SECONDS)
        assert not parts.driver.paused
        assert not parts.sync.paused
        assert parts.housekeeping.disk_refusal is None

    run(test)
