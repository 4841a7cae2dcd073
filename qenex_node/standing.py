"""Where a running node stands, read from its parts: for /ready, for /metrics, and why it does not vote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2p.network import Network
from qenex_node import metrics as m
from qenex_node.clock import WallClock
from qenex_node.driver import Driver
from qenex_node.gossip import Gossip
from qenex_node.health import Readings, recovering
from qenex_node.housekeeping import Housekeeping
from qenex_node.mempool import Mempool
from qenex_node.metrics import Reading, clock_offsets
from qenex_node.rpc.view import Reason
from qenex_node.sync import BlockSync
from state.store import Store

_REFUSALS: Final = {
    "reported": "this home's report of a lost quorum waits for the statement of all validators",
    "records_lost": "a vote of its key was seen that is not in its records: it signs nothing until `recover`",
    "silent": "this validator watches in silence whether another process votes with its key",
}


class Standing:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        key: bytes | None,
        store: Store,
        mempool: Mempool,
        gossip: Gossip,
        driver: Driver,
        sync: BlockSync,
        network: Network,
        housekeeping: Housekeeping,
        clock: WallClock,
    ) -> None:
        """Takes the node's parts as they are before they run; `key` is the home's validator key."""
        self._key = key
        self._store = store
        self._mempool = mempool
        self._gossip = gossip
        self._driver = driver
        self._sync = sync
        self._network = network
        self._housekeeping = housekeeping
        self._clock = clock
        self._votes_missing = key is not None and store.votes_owner != key

    @property
    def in_force(self) -> bool:
        """Whether this node is one of the validators in force."""
        return self._key is not None and self._store.validators.index_of(self._key) is not None

    def readings(self) -> Readings:
        """Returns what /ready is decided by."""
        now_ms = self._clock.now_ms()
        oldest = self._mempool.oldest()
        waiting_ms = 0
        if oldest is not None and oldest.ready_ms is not None:
            waiting_ms = max(0, min(now_ms - oldest.ready_ms, now_ms - self._store.head.time_ms))
        offsets = sorted(p.clock_offset_ms for p in self._network.peers() if p.clock_offset_ms is not None)
        return Readings(
            head_height=self._store.head.height,
            target_height=max(self._sync.target_height, self._store.head.height),
            validators_reachable=self._driver.validators_reachable(),
            quorum=self._store.validators.quorum,
            work_waiting_ms=waiting_ms,
            clock_offset_ms=offsets[len(offsets) // 2] if offsets else None,
            vote_refusal=self._vote_refusal(),
        )

    def _vote_refusal(self) -> Reason | None:
        if self._housekeeping.disk_refusal is not None:
            return self._housekeeping.disk_refusal
        if not self.in_force or self._driver.snapshot.may_sign:
            # Whose key is not in force is a full node, and as ready as one.
            return None
        if self._votes_missing:
            return Reason("votes_missing", self._why_votes_missing())
        refusal = self._driver.snapshot.refusal or ""
        if refusal in _REFUSALS:
            return Reason(refusal, _REFUSALS[refusal])
        return recovering(
            self._driver.snapshot.recovers_at, self._driver.snapshot.signed_at_most, self._store.head.height
        )

    def _why_votes_missing(self) -> str:
        what = "are another validator's" if self._store.votes_exist else "are missing"
        return f"the vote records {what}: this validator signs nothing until `recover`"

    def gauges(self) -> Iterator[Reading]:
        """Yields the gauges that are read when /metrics is asked for."""
        snapshot, validators = self._driver.snapshot, self._store.validators
        yield m.CONSENSUS_HEIGHT, (), snapshot.height
        yield m.CONSENSUS_VIEW, (), snapshot.view
        yield m.CONSENSUS_PRIMARY, (), int(snapshot.index is not None and snapshot.primary == snapshot.index)
        yield m.CONSENSUS_VOTING, (), int(snapshot.may_sign and not self._driver.paused)
        yield m.CONSENSUS_VALIDATORS, (), validators.n
        yield m.CONSENSUS_QUORUM, (), validators.quorum
        yield m.STATE_OLDEST_HEIGHT, (), self._store.oldest_state_height
        yield m.SYNC_TARGET, (), max(self._sync.target_height, self._store.head.height)
        yield m.SYNC_SYNCING, (), int(self._sync.catching_up)
        stats = self._mempool.stats()
        yield m.MEMPOOL_TRANSACTIONS, ("ready",), stats.ready
        yield m.MEMPOOL_TRANSACTIONS, ("gap",), stats.gap
        yield m.MEMPOOL_TRANSACTIONS, ("overdue",), stats.overdue
        yield m.MEMPOOL_BYTES, (), stats.bytes
        yield m.MEMPOOL_ACCOUNTS, (), stats.accounts
        oldest = self._mempool.oldest()
        waited_ms = 0 if oldest is None or oldest.ready_ms is None else self._clock.now_ms() - oldest.ready_ms
        yield m.MEMPOOL_OLDEST, (), max(0, waited_ms) / 1000
        yield m.MEMPOOL_QUEUE_BYTES, (), self._gossip.queued_bytes
        yield from self._gossip.readings()
        reachable = self._driver.validators_reachable()
        yield m.QUORUM_REACHABLE, (), int(reachable >= validators.quorum)
        peers = self._network.peers()
        for role in ("validator", "full"):
            for direction in ("inbound", "outbound"):
                count = sum(p.role == role and p.direction == direction for p in peers)
                yield m.PEERS, (role, direction), count
        yield from clock_offsets(p.clock_offset_ms for p in peers if p.clock_offset_ms is not None)
