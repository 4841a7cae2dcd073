"""The audit of a stopped node's database: everything in it is proved anew, and what is not as it must be is named.

1. The files are compared with what the node left when it stopped, and opened by LevelDB's strictest checks.
2. Every record is read and its own checks are made: checksums, vote records, blocks not committed.
3. The chain is executed again from the genesis document in a scratch database: transactions' signatures, validity of
   each block, certificates. The chain of a node that was restored from a snapshot is executed from that snapshot on;
   where it is no longer kept, see verify_restored.py.
4. All records of the chain, its state, its kept trees and indexes are compared with the scratch database byte for byte.

Nothing is trusted but the genesis document. Damage does not stop the audit where it can go on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from state import slices
from state.block import Block, verify_certificate
from state.errors import InvariantError, Rejected
from state.execution import Executor
from state.genesis import Genesis
from state.ledger import Ledger
from state.store import chain, index
from state.store.database import Database
from state.store.errors import Damaged
from state.store.keys import (
    ACCOUNT,
    BODY,
    HASH_BYTES,
    HEADER,
    META_FORMAT,
    META_GARBAGE,
    META_INDEX,
    META_OLDEST,
    META_VOTES,
    NODE,
    VOTE,
    name_of,
    read_place,
    unseal,
)
from state.store.opening import check_format
from state.store.pruning import Pruner
from state.store.replacement import new_path
from state.store.snapshots import Snapshot, path_of, run, write_database
from state.store.store import Store, StoreOptions
from state.store.verify_restored import verify_restored
from state.store.votes import VoteRecords
from state.transaction import decode_transaction, verify_signatures
from state.types import VOTE_COMMIT, Certificate

FINDINGS_MAX: Final = 100
_REPORT_EVERY: Final = 20_000

Progress = Callable[[str, int, int], None]
"""Told (stage, done, of how many); of how many is 0 where that is not known beforehand."""

_OF_THIS_DATABASE_ALONE: Final = (META_FORMAT, META_GARBAGE, META_INDEX, META_OLDEST, META_VOTES)
"""Chain-wide records that are checked on their own and need not be equal."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: what, and how it was seen."""

    record: str
    problem: str


@dataclass(slots=True, eq=False)
class VerifyReport:
    """What an audit saw. `head` is what the database says it has, `height` how far the chain was executed again, `base`
    where it begins here: up to there it rests on the certificate of a snapshot's header.

    `complete` says that every check was made: damage may end an audit early.
    """

    findings: list[Finding] = field(default_factory=list)
    complete: bool = False
    base: int = 0
    head: int = 0
    height: int = 0
    transactions: int = 0
    records: int = 0
    votes: int = 0
    findings_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether all of it was looked at, and nothing was found."""
        return self.complete and not self.findings

    def add(self, record: str, problem: str) -> None:
        """Notes a finding, once, and within bounds."""
        finding = Finding(record, problem)
        if finding in self.findings:
            return
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        else:
            self.findings_left_out += 1

    def add_error(self, where: str, error: Exception) -> None:
        """Notes an error as a finding."""
        if isinstance(error, Damaged):
            self.add(error.record, error.problem)
        else:
            self.add(where, str(error))


def verify(
    path: Path,
    genesis: Genesis,
    ledger: Ledger,
    *,
    state_file: Path | None = None,
    snapshots: Path | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Audits the database at `path`; it must be closed.

    Args:
        state_file: the file of genesis accounts, if genesis names one.
        snapshots: where the node keeps its snapshots, if it was restored from one.
        scratch: a directory on a file system with room for a second copy of the state; a temporary one by default.
        progress: is told how far it is.

    Raises Rejected: "store_missing", "store_locked", "version_unknown", "wrong_chain",
    "state_file_missing", "state_file_wrong"; StorageFailed. Damage is not raised but reported.
    """
    report = VerifyReport()
    tell = progress or _silent
    try:
        database = Database.open(path)
    except Damaged as error:
        report.add_error(str(path), error)
        return report
    try:
        with tempfile.TemporaryDirectory(dir=scratch, prefix="qenex-verify-") as directory:
            _Audit(database, genesis, ledger, report, tell).run(Path(directory) / "store", state_file, snapshots)
    finally:
        database.close()
    return report


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of whoever does not want to know."""


def _snapshot_at(database: Database, base: int, snapshots: Path | None) -> Snapshot | None:
    """Returns the snapshot that a chain begins with here, None where it is not kept or not whole."""
    if snapshots is None:
        return None
    try:
        snapshot = Snapshot.open(path_of(snapshots, base))
    except Rejected:
        return None
    committed, _ = chain.read_commit(database, base)
    return snapshot if snapshot.manifest.header.hash == committed else None


class _Audit:
    """One run over one open database."""

    def __init__(
        self, database: Database, genesis: Genesis, ledger: Ledger, report: VerifyReport, tell: Progress
    ) -> None:
        self.database = database
        self.genesis = genesis
        self.ledger = ledger
        self.report = report
        self.tell = tell
        self.oldest = 0
        self.index_from: int | None = None

    def run(self, scratch_path: Path, state_file: Path | None, snapshots: Path | None) -> None:
        """Makes the whole audit."""
        self._check_records()
        if not self._check_frame():
            return
        options = StoreOptions(index_accounts=self.index_from is not None, durable=False)
        if not self.report.base:
            scratch = Store.create(scratch_path, self.genesis, self.ledger, state_file=state_file, options=options)
        else:
            snapshot = _snapshot_at(self.database, self.report.base, snapshots)
            if snapshot is None:
                self.report.complete = verify_restored(self.database, self.genesis, self.report)
                return
            scratch = self._restore(scratch_path, snapshot, options)
        try:
            if self._execute_all(scratch):
                self._compare(scratch.database)
                self.report.complete = True
        finally:
            scratch.close()

    def _restore(self, path: Path, snapshot: Snapshot, options: StoreOptions) -> Store:
        """Returns a scratch database that begins as this one did."""
        run(write_database(path, self.genesis, snapshot.manifest, snapshot.certificate, snapshot, options))
        return Store.open(new_path(path), self.genesis, self.ledger, options)

    # Each record by itself

    def _check_records(self) -> None:
        """Reads all there is: LevelDB's checksums, and each record's own."""
        report = self.report
        try:
            for key, value in self.database.scan(b""):
                report.records += 1
                if report.records % _REPORT_EVERY == 0:
                    self.tell("records", report.records, 0)
                if key[:1] == NODE:
                    continue
                try:
                    unseal(key, value)
                except Damaged as error:
                    report.add_error("", error)
        except Damaged as error:
            report.add_error("", error)

    def _check_frame(self) -> bool:
        """Reads what says how far chain, state and index go, and the votes; returns whether the audit can go on."""
        report, database = self.report, self.database
        try:
            check_format(database, self.genesis)
            report.head, _ = chain.read_head(database)
            report.base = chain.read_base(database)
            report.height = report.base
            self.oldest = Pruner(database, None).oldest
            self.index_from = index.read_start(database)
        except Damaged as error:
            report.add_error("", error)
            return False
        except Rejected as error:
            if error.code != "store_incomplete":
                raise
            report.add(name_of(META_FORMAT), "is missing")
            return False
        try:
            report.votes = len(VoteRecords(database).all())
        except (Damaged, Rejected) as error:
            report.add_error("the vote records", error)
        if self.oldest > report.head:
            report.add(name_of(META_OLDEST), f"says {self.oldest}, beyond the head {report.head}")
            return False
        return True

    # The chain again

    def _execute_all(self, scratch: Store) -> bool:
        """Executes every block on the scratch database; returns whether it came to the head."""
        report = self.report
        executor = Executor(self.ledger, self.genesis.context, scratch)
        pruner = Pruner(scratch.database, None)
        for height in range(report.base + 1, report.head + 1):
            try:
                self._execute(scratch, executor, *self._read(height))
            except (InvariantError, Rejected) as error:
                report.add_error(f"block of height {height}", error)
                return False
            # The scratch database forgets as the node did, so that the two end equal and it stays small.
            if height <= self.oldest:
                slices.run(pruner.forget_before(height))
            report.height = height
            self.tell("blocks", height, report.head)
        return True

    def _read(self, height: int) -> tuple[Block, Certificate]:
        block_hash, certificate = chain.read_commit(self.database, height)
        block = chain.read_block(self.database, chain.need_header(self.database, block_hash))
        if certificate is None or block.header.height != height:
            raise Damaged(f"the record of height {height}", "names a block of another height")
        return block, certificate

    def _execute(self, scratch: Store, executor: Executor, block: Block, certificate: Certificate) -> None:
        verify_certificate(certificate, self.genesis.hash, scratch.validators)
        if certificate.kind != VOTE_COMMIT:
            raise Damaged(f"the certificate of height {block.header.height}", "is not made of COMMITs")
        transactions = [decode_transaction(wire, self.genesis.context) for wire in block.transactions]
        for tx in transactions:
            verify_signatures(tx)
        executed = slices.run(executor.execute(block.header, transactions, block.evidence))
        prepared = slices.run(scratch.commit(executed, certificate))
        prepared.write()
        scratch.advance(prepared)
        executor.committed(executed)
        self.report.transactions += len(transactions)

    # Byte for byte

    def _compare(self, scratch: Database) -> None:
        """Walks both databases side by side. What a damaged table held is named as missing."""
        report = self.report
        ours, theirs = self._records(self.database), self._records(scratch)
        mine, other = next(ours, None), next(theirs, None)
        done = 0
        while mine is not None or other is not None:
            done += 1
            if done % _REPORT_EVERY == 0:
                self.tell("comparison", done, report.records)
            if other is None or (mine is not None and mine[0] < other[0]):
                if mine is not None and not self._may_be_extra(mine[0]):
                    report.add(name_of(mine[0]), "does not belong to this chain")
                mine = next(ours, None)
            elif mine is None or other[0] < mine[0]:
                if not self._may_be_missing(other[0]):
                    report.add(name_of(other[0]), "is missing")
                other = next(theirs, None)
            else:
                if mine[1] != other[1]:
                    report.add(name_of(mine[0]), "is not what executing the chain again gives")
                mine, other = next(ours, None), next(theirs, None)

    def _records(self, database: Database) -> Iterator[tuple[bytes, bytes]]:
        try:
            for key, value in database.scan(b""):
                if key[:1] == VOTE or key in _OF_THIS_DATABASE_ALONE:
                    continue
                yield key, value
        except Damaged as error:
            self.report.add_error("", error)

    def _may_be_extra(self, key: bytes) -> bool:
        """Whether a record that the chain does not need is a block that was proposed and not committed, and whole."""
        letter, block_hash = key[:1], key[-HASH_BYTES:]
        if letter not in (HEADER, BODY):
            return False
        try:
            header = chain.need_header(self.database, block_hash)
            chain.read_block(self.database, header)
        except Damaged:
            return False
        return key in (chain.header_key(block_hash), chain.body_key(header.height, block_hash))

    def _may_be_missing(self, key: bytes) -> bool:
        """Whether a record is an index entry older than this database's index."""
        if key[:1] != ACCOUNT:
            return False
        height, _ = read_place(key[len(ACCOUNT) + HASH_BYTES :])
        return self.index_from is None or height < self.index_from
