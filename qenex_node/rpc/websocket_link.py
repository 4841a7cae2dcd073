"""The edge of one WebSocket: reads messages, writes answers and events, keeps alive, drops who is too slow.

Three tasks: one reads and starts calls, one writes what is in the outbox, one watches the time. Whoever ends the
connection first gives the reason.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import trio
import trio.abc

from qenex_node.pace import Pace
from qenex_node.rpc.connections import Connection, Connections
from qenex_node.rpc.dispatch import Dispatcher
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics import RpcMetrics
from qenex_node.rpc.outbox import Outbox
from qenex_node.rpc.subscriptions import Session, SubscriptionCount
from qenex_node.rpc.websocket import Ended, Message, Reply, WebSocketConnection

RECEIVE_BYTES: Final = 64 * 1024
CLOSE_TIMEOUT_S: Final = 1.0
CLIENT_CLOSED: Final = ""


class WebSocketLink:
    """Serves one accepted WebSocket until it ends."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        websocket: WebSocketConnection,
        connection: Connection,
        connections: Connections,
        dispatcher: Dispatcher,
        limits: RpcLimits,
        metrics: RpcMetrics,
        subscription_count: SubscriptionCount,
    ) -> None:
        self._stream = stream
        self._websocket = websocket
        self._connection = connection
        self._connections = connections
        self._dispatcher = dispatcher
        self._limits = limits
        self._metrics = metrics
        self._subscription_count = subscription_count
        self._outbox = Outbox(limits.outbox_bytes_max)
        self._scope = trio.CancelScope()
        self._reason: str | None = None
        self._pending = 0
        self._answered = trio.lowlevel.ParkingLot()
        self._heard_at = 0.0
        self._message_since: float | None = None

    async def run(self, accepted: bytes, trailing: bytes) -> str:
        """Sends the accepting bytes, serves until the end, and returns its reason; empty for the client's own wish."""
        self._heard_at = trio.current_time()
        self._outbox.put(accepted)
        with self._scope:
            async with trio.open_nursery() as nursery:
                session = Session(
                    self._limits, self._metrics, self._subscription_count, nursery, self._outbox, self._send
                )
                try:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch)
                    await self._read(session, nursery, trailing)
                finally:
                    session.close()
                    self._end(CLIENT_CLOSED)
        return self._reason or CLIENT_CLOSED

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        self._scope.cancel()

    def _send(self, text: str | bytes) -> None:
        if self._reason is not None:
            return
        if not self._outbox.put(self._websocket.text(text)):
            self._end("slow_reader")
            return
        self._connections.unsent(self._connection, self._outbox.bytes)

    async def _read(self, session: Session, nursery: trio.Nursery, trailing: bytes) -> None:
        data = trailing or await self._receive()
        pace = Pace()
        while True:
            for event in self._websocket.receive(data):
                # One read holds a thousand small messages, or ten thousand empty fragments.
                if pace.tired:
                    await pace.rest()
                if isinstance(event, Message):
                    self._begin(event.data, session, nursery)
                elif isinstance(event, Ended):
                    await self._finish(event)
                    return
                elif isinstance(event, Reply):
                    self._outbox.put(event.data)
            if not self._account_for_message():
                return
            while self._pending >= self._limits.pending_per_connection_max:
                await self._answered.park()
            data = await self._receive()
            pace = Pace()

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._heard_at = trio.current_time()
        return bytes(data)

    def _begin(self, message: str | bytes, session: Session, nursery: trio.Nursery) -> None:
        answer = self._dispatcher.begin(message, session)
        if answer is None:
            return
        if isinstance(answer, bytes):
            self._send(answer)
            session.start_subscriptions()
        else:
            self._pending += 1
            nursery.start_soon(self._answer_later, answer, session)

    async def _answer_later(self, awaited: Awaitable[bytes | None], session: Session) -> None:
        try:
            answer = await awaited
        finally:
            self._pending -= 1
            self._answered.unpark_all()
        if answer is not None:
            self._send(answer)
        session.start_subscriptions()

    def _account_for_message(self) -> bool:
        """Counts an unfinished message with all others; returns False if there are too many bytes of them."""
        size = self._websocket.message_bytes
        if size == 0:
            self._message_since = None
        elif self._message_since is None:
            self._message_since = trio.current_time()
        if self._connections.hold(self._connection, size):
            return True
        self._end("bodies_bytes_max")
        return False

    async def _finish(self, ended: Ended) -> None:
        """Lets what waits, and the closing frame, leave."""
        if ended.data:
            self._outbox.put(ended.data)
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._outbox.drained()
        self._end(ended.reason)

    async def _write(self) -> None:
        while True:
            data = await self._outbox.take()
            with trio.move_on_after(self._limits.send_timeout_s) as scope:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._end(CLIENT_CLOSED)
                    return
            if scope.cancelled_caught:
                self._end("slow_reader")
                return
            self._outbox.written(len(data))
            self._connections.unsent(self._connection, self._outbox.bytes)

    async def _watch(self) -> None:
        limits = self._limits
        while True:
            await trio.sleep(limits.ping_interval_s)
            now = trio.current_time()
            if now - self._heard_at > 2 * limits.ping_interval_s:
                self._end("ping_timeout")
            elif self._message_since is not None and now - self._message_since > limits.body_timeout_s:
                self._end("body_timeout")
            elif now - self._heard_at >= limits.ping_interval_s:
                self._outbox.put(self._websocket.ping())
