"""What the people who run the machines do when a process ends by name or says that it cannot vote (docs/operations.md).

They look after a while, and go by the book: a full disk gets room, a damaged home is emptied and recovered, lost vote
records are recovered. They never restore what a validator might have signed against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consensus.records import decode_records, recovery_records
from devnet.simulation.disk import OWNER, Disk
from devnet.simulation.schedule import MS
from state.errors import Rejected
from state.store import VoteBatch
from state.store.errors import Damaged, StoreError
from state.store.votes import VoteRecords

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster
    from devnet.simulation.machine import Machine

ATTENTION_US: Final = 150 * MS


class Operators:
    """Those who run the machines of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def stopped(self, machine: Machine, error: StoreError) -> None:
        """A process ended because its store cannot be relied on."""
        if isinstance(error, Damaged):
            self._cluster.count("operator resyncs")
            self._cluster.trace(machine.number, "is emptied by its operator, and recovered")
            machine.disk.wipe()
            self._cluster.forgets(machine)
            if machine.key is not None:
                recover(machine.disk, chain_intact=False, now_ms=machine.wall_ms())
        self._cluster.schedule.after(ATTENTION_US, lambda: machine.start() if not machine.up else None)

    def cannot_sign(self, machine: Machine, *, chain_intact: bool) -> None:
        """A running validator says that its vote records are lost."""
        life = machine.life

        def act() -> None:
            if machine.up and machine.life == life:
                self._cluster.trace(machine.number, "is stopped by its operator, and recovered")
                machine.lose_power(ATTENTION_US)
                recover(machine.disk, chain_intact=chain_intact, now_ms=machine.wall_ms())

        self._cluster.schedule.after(ATTENTION_US, act)


def recover(disk: Disk, *, chain_intact: bool, now_ms: int) -> None:
    """Does to a stopped validator's disk what `qenex recover` does to its home."""
    votes = VoteRecords(disk.database)
    if not votes.exist:
        votes.create(OWNER)
    records = recovery_records(disk.chain.head.height if chain_intact else None, now_ms)
    written = {key for key, _ in records}
    deletes = tuple(key for key, value in votes.all().items() if key not in written and not _readable(key, value))
    batch = disk.database.batch()
    votes.stage(batch, VoteBatch(records, deletes))
    disk.database.write(batch)


def _readable(key: bytes, value: bytes) -> bool:
    try:
        decode_records({key: value})
    except Rejected:
        return False
    return True
