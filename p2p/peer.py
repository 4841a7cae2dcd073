"""One accepted peer: what is known of it, its queue, and the two tasks that read from it and write to it.

The writer sleeps on an event while nothing is queued and writes whatever is queued, joined up to a bound, in one TLS
write; what arrives during a write goes into the next. Nobody ever waits for a peer: one that is too slow for its queue,
or for one write, is dropped. The reader hands every frame to the owner at once.

What frames mean, and whether a peer behaves, is the owner's business (p2p/network.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import trio

from p2p.conduct import Budgets
from p2p.counters import Traffic, logger
from p2p.hello import Hello, PermittedPeer, Role, encode_reject
from p2p.identity import NodeId
from p2p.limits import (
    CLOSE_SECONDS,
    OFFSET_SAMPLES,
    PING_QUIET_SECONDS,
    PING_SILENCE_SECONDS_MAX,
    POINTS_MALFORMED,
    READ_BYTES,
    READ_SLICE_SECONDS,
    WRITE_BYTES_MAX,
    WRITE_SECONDS_MAX,
)
from p2p.sendqueue import SendQueue
from p2p.session import TlsStream
from p2p.wire import KINDS, Frame, FrameError, Framer, Kind, Lane, encode_frame
from state.errors import InvariantError


class Direction(StrEnum):
    """Who dialed."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Owner(Protocol):
    """Where a peer takes what it reads."""

    def greeted(self, peer: Peer) -> None:
        """Takes note of a peer that was accepted just now."""

    def deliver(self, peer: Peer, frame: Frame) -> None:
        """Takes a frame."""

    def misbehaved(self, peer: Peer, points: float, reason: str) -> None:
        """Takes note of misbehaviour."""


class Pings:
    """Round-trip time and clock offset of one peer, from one question at a time.

    The offset (theirs minus ours) is taken from the quickest of the last answers, as its uncertainty is half of the
    round trip (RFC 5905 section 10).
    """

    def __init__(self) -> None:
        self.latency_ms: float | None = None
        self.clock_offset_ms: float | None = None
        self._sequence = 0
        self._asked: tuple[float, int] | None = None
        self._samples: deque[tuple[float, float]] = deque(maxlen=OFFSET_SAMPLES)

    def ask(self, now: float, wall_ms: int) -> int | None:
        """Returns the number of a new question, or None while one is open."""
        if self._asked is not None:
            return None
        self._sequence += 1
        self._asked = (now, wall_ms)
        return self._sequence

    def silent_seconds(self, now: float) -> float:
        """Returns for how long the open question is unanswered; 0 if there is none."""
        return 0.0 if self._asked is None else now - self._asked[0]

    def answer(self, sequence: int, their_wall_ms: int, now: float) -> None:
        """Takes an answer; one to anything but the open question is ignored."""
        if self._asked is None or sequence != self._sequence:
            return
        asked, wall_ms = self._asked
        self._asked = None
        round_trip_ms = (now - asked) * 1000
        self.latency_ms = round_trip_ms
        self._samples.append((round_trip_ms, their_wall_ms - wall_ms - round_trip_ms / 2))
        self.clock_offset_ms = min(self._samples)[1]


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """What a node shows of a peer at one moment; `latency_ms` is the round trip, `score` 0 is spotless."""

    id: NodeId
    name: str
    address: str
    listen_address: str
    direction: str
    role: str
    validator_key: bytes | None
    height: int
    latency_ms: float | None
    clock_offset_ms: float | None
    bytes_in: int
    bytes_out: int
    messages_in: dict[str, int]
    messages_out: dict[str, int]
    queue_bytes: int
    score: float
    neighbours: tuple[NodeId, ...]
    connected_seconds: float


class Peer:
    """An accepted peer, for as long as its connection lasts.

    The node may read everything here that has no underscore; `height` it keeps current itself with `note_height`.
    `role` and `validator_key` say what the node is by the permitted set in force: a validator only if it proved the
    key that the set has for it. `proved_key` is what it proved, whatever the set says of it.
    """

    def __init__(
        self,
        stream: TlsStream,
        framer: Framer,
        owner: Owner,
        traffic: Traffic,
        *,
        entry: PermittedPeer,
        address: str,
        direction: Direction,
        hello: Hello,
        vote_seen: bytes | None,
    ) -> None:
        """Takes a greeted stream with its framer, the owner, the counters, and what the greeting told."""
        now = trio.current_time()
        self.id: NodeId = hello.node_id
        self.node_key: Final = entry.node_key
        self.proved_key: Final = hello.validator_key
        self.name: str
        self.role: Role
        self.validator_key: bytes | None
        self.regard(entry)
        self.address: Final = address
        self.listen_address: Final = hello.listen_address
        self.direction: Final = direction
        self.vote_seen: Final = vote_seen
        self.height = hello.head_height
        self.neighbours: frozenset[NodeId] = frozenset()
        self.connected_at: Final = now
        self.heard_at = now
        self.traffic: Final = traffic
        self.budgets: Final = Budgets(now)
        self.pings: Final = Pings()
        self.closed: Final = trio.Event()
        self.reason = ""
        self.detail = ""
        self._stream = stream
        self._framer = framer
        self._owner = owner
        self._queue = SendQueue()
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._fatal: InvariantError | None = None

    def __repr__(self) -> str:
        return f"Peer({self.name} {self.id[:12]} {self.direction} {self.address})"

    @property
    def closing(self) -> bool:
        """Whether the connection is over, or about to be: nothing is sent or delivered any more."""
        return bool(self.reason)

    @property
    def queued_bytes(self) -> int:
        """How much waits to be written: whoever answers large requests looks here first, or it drops a slow asker."""
        return self._queue.bytes

    def regard(self, entry: PermittedPeer) -> None:
        """Takes what the permitted set says of this node now."""
        self.name = entry.name
        proved = self.proved_key is not None and self.proved_key == entry.validator_key
        self.validator_key = self.proved_key if proved else None
        self.role = Role.VALIDATOR if proved else Role.FULL

    def note_height(self, height: int) -> None:
        """Sets the height that the peer is known to be at."""
        self.height = height

    def send(self, kind: Kind, body: Any, *, after_transactions: bool = False) -> bool:
        """Queues a message to this peer alone; returns False if the peer is gone or was too slow and is dropped now.

        `after_transactions` keeps it behind the transactions that are queued now; see p2p/sendqueue.py.
        """
        return self.send_frame(kind, encode_frame(kind, body), after_transactions=after_transactions)

    def send_frame(self, kind: Kind, frame: bytes, *, after_transactions: bool = False) -> bool:
        """Queues an encoded frame, as `send` does; one encoding may go to many peers."""
        if self.reason:
            return False
        if not self._queue.push(frame, KINDS[kind].lane, after_transactions=after_transactions):
            self.drop("queue_full", f"{self._queue.bytes} bytes wait for a peer that does not read")
            return False
        self.traffic.queued(kind, len(frame))
        self._wake.set()
        return True

    def ping(self, now: float, wall_ms: int) -> None:
        """Asks for a sign of life, or drops the peer if it owes one for too long; called regularly."""
        if self.pings.silent_seconds(now) > PING_SILENCE_SECONDS_MAX:
            self.drop("ping_timeout", f"no answer within {PING_SILENCE_SECONDS_MAX:g} s")
            return
        sequence = self.pings.ask(now, wall_ms)
        if sequence is not None:
            self.send(Kind.PING, sequence)

    def quiet(self, now: float) -> bool:
        """Whether it owes an answer and has said nothing at all for a while: the way to or from it may be gone."""
        since = min(self.pings.silent_seconds(now), now - self.heard_at)
        return since > PING_QUIET_SECONDS

    def drop(self, reason: str, detail: str, *, tell: bool = False) -> None:
        """Ends the connection for a reason of `counters.CLOSE_REASONS` or the node's own; the first reason stays.

        With `tell` the other gets a REJECT with the reason first, if it takes it within CLOSE_SECONDS.
        """
        if self.reason:
            return
        self.reason, self.detail = reason, detail
        self._queue.clear()
        if not tell:
            self._scope.cancel()
            return
        self._queue.push(encode_frame(Kind.REJECT, encode_reject(reason, detail)), Lane.CONSENSUS)
        self._scope.deadline = trio.current_time() + CLOSE_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Reads and writes until the connection ends; `reason` says why. Raises only the node's own InvariantError."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._contain, self._write)
                await self._contain(self._read)
        if self._fatal is not None:
            raise self._fatal

    def snapshot(self, now: float, score: float) -> PeerSnapshot:
        """Returns what is shown of this peer."""
        return PeerSnapshot(
            id=self.id,
            name=self.name,
            address=self.address,
            listen_address=self.listen_address,
            direction=self.direction.value,
            role=self.role.value,
            validator_key=self.validator_key,
            height=self.height,
            latency_ms=self.pings.latency_ms,
            clock_offset_ms=self.pings.clock_offset_ms,
            bytes_in=self.traffic.bytes_in,
            bytes_out=self.traffic.bytes_out,
            messages_in=dict(self.traffic.messages_in),
            messages_out=dict(self.traffic.messages_out),
            queue_bytes=self.queued_bytes,
            score=score,
            neighbours=tuple(sorted(self.neighbours)),
            connected_seconds=now - self.connected_at,
        )

    async def _contain(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs one of the two tasks so that nothing the peer does gets past this connection."""
        try:
            await work()
        except FrameError as error:
            self.drop(error.code, error.message, tell=True)
            self._owner.misbehaved(self, POINTS_MALFORMED, error.code)
            await self._drain()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self.drop("connection_lost", repr(error.__cause__ or error))
        except InvariantError as error:
            self._fatal = error
            self.drop("internal_error", str(error))
        except Exception:
            logger.exception("peer %s: an unforeseen error ends this connection", self.id)
            self.drop("internal_error", "see the log")

    async def _read(self) -> None:
        while not self.reason:
            began = time.perf_counter()
            while not self.reason and (frame := self._framer.next_frame()) is not None:
                self._owner.deliver(self, frame)
                # One read holds hundreds of frames that each cost a signature to check: nobody may hold up the others.
                if time.perf_counter() - began > READ_SLICE_SECONDS:
                    await trio.lowlevel.checkpoint()
                    began = time.perf_counter()
            if self.reason:
                break
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                self.drop("closed_by_peer", "it hung up")
                return
            self._framer.feed(data)
        await self._drain()

    async def _drain(self) -> None:
        """Reads to the end without looking, so that our last word is not lost with unread bytes; see session.refuse."""
        try:
            while await self._stream.receive_some(READ_BYTES):
                pass
        except trio.BrokenResourceError:
            pass

    async def _write(self) -> None:
        while True:
            if not self._queue.bytes:
                self._wake = trio.Event()
                await self._wake.wait()
            last = bool(self.reason)
            with trio.move_on_after(WRITE_SECONDS_MAX) as scope:
                await self._stream.send_all(self._queue.take(WRITE_BYTES_MAX))
            if scope.cancelled_caught:
                self.drop("write_stalled", f"one write took more than {WRITE_SECONDS_MAX:g} s")
                return
            if last:
                return
