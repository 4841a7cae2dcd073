"""/metrics answers who asks in HTTP, and nothing that anyone does there touches the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from qenex_node.exposition import REQUEST_BYTES_MAX, SCRAPES_MAX, serve_metrics

Ask = Callable[[bytes], Awaitable[bytes]]


def serving(test: Callable[[Ask], Awaitable[None]], render: Callable[[], bytes] = lambda: b"qenex_up 1\n") -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]

        async def ask(request: bytes) -> bytes:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(request)
                answer = b""
                with trio.fail_after(10):
                    while data := await received(stream):
                        answer += data
                return answer

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_metrics, listeners, render)
            await test(ask)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def received(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some(4096))
    except trio.BrokenResourceError:
        return b""


def test_a_scrape_gets_the_metrics_and_other_paths_a_hint() -> None:
    async def test(ask: Ask) -> None:
        answer = await ask(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"qenex_up 1\n")
        for other in (b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1"):
            assert (await ask(other + b"\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404")

    serving(test)


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * (REQUEST_BYTES_MAX + 1)]
)
def test_garbage_is_hung_up_on_and_the_next_scrape_answered(garbage: bytes) -> None:
    async def test(ask: Ask) -> None:
        assert not (await ask(garbage)).startswith(b"HTTP/1.1 200")
        assert (await ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")

    serving(test)


def test_silent_connections_keep_nobody_out() -> None:
    async def test(ask: Ask) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(SCRAPES_MAX + 2):
                nursery.start_soon(ask, b"GET /met")
            await trio.sleep(0.05)
            assert (await ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()

    serving(test)


def test_a_source_that_fails_costs_one_scrape_and_not_the_node(caplog: pytest.LogCaptureFixture) -> None:
    failures = 1

    def render() -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("/proc is gone")
        return b"qenex_up 1\n"

    async def test(ask: Ask) -> None:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        assert await ask(request) == b""
        assert (await ask(request)).endswith(b"qenex_up 1\n")

    serving(test, render)
    assert any(record.exc_info for record in caplog.records)
