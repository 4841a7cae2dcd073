"""One HTTP/1.1 connection without I/O: bytes in, requests or refusals out, answers turned into bytes.

It knows framing (through h11) and the bounds of one request. It knows no socket, no clock, no route and no JSON.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from typing import Final, TypeAlias

import h11

JSON_TYPE: Final = b"application/json"
BODY_PARTS_MAX: Final = 4_096
PARTS_PER_SLICE: Final = 32

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Header names are lower case; of a repeated header the last one counts."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks to go on as a WebSocket."""
        return self.headers.get(b"upgrade", b"").lower() == b"websocket"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that cannot be read or is too large: answer with this status and close."""

    status: int
    reason: str
    message: str


class Phase(Enum):
    """What the connection waits for: it decides which time limit holds."""

    IDLE = "idle"
    HEADERS = "headers"
    BODY = "body"


class NeedData(Enum):
    """More bytes are needed; CONTINUE asks to send `CONTINUE_BYTES` first (Expect: 100-continue).

    MORE_TIME: not bytes but time; others should have their turn before `next_event` is asked again.
    """

    PLAIN = "plain"
    MORE_TIME = "more_time"
    CONTINUE = "continue"


class Closed(Enum):
    """The client ended the connection, or it cannot be used again."""

    CLOSED = "closed"


HttpEvent: TypeAlias = Request | Refusal | NeedData | Closed


class HttpConnection:
    """The server's side of one connection. Feed `receive`, take `next_event` until it needs data, then `answer`."""

    def __init__(self, header_bytes_max: int, body_bytes_max: int) -> None:
        """Takes the bounds, in bytes, of a request's head and body."""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=header_bytes_max)
        self._header_bytes_max = header_bytes_max
        self._body_bytes_max = body_bytes_max
        self._large_read = False
        self._head: h11.Request | None = None
        self._body: list[bytes] = []
        self.body_bytes = 0
        self._fed = False
        self._bodiless = False

    @property
    def phase(self) -> Phase:
        """What it waits for."""
        if self._head is not None:
            return Phase.BODY
        return Phase.HEADERS if self._fed else Phase.IDLE

    def receive(self, data: bytes) -> None:
        """Takes bytes of the client; none means that the client has closed its side."""
        self._fed = True
        self._large_read = len(data) > self._header_bytes_max
        try:
            self._h11.receive_data(data)
        except RuntimeError:
            # Bytes after the client's own end of stream: h11 has nothing more to read, and says so in next_event.
            return

    def next_event(self) -> HttpEvent:
        """Returns the next whole request, a refusal, a need of data, or the end."""
        try:
            return self._next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            reason = "header_bytes_max" if status == 431 else "malformed_http"
            return Refusal(status, reason, f"not an HTTP/1.1 request: {error}")

    def _next_event(self) -> HttpEvent:
        while True:
            event = self._h11.next_event()
            kind = type(event)
            if kind is h11.Data:
                self.body_bytes += len(event.data)  # type: ignore[union-attr]
                if self.body_bytes > self._body_bytes_max:
                    return self._too_large()
                self._body.append(bytes(event.data))  # type: ignore[union-attr]
                # A chunk of one byte takes as long to read as one of many.
                if len(self._body) > BODY_PARTS_MAX:
                    return Refusal(413, "body_parts_max", f"a body comes in at most {BODY_PARTS_MAX} chunks")
                if len(self._body) % PARTS_PER_SLICE == 0:
                    return NeedData.MORE_TIME
            elif kind is h11.EndOfMessage:
                return self._finish()
            elif kind is h11.Request:
                # h11 bounds a head only while it is incomplete: one that came whole in a large read is counted here.
                if self._large_read and _head_bytes(event) > self._header_bytes_max:  # type: ignore[arg-type]
                    return Refusal(431, "header_bytes_max", f"a head has at most {self._header_bytes_max} bytes")
                self._head = event  # type: ignore[assignment]
                if _content_length(event.headers) > self._body_bytes_max:  # type: ignore[union-attr]
                    return self._too_large()
            elif event is h11.NEED_DATA:
                return NeedData.CONTINUE if self._h11.they_are_waiting_for_100_continue else NeedData.PLAIN
            else:
                return Closed.CLOSED

    def _finish(self) -> Request:
        head = self._head
        if head is None:
            raise h11.RemoteProtocolError("a body without a head")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._head = None
        self._body = []
        self.body_bytes = 0
        self._bodiless = head.method == b"HEAD"
        return Request(head.method, head.target, dict(head.headers), body)

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_bytes_max", f"a body has at most {self._body_bytes_max} bytes")

    def continue_bytes(self) -> bytes:
        """Returns the interim answer that a client with Expect: 100-continue waits for."""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def answer(self, status: int, body: bytes, extra: Headers = (), content_type: bytes = JSON_TYPE) -> bytes:
        """Returns the bytes of a whole answer; afterwards `reusable` tells whether another request may follow."""
        headers = [(b"date", _date()), *extra]
        if status != 204:
            headers += [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        head = self._h11.send(h11.Response(status_code=status, headers=headers)) or b""
        content = (self._h11.send(h11.Data(data=body)) or b"") if body and not self._bodiless else b""
        end = self._h11.send(h11.EndOfMessage()) or b""
        return head + content + end

    def next_cycle(self) -> bool:
        """Makes ready for the next request; returns False if the connection must be closed instead."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._fed = bool(self._h11.trailing_data[0])
        return True

    @property
    def trailing(self) -> bytes:
        """What the client sent after an upgrade request."""
        return self._h11.trailing_data[0]


def _head_bytes(request: h11.Request) -> int:
    fields = sum(len(name) + len(value) + len(b": \r\n") for name, value in request.headers)
    return len(request.method) + len(request.target) + fields


def _content_length(headers: h11._headers.Headers) -> int:
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return 0


_date_cache: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Returns the Date header (RFC 9110, section 6.6.1), made once a second."""
    global _date_cache
    second = int(time.time())
    if _date_cache[0] != second:
        _date_cache = (second, formatdate(second, usegmt=True).encode())
    return _date_cache[1]
