"""The listener of /metrics: small and apart from the RPC's, so that one can be watched where the other is busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio
import trio.abc

from qenex_node.rpc.http import Closed, Headers, HttpConnection, NeedData, Refusal, Request

TEXT_TYPE: Final = b"text/plain; charset=utf-8"
CONNECTIONS_MAX: Final = 32
HEADER_BYTES_MAX: Final = 8 * 1024
BODY_BYTES_MAX: Final = 1024
REQUEST_TIMEOUT_S: Final = 120.0
SEND_TIMEOUT_S: Final = 10.0
RECEIVE_BYTES: Final = 16 * 1024
CLOSE: Final[Headers] = ((b"connection", b"close"),)


class MetricsServer:
    """Serves GET /metrics."""

    def __init__(self, render: Callable[[], bytes], content_type: str) -> None:
        """Takes what makes the exposition, called for each scrape, and its media type."""
        self._render = render
        self._content_type = content_type.encode()
        self._connections = 0

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serves until cancelled."""
        await trio.serve_listeners(self.serve_stream, list(listeners))

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serves one connection until it ends; one too many, or one that is too slow, is closed."""
        if self._connections >= CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        http = HttpConnection(HEADER_BYTES_MAX, BODY_BYTES_MAX)
        again = True
        while again:
            with trio.fail_after(REQUEST_TIMEOUT_S):
                event = await _next_event(http, stream)
            if isinstance(event, Closed):
                return
            answer = self._refused(http, event) if isinstance(event, Refusal) else self._answer(http, event)
            with trio.fail_after(SEND_TIMEOUT_S):
                await stream.send_all(answer)
            again = http.next_cycle()

    def _refused(self, http: HttpConnection, refusal: Refusal) -> bytes:
        return http.answer(refusal.status, refusal.message.encode() + b"\n", CLOSE, TEXT_TYPE)

    def _answer(self, http: HttpConnection, request: Request) -> bytes:
        if b"origin" in request.headers:
            # Metrics are for scrapers, never for the scripts of a web page.
            return http.answer(403, b"not for web pages\n", CLOSE, TEXT_TYPE)
        if request.target.partition(b"?")[0] != b"/metrics":
            return http.answer(404, b"there is /metrics\n", (), TEXT_TYPE)
        if request.method not in (b"GET", b"HEAD"):
            return http.answer(405, b"GET /metrics\n", ((b"allow", b"GET"),), TEXT_TYPE)
        return http.answer(200, self._render(), (), self._content_type)


async def _next_event(http: HttpConnection, stream: trio.abc.Stream) -> Request | Refusal | Closed:
    event = http.next_event()
    while isinstance(event, NeedData):
        if event is NeedData.CONTINUE:
            await stream.send_all(http.continue_bytes())
        http.receive(bytes(await stream.receive_some(RECEIVE_BYTES)))
        event = http.next_event()
    return event
