"""A whole node: makes its parts, joins them, runs them until told to stop.

The parts know each other only through what is handed over here. If any of them finds a broken invariant, everything
ends: a node that is not sure of itself must not speak.
"""

from __future__ import annotations

import gc
import signal
import sys
from dataclasses import dataclass
from typing import Any, Final

import trio

from consensus.replica import Replica
from p2p.hello import LocalNode, Role
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node import __version__
from qenex_node import metrics as m
from qenex_node.clock import WallClock
from qenex_node.commits import Commits
from qenex_node.config import Config, load, reloaded
from qenex_node.driver import Driver
from qenex_node.evidence import EvidencePool
from qenex_node.exposition import serve_metrics
from qenex_node.fates import Fates
from qenex_node.gossip import Gossip
from qenex_node.homes import NodeHome, NodeKeys
from qenex_node.housekeeping import Housekeeping
from qenex_node.journal import Journal
from qenex_node.leftout import LeftOut
from qenex_node.logs import Log, set_level
from qenex_node.mempool import Mempool
from qenex_node.metrics import Metrics, RpcCounters, disk_source, p2p_source, process_source
from qenex_node.options import mempool_limits, rpc_limits, snapshot_options, state_sync_options, store_options
from qenex_node.peering import Peering
from qenex_node.proposals import Proposals
from qenex_node.restored import core_config, restored_from
from qenex_node.rpc.access import Access
from qenex_node.rpc.errors import APPLICATION_KINDS, STANDARD_KINDS
from qenex_node.rpc.feed import Feed
from qenex_node.rpc.methods import registry as rpc_registry
from qenex_node.rpc.server import RpcServer, open_listeners
from qenex_node.snapshots import Snapshots
from qenex_node.standing import Standing
from qenex_node.statesync import StateSync
from qenex_node.sync import BlockSync
from qenex_node.view import View
from state.errors import Rejected
from state.execution import ExecutedBlock, Executor
from state.keys import verify_ed25519
from state.ledger import Ledger
from state.store import Store
from state.store.snapshots import carry_votes
from state.types import Hash

log = Log("qenex.node")

GC_THRESHOLDS: Final = (50_000, 20, 100)
SWITCH_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running node listens: URLs, and host:port for peers."""

    rpc: str
    metrics: str | None
    p2p: str


class Node:
    """One node's parts, joined. `run` does the rest."""

    def __init__(self, home: NodeHome, keys: NodeKeys, clock: WallClock) -> None:
        """Opens the database and makes the parts; raises Rejected or StoreError where that cannot be."""
        config, genesis = home.config, home.genesis
        self.config: Config = config
        self._home = home
        self._clock = clock
        ledger = Ledger()
        self.store = Store.open(home.home.data, genesis, ledger, store_options(config))
        self.executor = Executor(ledger, genesis.context, self.store)
        self._validator = keys.validator
        self._key = None if keys.validator is None else keys.validator.public.data
        self._rpc_registry = rpc_registry(ledger, __version__)
        self.metrics = Metrics(
            __version__,
            rpc_methods=[method.name for method in self._rpc_registry],
            rpc_errors=[kind.name for kind in (*STANDARD_KINDS, *APPLICATION_KINDS)],
        )
        self.mempool = Mempool(mempool_limits(config), lambda sender, lane: next_sequence(self.executor, sender, lane))
        self._fates = Fates()
        self.feed = Feed()
        self.restored = False
        """Whether state sync has made a new database, which takes the place of this one when the node is closed."""
        self._join_parts(genesis.parameters.drift_ms, genesis.parameters.block_units_max)
        self._validators = self.store.validators
        self._peering = Peering(lambda: self.executor.state, keys.node.public, config)
        self.network = self._make_network(keys)
        self._gossip.network = self.network
        self._proposals.network = self.network
        self.sync.network = self.network
        self.driver.network = self.network
        self.driver.on_committed = self._committed
        self._peering.network = self.network
        self._peering.dial()
        self._state_sync.network = self.network
        self._standing = Standing(
            key=self._key,
            store=self.store,
            mempool=self.mempool,
            gossip=self._gossip,
            driver=self.driver,
            sync=self.sync,
            network=self.network,
            housekeeping=self._housekeeping,
            clock=clock,
        )

    def _join_parts(self, drift_ms: int, units_max: int) -> None:
        context, now_ms = self.executor.context, self._clock.now_ms
        evidence = EvidencePool(self.store, self.executor)
        self._gossip = Gossip(
            context=context,
            ledger=self.executor.ledger,
            reader=lambda: self.executor.state,
            mempool=self.mempool,
            fates=self._fates,
            validators=lambda: self.store.validators,
            validator_key=self._key,
            sign=self._sign,
            now_ms=now_ms,
            on_work=lambda: self.driver.work_changed(),
            is_committed=lambda tx_id: self.store.locate(tx_id) is not None,
            queue_bytes_max=self.config.mempool.queue_bytes_max,
        )
        self._left_out = LeftOut(self.config.consensus.left_out_ms)
        self._commits = Commits(
            store=self.store,
            executor=self.executor,
            mempool=self.mempool,
            gossip=self._gossip,
            fates=self._fates,
            feed=self.feed,
            left_out=self._left_out,
            metrics=self.metrics,
            now_ms=now_ms,
        )
        self._proposals = Proposals(
            store=self.store,
            executor=self.executor,
            mempool=self.mempool,
            gossip=self._gossip,
            commits=self._commits,
            evidence=evidence,
            metrics=self.metrics,
            key=self._key or bytes(32),
            drift_ms=drift_ms,
            target_ms=self.config.consensus.block_target_ms,
            units_max=units_max,
            now_ms=now_ms,
        )
        self.sync = BlockSync(
            self.store, context.genesis_hash, lambda block, cert: self._commits.certified(block, cert, "sync")
        )
        self._join_snapshots()
        self._journal = Journal(self.metrics, now_ms, trio.current_time, evidence.recorded_at)
        self.driver = Driver(
            context=context,
            replica=self._make_replica(),
            key=self._key,
            store=self.store,
            mempool=self.mempool,
            gossip=self._gossip,
            commits=self._commits,
            proposals=self._proposals,
            sync=self.sync,
            feed=self.feed,
            journal=self._journal,
            left_out=self._left_out,
            evidence=evidence,
            metrics=self.metrics,
        )
        self._housekeeping = Housekeeping(
            data=self._home.home.data,
            store=self.store,
            mempool=self.mempool,
            gossip=self._gossip,
            driver=self.driver,
            left_out=self._left_out,
            metrics=self.metrics,
            now_ms=now_ms,
            min_free_bytes=self.config.storage.min_free_bytes,
        )

    def _join_snapshots(self) -> None:
        self._snapshots = Snapshots(self._home.home.snapshots, self.store, self.metrics, snapshot_options(self.config))
        self._state_sync = StateSync(
            store=self.store,
            genesis=self._home.genesis,
            sync=self.sync,
            snapshots=self._snapshots,
            store_options=store_options(self.config),
            options=state_sync_options(self.config),
        )
        self._commits.on_head = self._snapshots.on_committed
        # A chain that is being fetched passes many heights that others have made snapshots of long ago.
        interval = self.config.snapshots.interval_heights
        self._snapshots.catching_up = lambda: self.sync.target_height - self.store.head.height >= interval

    def _make_replica(self) -> Replica:
        config = core_config(self.config, self._home.genesis, self._key)
        restored = restored_from(self.store, self._key)
        return Replica(config, restored, None if self._key is None else self._sign)

    def _sign(self, message: bytes) -> bytes:
        if self._validator is None:
            raise Rejected("not_a_validator", "a full node has no consensus key")
        return self._validator.sign(message)

    def _make_network(self, keys: NodeKeys) -> Network:
        section = self.config.p2p
        local = LocalNode(
            chain=self.executor.context,
            role=Role.VALIDATOR if self._key is not None else Role.FULL,
            listen_address=section.advertise,
            validator_key=self._key,
            head_height=lambda: self.store.head.height,
            sign=self._sign,
            verify=verify_ed25519,
            latest_vote_seen=lambda key: self.driver.latest_vote_seen(key),
        )
        return Network(
            keys.node,
            local,
            self,
            listen=f"{section.listen_host}:{section.listen_port}",
            permitted=self._peering.permitted(),
            wall_clock_ms=self._clock.now_ms,
        )

    def _committed(self, executed: ExecutedBlock) -> None:
        """Follows the validators in force, in what is not consensus."""
        before, after = self._validators, self.store.validators
        if before is not after:
            self._validators = after
            self._gossip.validators_changed(before)
            was, now = ({validator.name for validator in one.validators} for one in (before, after))
            log.warning(
                "the validators in force have changed",
                height=self.store.validators_since,
                added=sorted(now - was),
                removed=sorted(was - now),
                voting=self._standing.in_force,
            )
        self._peering.committed(executed.changes)

    # What the network brings

    def on_connected(self, peer: Peer) -> None:
        """A peer was accepted."""
        self._gossip.on_connected(peer)
        self.sync.note_height(peer, peer.height)
        self.driver.on_connected(peer)
        self._peering.learn(peer)
        self.feed.changed()

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        """A peer is gone."""
        self.driver.on_disconnected(peer)
        self._state_sync.on_disconnected(peer)
        self.feed.changed()

    def on_message(self, peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
        """A message came; raises Rejected for one that only a faulty peer sends."""
        match kind:
            case Kind.CONSENSUS:
                self.driver.on_consensus(peer, body, raw)
            case Kind.TRANSACTIONS:
                self._gossip.on_transactions(peer, body)
            case Kind.TX_HELD:
                self._gossip.on_held(peer, body, raw)
            case Kind.TX_ANNOUNCE:
                self._gossip.on_announce(peer, body)
            case Kind.TX_REQUEST:
                self._gossip.on_request(peer, body, self._proposals.wire_of)
            case Kind.BODY_REQUEST:
                self.driver.bodies.on_request(peer, Hash(body))
            case Kind.BODY:
                self.driver.bodies.on_body(peer, body)
            case Kind.BLOCK_REQUEST:
                self.sync.on_block_request(peer, *body)
            case Kind.BLOCKS:
                self.sync.on_blocks(peer, body)
            case Kind.STATUS:
                self.sync.note_height(peer, body)
            case _:
                self._on_snapshot_message(peer, kind, body)

    def _on_snapshot_message(self, peer: Peer, kind: Kind, body: Any) -> None:
        match kind:
            case Kind.SNAPSHOTS_REQUEST:
                self._snapshots.on_snapshots_request(peer, body)
            case Kind.MANIFEST_REQUEST:
                self._snapshots.on_manifest_request(peer, body)
            case Kind.CHUNK_REQUEST:
                self._snapshots.on_chunk_request(peer, *body)
            case Kind.LIGHT_REQUEST:
                self._snapshots.on_light_request(peer, body)
            case Kind.SNAPSHOTS:
                self._state_sync.on_snapshots(peer, body)
            case Kind.MANIFEST:
                self._state_sync.on_manifest(peer, *body)
            case Kind.CHUNK:
                self._state_sync.on_chunk(peer, *body)
            case Kind.LIGHT:
                self._state_sync.on_light(peer, *body)
            case _:
                raise Rejected("unexpected", f"{kind.name} has no meaning here")

    # Running

    async def run(self) -> None:
        """Runs the node until cancelled, until SIGTERM or SIGINT, or until it has a new database to begin anew with.

        Raises what halts it.
        """
        section = self.config
        rpc_listeners = await open_listeners(section.rpc.host, section.rpc.port)
        metrics_listeners = (
            await open_listeners(section.metrics.host, section.metrics.port) if section.metrics.enabled else []
        )
        view = self._make_view()
        server = RpcServer(
            view,
            self._rpc_registry,
            limits=rpc_limits(section),
            access=Access(section.rpc.allowed_hosts, section.rpc.allowed_origins),
            metrics=RpcCounters(self.metrics),
        )
        self._add_metric_sources()
        async with trio.open_nursery() as nursery:
            self.driver.nursery = nursery
            addresses = await nursery.start(self.network.run)
            nursery.start_soon(self._gossip.run)
            nursery.start_soon(self.driver.run)
            nursery.start_soon(self.sync.run)
            nursery.start_soon(self._housekeeping.run)
            nursery.start_soon(self._snapshots.run)
            self._state_sync.on_restored = lambda: self._begin_anew(nursery.cancel_scope)
            nursery.start_soon(self._state_sync.run)
            nursery.start_soon(server.serve, rpc_listeners)
            if metrics_listeners:
                nursery.start_soon(serve_metrics, metrics_listeners, self.metrics.render)
            await nursery.start(self._keep_signals, nursery.cancel_scope)
            self.driver.tick()
            where = Addresses(
                rpc=f"http://{_shown(rpc_listeners)}",
                metrics=f"http://{_shown(metrics_listeners)}/metrics" if metrics_listeners else None,
                p2p=addresses[0] if addresses else "",
            )
            # What exists now lives as long as the node: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            # A thread that has written to disk gets the interpreter back within this, however busy the loop is.
            sys.setswitchinterval(SWITCH_SECONDS)
            log.info("started", height=self.store.head.height, rpc=where.rpc, metrics=where.metrics, p2p=where.p2p)

    def _begin_anew(self, scope: trio.CancelScope) -> None:
        self.restored = True
        scope.cancel()

    def close(self) -> None:
        """Closes the database; one that was made by state sync takes its place, with the votes that were given here."""
        if self.restored:
            try:
                carry_votes(self.store.database)
            except BaseException:
                self.store.close()
                raise
            self.store.give_way()
        else:
            self.store.close()

    async def _keep_signals(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self.reload()
                    continue
                log.info("stopping", signal=signal.Signals(number).name)
                scope.cancel()
                return

    def reload(self) -> None:
        """Reads the configuration again; what it may not change while the node runs is named and left."""
        try:
            change = reloaded(self.config, load(self._home.home.config_file))
            self._peering.reload(change.config)
        except Rejected as error:
            log.error("the configuration was not read again", code=error.code, why=error.message)
            return
        self.config = change.config
        # What is said of the change goes by the level that held before it, and what waits for a restart is a warning.
        tell = log.warning if change.ignored else log.info
        tell("configuration read again", changed=change.changed, need_restart=change.ignored)
        set_level(change.config.logging.level)

    def _make_view(self) -> View:
        return View(
            store=self.store,
            executor=self.executor,
            mempool=self.mempool,
            gossip=self._gossip,
            fates=self._fates,
            feed=self.feed,
            driver=self.driver,
            journal=self._journal,
            sync=self.sync,
            network=self.network,
            clock=self._clock,
            in_force=lambda: self._standing.in_force,
            readings=self._standing.readings,
        )

    def _add_metric_sources(self) -> None:
        metrics = self.metrics
        metrics.source(process_source)
        metrics.source(disk_source(self._home.home.data))
        metrics.source(p2p_source(self.network.counters))
        metrics.source(self._standing.gauges)
        metrics.set(m.PROCESS_START, self._clock.now_ms() / 1000)
        metrics.set(m.CHAIN_HEIGHT, self.store.head.height)
        metrics.set(m.CHAIN_HEAD_TIME, self.store.head.time_ms / 1000)


def next_sequence(executor: Executor, sender: bytes, lane: int) -> int:
    """Returns the sequence number that a lane of an account is at in the committed state."""
    account = executor.ledger.read_account(executor.state, sender)
    return 0 if account is None else account.sequence(lane)


def _shown(listeners: Any) -> str:
    host, port = listeners[0].socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
