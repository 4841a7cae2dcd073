"""The network as the node sees it: what it may ask of the peer layer, and how received frames are dealt out.

Theory of operation. One task accepts, one task per configured address dials, one keeps time (pings) and one tells the
neighbourhood when it changed; each connection runs in a task of its own (p2p/connections.py). Everything runs in the
one trio thread. The node is called back synchronously and must return quickly.
"""

from __future__ import annotations

import logging
import random as random_module
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from p2p import limits
from p2p.connections import Connections, Handler, Target
from p2p.counters import Counters, QuietLog, logger
from p2p.flood import SeenCache, relay_targets
from p2p.hello import LocalNode, PermittedPeer, decode_reject
from p2p.identity import NodeId, NodeKey
from p2p.peer import Peer, PeerSnapshot
from p2p.permissions import Permissions
from p2p.transport import TcpTransport, Transport
from p2p.wire import ARRAY_WITH_FLOOD_ID, KINDS, PREFIX_BYTES, Frame, Kind, encode_frame
from state.errors import DecodeError, InvariantError, Rejected

__all__ = ["Handler", "Network", "Target", "retry_seconds"]


def retry_seconds(failures: int, random: random_module.Random) -> float:
    """Returns how long to wait before dialing again: doubling from 0.1 s to 5 s, of which a random half to whole."""
    exponent = min(failures, 16)
    delay = min(limits.RETRY_SECONDS_MAX, limits.RETRY_SECONDS_BASE * limits.RETRY_GROWTH**exponent)
    return delay * random.uniform(0.5, 1.0)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Network:
    """All of a node's peers. Made first, then `run` in a nursery; the other methods may be called at any time."""

    def __init__(
        self,
        key: NodeKey,
        local: LocalNode,
        handler: Handler,
        *,
        listen: str | None,
        targets: Iterable[Target] = (),
        permitted: Iterable[PermittedPeer] = (),
        transport: Transport | None = None,
        random: random_module.Random | None = None,
        wall_clock_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        """Takes our key, what we tell of ourselves, and the node's callbacks.

        `listen` is an address to bind to, port 0 for any free one, or None to only dial. `targets` are dialed as long
        as they are permitted. `random` jitters delays and makes flood ids. `wall_clock_ms` tells peers our time.
        """
        self.id: Final = key.id
        self._handler = handler
        self._listen = listen
        self._targets = frozenset(targets)
        self._transport: Transport = transport or TcpTransport()
        self._random = random or random_module.Random()
        self._wall_clock_ms = wall_clock_ms
        self._permissions = Permissions(key, permitted)
        self._seen = SeenCache()
        self._counters = Counters()
        self._log = QuietLog()
        self._connections = Connections(
            key.id,
            local,
            handler,
            self,
            permissions=self._permissions,
            transport=self._transport,
            counters=self._counters,
            log=self._log,
        )
        self._peers = self._connections.peers
        self._targets_changed = trio.Event()

    # What the node asks and orders.

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Totals since the start, by name and label; see p2p/counters.py."""
        return self._counters.values

    @property
    def pending_connections(self) -> int:
        """How many connections are accepted but not yet authenticated."""
        return self._connections.pending

    def peers(self) -> tuple[PeerSnapshot, ...]:
        """Returns a snapshot of each peer, in order of their names."""
        now = trio.current_time()
        peers = sorted(self._peers.values(), key=lambda peer: (peer.name, peer.id))
        return tuple(peer.snapshot(now, self._permissions.conduct(peer.id).score(now)) for peer in peers)

    def connected(self) -> tuple[Peer, ...]:
        """Returns the connected peers, in the order in which they came."""
        return tuple(self._peers.values())

    def peer(self, peer_id: NodeId) -> Peer | None:
        """Returns the connected peer with this id, if any."""
        return self._peers.get(peer_id)

    def send(self, peer_id: NodeId, kind: Kind, body: Any, *, after_transactions: bool = False) -> bool:
        """Queues a message to one direct peer; returns False if it is not connected. Never waits."""
        peer = self._peers.get(peer_id)
        return peer is not None and peer.send(kind, body, after_transactions=after_transactions)

    def flood(
        self, kind: Kind, body: Any, *, received_from: Peer | None = None, after_transactions: bool = False
    ) -> int:
        """Sends a message to all direct peers that have it not yet, and returns to how many.

        A kind that is flooded gets a fresh flood id and so travels through the whole network once more, even if its
        body did before. `received_from` is for kinds without flood id (transactions), whose receivers tell themselves
        what is new: it leaves out that peer and whom it serves. Raises InvariantError for a flooded kind that was
        received: `relay` passes it on unchanged, and a new id would let it circle for ever.
        """
        flood_id = None
        if KINDS[kind].flooded:
            if received_from is not None:
                raise InvariantError(f"a received {kind.name} message is relayed, not flooded again")
            flood_id = self._random.randbytes(limits.FLOOD_ID_BYTES)
        frame = encode_frame(kind, body, flood_id)
        if flood_id is not None:
            self._seen.add(frame)
            self._counters.count("floods", "originated")
        return self._spread(kind, frame, received_from, after_transactions=after_transactions)

    def relay(self, kind: Kind, raw: bytes, received_from: Peer, *, after_transactions: bool = False) -> int:
        """Passes on a flooded message, given as `on_message` had it, to the direct peers that its sender does not
        serve, and returns to how many. What was said to us alone (no flood id) goes to nobody.

        The node calls this once it has found the message valid, so that garbage travels one hop.
        """
        if not _is_flood(raw):
            return 0
        reached = self._spread(kind, raw, received_from, after_transactions=after_transactions)
        self._counters.count("floods", "relayed", reached)
        return reached

    def report(self, peer: Peer, points: float, reason: str) -> None:
        """Counts misbehaviour that the node found; at SCORE_BAN points the peer is dropped and banned for a while."""
        self.misbehaved(peer, points, reason)

    def set_permitted(self, permitted: Iterable[PermittedPeer]) -> None:
        """Puts another permitted set in force: nodes that are not in it are dropped, the others' roles follow it.

        Raises Rejected("permitted_invalid") and changes nothing if the set cannot be.
        """
        self._permissions.replace(permitted)
        for peer in list(self._peers.values()):
            entry = self._permissions.entry(peer.id)
            if entry is None:
                peer.drop("no_longer_permitted", "this key is not permitted any more", tell=True)
            else:
                peer.regard(entry)

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Replaces the addresses to dial; connections that stand are left alone."""
        self._targets = frozenset(targets)
        changed, self._targets_changed = self._targets_changed, trio.Event()
        changed.set()

    async def run(self, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens, dials and serves until cancelled; `started` with the addresses that are listened on.

        Raises OSError if the listening address cannot be bound, and the node's own InvariantError.
        """
        listeners = [] if self._listen is None else list(await self._transport.listen(self._listen))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_dialing)
            nursery.start_soon(self._keep_pinging)
            nursery.start_soon(self._keep_neighbourhood)
            if listeners:
                nursery.start_soon(trio.serve_listeners, self._connections.accept, listeners)
            task_status.started(tuple(self._transport.listener_address(listener) for listener in listeners))

    # What peers bring (the Owner of p2p/peer.py).

    def greeted(self, peer: Peer) -> None:
        """Measures a new peer at once, without waiting for the round of pings."""
        peer.ping(trio.current_time(), self._wall_clock_ms())

    def deliver(self, peer: Peer, frame: Frame) -> None:
        """Charges a frame to its sender, then answers it here or hands it to the node."""
        now = trio.current_time()
        kind, size = frame.kind, len(frame.raw)
        peer.heard_at = now
        peer.traffic.received(kind, size)
        if not peer.budgets.allow(kind, size, now):
            self._counters.count("over_budget", kind.name.lower())
            self.misbehaved(peer, limits.POINTS_OVER_BUDGET, "over_budget")
            return
        if frame.flood_id is not None:
            if not self._seen.add(frame.raw):
                self._counters.count("floods", "duplicate")
                return
            self._counters.count("floods", "delivered")
        if kind is Kind.PING:
            peer.send(Kind.PONG, (frame.body, self._wall_clock_ms()))
        elif kind is Kind.PONG:
            peer.pings.answer(frame.body[0], frame.body[1], now)
        elif kind is Kind.PEERS:
            peer.neighbours = frozenset(NodeId(item.hex()) for item in frame.body)
        elif kind is Kind.REJECT:
            self._rejected(peer, frame.body)
        else:
            self._hand_over(peer, frame)

    def misbehaved(self, peer: Peer, points: float, reason: str) -> None:
        """Adds to a peer's score, and bans it when that passes the bound."""
        now = trio.current_time()
        fields = {"peer": peer.name, "points": points, "reason": reason}
        self._log.write(logging.WARNING, "misbehaviour", peer.id, now, fields)
        if self._permissions.conduct(peer.id).add(points, now):
            self._counters.count("bans", "total")
            peer.drop("banned", f"{reason}; banned for {limits.BAN_SECONDS:g} s", tell=True)

    def _rejected(self, peer: Peer, body: Any) -> None:
        try:
            code, message = decode_reject(body)
        except DecodeError as error:
            code, message = error.code, error.message
        peer.drop("rejected_by_peer", f"{code}: {message}")

    def _hand_over(self, peer: Peer, frame: Frame) -> None:
        try:
            self._handler.on_message(peer, frame.kind, frame.body, frame.raw)
        except Rejected as error:
            self.misbehaved(peer, limits.POINTS_REJECTED, error.code)
        except InvariantError:
            raise
        except Exception:
            logger.exception("the node failed on a %s message of %s", frame.kind.name, peer.id)
            peer.drop("handler_error", "an internal error; see the log")

    def _spread(self, kind: Kind, frame: bytes, received_from: Peer | None, *, after_transactions: bool) -> int:
        targets = relay_targets(self._peers.values(), received_from)
        return sum(peer.send_frame(kind, frame, after_transactions=after_transactions) for peer in targets)

    # The tasks.

    async def _keep_pinging(self) -> None:
        while True:
            await trio.sleep(limits.PING_INTERVAL_SECONDS)
            now, wall_ms = trio.current_time(), self._wall_clock_ms()
            for peer in list(self._peers.values()):
                peer.ping(now, wall_ms)

    async def _keep_neighbourhood(self) -> None:
        """Tells the peers who they are, whenever that changes.

        One that is quiet is left out: its connection may take long to end, and until then nobody would pass on to it
        what we say, nor to us what it says.
        """
        stated: list[NodeId] = []
        while True:
            with trio.move_on_after(limits.PING_QUIET_SECONDS / 2):
                await self._connections.changed.wait()
                await trio.sleep(limits.GOSSIP_DELAY_SECONDS)
            now = trio.current_time()
            heard = sorted(peer.id for peer in self._peers.values() if not peer.quiet(now))
            if heard == stated and not self._connections.changed.is_set():
                continue
            self._connections.changed = trio.Event()
            stated = heard
            frame = encode_frame(Kind.PEERS, tuple(bytes.fromhex(peer_id) for peer_id in heard))
            for peer in list(self._peers.values()):
                peer.send_frame(Kind.PEERS, frame)

    async def _keep_dialing(self) -> None:
        scopes: dict[Target, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._targets_changed
                for target in set(scopes) - self._targets:
                    scopes.pop(target).cancel()
                for target in sorted(self._targets - set(scopes), key=lambda target: target.address):
                    scopes[target] = trio.CancelScope()
                    nursery.start_soon(self._keep_joined, target, scopes[target], nursery)
                await changed.wait()

    async def _keep_joined(self, target: Target, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        """Dials one target whenever it is permitted, not banned and not connected, until told to stop."""
        failures = 0
        with scope:
            while True:
                await self._until_wanted(target.node_id)
                ended = trio.Event()
                started = trio.current_time()
                nursery.start_soon(self._connections.dial, target, ended)
                await ended.wait()
                stable = trio.current_time() - started >= limits.RETRY_STABLE_SECONDS
                failures = 0 if stable else failures + 1
                await trio.sleep(retry_seconds(failures, self._random))

    async def _until_wanted(self, peer_id: NodeId) -> None:
        while peer_id != self.id:
            now = trio.current_time()
            ban_seconds = self._permissions.conduct(peer_id).ban_seconds_left(now)
            if self._permissions.entry(peer_id) is None:
                await self._permissions.changed.wait()
            elif (peer := self._peers.get(peer_id)) is not None:
                await peer.closed.wait()
                await trio.sleep(retry_seconds(0, self._random))
            elif ban_seconds > 0:
                await trio.sleep(ban_seconds)
            else:
                return
        await trio.sleep_forever()


def _is_flood(raw: bytes) -> bool:
    return raw[PREFIX_BYTES] == ARRAY_WITH_FLOOD_ID
