"""Waiting for transactions: woken once, when the last of them is settled, and never left behind."""

from __future__ import annotations

import trio
import trio.testing

from qenex_node.fates import Fates
from state.types import TxId

A, B = TxId(b"a" * 32), TxId(b"b" * 32)


def test_a_waiter_for_two_wakes_when_both_are_settled() -> None:
    async def main() -> None:
        fates = Fates()
        log: list[str] = []

        async def wait() -> None:
            await fates.wait_settled([A, B], 10)
            log.append("woken")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            fates.settled([A])
            await trio.testing.wait_all_tasks_blocked()
            assert log == []
            fates.settled([B])
        assert log == ["woken"]
        assert len(fates) == 0

    trio.run(main)


def test_settling_wakes_those_who_wait_for_acceptance_too() -> None:
    async def main() -> None:
        fates = Fates()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fates.wait_accepted, [A], 10)
            await trio.testing.wait_all_tasks_blocked()
            fates.settled([A])
        assert len(fates) == 0

    trio.run(main)


def test_time_running_out_leaves_no_waiter_behind() -> None:
    async def main() -> None:
        fates = Fates()
        await fates.wait_settled([A, B], 5)
        assert len(fates) == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
