"""What a node does by the clock beside consensus: looking through the mempool, watching the disk, pruning.

In the mempool time passes, what can no longer enter a block goes (a key may have been rotated since it was admitted),
and the primary is judged: does it leave a transaction out while it takes others that came much later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from qenex_node import metrics as m
from qenex_node.driver import Driver
from qenex_node.gossip import Gossip
from qenex_node.health import DiskGuard
from qenex_node.leftout import LeftOut
from qenex_node.logs import Log
from qenex_node.mempool import Mempool
from qenex_node.metrics import Metrics
from qenex_node.pace import drive
from qenex_node.rpc.view import Reason
from state.store import Store, free_bytes

log = Log("qenex.node")

TICK_SECONDS: Final = 0.25
DISK_SECONDS: Final = 2.0
PRUNE_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 5.0
RECHECK_AFTER_MS: Final = 300
RECHECK_COUNT_MAX: Final = 200


class Housekeeping:
    """Runs the periodic work of one node."""

    def __init__(
        self,
        *,
        data: Path,
        store: Store,
        mempool: Mempool,
        gossip: Gossip,
        driver: Driver,
        left_out: LeftOut,
        metrics: Metrics,
        now_ms: Callable[[], int],
        min_free_bytes: int,
    ) -> None:
        """Takes the node's parts; `data` is the database's directory."""
        self.disk_refusal: Reason | None = None
        self._data = data
        self._store = store
        self._mempool = mempool
        self._gossip = gossip
        self._driver = driver
        self._left_out = left_out
        self._metrics = metrics
        self._now_ms = now_ms
        self._disk = DiskGuard(min_free_bytes)
        self._complaint: str | None = None
        self._head_seen = -1
        self._quiet_since = trio.current_time()

    async def run(self) -> None:
        """Works until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_mempool)
            nursery.start_soon(self._keep_disk)
            nursery.start_soon(self._keep_pruned)

    async def _keep_mempool(self) -> None:
        while True:
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep(TICK_SECONDS)
            self._metrics.observe(m.LOOP_LAG_SECONDS, max(0.0, trio.current_time() - due))
            self.look_after_mempool()

    def look_after_mempool(self) -> None:
        """Lets time pass in the mempool, lets go of what can never enter a block, and judges the primary."""
        now_ms = self._now_ms()
        had_work = self._mempool.has_work()
        self._mempool.advance(now_ms)
        for tx in list(self._mempool.candidates(RECHECK_COUNT_MAX)):
            entry = self._mempool.by_id(tx.id)
            if entry is None or now_ms - entry.arrived_ms < RECHECK_AFTER_MS:
                break
            self._gossip.drop_if_hopeless(tx)
        if had_work and not self._mempool.has_work():
            self._driver.work_changed()
        complaint = "left_out" if self._left_out.judge(self._mempool.oldest(), self._driver.primary_key) else None
        if complaint is not None or self._complaint is not None:
            self._driver.complain(complaint)
        self._complaint = complaint

    async def _keep_disk(self) -> None:
        while True:
            refusal = self._disk.refusal(free_bytes(self._data))
            if refusal is not None and self.disk_refusal is None:
                log.error("voting stops: disk space is low", code=refusal.code, **dict(refusal.data))
                self._driver.pause()
            elif refusal is None and self.disk_refusal is not None:
                log.warning("voting goes on: there is disk space again")
                self._driver.resume()
            self.disk_refusal = refusal
            await trio.sleep(DISK_SECONDS)

    async def _keep_pruned(self) -> None:
        while True:
            await trio.sleep(PRUNE_SECONDS)
            height = self._store.head.height
            if height != self._head_seen:
                self._head_seen, self._quiet_since = height, trio.current_time()
            if self._store.heights_to_prune:
                self._metrics.add(m.STATE_PRUNED, await drive(self._store.prune()))
            idle = trio.current_time() - self._quiet_since > IDLE_SECONDS
            if self._store.reclaim_due(idle=idle):
                await self._reclaim()

    async def _reclaim(self) -> None:
        try:
            await trio.to_thread.run_sync(self._store.reclaim, abandon_on_cancel=True)
        except trio.Cancelled:
            # It works in pieces: closing the store waits for the one at hand, not for all.
            self._store.stop_reclaiming()
            raise
