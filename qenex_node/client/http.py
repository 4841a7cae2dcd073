"""One HTTP/1.1 connection to a node without I/O: requests to bytes, bytes to whole answers (framing by h11).

It knows no socket and no JSON. Both faces of the client use it, so they agree on what an answer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

from qenex_node.client.errors import ProtocolError, TransportError
from state.errors import Rejected

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
HEADER_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node serves RPC: host name or address, and port."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Reads http://host:port (the path is the node's own choice); raises Rejected("url_invalid")."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme != "http" or not parts.hostname or port == -1:
            raise Rejected("url_invalid", f"{url!r} is not an RPC address like http://127.0.0.1:27101")
        return cls(parts.hostname, port or 80)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    body: bytes


class HttpConnection:
    """The client's side of one connection: `request`, then `receive` until it returns the answer, and again."""

    def __init__(self, endpoint: Endpoint, answer_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._endpoint = endpoint
        self._answer_bytes_max = answer_bytes_max
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._status = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self.reusable = True

    def request(self, body: bytes) -> bytes:
        """Returns the bytes of a request with this JSON body."""
        headers = [
            ("host", self._endpoint.authority),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("user-agent", "qenex-client"),
        ]
        head = self._h11.send(h11.Request(method="POST", target="/", headers=headers)) or b""
        content = self._h11.send(h11.Data(data=body)) or b""
        return head + content + (self._h11.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> HttpAnswer | None:
        """Takes bytes of the node (none: it closed) and returns the answer once it is whole.

        Raises TransportError if the node closed too early, ProtocolError for what is not HTTP or is too large.
        """
        try:
            self._h11.receive_data(data)
            return self._next()
        except h11.RemoteProtocolError as error:
            self.reusable = False
            if not data:
                raise TransportError("the node closed the connection before it answered", sent=True) from None
            raise ProtocolError(f"the answer is not HTTP/1.1: {error}") from None

    def _next(self) -> HttpAnswer | None:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                if self._body_bytes > self._answer_bytes_max:
                    self.reusable = False
                    raise ProtocolError(f"the answer has more than {self._answer_bytes_max} bytes")
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return self._finish()
            elif isinstance(event, h11.ConnectionClosed):
                self.reusable = False
                raise TransportError("the node closed the connection before it answered", sent=True)

    def _finish(self) -> HttpAnswer:
        answer = HttpAnswer(self._status, b"".join(self._body))
        self._body = []
        self._body_bytes = 0
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self.reusable = False
        return answer
