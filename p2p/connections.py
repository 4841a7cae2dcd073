"""The life of each connection: accept or dial, TLS, greeting, registration as the one connection to its node, end.

Whatever goes wrong with a connection ends in its own task: it is counted by reason and logged, and the others never
notice. Only an InvariantError, which is the node's own, gets out.

For each pair of nodes one connection survives. A dialer that is already joined gives up before its HELLO. If two
connections are made at the same time, both ends keep the one that the node with the smaller id dialed. A connection
made by the same dialer again, or when the standing one is older than a handshake can last, replaces it: the other side
has lost it without our knowing.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from p2p import limits
from p2p.admission import Pending
from p2p.counters import Counters, QuietLog, Traffic, logger
from p2p.hello import NONCE_BYTES, Greeting, LocalNode, PermittedPeer
from p2p.identity import NodeId, node_id, peer_key
from p2p.peer import Direction, Owner, Peer
from p2p.permissions import Permissions
from p2p.session import ConnectionFailed, TlsStream, greet, refuse, secure
from p2p.transport import Transport, host_of, split_address
from p2p.wire import ESTABLISHED_KINDS, GREETING_KINDS, Framer, Kind
from state.errors import InvariantError, Rejected

_EXPECTED_ENDINGS: Final = frozenset(
    {"closed_by_peer", "connect_failed", "connect_timeout", "duplicate_connection", "replaced", "shutdown"}
)
_GARBAGE: Final = frozenset(
    {"frame_malformed", "frame_oversize", "frame_unexpected", "malformed", "proof_invalid", "unexpected_frame"}
)


class Handler(Protocol):
    """The node's side: called back in the order in which things happen, once `on_connected` between the other two."""

    def on_connected(self, peer: Peer) -> None:
        """A peer was accepted; messages may be sent to it from now on."""

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        """The peer is gone, for a reason of `counters.CLOSE_REASONS`; nothing of it follows."""

    def on_message(self, peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
        """A message came, its body in the shape that the table of kinds states.

        `raw` is the whole frame, for `Network.relay`. Raising Rejected counts against the peer.
        """


@dataclass(frozen=True, slots=True)
class Target:
    """A node to be joined with, and where it listens (`host:port`); raises Rejected("address_invalid")."""

    node_id: NodeId
    address: str

    def __post_init__(self) -> None:
        split_address(self.address)


class Connections:
    """All connections of a node, accepted peers by id in `peers`; `changed` is set whenever these change."""

    def __init__(
        self,
        own_id: NodeId,
        local: LocalNode,
        handler: Handler,
        owner: Owner,
        *,
        permissions: Permissions,
        transport: Transport,
        counters: Counters,
        log: QuietLog,
    ) -> None:
        """Takes the parts that connections share; `owner` gets what peers send."""
        self.peers: Final[dict[NodeId, Peer]] = {}
        self.changed = trio.Event()
        self._own_id = own_id
        self._local = local
        self._handler = handler
        self._owner = owner
        self._permissions = permissions
        self._transport = transport
        self._counters = counters
        self._log = log
        self._arrivals = Pending(limits.PENDING_MAX, limits.PENDING_PER_ADDRESS_MAX)
        self._greetings = Pending(limits.GREETINGS_MAX, limits.GREETINGS_PER_NODE_MAX)

    @property
    def pending(self) -> int:
        """How many connections are accepted but not yet authenticated."""
        return len(self._arrivals)

    async def accept(self, stream: trio.abc.Stream) -> None:
        """Serves an inbound connection to its end."""
        address = self._transport.remote_address(stream)
        await self._contain(address, lambda: self._inbound(stream, address))

    async def dial(self, target: Target, ended: trio.Event) -> None:
        """Dials a target and serves the connection to its end, then sets `ended`."""
        self._counters.count("dials", "total")
        try:
            await self._contain(target.address, lambda: self._outbound(target))
        finally:
            ended.set()

    async def _contain(self, address: str, connection: Callable[[], Awaitable[None]]) -> None:
        try:
            await connection()
        except ConnectionFailed as failure:
            reason, detail = failure.reason, failure.detail
        except InvariantError:
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            reason, detail = "connection_lost", repr(error)
        except Exception:
            logger.exception("connection with %s: an unforeseen error ends it", address)
            reason, detail = "internal_error", "an unforeseen error"
        else:
            raise InvariantError("a connection ended without a reason")
        self._counters.count_closed(reason)
        level = logging.INFO if reason in _EXPECTED_ENDINGS else logging.WARNING
        fields = {"address": address, "detail": detail}
        self._log.write(level, reason, host_of(address), trio.current_time(), fields)

    async def _inbound(self, stream: trio.abc.Stream, address: str) -> None:
        tls: TlsStream | None = None
        try:
            with self._arrivals.slot(host_of(address)) as slot:
                with trio.move_on_after(limits.TLS_SECONDS) as patience:
                    await self._transport.first_byte(stream)
                if patience.cancelled_caught:
                    raise ConnectionFailed("tls_timeout", f"silent for {limits.TLS_SECONDS:g} s")
                slot.heard = True
                tls = await secure(stream, self._permissions.contexts, server_side=True)
            if tls is None:
                raise ConnectionFailed("evicted", "made room for newer connections before it proved its key")
            await self._authenticated(tls, Direction.INBOUND, address, None)
        finally:
            await trio.aclose_forcefully(stream)

    async def _outbound(self, target: Target) -> None:
        try:
            with trio.fail_after(limits.DIAL_SECONDS):
                stream = await self._transport.dial(target.address)
        except trio.TooSlowError:
            raise ConnectionFailed("connect_timeout", f"no answer within {limits.DIAL_SECONDS:g} s") from None
        except OSError as error:
            raise ConnectionFailed("connect_failed", str(error)) from error
        try:
            tls = await secure(stream, self._permissions.contexts, server_side=False)
            await self._authenticated(tls, Direction.OUTBOUND, target.address, target.node_id)
        finally:
            await trio.aclose_forcefully(stream)

    async def _authenticated(self, tls: TlsStream, direction: Direction, address: str, expected: NodeId | None) -> None:
        """Goes on with a connection whose other end has proved its node key."""
        key = peer_key(tls.getpeercert(binary_form=True))
        if key is None:
            raise ConnectionFailed("not_permitted", "its certificate holds no Ed25519 key")
        accepted: Peer | None = None
        with self._greetings.slot(node_id(key)):
            try:
                entry = self._entry(key, direction, expected)
                peer = await self._greet(tls, entry, direction, address)
                await self._replace_older(peer)
                accepted = peer
            except Rejected as error:
                if error.code in _GARBAGE:
                    self._permissions.conduct(node_id(key)).add(limits.POINTS_REJECTED, trio.current_time())
                await refuse(tls, error.code, error.message)
                raise ConnectionFailed(error.code, error.message) from error
        if accepted is None:
            raise ConnectionFailed("evicted", "this node began too many greetings")
        await self._live(accepted)

    def _entry(self, key: bytes, direction: Direction, expected: NodeId | None) -> PermittedPeer:
        """Returns what is permitted to the other end; raises Rejected if it is not wanted, whoever it is."""
        peer_id = node_id(key)
        if expected is not None and peer_id != expected:
            raise Rejected("wrong_peer", f"at this address {expected} was expected, not {peer_id}")
        entry = self._permissions.entry(peer_id)
        if entry is None or entry.node_key != key:
            raise Rejected("not_permitted", "this node key is not permitted here")
        now = trio.current_time()
        ban_seconds = self._permissions.conduct(peer_id).ban_seconds_left(now)
        if ban_seconds > 0:
            raise Rejected("banned", f"banned for another {ban_seconds:.0f} s")
        standing = self.peers.get(peer_id)
        if standing is not None and (direction is Direction.OUTBOUND or not self._supersedes(direction, standing, now)):
            raise Rejected("duplicate_connection", "already joined")
        return entry

    async def _greet(self, tls: TlsStream, entry: PermittedPeer, direction: Direction, address: str) -> Peer:
        framer = Framer(GREETING_KINDS)
        peer_id = node_id(entry.node_key)
        greeting = Greeting(self._local, self._own_id, peer_id, secrets.token_bytes(NONCE_BYTES))
        await greet(tls, framer, greeting)
        framer.expect(ESTABLISHED_KINDS)
        return Peer(
            tls,
            framer,
            self._owner,
            Traffic(self._counters),
            entry=entry,
            address=address,
            direction=direction,
            hello=greeting.remote,
            vote_seen=greeting.vote_seen,
        )

    def _supersedes(self, direction: Direction, standing: Peer, now: float) -> bool:
        """Returns whether a connection dialed in this direction replaces the one that stands."""
        if direction is standing.direction or now - standing.connected_at > limits.DUPLICATE_SECONDS:
            return True
        dialer = self._own_id if direction is Direction.OUTBOUND else standing.id
        return dialer == min(self._own_id, standing.id)

    async def _replace_older(self, peer: Peer) -> None:
        """Makes room for `peer`; raises Rejected if another connection to its node stays, or it lost permission."""
        while (standing := self.peers.get(peer.id)) is not None:
            if not standing.closing and not self._supersedes(peer.direction, standing, trio.current_time()):
                raise Rejected("duplicate_connection", "already joined")
            standing.drop("replaced", "by a newer connection")
            await standing.closed.wait()
        entry = self._permissions.entry(peer.id)
        if entry is None:
            raise Rejected("no_longer_permitted", "this key is not permitted any more")
        peer.regard(entry)

    async def _live(self, peer: Peer) -> None:
        """Runs an accepted peer, between its two callbacks, until its connection ends."""
        self.peers[peer.id] = peer
        self.changed.set()
        fields = {"name": peer.name, "address": peer.address, "direction": peer.direction.value}
        self._log.write(logging.INFO, "connected", peer.id, trio.current_time(), fields)
        try:
            self._handler.on_connected(peer)
            self._owner.greeted(peer)
            await peer.run()
        except Exception:
            peer.drop("handler_error", "the node could not take this peer")
            raise
        finally:
            peer.drop("shutdown", "this node stops")
            del self.peers[peer.id]
            self.changed.set()
            peer.closed.set()
            self._handler.on_disconnected(peer, peer.reason)
        raise ConnectionFailed(peer.reason, peer.detail)
