"""What the people who run the machines do when a process ends by name or says that it cannot vote (docs/operations.md).

They look after a while, and go by the book: a full disk gets room, a damaged home is emptied and recovered, lost vote
records are recovered. They never restore what a validator might have signed against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus.records import REPORT_KEY, decode_records, recovery_records
from consensus.statement import (
    RecordsChange,
    Report,
    Statement,
    check_statement,
    make_report,
    report_change,
    statement_change,
    statement_of,
)
from devnet.simulation.checks import Violation
from devnet.simulation.disk import OWNER, Disk
from devnet.simulation.schedule import MS
from state.errors import InvariantError, Rejected
from state.store import VoteBatch
from state.store.errors import Damaged, StoreError
from state.store.votes import VoteRecords
from state.types import Height

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster
    from devnet.simulation.machine import Machine

ATTENTION_US: Final = 150 * MS
CATCH_UP_US: Final = 800 * MS
LOOK_US: Final = 4_000 * MS


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
        machine.start_after(ATTENTION_US)

    def cannot_sign(self, machine: Machine, *, chain_intact: bool) -> None:
        """A running validator says that its vote records are lost."""
        life = machine.life

        def act() -> None:
            if machine.up and machine.life == life:
                self._cluster.trace(machine.number, "is stopped by its operator, and recovered")
                machine.lose_power(ATTENTION_US)
                recover(machine.disk, chain_intact=chain_intact, now_ms=machine.wall_ms())

        self._cluster.schedule.after(ATTENTION_US, act)

    def lost_quorum(self, machines: Sequence[Machine]) -> None:
        """More validators than the others can spare lost their records: all are stopped, and state what is left.

        Where that cannot be done yet, because somebody is behind, all start once more and it is tried again.
        """
        cluster = self._cluster
        members = [machine for machine in cluster.machines if machine.index is not None]
        stopped = [machine for machine in cluster.machines if machine in members or machine in machines]
        for machine in stopped:
            machine.stop()
            machine.held = True

        def act() -> None:
            try:
                statement = _state(members)
            except Rejected as error:
                cluster.trace(-1, "the operators cannot state what is left: {}", error)
                cluster.count(f"statement refused {error.code}")
                cluster.schedule.after(CATCH_UP_US, lambda: self.lost_quorum(machines))
            else:
                cluster.count("statements")
                height = statement.terms.head_height
                cluster.trace(-1, "the operators state what is left, from height {} on", height)
                cluster.schedule.after(LOOK_US, lambda: self._look(machines))
            for machine in stopped:
                machine.held = False
                machine.start_after(0)

        cluster.schedule.after(ATTENTION_US, act)

    def _look(self, machines: Sequence[Machine]) -> None:
        """States what is left once more if nobody can go on: the set changed before the statement had done its work."""
        members = [machine for machine in self._cluster.machines if machine.index is not None and machine.up]
        silent = [machine for machine in members if not machine.core.snapshot().may_sign]
        validators = self._cluster.newest_chain().validators
        if len(silent) > validators.n - validators.quorum:
            self.lost_quorum(machines)


def _state(members: Sequence[Machine]) -> Statement:
    """Does what `qenex recover --quorum-lost` does in its steps, on each home; raises Rejected."""
    cluster = members[0].cluster
    verify = cluster.scheme.verify
    for machine in members:
        report = make_report(machine.config(), machine.restored(), _signer(machine))
        write_change(machine.disk, report_change(report))
    reports = [_report(machine) for machine in members]
    _try_mistakes(members[0], reports)
    statement = statement_of(reports)
    for machine in members:
        chain = machine.disk.chain
        check_statement(
            statement,
            cluster.world.genesis.hash,
            chain.validators,
            chain.validators_since,
            chain.validators_at,
            verify,
        )
    statement = Statement.decode(statement.encode())
    for machine in members:
        change = statement_change(statement, machine.config(), machine.restored(), machine.wall_ms())
        write_change(machine.disk, change)
    return statement


def _try_mistakes(machine: Machine, reports: Sequence[Report]) -> None:
    """Hurried people hand in a statement with each of the usual mistakes first: none of them may count."""
    chain, cluster = machine.disk.chain, machine.cluster
    genesis_hash, verify = cluster.world.genesis.hash, cluster.scheme.verify
    last = reports[-1]
    changed = (
        replace(last, signature=bytes(64)),
        replace(last, genesis_hash=last.head_hash),
        replace(last, sender=len(reports)),
        replace(last, since=Height(last.since + 1)),
        replace(last, validators_hash=last.head_hash),
    )
    wrong = [reports[1:], (*reports, last), *((*reports[:-1], other) for other in changed)]
    for mistaken in wrong:
        try:
            check_statement(
                statement_of(mistaken),
                genesis_hash,
                chain.validators,
                chain.validators_since,
                chain.validators_at,
                verify,
            )
        except Rejected:
            continue
        raise Violation("statement", "a statement counts that does not hold each validator's own true report")


def _report(machine: Machine) -> Report:
    """Returns the report that a home holds, as it travels to the others."""
    return Report.decode(decode_records({REPORT_KEY: machine.disk.records[REPORT_KEY]}).report or b"")


def _signer(machine: Machine) -> Callable[[bytes], bytes]:
    if machine.sign is None:
        raise InvariantError("a member of the set has a key")
    return machine.sign


def write_change(disk: Disk, change: RecordsChange) -> None:
    """Writes what a pure function wants written into a stopped validator's records."""
    votes = VoteRecords(disk.database)
    if not votes.exist:
        votes.create(OWNER)
    batch = disk.database.batch()
    votes.stage(batch, VoteBatch(change.puts, change.deletes))
    disk.database.write(batch)


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
