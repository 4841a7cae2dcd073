"""The node as its RPC server sees it: answers composed from the parts, and the two ways to wait for a transaction.

Implements `qenex_node.rpc.view.NodeView`. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qenex_node import __version__
from qenex_node.clock import WallClock
from qenex_node.driver import Driver, monotonic_ms
from qenex_node.fates import Fates
from qenex_node.gossip import Gossip
from qenex_node.health import not_ready
from qenex_node.mempool import Mempool
from qenex_node.rpc.feed import Feed
from qenex_node.rpc.view import (
    Accepted,
    Admitted,
    Committed,
    ConsensusInfo,
    Dropped,
    EvidenceInfo,
    Expired,
    Location,
    NodeStatus,
    PeerInfo,
    Reason,
    SubmitOutcome,
    SyncStatus,
    WaitOutcome,
)
from state.errors import Rejected
from state.execution import Executor
from state.ledger import AccountCache, Ledger
from state.store import Store
from state.transaction import Transaction
from state.types import ChainContext, TxId

if TYPE_CHECKING:
    from p2p.network import Network
    from qenex_node.health import Readings
    from qenex_node.journal import Journal
    from qenex_node.sync import BlockSync


class View:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        mempool: Mempool,
        gossip: Gossip,
        fates: Fates,
        feed: Feed,
        driver: Driver,
        journal: Journal,
        sync: BlockSync,
        network: Network,
        clock: WallClock,
        in_force: Callable[[], bool],
        readings: Callable[[], Readings],
    ) -> None:
        """Takes the node's parts, whether its key is in force now, and how to read its health."""
        self.store = store
        self.mempool = mempool
        self.feed = feed
        self._executor = executor
        self._gossip = gossip
        self._fates = fates
        self._driver = driver
        self._journal = journal
        self._sync = sync
        self._network = network
        self._clock = clock
        self._in_force = in_force
        self._readings = readings

    @property
    def context(self) -> ChainContext:
        """The chain's name and genesis hash."""
        return self._executor.context

    @property
    def ledger(self) -> Ledger:
        """The rules."""
        return self._executor.ledger

    @property
    def state(self) -> AccountCache:
        """The newest committed state with decoded accounts."""
        return self._executor.state

    def now_ms(self) -> int:
        """Returns the node's clock, ms since 1970 UTC."""
        return self._clock.now_ms()

    def status(self) -> NodeStatus:
        """Returns who and where the node is."""
        snapshot = self._driver.snapshot
        return NodeStatus(
            view=snapshot.view,
            primary=self.store.validators.validators[snapshot.primary].name,
            sync=SyncStatus(self._sync.catching_up, max(self._sync.target_height, self.store.head.height)),
            version=__version__,
            node_id=bytes.fromhex(self._network.id),
            role="validator" if self._in_force() else "full",
        )

    def readiness(self) -> Sequence[Reason]:
        """Returns why the node is not ready to serve, most important first."""
        return not_ready(self._readings())

    def peers(self) -> Sequence[PeerInfo]:
        """Returns the connected peers."""
        now_ms = self._clock.now_ms()
        return [
            PeerInfo(
                id=bytes.fromhex(peer.id),
                name=peer.name,
                address=peer.address,
                direction=peer.direction,
                role=peer.role,
                height=peer.height,
                latency_ms=None if peer.latency_ms is None else round(peer.latency_ms),
                received_bytes=peer.bytes_in,
                sent_bytes=peer.bytes_out,
                score=round(peer.score),
                connected_since_ms=now_ms - round(peer.connected_seconds * 1000),
            )
            for peer in self._network.peers()
        ]

    def consensus_state(self) -> ConsensusInfo:
        """Returns what the consensus core is doing."""
        snapshot, validators = self._driver.snapshot, self.store.validators.validators

        def names(indexes: Sequence[int]) -> tuple[str, ...]:
            return tuple(validators[index].name for index in indexes)

        now_ms = monotonic_ms()
        return ConsensusInfo(
            height=snapshot.height,
            view=snapshot.view,
            phase=snapshot.phase.value,
            primary=validators[snapshot.primary].name,
            proposal=snapshot.proposal,
            prepares=names(snapshot.prepares),
            commits=names(snapshot.commits),
            suspects=names(snapshot.suspects),
            floor=snapshot.floor,
            timers=tuple((name, max(0, at_ms - now_ms)) for name, at_ms in snapshot.timers),
            view_changes=tuple(self._journal.view_changes),
        )

    def evidence(self, after: int, limit: int) -> Sequence[EvidenceInfo]:
        """Returns pieces of evidence with numbers above `after`."""
        return self._journal.evidence(after, limit)

    async def submit(self, wires: Sequence[bytes]) -> Sequence[SubmitOutcome]:
        """Admits transactions as one batch; see NodeView."""
        return [self._outcome(outcome) for outcome in await self._gossip.submit(wires)]

    def _outcome(self, outcome: Transaction | Rejected) -> SubmitOutcome:
        if isinstance(outcome, Rejected):
            return outcome
        # What waits is not committed: the database is asked only about the rest.
        waits = self.mempool.by_id(outcome.id) is not None
        return Admitted(outcome.id, outcome.not_after_ms, None if waits else self._location(outcome.id))

    def _location(self, tx_id: TxId) -> Location | None:
        place = self.store.locate(tx_id)
        return None if place is None else Location(*place)

    async def wait_accepted(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Waits until enough other validators hold each, or its fate is known; see NodeView."""
        waiting = [tx_id for tx_id in ids if self._accepted(tx_id) is None and self._fate(tx_id) is None]
        await self._fates.wait_accepted(waiting, timeout_ms / 1000)
        return [self._accepted(tx_id) or self._fate(tx_id) for tx_id in ids]

    async def wait_committed(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Waits until each is committed, expired or dropped; see NodeView."""
        waiting = [tx_id for tx_id in ids if self._fate(tx_id) is None]
        await self._fates.wait_settled(waiting, timeout_ms / 1000)
        return [self._fate(tx_id) for tx_id in ids]

    def _accepted(self, tx_id: TxId) -> WaitOutcome:
        if self.mempool.by_id(tx_id) is None:
            return None
        count = self._gossip.acknowledgements.count(tx_id)
        return Accepted(count) if count >= self._gossip.acknowledgements_needed() else None

    def _fate(self, tx_id: TxId) -> WaitOutcome:
        """Returns what became of a transaction; None while it waits, or if it was never here."""
        if self.mempool.by_id(tx_id) is not None:
            return None
        place = self._location(tx_id)
        if place is not None:
            return Committed(place)
        gone = self.mempool.gone(tx_id)
        if gone is None:
            return None
        head = self.store.head
        if gone.code == "expired":
            return Expired(head.height, head.time_ms)
        return Dropped(Rejected(gone.code, gone.message))
