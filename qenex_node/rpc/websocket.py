"""One WebSocket connection (RFC 6455) without I/O: bytes in, whole messages out.

It knows framing (through wsproto) and the bound of one message. Compression is not offered: a small message could
unpack to a large one. It knows no socket, no clock and no JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

MESSAGE_TOO_BIG: Final = 1009


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message; text and binary alike are taken as UTF-8 JSON."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes that the protocol itself answers with: a pong."""

    data: bytes


class Part(Enum):
    """A piece of an unfinished message came: nothing to do yet, but a moment to let others have their turn."""

    PART = "part"


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over: send `data` if there is any, and close. `reason` is empty for a normal end."""

    data: bytes
    reason: str


WebSocketEvent: TypeAlias = Message | Reply | Part | Ended


class BadHandshake(Exception):
    """The request does not ask for a WebSocket as RFC 6455 demands; the text says why."""


class WebSocketConnection:
    """The server's side of one WebSocket."""

    def __init__(self, message_bytes_max: int) -> None:
        """Takes the bound of one message, in bytes."""
        self._ws = WSConnection(ConnectionType.SERVER)
        self._message_bytes_max = message_bytes_max
        self._begun = bytearray()
        self._ended = False

    def accept(self, headers: dict[bytes, bytes], target: bytes) -> bytes:
        """Takes the upgrade request and returns the bytes that accept it; raises BadHandshake."""
        try:
            self._ws.initiate_upgrade_connection(list(headers.items()), target.decode("ascii"))
            event = next(iter(self._ws.events()), None)
            if not isinstance(event, ws.Request):
                raise BadHandshake("not a WebSocket request")
            return self._ws.send(ws.AcceptConnection())
        except (RemoteProtocolError, LocalProtocolError, UnicodeDecodeError) as error:
            raise BadHandshake(str(error)) from error

    def receive(self, data: bytes) -> Iterator[WebSocketEvent]:
        """Takes bytes of the client (none: it has closed its side) and yields what they say."""
        if self._ended:
            return
        try:
            self._ws.receive_data(data or None)
            for event in self._ws.events():
                told = self._take(event)
                yield told
                if type(told) is Ended:
                    self._ended = True
                    return
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._ended = True
            yield Ended(b"", f"malformed_websocket: {error}")

    def _take(self, event: ws.Event) -> WebSocketEvent:
        if isinstance(event, ws.TextMessage | ws.BytesMessage):
            return self._collect(event.data, event.message_finished)
        if isinstance(event, ws.Ping):
            return Reply(self._ws.send(event.response()))
        if isinstance(event, ws.CloseConnection):
            # A frame that breaks the protocol is told by wsproto as a close with the code that it calls for.
            reason = "" if event.code < 1002 or event.code == 1005 else f"closed by code {int(event.code)}"
            try:
                return Ended(self._ws.send(event.response()), reason)
            except LocalProtocolError:
                return Ended(b"", reason)
        return Part.PART

    def _collect(self, data: str | bytes | bytearray, finished: bool) -> WebSocketEvent:
        begun = self._begun
        if len(begun) + len(data) > self._message_bytes_max:
            bound = f"a message has at most {self._message_bytes_max} bytes"
            return Ended(self.close(MESSAGE_TOO_BIG, bound), "body_bytes_max")
        if finished and not begun:
            return Message(bytes(data) if isinstance(data, bytearray) else data)
        begun += data.encode() if isinstance(data, str) else data
        if not finished:
            return Part.PART
        self._begun = bytearray()
        return Message(bytes(begun))

    @property
    def message_bytes(self) -> int:
        """How many bytes of an unfinished message are held."""
        return len(self._begun)

    def text(self, data: str | bytes) -> bytes:
        """Returns the frame of a text message, nothing if the client has closed; bytes are ASCII."""
        return self._frame(ws.TextMessage(data if isinstance(data, str) else data.decode("ascii")))

    def ping(self) -> bytes:
        """Returns a ping frame, nothing if the client has closed."""
        return self._frame(ws.Ping())

    def _frame(self, event: ws.Event) -> bytes:
        # A subscription may have something to say between the client's close and the end of its task.
        try:
            return self._ws.send(event)
        except LocalProtocolError:
            return b""

    def close(self, code: int, reason: str) -> bytes:
        """Returns the frame that closes the connection, nothing if it is closed already."""
        try:
            return self._ws.send(ws.CloseConnection(code=code, reason=reason[:120]))
        except LocalProtocolError:
            return b""
