"""The outbox keeps the order that safety rests on: durable first, then said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from qenex_node.outbox import Outbox


class Disk:
    """A disk whose writes finish when the test says so."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = trio.Event()
        self.fail = False

    async def write(self, records: Sequence[str]) -> None:
        self.log.append("begin " + "+".join(records))
        await self.gate.wait()
        if self.fail:
            raise OSError("disk full")
        self.log.append("durable " + "+".join(records))


def test_a_send_waits_for_the_records_queued_before_it() -> None:
    async def main() -> None:
        disk = Disk()
        outbox = Outbox(disk.write)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.persist(["vote"])
            outbox.send(lambda: disk.log.append("sent"))
            await trio.testing.wait_all_tasks_blocked()
            assert disk.log == ["begin vote"]
            disk.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert disk.log == ["begin vote", "durable vote", "sent"]
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_with_nothing_to_write_a_send_leaves_at_once() -> None:
    async def main() -> None:
        disk = Disk()
        outbox = Outbox(disk.write)
        outbox.send(lambda: disk.log.append("sent"))
        assert disk.log == ["sent"]

    trio.run(main)


def test_records_that_come_during_a_write_share_the_next_one() -> None:
    async def main() -> None:
        disk = Disk()
        outbox = Outbox(disk.write)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.persist(["a"])
            await trio.testing.wait_all_tasks_blocked()
            outbox.persist(["b"])
            outbox.send(lambda: disk.log.append("sent b"))
            outbox.persist(["c"])
            disk.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert disk.log == ["begin a", "durable a", "begin b+c", "durable b+c", "sent b"]
            assert outbox.writes == 2
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_nothing_is_sent_whose_record_could_not_be_written() -> None:
    async def main() -> None:
        disk = Disk()
        disk.fail = True
        disk.gate.set()
        outbox = Outbox(disk.write)
        outbox.persist(["vote"])
        outbox.send(lambda: disk.log.append("sent"))
        with pytest.raises(OSError, match="disk full"):
            await outbox.run()
        assert disk.log == ["begin vote"]

    trio.run(main)
