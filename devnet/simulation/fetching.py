"""How one machine's process gets what it lacks from others: transactions, bodies by hash, and blocks when it is behind.

All requests are repeated until answered, to other machines each time, because answers are lost and some never come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.interface import BodyAvailable, RequestBody, RequestSync
from devnet.simulation.chain import Body
from devnet.simulation.parcels import (
    BlocksSent,
    BodySent,
    Transactions,
    WantBlocks,
    WantBody,
    WantTransactions,
)
from devnet.simulation.schedule import MS
from state.block import evidence_hash, verify_certificate
from state.errors import Rejected
from state.hashing import Hash
from state.transaction import Transaction
from state.types import Header, WireHash

if TYPE_CHECKING:
    from devnet.simulation.machine import Machine

_NO_EVIDENCE: Final = evidence_hash(())
RETRY_US: Final = 80 * MS
BLOCKS_SENT_MAX: Final = 4


@dataclass(slots=True)
class _Gathering:
    header: Header
    wire_hashes: tuple[WireHash, ...]
    source: int | None
    done: Callable[[Body], None]


class Fetching:
    """What a machine waits for, and what it serves to others."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._disk = machine.disk
        self._gatherings: list[_Gathering] = []
        self._fetched: dict[WireHash, Transaction] = {}
        self._bodies: dict[Hash, Body] = {}
        self._wanted_bodies: dict[Hash, tuple[int, ...]] = {}
        self._sync_target = 0
        self._retrying = False

    # ---- what this machine lacks ----

    def gather(
        self,
        header: Header,
        wire_hashes: tuple[WireHash, ...],
        source: int | None,
        done: Callable[[Body], None],
    ) -> None:
        """Calls `done` with a block once all that is in it is here; `source` is asked for that first."""
        body = self.body(header.hash)
        for tx in () if body is None else body.transactions:
            self._fetched[tx.wire_hash] = tx
        gathering = _Gathering(header, wire_hashes, source, done)
        if not self._finish(gathering):
            self._gatherings.append(gathering)
            self._ask_transactions(gathering, source)
            self._retry_later()

    def _finish(self, gathering: _Gathering) -> bool:
        found = [self._transaction(wire_hash) for wire_hash in gathering.wire_hashes]
        transactions = tuple(tx for tx in found if tx is not None)
        evidence = self._evidence(gathering.header)
        if len(transactions) < len(found) or evidence is None:
            return False
        gathering.done(Body(gathering.header, transactions, evidence))
        return True

    def _evidence(self, header: Header) -> tuple[bytes, ...] | None:
        """Returns a block's evidence, if it is known: none at all for most."""
        if header.evidence_hash == _NO_EVIDENCE:
            return ()
        body = self.body(header.hash)
        return None if body is None else body.evidence

    def _ask_transactions(self, gathering: _Gathering, source: int | None) -> None:
        missing = tuple(wire_hash for wire_hash in gathering.wire_hashes if self._transaction(wire_hash) is None)
        to = self._machine.someone() if source is None else source
        if missing:
            self._machine.send(to, WantTransactions(missing))
        if self._evidence(gathering.header) is None:
            self._machine.send(to, WantBody(gathering.header.hash))

    def want_body(self, effect: RequestBody) -> None:
        """Answers RequestBody once the block is here."""
        body = self.body(effect.block_hash)
        if body is not None:
            self._machine.later(0, lambda: self._available(body))
            return
        self._wanted_bodies[effect.block_hash] = effect.holders
        self._machine.send(self._machine.someone(effect.holders), WantBody(effect.block_hash))
        self._retry_later()

    def _available(self, body: Body) -> None:
        self._machine.step(BodyAvailable(body.header.hash, body.known))

    def sync(self, effect: RequestSync) -> None:
        """Catches up with what is proven; follows a mere claim with one question to who made it."""
        if not effect.proven:
            to = self._machine.someone() if effect.sender is None else self._machine.whose(effect.sender)
            self._machine.send(to, WantBlocks(self._disk.chain.head.height + 1))
            return
        if effect.height - 1 > self._sync_target:
            self._sync_target = effect.height - 1
            self._ask_blocks(None if effect.sender is None else self._machine.whose(effect.sender))
            self._retry_later()

    def claimed(self, source: int, height: int) -> None:
        """Asks a machine that says that it is ahead, unless that is nothing new: certificates of another set than
        ours prove nothing to us.
        """
        head = self._disk.chain.head.height
        if height > head and head >= self._sync_target:
            self._machine.send_machine(source, WantBlocks(head + 1))

    def _ask_blocks(self, sender: int | None) -> None:
        height = self._disk.chain.head.height
        if height < self._sync_target:
            self._machine.send(self._machine.someone() if sender is None else sender, WantBlocks(height + 1))

    def committed(self) -> None:
        """Forgets what only the height now committed could need."""
        height = self._disk.chain.head.height
        self._fetched.clear()
        self._bodies = {key: body for key, body in self._bodies.items() if body.header.height > height}
        self._gatherings = [gathering for gathering in self._gatherings if gathering.header.height > height]

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._machine.later(RETRY_US, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._gatherings = [gathering for gathering in self._gatherings if not self._finish(gathering)]
        for gathering in self._gatherings:
            self._ask_transactions(gathering, None)
        for block_hash in self._wanted_bodies:
            self._machine.send(self._machine.someone(), WantBody(block_hash))
        self._ask_blocks(None)
        if self._gatherings or self._wanted_bodies or self._disk.chain.head.height < self._sync_target:
            self._retry_later()

    # ---- what comes ----

    def transactions_came(self, transactions: tuple[Transaction, ...]) -> None:
        """Takes transactions that were sent, asked for or not."""
        for tx in transactions:
            self._fetched[tx.wire_hash] = tx
        waiting, self._gatherings = self._gatherings, []
        self._gatherings += [gathering for gathering in waiting if not self._finish(gathering)]

    def body_came(self, body: Body) -> None:
        """Takes a block that was asked for by hash."""
        block_hash = body.header.hash
        wanted = self._wanted_bodies.pop(block_hash, None) is not None
        if not wanted and all(gathering.header.hash != block_hash for gathering in self._gatherings):
            return
        self._bodies[block_hash] = body
        self.transactions_came(body.transactions)
        if wanted:
            self._available(body)

    def blocks_came(self, parcel: BlocksSent) -> None:
        """Takes committed blocks on the strength of their certificates, as far as the set in force is known."""
        cluster, chain = self._machine.cluster, self._disk.chain
        for body, certificate in parcel.blocks:
            header = body.header
            if header.height <= chain.head.height or certificate.block_hash != header.hash:
                continue
            if header.validators_hash != chain.validators.hash:
                return
            try:
                believed = cluster.believed_at(header.height)
                verify_certificate(certificate, cluster.world.genesis.hash, believed, cluster.scheme.verify)
            except Rejected:
                continue
            for tx in body.transactions:
                self._fetched[tx.wire_hash] = tx
            self._bodies[header.hash] = body
            self._machine.work.certified(header, body.wire_hashes, certificate)

    # ---- what others lack ----

    def serve_transactions(self, to: int, want: WantTransactions) -> None:
        """Sends what is here of the transactions asked for."""
        found = tuple(tx for wire_hash in want.wire_hashes if (tx := self._transaction(wire_hash)) is not None)
        if found:
            self._machine.send_machine(to, Transactions(found))

    def serve_body(self, to: int, want: WantBody) -> None:
        """Sends a block, committed or not."""
        body = self.body(want.block_hash)
        if body is not None:
            self._machine.send_machine(to, BodySent(body))

    def serve_blocks(self, to: int, want: WantBlocks) -> None:
        """Sends the next few committed blocks."""
        blocks = self._disk.chain.blocks[want.height - 1 : want.height - 1 + BLOCKS_SENT_MAX]
        if blocks:
            self._machine.send_machine(to, BlocksSent(tuple(blocks)))

    # ---- what is here ----

    def body(self, block_hash: Hash) -> Body | None:
        """Returns a block that is here in whatever way: executed, fetched, stored, committed."""
        return (
            self._machine.work.body(block_hash)
            or self._bodies.get(block_hash)
            or self._disk.bodies.get(block_hash)
            or self._disk.chain.body(block_hash)
        )

    def _transaction(self, wire_hash: WireHash) -> Transaction | None:
        return (
            self._machine.pool.get(wire_hash)
            or self._fetched.get(wire_hash)
            or self._machine.work.candidate_transaction(wire_hash)
            or self._disk.chain.transactions.get(wire_hash)
        )
