"""The slow work of one machine's process: building, validating, committing. It ends with the process.

It stands for what a node does beside its core, under the same contract: what the core asks for is answered later, a
certified block becomes durable in one write, and only then does the core hear of it. The executor is the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from consensus.interface import (
    AskProposal,
    AskValidation,
    Commit,
    Committed,
    Complaint,
    NothingToPropose,
    Outcome,
    Proposed,
    Validated,
    WorkChanged,
)
from consensus.messages import encode_message
from devnet.simulation.chain import Body, Reading
from devnet.simulation.disk import CommitWrite
from state import slices
from state.errors import InvariantError, Rejected
from state.execution import ExecutedBlock, Executor
from state.hashing import Hash
from state.transaction import Transaction
from state.types import Certificate, Header, WireHash

if TYPE_CHECKING:
    from devnet.simulation.machine import Machine

Certified: TypeAlias = tuple[Header, tuple[WireHash, ...], Certificate]
_CACHED: Final = 64


class Executions:
    """What blocks of a run came to, for machines that need not execute them again.

    Whoever builds a block executes it, and the first other machine proves that; the rest take this result, as the same
    code on the same state gives the same, and half of a run's time would go into showing it. In an exact run each
    machine executes each block itself.
    """

    def __init__(self, exact: bool) -> None:
        self._exact = exact
        self._known: dict[tuple[Hash, tuple[WireHash, ...]], ExecutedBlock | Rejected] = {}

    def execute(self, executor: Executor, wire_hashes: tuple[WireHash, ...], body: Body) -> ExecutedBlock | Rejected:
        """Returns the executed block, or why it is invalid."""
        header = body.header
        known = None if self._exact else self._known.get((header.hash, wire_hashes))
        if known is None:
            try:
                known = slices.run(executor.execute(header, body.transactions, body.evidence))
            except Rejected as error:
                known = error
            self._known[header.hash, wire_hashes] = known
        return known


class Work:
    """Candidates for the next height and the way of certified blocks onto the disk."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._chain = machine.disk.chain
        world = machine.cluster.world
        source = Reading(self._chain)
        self.executor = Executor(
            world.ledger,
            world.genesis.context,
            source,
            accounts_cached=_CACHED,
            pages_cached=_CACHED,
            verify=machine.cluster.scheme.verify,
        )
        self._executed: dict[Hash, ExecutedBlock] = {}
        self._certified: dict[int, Certified] = {}
        self._committing = False
        self._told_of_work = False
        self._complained = False

    def body(self, block_hash: Hash) -> Body | None:
        """Returns a candidate that was executed here, or None."""
        executed = self._executed.get(block_hash)
        return None if executed is None else Body.of(executed)

    def candidate_transaction(self, wire_hash: WireHash) -> Transaction | None:
        """Returns a transaction of a candidate, or None."""
        for executed in self._executed.values():
            for tx in executed.transactions:
                if tx.wire_hash == wire_hash:
                    return tx
        return None

    def work_changed(self) -> None:
        """Tells the core whether transactions wait, if that is news."""
        has_work = self._machine.pool.has_work(self._machine.wall_ms())
        if has_work != self._told_of_work:
            self._told_of_work = has_work
            self._machine.step(WorkChanged(has_work))

    def propose(self, ask: AskProposal) -> None:
        """Answers AskProposal, in a while."""
        self._machine.later(self._machine.timing.build_us * self._machine.slowness, lambda: self._build(ask))

    def _build(self, ask: AskProposal) -> None:
        machine = self._machine
        executed = None
        if ask.height == self._chain.head.height + 1 and machine.key is not None:
            candidates = machine.candidates()
            evidence = [encode_message(item) for item in machine.core.evidence]
            executed = slices.run(
                self.executor.build(machine.wall_ms(), candidates, machine.key, lambda: False, evidence=evidence)
            )
        if executed is None:
            self._told_of_work = machine.pool.has_work(machine.wall_ms())
            machine.step(NothingToPropose(ask.height, ask.view))
            return
        header = executed.block.header
        self._executed[header.hash] = executed
        machine.step(Proposed(ask.height, ask.view, header, executed.block.wire_hashes))

    def validate(self, ask: AskValidation) -> None:
        """Answers AskValidation once the block is gathered and executed."""
        if ask.first:
            ahead_ms = ask.header.time_ms - self._machine.wall_ms()
            if abs(ahead_ms) > self._machine.cluster.settings.drift_ms:
                outcome = Outcome.NOT_YET if ahead_ms > 0 else Outcome.INVALID
                answer = Validated(ask.block_hash, ask.first, outcome, "drift" if ahead_ms <= 0 else "")
                self._machine.later(0, lambda: self._machine.step(answer))
                return

        def answer_with(executed: ExecutedBlock | Rejected) -> None:
            if isinstance(executed, ExecutedBlock):
                self._machine.step(Validated(ask.block_hash, ask.first, Outcome.VALID))
            else:
                why = str(executed.data.get("rule", executed.code))
                self._machine.step(Validated(ask.block_hash, ask.first, Outcome.INVALID, why))

        self._execute(ask.header, ask.wire_hashes, self._machine.whose(ask.proposer), answer_with)

    def _execute(
        self,
        header: Header,
        wire_hashes: tuple[WireHash, ...],
        source: int | None,
        done: Callable[[ExecutedBlock | Rejected], None],
    ) -> None:
        """Gathers and executes a block of the next height; never comes to an end if that height is committed first."""
        known = self._executed.get(header.hash)
        if known is not None:
            self._machine.later(0, lambda: done(known))
            return

        def run(body: Body) -> None:
            if header.height != self._chain.head.height + 1:
                return
            executed = self._machine.cluster.executions.execute(self.executor, wire_hashes, body)
            if isinstance(executed, ExecutedBlock):
                self._executed[header.hash] = executed
            done(executed)

        def gathered(body: Body) -> None:
            self._machine.later(self._machine.timing.execute_us * self._machine.slowness, lambda: run(body))

        self._machine.fetching.gather(header, wire_hashes, source, gathered)

    def commit(self, effect: Commit) -> None:
        """Brings a block that the core decided on to the disk."""
        self.certified(effect.header, effect.wire_hashes, effect.certificate)

    def certified(self, header: Header, wire_hashes: tuple[WireHash, ...], certificate: Certificate) -> None:
        """Brings a block with a proved certificate to the disk, from the core or from sync, whichever comes first."""
        if header.height <= self._chain.head.height:
            if self._chain.heights.get(header.hash) != header.height:
                raise InvariantError(f"two certified blocks at height {header.height}")
            return
        self._certified.setdefault(header.height, (header, wire_hashes, certificate))
        self._advance()

    def _advance(self) -> None:
        waiting = self._certified.get(self._chain.head.height + 1)
        if self._committing or waiting is None:
            return
        self._committing = True
        header, wire_hashes, certificate = waiting

        def write(executed: ExecutedBlock | Rejected) -> None:
            if isinstance(executed, Rejected):
                raise InvariantError(f"certified block {header.height} does not execute here: {executed}")
            self._machine.disk.issue(CommitWrite(executed, certificate))
            self._machine.later(
                self._machine.timing.write_us * self._machine.slowness, lambda: self._written(executed, certificate)
            )

        self._execute(header, wire_hashes, None, write)

    def _written(self, executed: ExecutedBlock, certificate: Certificate) -> None:
        machine, header = self._machine, executed.block.header
        machine.disk.sync()
        self.executor.committed(executed)
        self._committing = False
        self._certified.pop(header.height)
        self._executed.clear()
        had_room = len(executed.transactions) < machine.cluster.settings.block_transactions_max
        machine.pool.committed(executed.transactions, header.time_ms, had_room)
        machine.fetching.committed()
        machine.cluster.committed(machine, executed, certificate)
        machine.step(Committed(header, certificate, executed.validators_next))
        self.work_changed()
        self._complain()
        self._advance()

    def _complain(self) -> None:
        """Tells the core that transactions are left out, after each block that shows it, and when it is over."""
        reason = "left_out" if self._machine.pool.left_out() else None
        if reason is not None or self._complained:
            self._complained = reason is not None
            self._machine.step(Complaint(reason))
