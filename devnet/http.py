"""One HTTP/1.1 connection that is kept, for many small exchanges with a node (framing by h11, sockets by trio).

It takes and gives raw bodies: whoever sends thousands of transactions a second writes its JSON by hand.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import h11
import trio

from qenex_node.client.errors import TransportError

READ_BYTES: Final = 256 * 1024
BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class HttpLink:
    """A connection to one port of this machine, made when it is needed and again after it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._head = f"host: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n".encode()
        self._stream: trio.SocketStream | None = None
        self._h11 = h11.Connection(h11.CLIENT)

    async def get(self, target: str) -> tuple[int, bytes]:
        """Returns status and body of a GET; raises TransportError."""
        return await self._exchange("GET", target, b"")

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Returns status and body of a POST to /; raises TransportError, `sent` if the request may have arrived."""
        return await self._exchange("POST", "/", body)

    async def _exchange(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        whole = False
        try:
            stream = await self._connected()
            try:
                # The request's bytes are made by hand; h11 is told of them so that it reads the answer rightly.
                self._h11.send(
                    h11.Request(
                        method=method,
                        target=target,
                        headers=[("host", "127.0.0.1"), ("content-length", str(len(body)))],
                    )
                )
                if body:
                    self._h11.send(h11.Data(data=body))
                self._h11.send(h11.EndOfMessage())
                length = f"{method} {target} HTTP/1.1\r\ncontent-length: {len(body)}\r\n".encode()
                await stream.send_all(b"".join((length, self._head, b"\r\n", body)))
                answer = await self._answer(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
                raise TransportError(f"the connection to port {self._port} was lost", sent=True) from error
            whole = True
        finally:
            if not whole:
                # Whatever ended it, a time limit included: the rest of that answer must not be read as the next one.
                self.close()
        return answer

    async def _connected(self) -> trio.SocketStream:
        if self._stream is None:
            try:
                self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            except OSError as error:
                raise TransportError(f"nothing answers on port {self._port}", sent=False) from error
            self._h11 = h11.Connection(h11.CLIENT)
        return self._stream

    async def _answer(self, stream: trio.SocketStream) -> tuple[int, bytes]:
        status, parts, size = 0, [], 0
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await stream.receive_some(READ_BYTES))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > BODY_BYTES_MAX:
                    raise TransportError("the answer is too large", sent=True)
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise TransportError(f"the connection to port {self._port} was closed", sent=True)
        if self._h11.their_state is h11.DONE and self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self.close()
        return status, b"".join(parts)

    def close(self) -> None:
        """Ends the connection; the next exchange makes a new one."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(OSError):
                stream.socket.close()
