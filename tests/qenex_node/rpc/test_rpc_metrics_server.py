"""The listener of /metrics, and the limits that an operator's configuration sets."""

import pytest
import trio
import trio.testing

from qenex_node.config import RpcSection
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics_server import CONNECTIONS_MAX, MetricsServer
from state.errors import Rejected
from tests.qenex_node.rpc.rpc_support import Http, run


def serving(test):
    """Runs `test(connect)`; `connect()` opens a connection."""
    scrapes = iter(range(1000))
    server = MetricsServer(lambda: b"qenex_height %d\n" % next(scrapes), "text/plain; version=1.0.0")

    async def main():
        async with trio.open_nursery() as nursery:

            def connect():
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return Http(ours)

            await test(connect)
            nursery.cancel_scope.cancel()

    run(main)


def test_each_scrape_is_made_anew():
    async def test(connect):
        http = connect()
        for number in range(3):
            status, headers, body = await http.request("GET", "/metrics")
            assert (status, body) == (200, b"qenex_height %d\n" % number)
            assert headers["content-type"] == "text/plain; version=1.0.0"
        status, headers, body = await http.request("HEAD", "/metrics")
        assert (status, headers["content-length"], body) == (200, "15", b"")

    serving(test)


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/", [], 404),
        ("POST", "/metrics", [], 405),
        ("GET", "/metrics", [("origin", "https://evil.example")], 403),
    ],
)
def test_anything_else_is_refused(method, target, headers, status):
    async def test(connect):
        assert (await connect().request(method, target, b"", headers))[0] == status

    serving(test)


def test_garbage_slow_senders_and_crowds_are_dropped():
    async def test(connect):
        garbage = connect()
        await garbage.raw(b"\x16\x03\x01 garbage\r\n\r\n")
        assert (await garbage.stream.receive_some(1000)).startswith(b"HTTP/1.1 400")
        large = connect()
        await large.raw(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
        assert (await large.stream.receive_some(1000)).startswith(b"HTTP/1.1 413")
        await trio.testing.wait_all_tasks_blocked()
        silent = [connect() for _ in range(CONNECTIONS_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        assert await connect().stream.receive_some(100) == b""
        for http in silent:
            assert await http.stream.receive_some(100) == b""
        assert (await connect().request("GET", "/metrics"))[0] == 200

    serving(test)


def test_the_configurations_limits_are_taken_over():
    section = RpcSection(body_bytes_max=2_000_000, batch_max=7, idle_seconds_max=9, wait_ms_max=500)
    limits = RpcLimits.from_config(section)
    assert (limits.body_bytes_max, limits.batch_max, limits.wait_ms_max) == (2_000_000, 7, 500)
    assert (limits.idle_timeout_s, limits.connections_max) == (9.0, section.connections_max)
    assert RpcLimits.from_config(RpcSection()) == RpcLimits()


@pytest.mark.parametrize(
    "values",
    [
        {"body_bytes_max": 1000},
        {"bodies_bytes_max": 1000},
        {"outbox_bytes_max": 1000},
        {"pending_max": 10},
        {"batch_max": 0},
        {"connections_max": 0},
        {"send_timeout_s": 0.0},
        {"subscriptions_max": -1},
        {"header_bytes_max": 10},
        {"behind_blocks_max": 0},
    ],
)
def test_limits_that_contradict_each_other_are_refused(values):
    with pytest.raises(Rejected) as caught:
        RpcLimits(**values)
    assert caught.value.code == "config_invalid"
