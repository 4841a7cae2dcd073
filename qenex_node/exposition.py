"""/metrics: the smallest HTTP server that Prometheus needs, on a listener of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import h11
import trio

from qenex_node.logs import Log
from qenex_node.metrics import CONTENT_TYPE

log = Log("qenex.metrics")

REQUEST_SECONDS: Final = 5.0
REQUEST_BYTES_MAX: Final = 16 * 1024
SCRAPES_MAX: Final = 8
READ_BYTES: Final = 4096


async def serve_metrics(listeners: Sequence[trio.SocketListener], render: Callable[[], bytes]) -> None:
    """Answers GET /metrics with `render()`, one request a connection, until cancelled.

    Beyond SCRAPES_MAX the oldest connection makes room: a scrape needs but milliseconds, so that connections that say
    nothing cannot keep one out.
    """
    scrapes: dict[trio.CancelScope, None] = {}

    async def accepted(stream: trio.SocketStream) -> None:
        if len(scrapes) >= SCRAPES_MAX:
            oldest = next(iter(scrapes))
            del scrapes[oldest]
            oldest.cancel()
        scope = trio.move_on_after(REQUEST_SECONDS)
        scrapes[scope] = None
        try:
            with scope:
                await _answer(stream, render)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        except Exception as error:
            log.exception("the metrics could not be read", error)
        finally:
            scrapes.pop(scope, None)
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(accepted, list(listeners))


async def _answer(stream: trio.SocketStream, render: Callable[[], bytes]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(READ_BYTES))
        elif isinstance(event, h11.Request):
            break
        else:
            return
    found = event.method == b"GET" and event.target.partition(b"?")[0] == b"/metrics"
    body = render() if found else b"metrics are at /metrics\n"
    headers = [
        ("Content-Type", CONTENT_TYPE if found else "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    answer = connection.send(h11.Response(status_code=200 if found else 404, headers=headers))
    content = connection.send(h11.Data(data=body))
    end = connection.send(h11.EndOfMessage())
    await stream.send_all((answer or b"") + (content or b"") + (end or b""))
