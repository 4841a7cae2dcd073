"""What the RPC server must be offered by the node, beside its store, its mempool and its ledger.

`NodeView` is the whole of it. Values that cross this border are frozen; nothing here waits but `submit` and the two
`wait_...` methods. The server never reaches into consensus or peers by another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from state.errors import JsonValue, Rejected
from state.types import ChainContext, Hash, TxId

if TYPE_CHECKING:
    from qenex_node.mempool import Mempool
    from qenex_node.rpc.feed import Feed
    from qenex_node.rpc.reads import ChainReads
    from state.ledger import Ledger, StateReader


@dataclass(frozen=True, slots=True)
class Location:
    """Where a committed transaction stands."""

    height: int
    index: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A transaction that the mempool holds, or that is committed already: then `committed` says where."""

    id: TxId
    not_after_ms: int
    committed: Location | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Enough other validators (f of them) acknowledged that they hold the transaction."""

    acknowledgements: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is final at this place; its receipt is in the store."""

    location: Location


@dataclass(frozen=True, slots=True)
class Expired:
    """A committed block (its height and time) is later than the transaction's not-after: it can never enter."""

    height: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The mempool let go of the transaction for this reason (its sequence was used by another, for instance)."""

    reason: Rejected


SubmitOutcome: TypeAlias = Admitted | Rejected
WaitOutcome: TypeAlias = Accepted | Committed | Expired | Dropped | None


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Whether the node is fetching blocks that others have, and the highest height that is proved to exist."""

    syncing: bool
    target_height: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Who the node is and where it stands, beside its head. `primary` is the validator's name, None if unknown."""

    view: int
    primary: str | None
    sync: SyncStatus
    version: str
    node_id: bytes
    role: str


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One connected peer. `direction` is "inbound" or "outbound", `role` "validator" or "full"."""

    id: bytes
    name: str | None
    address: str
    direction: str
    role: str
    height: int
    latency_ms: int | None
    received_bytes: int
    sent_bytes: int
    score: int
    connected_since_ms: int


@dataclass(frozen=True, slots=True)
class ViewChangeInfo:
    """One view change that this node went through, newest last in a list of them, with its reasons."""

    height: int
    from_view: int
    to_view: int
    time_ms: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConsensusInfo:
    """The core as it stands: votes are the names of the validators whose vote for the proposal was seen.

    `timers` maps a timer's name to the milliseconds until it fires.
    """

    height: int
    view: int
    phase: str
    primary: str | None
    proposal: Hash | None
    prepares: tuple[str, ...]
    commits: tuple[str, ...]
    suspects: tuple[str, ...]
    floor: int
    timers: tuple[tuple[str, int], ...]
    view_changes: tuple[ViewChangeInfo, ...]


@dataclass(frozen=True, slots=True)
class EvidenceInfo:
    """Two different signed messages of one validator for one (height, view), numbered from 1 as they were found.

    `recorded_height` is the height of the block that holds it, None while none does as far as is known.
    """

    number: int
    validator: str
    kind: str
    height: int
    view: int
    first: bytes
    second: bytes
    recorded_height: int | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the node is not ready: a stable code ("no_quorum", "head_behind", "disk_low" ...), text and details."""

    code: str
    message: str
    data: tuple[tuple[str, JsonValue], ...] = ()


class NodeView(Protocol):
    """The node as the RPC server sees it."""

    @property
    def context(self) -> ChainContext:
        """The chain's name and genesis hash."""

    @property
    def store(self) -> ChainReads:
        """The committed chain and state."""

    @property
    def state(self) -> StateReader:
        """The newest committed state, with whatever cache of decoded records the node has (`Executor.state`)."""

    @property
    def mempool(self) -> Mempool:
        """The waiting transactions."""

    @property
    def ledger(self) -> Ledger:
        """The rules, for simulation and the plug-ins' queries."""

    @property
    def feed(self) -> Feed:
        """Where the node tells of commits, evidence and status changes; subscriptions live on it."""

    def now_ms(self) -> int:
        """Returns the node's clock, ms since 1970 UTC."""

    def status(self) -> NodeStatus:
        """Returns who and where the node is; cheap, called for each status answer."""

    def readiness(self) -> Sequence[Reason]:
        """Returns why the node is not ready to serve, most important first; nothing when it is."""

    def peers(self) -> Sequence[PeerInfo]:
        """Returns the connected peers."""

    def consensus_state(self) -> ConsensusInfo:
        """Returns what the consensus core is doing."""

    def evidence(self, after: int, limit: int) -> Sequence[EvidenceInfo]:
        """Returns up to `limit` pieces of evidence with numbers above `after`, in order."""

    async def submit(self, wires: Sequence[bytes]) -> Sequence[SubmitOutcome]:
        """Admits transactions to the mempool as one batch and passes them on to peers.

        Returns one outcome for each, in order: never raises for a bad transaction. A transaction that is known
        already counts as admitted again. A later transaction of a sender may depend on an earlier one of the batch.
        """

    async def wait_accepted(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Waits until f other validators hold each transaction, or its fate is known.

        Returns one outcome for each, in order; None for those that were still waiting when the time was up.
        """

    async def wait_committed(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Waits until each transaction is committed, expired or dropped.

        Returns one outcome for each, in order; None for those that were still waiting when the time was up.
        """
