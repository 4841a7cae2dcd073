"""The one place where the head moves: a certified block becomes durable, and everyone who waits is told.

Consensus and block sync both end here; whichever comes first with a height wins, the other finds it done. The order is:
one synced write, then the store's head, the caches, the mempool, the waiting clients, and last the consensus core,
which may only then speak about the next height.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import trio

from qenex_node import metrics as m
from qenex_node.fates import Fates
from qenex_node.gossip import Gossip
from qenex_node.leftout import LeftOut
from qenex_node.mempool import Mempool, Removed
from qenex_node.metrics import Metrics
from qenex_node.pace import Pace, drive
from qenex_node.rpc.feed import CommittedBlock, Feed
from state.block import Block
from state.errors import InvariantError, Rejected
from state.execution import ExecutedBlock, Executor
from state.store import Store
from state.transaction import Transaction, decode_transaction
from state.types import Certificate, Hash, Header

Way = Literal["consensus", "sync"]


def _nobody(header: Header) -> None:
    """Where nobody wants to be told."""


class Commits:
    """Moves the head; see the module's docstring."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        mempool: Mempool,
        gossip: Gossip,
        fates: Fates,
        feed: Feed,
        left_out: LeftOut,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        """Takes the node's parts; `on_committed` is set by the driver before anything is committed."""
        self.on_committed: Callable[[ExecutedBlock, Certificate], None]
        self.on_head: Callable[[Header], None] = _nobody
        """Told of each block with the store at its height, before anybody else is."""
        self._store = store
        self._executor = executor
        self._mempool = mempool
        self._gossip = gossip
        self._fates = fates
        self._feed = feed
        self._left_out = left_out
        self._metrics = metrics
        self._now_ms = now_ms
        self._lock = trio.Lock()
        self._executed: dict[Hash, ExecutedBlock] = {}

    def remember(self, executed: ExecutedBlock) -> None:
        """Keeps a valid execution of a candidate for the next height, for its commit."""
        self._executed[executed.block.header.hash] = executed

    def executed(self, block_hash: Hash) -> ExecutedBlock | None:
        """Returns the kept execution of a candidate block."""
        return self._executed.get(block_hash)

    async def certified(self, block: Block, certificate: Certificate, way: Way) -> None:
        """Commits a block whose certificate is proved, executing it first if that was not done yet.

        Does nothing if its height is committed already. Raises InvariantError, before anything is written, if our own
        execution of a certified block gives other roots.
        """
        async with self._lock:
            head = self._store.head
            header = block.header
            if header.height <= head.height:
                self._check_same(block)
                return
            executed = self._executed.get(header.hash)
            if executed is None:
                executed = await self._execute(block)
            began = time.perf_counter()
            prepared = await drive(self._store.commit(executed, certificate))
            await trio.to_thread.run_sync(prepared.write)
            self._metrics.observe(m.COMMIT_SECONDS, time.perf_counter() - began)
            self._store.advance(prepared)
            self._executor.committed(executed)
            self._executed.clear()
            self.on_head(header)
            self._settle(executed, certificate, way)

    def _check_same(self, block: Block) -> None:
        ours = self._store.header_at(block.header.height)
        if ours is None or ours.hash != block.header.hash:
            raise InvariantError(f"two certified blocks at height {block.header.height}: the chain is forked")

    async def _execute(self, block: Block) -> ExecutedBlock:
        transactions: list[Transaction] = []
        pace = Pace()
        try:
            for wire, wire_hash in zip(block.transactions, block.wire_hashes, strict=True):
                waiting = self._mempool.get(wire_hash)
                transactions.append(waiting or decode_transaction(wire, self._executor.context))
                if pace.tired:
                    await pace.rest()
            began = time.perf_counter()
            executed = await drive(self._executor.execute(block.header, transactions, block.evidence))
            self._metrics.observe(m.EXECUTE_SECONDS, time.perf_counter() - began)
        except Rejected as error:
            raise InvariantError(f"certified block {block.header.height} does not execute here: {error}") from error
        return executed

    def _settle(self, executed: ExecutedBlock, certificate: Certificate, way: Way) -> None:
        """Tells everyone of a block that is durable; nothing here waits."""
        header = executed.block.header
        now_ms = self._now_ms()
        removed = self._mempool.committed(executed.transactions, header.time_ms)
        self._left_out.committed(removed.committed, header.proposer)
        waited = [entry.tx for entry in (*removed.committed, *removed.stale, *removed.expired)]
        # One that waited may carry other signatures than the one with its id in the block.
        settled = {tx.wire_hash: tx for tx in (*executed.transactions, *waited)}
        self._gossip.settled(settled)
        ids = [tx.id for tx in settled.values()]
        self._gossip.acknowledgements.forget(ids)
        self._fates.settled(ids)
        self._feed.committed(CommittedBlock(executed.block, certificate, executed.receipt_bytes, executed.touched))
        self._count(executed, removed, way, now_ms)
        self.on_committed(executed, certificate)

    def _count(self, executed: ExecutedBlock, removed: Removed, way: Way, now_ms: int) -> None:
        header, metrics = executed.block.header, self._metrics
        ok = sum(receipt.code == "ok" for receipt in executed.receipts)
        metrics.set(m.CHAIN_HEIGHT, header.height)
        metrics.set(m.CHAIN_HEAD_TIME, header.time_ms / 1000)
        metrics.add(m.CHAIN_BLOCKS, 1, way)
        metrics.add(m.CHAIN_TRANSACTIONS, ok, "ok")
        metrics.add(m.CHAIN_TRANSACTIONS, len(executed.receipts) - ok, "failed")
        metrics.add(m.CHAIN_UNITS, header.units_used)
        metrics.add(m.CHAIN_BYTES, sum(map(len, executed.block.transactions)))
        metrics.observe(m.BLOCK_TRANSACTIONS, len(executed.transactions))
        metrics.add(m.MEMPOOL_REMOVED, len(removed.committed), "committed")
        metrics.add(m.MEMPOOL_REMOVED, len(removed.stale), "stale")
        metrics.add(m.MEMPOOL_REMOVED, len(removed.expired), "expired")
        for entry in removed.committed:
            metrics.observe(m.FINALITY_SECONDS, max(0, now_ms - entry.arrived_ms) / 1000)
