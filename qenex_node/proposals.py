"""Making blocks out of the mempool, and judging those of others: the slow work that the consensus core asks for.

A proposal names transactions by wire hash. They are taken from the mempool, from a stored body of the same block, or
fetched from peers; then the block is executed on an overlay. What turns out valid is kept for its commit. All of it
belongs to one height and ends when that height is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from p2p.network import Network
from p2p.wire import Kind, batches
from qenex_node import metrics as m
from qenex_node.budget import BlockBudget
from qenex_node.commits import Commits
from qenex_node.evidence import EvidencePool
from qenex_node.gossip import Gossip
from qenex_node.logs import Log
from qenex_node.mempool import Mempool
from qenex_node.metrics import Metrics
from qenex_node.pace import Pace, drive
from state.block import Block, evidence_hash
from state.errors import InvariantError, Rejected
from state.execution import ExecutedBlock, Executor
from state.limits import EVIDENCE_MAX
from state.store import Store
from state.transaction import Transaction, decode_transaction, verify_signatures
from state.types import Hash, Header, WireHash

if TYPE_CHECKING:
    from qenex_node.bodies import Bodies

log = Log("qenex.proposals")

_NO_EVIDENCE: Final = evidence_hash(())


class Verdict(Enum):
    """What a proposal turned out to be. NOT_YET: ahead of our clock; DROPPED: of no interest any more."""

    VALID = "valid"
    INVALID = "invalid"
    NOT_YET = "not_yet"
    DROPPED = "dropped"


class Proposals:
    """Builds and validates candidate blocks for the height after the head."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        mempool: Mempool,
        gossip: Gossip,
        commits: Commits,
        evidence: EvidencePool,
        metrics: Metrics,
        key: bytes,
        drift_ms: int,
        target_ms: int,
        units_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        """Takes the node's parts; `key` is our consensus key; `network` and `bodies` are set before use."""
        self.network: Network
        self.bodies: Bodies
        self.budget = BlockBudget(units_max, target_ms=target_ms)
        self._store = store
        self._executor = executor
        self._mempool = mempool
        self._gossip = gossip
        self._commits = commits
        self._evidence = evidence
        self._metrics = metrics
        self._key = key
        self._drift_ms = drift_ms
        self._build_seconds_max = target_ms / 2000
        self._now_ms = now_ms
        self._executing = trio.Lock()
        self._open: set[trio.CancelScope] = set()
        self._bodies: dict[WireHash, bytes] = {}
        self._proved: dict[WireHash, Transaction] = {}

    def height_committed(self) -> None:
        """Ends all work on candidates for the height that is committed now."""
        for scope in self._open:
            scope.cancel()
        self._bodies.clear()
        self._proved.clear()

    def wire_of(self, wire_hash: bytes) -> bytes | None:
        """Returns a transaction of a candidate block, for peers that lack it."""
        return self._bodies.get(WireHash(wire_hash))

    async def build(self) -> ExecutedBlock | None:
        """Returns a new block for the next height, None if nothing may enter one."""
        now_ms = self._now_ms()
        self._mempool.advance(now_ms)
        evidence = self._evidence.waiting
        if not self._mempool.has_work() and not evidence:
            return None
        async with self._executing:
            began = time.perf_counter()

            def out_of_time() -> bool:
                return time.perf_counter() - began > self._build_seconds_max

            candidates = self._within_budget()
            executed = await drive(
                self._executor.build(now_ms, candidates, self._key, out_of_time, self._skipped, evidence=evidence)
            )
        if executed is not None:
            self._metrics.observe(m.EXECUTE_SECONDS, time.perf_counter() - began)
            self._keep(executed)
        return executed

    def _within_budget(self) -> Iterator[Transaction]:
        """Yields the waiting transactions, longest ready first, as far as the budget goes; the first in any case, or a
        heavy one would never be proposed while the budget is small."""
        units_left = budget = self.budget.units
        for tx in self._mempool.candidates(budget):
            units = self._executor.ledger.parse(tx).units
            if units > units_left and units_left < budget:
                return
            units_left -= units
            yield tx

    def _skipped(self, tx: Transaction, error: Rejected) -> None:
        """Lets go of a candidate that the draft refused, if the committed state refuses it too: the draft may hold a
        key rotation that is never committed."""
        self._gossip.drop_if_hopeless(tx)

    def _keep(self, executed: ExecutedBlock) -> None:
        self._commits.remember(executed)
        for tx in executed.transactions:
            self._bodies[tx.wire_hash] = tx.wire

    async def validate(
        self, header: Header, wire_hashes: Sequence[WireHash], *, first: bool, source: bytes | None
    ) -> tuple[Verdict, str]:
        """Judges a proposal: returns the verdict, and the name of the broken rule for INVALID.

        `first` says that it is a first proposal, whose time is held against our clock. `source` is the validator key
        of whoever proposed it, who is asked first for what is missing here.
        """
        if first:
            ahead_ms = header.time_ms - self._now_ms()
            if ahead_ms > self._drift_ms:
                return Verdict.NOT_YET, ""
            if -ahead_ms > self._drift_ms:
                return Verdict.INVALID, "drift"
        if self._commits.executed(header.hash) is not None:
            return Verdict.VALID, ""
        with self._while_open():
            if header.height != self._store.head.height + 1:
                return Verdict.DROPPED, ""
            try:
                transactions = await self._gather(header.hash, wire_hashes, source)
                evidence = await self._gather_evidence(header, source)
                async with self._executing:
                    began = time.perf_counter()
                    executed = await drive(self._executor.execute(header, transactions, evidence))
            except Rejected as error:
                if error.code == "superseded":
                    return Verdict.DROPPED, ""
                log.warning("a proposed block breaks a rule", height=header.height, why=str(error))
                return Verdict.INVALID, str(error.data.get("rule", error.code))
            self._metrics.observe(m.EXECUTE_SECONDS, time.perf_counter() - began)
            self._keep(executed)
            return Verdict.VALID, ""
        return Verdict.DROPPED, ""

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        """Runs its body until the height is committed; then it is cancelled and left."""
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                yield
            finally:
                self._open.discard(scope)

    async def gather_while_open(self, header: Header, wire_hashes: Sequence[WireHash]) -> Block | None:
        """Returns a block with its body, fetched if need be; None if its height was committed in the meantime."""
        with self._while_open():
            transactions = await self._gather(header.hash, wire_hashes, None)
            return Block.of(header, transactions, await self._gather_evidence(header, None))
        return None

    async def take_body(self, block: Block) -> None:
        """Proves the transactions of a fetched block, so that its validation finds them; raises Rejected."""
        pace = Pace()
        for wire, wire_hash in zip(block.transactions, block.wire_hashes, strict=True):
            if self._mempool.get(wire_hash) is None and wire_hash not in self._proved:
                tx = decode_transaction(wire, self._executor.context)
                verify_signatures(tx)
                self._proved[wire_hash] = tx
            self._bodies[wire_hash] = wire
            if pace.tired:
                await pace.rest()

    async def _gather(
        self, block_hash: Hash, wire_hashes: Sequence[WireHash], source: bytes | None
    ) -> list[Transaction]:
        """Returns a block's transactions in order, fetching what is missing for as long as it takes."""
        found = {h: tx for h in wire_hashes if (tx := self._mempool.get(h) or self._proved.get(h)) is not None}
        if len(found) < len(wire_hashes):
            await self._take_from_stored_body(block_hash, found)
        missing = [h for h in wire_hashes if h not in found]
        if missing:
            found.update(await self._gossip.fetch(missing, _Asker(self.network, source)))
        if len(found) != len(set(wire_hashes)):
            raise InvariantError("a block's transactions were gathered and some are still missing")
        return [found[h] for h in wire_hashes]

    async def _gather_evidence(self, header: Header, source: bytes | None) -> Sequence[bytes]:
        """Returns a block's evidence, of which proposals give the hash alone: what waits here, or what a peer has."""
        if header.evidence_hash == _NO_EVIDENCE:
            return ()
        ours = self._evidence.waiting[:EVIDENCE_MAX]
        if evidence_hash(ours) == header.evidence_hash:
            return ours
        block = await self.bodies.get(header.hash, frozenset(() if source is None else (source,)))
        return block.evidence

    async def _take_from_stored_body(self, block_hash: Hash, found: dict[WireHash, Transaction]) -> None:
        """Adds what a body on our own disk holds: this node proved its signatures before it stored it."""
        stored = self._store.body(block_hash)
        if stored is None:
            return
        pace = Pace()
        for wire, wire_hash in zip(stored.transactions, stored.wire_hashes, strict=True):
            if wire_hash not in found:
                found[wire_hash] = decode_transaction(wire, self._executor.context)
            self._bodies[wire_hash] = wire
            if pace.tired:
                await pace.rest()


class _Asker:
    """Asks for transactions: first the proposer, then everyone, for a Byzantine proposer may withhold them."""

    def __init__(self, network: Network, source: bytes | None) -> None:
        self._network = network
        self._source = source
        self._asked = False

    def __call__(self, hashes: Sequence[bytes]) -> None:
        peers = self._network.connected()
        proposer = [peer for peer in peers if self._source is not None and peer.validator_key == self._source]
        chosen = proposer if proposer and not self._asked else peers
        self._asked = True
        for batch in batches(hashes, kind=Kind.TX_REQUEST):
            for peer in chosen:
                peer.send(Kind.TX_REQUEST, batch)
