"""The edge of one HTTP connection: reads requests within time limits, routes them, writes answers.

Routes: POST / is JSON-RPC, GET /ws becomes a WebSocket, GET /health and /ready tell how the node is. What is refused
gets an answer that says why, as a JSON-RPC error without an id, wherever the client still listens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable
from typing import Final

import trio
import trio.abc

from qenex_node.rpc.connections import Connection
from qenex_node.rpc.dispatch import refusal_body
from qenex_node.rpc.errors import INVALID_REQUEST, LIMIT_REACHED, NOT_FOUND, ErrorKind, RpcError
from qenex_node.rpc.http import JSON_TYPE, Closed, Headers, HttpConnection, NeedData, Phase, Refusal, Request
from qenex_node.rpc.render import Json
from qenex_node.rpc.shared import Shared
from qenex_node.rpc.view import Reason
from qenex_node.rpc.websocket import BadHandshake, WebSocketConnection
from qenex_node.rpc.websocket_link import WebSocketLink
from state.errors import JsonValue

RECEIVE_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 256 * 1024
LINGER_S: Final = 1.0
LINGER_BYTES: Final = 256 * 1024
CLOSE: Final[Headers] = ((b"connection", b"close"),)
PREFLIGHT: Final[Headers] = (
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-max-age", b"600"),
)
TIMEOUT_REASONS: Final = {
    Phase.IDLE: "idle_timeout_s",
    Phase.HEADERS: "header_timeout_s",
    Phase.BODY: "body_timeout_s",
}


class HttpLink:
    """Serves one connection until it ends. Its scope's deadline is that of whatever it waits for."""

    def __init__(
        self, shared: Shared, stream: trio.abc.HalfCloseableStream, connection: Connection, scope: trio.CancelScope
    ) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._stream = stream
        self._connection = connection
        self._scope = scope
        self._http = HttpConnection(shared.limits.header_bytes_max, shared.limits.body_bytes_max)
        self._waiting_for: Phase | None = None
        limits = shared.limits
        self._seconds = {
            Phase.IDLE: limits.idle_timeout_s,
            Phase.HEADERS: limits.header_timeout_s,
            Phase.BODY: limits.body_timeout_s,
        }

    async def run(self) -> None:
        """Serves until the client leaves, breaks a rule or is too slow."""
        with self._scope:
            upgraded = await self._serve_requests()
            if upgraded is not None:
                await self._serve_websocket(upgraded)
        if self._scope.cancelled_caught:
            await self._tell_timeout()

    async def _serve_requests(self) -> Request | None:
        """Answers requests one after the other; returns the one that asks for a WebSocket, None at the end."""
        while True:
            event = await self._next_request()
            if type(event) is Refusal:
                await self._refuse(event.status, LIMIT_REACHED if event.status == 413 else INVALID_REQUEST, event)
                return None
            if type(event) is not Request:
                return None
            refusal = self._check_access(event)
            if refusal is not None:
                await self._refuse(403, INVALID_REQUEST, refusal)
                return None
            path = event.target.partition(b"?")[0]
            if path == b"/ws" and event.is_upgrade:
                return event
            extra = self._cors(event)
            if path == b"/" and event.method == b"POST":
                answer = self._shared.dispatcher.begin(event.body)
                # Nothing may hold the body while its calls wait: thousands of them can.
                del event
                await self._answer_rpc(answer, extra)
            else:
                await self._answer_other(event, path, extra)
            if not self._http.next_cycle():
                return None

    async def _next_request(self) -> Request | Refusal | Closed:
        http = self._http
        event = http.next_event()
        while type(event) is NeedData:
            if event is NeedData.MORE_TIME:
                await trio.lowlevel.checkpoint()
                event = http.next_event()
                continue
            if event is NeedData.CONTINUE:
                await self._stream.send_all(http.continue_bytes())
            if not self._shared.connections.hold(self._connection, http.body_bytes):
                return Refusal(503, "bodies_bytes_max", "too many requests are being received: try again later")
            self._wait_for(http.phase)
            http.receive(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
            event = http.next_event()
        if self._connection.held_bytes:
            self._shared.connections.hold(self._connection, 0)
        self._shared.connections.busy(self._connection)
        self._waiting_for = None
        self._scope.deadline = math.inf
        return event  # type: ignore[return-value]

    def _wait_for(self, phase: Phase) -> None:
        """Sets the time limit of a phase when it begins: bytes that trickle in do not extend it."""
        if phase is self._waiting_for:
            return
        if phase is Phase.IDLE:
            self._shared.connections.idle(self._connection)
        else:
            self._shared.connections.receiving(self._connection)
        self._waiting_for = phase
        self._scope.deadline = trio.current_time() + self._seconds[phase]

    def _check_access(self, request: Request) -> Refusal | None:
        access = self._shared.access
        host = request.headers.get(b"host", b"")
        if not access.host_allowed(host):
            return Refusal(403, "host_not_allowed", "this node is not called by that Host; see rpc.allowed_hosts")
        origin = request.headers.get(b"origin")
        if origin is not None and not access.origin_allowed(origin):
            return Refusal(403, "origin_not_allowed", "pages of that Origin may not call; see rpc.allowed_origins")
        return None

    def _cors(self, request: Request) -> Headers:
        origin = request.headers.get(b"origin")
        return () if origin is None else ((b"access-control-allow-origin", origin), (b"vary", b"origin"))

    async def _answer_rpc(self, answer: bytes | Awaitable[bytes | None] | None, extra: Headers) -> None:
        if answer is not None and not isinstance(answer, bytes):
            answer = await answer
        if answer is None:
            await self._send(self._http.answer(204, b"", extra))
        else:
            await self._send(self._http.answer(200, answer, extra))

    async def _answer_other(self, request: Request, path: bytes, extra: Headers) -> None:
        get = request.method in (b"GET", b"HEAD")
        if path == b"/health" and get:
            # A node that finds itself in the wrong ends its process: whoever answers is alive.
            await self._send(self._http.answer(200, _dump({"alive": True}), extra))
        elif path == b"/ready" and get:
            status, body = self._readiness()
            await self._send(self._http.answer(status, body, extra))
        elif request.method == b"OPTIONS" and extra:
            await self._send(self._http.answer(204, b"", (*extra, *PREFLIGHT)))
        elif path in (b"/", b"/ws", b"/health", b"/ready"):
            allowed = b"POST" if path == b"/" else b"GET"
            message = "POST JSON-RPC requests to /; GET /ws (as a WebSocket), /health and /ready"
            body = _body(INVALID_REQUEST, "method_not_allowed", message)
            await self._send(self._http.answer(405, body, (*extra, (b"allow", allowed))))
        else:
            body = _body(NOT_FOUND, "path_unknown", "there are /, /ws, /health and /ready")
            await self._send(self._http.answer(404, body, extra))

    def _readiness(self) -> tuple[int, bytes]:
        reasons: list[JsonValue] = [_reason(reason) for reason in self._shared.node.readiness()]
        return 503 if reasons else 200, _dump({"ready": not reasons, "reasons": reasons})

    async def _send(self, data: bytes) -> None:
        """Writes an answer; a client must take each part of it within the time limit."""
        limit = self._limits.send_timeout_s
        if len(data) <= SEND_BYTES:
            self._scope.deadline = trio.current_time() + limit
            await self._stream.send_all(data)
            return
        for start in range(0, len(data), SEND_BYTES):
            self._shared.connections.unsent(self._connection, len(data) - start)
            self._scope.deadline = trio.current_time() + limit
            await self._stream.send_all(data[start : start + SEND_BYTES])
        self._shared.connections.unsent(self._connection, 0)

    async def _refuse(self, status: int, kind: ErrorKind, refusal: Refusal) -> None:
        """Answers with an error, and closes such that the client can read it although it may still be sending."""
        self._shared.metrics.dropped(refusal.reason)
        self._shared.connections.hold(self._connection, 0)
        await self._send(self._http.answer(status, _body(kind, refusal.reason, refusal.message), CLOSE))
        with trio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    return
                left -= len(data)

    async def _tell_timeout(self) -> None:
        phase = self._waiting_for
        reason = "slow_reader" if phase is None else TIMEOUT_REASONS[phase]
        if self._connection.too_slow:
            reason = "slow_reader"
        elif self._scope.deadline > trio.current_time():
            # Not the time limit, but another connection needed the place.
            reason = "idle_evicted"
        self._shared.metrics.dropped(reason)
        if phase in (Phase.HEADERS, Phase.BODY):
            body = _body(LIMIT_REACHED, reason, "the request took too long to arrive")
            with trio.move_on_after(LINGER_S):
                await self._stream.send_all(self._http.answer(408, body, CLOSE))

    async def _serve_websocket(self, request: Request) -> None:
        shared = self._shared
        websocket = WebSocketConnection(self._limits.body_bytes_max)
        try:
            accepted = websocket.accept(request.headers, request.target)
        except BadHandshake as error:
            await self._refuse(400, INVALID_REQUEST, Refusal(400, "websocket_handshake", str(error)))
            return
        link = WebSocketLink(
            self._stream,
            websocket,
            self._connection,
            shared.connections,
            shared.dispatcher,
            self._limits,
            shared.metrics,
            shared.subscription_count,
        )
        shared.metrics.connections("websocket", 1)
        try:
            reason = await link.run(accepted, self._http.trailing)
        finally:
            shared.metrics.connections("websocket", -1)
        if reason:
            shared.metrics.dropped(reason)


def _reason(reason: Reason) -> Json:
    return {"code": reason.code, "message": reason.message, "data": dict(reason.data)}


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _body(kind: ErrorKind, reason: str, message: str) -> bytes:
    return refusal_body(RpcError(kind, message, reason=reason))


def connection_refused(refused: RpcError) -> bytes:
    """Returns a whole HTTP answer for a connection that is not served at all."""
    body = refusal_body(refused)
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {JSON_TYPE.decode()}\r\ncontent-length: {len(body)}\r\n"
    return (head + "connection: close\r\nretry-after: 5\r\n\r\n").encode() + body
