"""One WebSocket to a node (RFC 6455) without I/O: handshake, messages out, whole messages in (framing by wsproto)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from qenex_node.client.errors import ProtocolError, TransportError
from qenex_node.client.http import ANSWER_BYTES_MAX, Endpoint

TARGET = "/ws"


@dataclass(frozen=True, slots=True)
class Opened:
    """The node accepted the WebSocket."""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes that the protocol itself answers with."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The WebSocket is over: send `data` if there is any, and close. `reason` is for people."""

    data: bytes
    reason: str


WebSocketEvent: TypeAlias = Opened | Message | Reply | Ended


class WebSocketConnection:
    """The client's side of one WebSocket: send `handshake`, then feed `receive`."""

    def __init__(self, endpoint: Endpoint, message_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._endpoint = endpoint
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._message_bytes_max = message_bytes_max
        self._begun = bytearray()

    def handshake(self) -> bytes:
        """Returns the request that asks for a WebSocket."""
        return self._ws.send(ws.Request(host=self._endpoint.authority, target=TARGET))

    def text(self, data: bytes) -> bytes:
        """Returns the frame of one message of UTF-8 JSON; raises TransportError if the WebSocket is over."""
        try:
            return self._ws.send(ws.TextMessage(data.decode()))
        except LocalProtocolError:
            raise TransportError("the WebSocket is closed", sent=False) from None

    def close(self) -> bytes:
        """Returns the frame that ends the WebSocket, nothing if it is over already."""
        try:
            return self._ws.send(ws.CloseConnection(code=1000))
        except LocalProtocolError:
            return b""

    def receive(self, data: bytes) -> Iterator[WebSocketEvent]:
        """Takes bytes of the node (none: it closed) and yields what they say; raises ProtocolError."""
        try:
            self._ws.receive_data(data or None)
            for event in self._ws.events():
                told = self._take(event)
                if told is not None:
                    yield told
        except (RemoteProtocolError, LocalProtocolError) as error:
            if not data:
                yield Ended(b"", "the node closed the connection")
                return
            raise ProtocolError(f"the node broke the WebSocket protocol: {error}") from None

    def _take(self, event: ws.Event) -> WebSocketEvent | None:
        if isinstance(event, ws.TextMessage | ws.BytesMessage):
            self._begun += event.data.encode() if isinstance(event.data, str) else event.data
            if len(self._begun) > self._message_bytes_max:
                raise ProtocolError(f"a message has more than {self._message_bytes_max} bytes")
            if not event.message_finished:
                return None
            whole, self._begun = bytes(self._begun), bytearray()
            return Message(whole)
        if isinstance(event, ws.AcceptConnection):
            return Opened()
        if isinstance(event, ws.RejectConnection):
            return Ended(b"", f"the node refused the WebSocket with status {event.status_code}")
        if isinstance(event, ws.Ping):
            return Reply(self._ws.send(event.response()))
        if isinstance(event, ws.CloseConnection):
            try:
                answer = self._ws.send(event.response())
            except LocalProtocolError:
                answer = b""
            return Ended(answer, event.reason or f"the node closed the WebSocket (code {int(event.code)})")
        return None
