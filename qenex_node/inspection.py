"""Serving read-only RPC from a stopped node's data: no peers, no consensus, no transactions, no private keys.

It is the same RPC server over the same store; `Inspection` stands where a running node's view stands. It says in status
(`role` is "inspection") and in /ready what it is, and refuses whatever would need a node ("read_only").
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Final

import trio

from consensus.records import decode_records
from p2p.identity import node_id
from qenex_node import __version__
from qenex_node.clock import WallClock
from qenex_node.homes import NodeHome
from qenex_node.keystore import inspect_key
from qenex_node.mempool import Mempool
from qenex_node.options import mempool_limits, rpc_limits, store_options
from qenex_node.rpc.access import Access
from qenex_node.rpc.feed import Feed
from qenex_node.rpc.methods import registry
from qenex_node.rpc.server import RpcServer, open_listeners
from qenex_node.rpc.view import (
    Committed,
    ConsensusInfo,
    Dropped,
    EvidenceInfo,
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
from state.types import Address, ChainContext, TxId

ROLE: Final = "inspection"


def read_only() -> Rejected:
    """Returns why nothing can be submitted."""
    return Rejected("read_only", "this serves a stopped node's data for reading: submit to a running node")


class Inspection:
    """See the module's docstring. Implements `qenex_node.rpc.view.NodeView`."""

    def __init__(self, home: NodeHome) -> None:
        """Opens the database of a stopped node; raises as `Store.open` does."""
        self._home = home
        ledger = Ledger()
        self.store = Store.open(home.home.data, home.genesis, ledger, store_options(home.config))
        self._executor = Executor(ledger, home.genesis.context, self.store)
        self.mempool = Mempool(mempool_limits(home.config), self._next_sequence)
        self.feed = Feed()
        self._clock = WallClock(0)

    def close(self) -> None:
        """Closes the database."""
        self.store.close()

    def _next_sequence(self, sender: Address, lane: int) -> int:
        account = self.ledger.read_account(self.state, sender)
        return 0 if account is None else account.sequence(lane)

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
        """The newest committed state."""
        return self._executor.state

    def now_ms(self) -> int:
        """Returns this machine's clock, ms since 1970 UTC."""
        return self._clock.now_ms()

    def status(self) -> NodeStatus:
        """Returns whose data it is and where they end; there is no view and no primary."""
        key = inspect_key(self._home.home.node_key_file).public.data
        sync = SyncStatus(False, self.store.head.height)
        return NodeStatus(0, None, sync, __version__, bytes.fromhex(node_id(key)), ROLE)

    def readiness(self) -> Sequence[Reason]:
        """Returns that this is no running node."""
        return (Reason(ROLE, "this serves a stopped node's data for reading; no node runs here"),)

    def peers(self) -> Sequence[PeerInfo]:
        """Returns nobody."""
        return ()

    def consensus_state(self) -> ConsensusInfo:
        """Returns that no consensus runs."""
        return ConsensusInfo(self.store.head.height + 1, 0, ROLE, None, None, (), (), (), 0, (), ())

    def evidence(self, after: int, limit: int) -> Sequence[EvidenceInfo]:
        """Returns the pieces of evidence in the vote records."""
        kept = decode_records(self.store.votes()).evidence if self.store.votes_exist else ()
        found = [
            EvidenceInfo(
                number=number,
                validator=self._member(item.height, item.offender),
                kind=item.offence.name.lower(),
                height=item.height,
                view=item.view,
                first=item.first.signature,
                second=item.second.signature,
            )
            for number, item in enumerate(kept, 1)
        ]
        return found[after : after + limit]

    def _member(self, height: int, index: int) -> str:
        try:
            members = self.store.validators_at(height).validators
        except Rejected:
            return "unknown"
        return members[index].name if index < len(members) else "unknown"

    async def submit(self, wires: Sequence[bytes]) -> Sequence[SubmitOutcome]:
        """Refuses every transaction."""
        await trio.lowlevel.checkpoint()
        return [read_only() for _ in wires]

    async def wait_accepted(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Returns at once what is known: nothing will change."""
        return await self.wait_committed(ids, timeout_ms)

    async def wait_committed(self, ids: Sequence[TxId], timeout_ms: int) -> Sequence[WaitOutcome]:
        """Returns at once what is known: nothing will change."""
        await trio.lowlevel.checkpoint()
        places = [self.store.locate(tx_id) for tx_id in ids]
        return [Dropped(read_only()) if place is None else Committed(Location(*place)) for place in places]


async def serve_inspection(home: NodeHome, host: str, port: int, started: Callable[[Inspection, str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `started` is told the URL. Raises as `Store.open` does, OSError for the port."""
    section = home.config
    listeners = await open_listeners(host, port)
    inspection = Inspection(home)
    try:
        server = RpcServer(
            inspection,
            registry(inspection.ledger, __version__),
            limits=rpc_limits(section),
            access=Access(section.rpc.allowed_hosts, section.rpc.allowed_origins),
        )
        bound = listeners[0].socket.getsockname()
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listeners)
                started(inspection, f"http://{name}:{bound[1]}")
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break
    finally:
        inspection.close()
