"""HTTP: routes, who may call, time limits, limits of size and number, and what garbage leads to."""

import json
import math
import random

import pytest
import trio
import trio.testing

from qenex_node.rpc.access import Access
from qenex_node.rpc.server import RpcServer, open_listeners
from qenex_node.rpc.view import Reason
from tests.qenex_node.rpc.rpc_support import FakeNode, Http, registry, request, run, serving

STATUS = b'{"jsonrpc":"2.0","id":1,"method":"qenex_status"}'
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_requests_follow_each_other_on_one_connection():
    async def main():
        async with serving() as service:
            http = service.http()
            for _ in range(3):
                status, headers, body = await http.request("POST", "/", STATUS)
                assert status == 200
                assert headers["content-type"] == "application/json"
                assert headers["date"].endswith("GMT")
                assert json.loads(body)["result"]["chain_id"] == "test-1"
            assert service.counts.open["http"] == 1

    run(main)


def test_pipelined_requests_are_answered_in_order():
    async def main():
        async with serving() as service:
            http = service.http()
            one = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
            bodies = [json.dumps(request("qenex_status", [], number)).encode() for number in range(3)]
            await http.raw(b"".join(one % len(body) + body for body in bodies))
            stream = b""
            while stream.count(b'"id":') < 3:
                stream += await http.stream.receive_some(65536)
            places = [stream.index(b'"id":%d' % number) for number in range(3)]
            assert places == sorted(places)

    run(main)


def test_a_body_in_very_many_chunks_is_refused():
    async def main():
        async with serving() as service:
            http = service.http()
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            await http.raw(head + b"1\r\n[\r\n" * 5_000)
            status, _, body = await _response(http)
            assert (status, json.loads(body)["error"]["data"]["reason"]) == (413, "body_parts_max")

    run(main)


def test_a_head_that_comes_whole_has_its_bound_too():
    async def main():
        async with serving() as service:
            http = service.http()
            await http.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
            status, _, body = await _response(http)
            assert (status, json.loads(body)["error"]["data"]["reason"]) == (431, "header_bytes_max")

    run(main)


def test_a_body_may_trickle_in_byte_by_byte():
    async def main():
        async with serving() as service:
            http = service.http()
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(STATUS)
            for byte in head + STATUS:
                await http.raw(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            data = await http.stream.receive_some(65536)
            assert data.startswith(b"HTTP/1.1 200")

    run(main)


def test_a_chunked_body_is_read():
    async def main():
        async with serving() as service:
            http = service.http()
            await http.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            await http.raw(
                b"%x\r\n%s\r\n" % (20, STATUS[:20]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(STATUS) - 20, STATUS[20:])
            )
            assert b'"chain_id":"test-1"' in await http.stream.receive_some(65536)

    run(main)


def test_a_client_that_expects_100_continue_is_told_to_go_on():
    async def main():
        async with serving() as service:
            http = service.http()
            await http.raw(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
                % len(STATUS)
            )
            assert (await http.stream.receive_some(65536)).startswith(b"HTTP/1.1 100")
            await http.raw(STATUS)
            assert (await http.stream.receive_some(65536)).startswith(b"HTTP/1.1 200")

    run(main)


def test_a_notification_gets_an_empty_answer():
    async def main():
        async with serving() as service:
            http = service.http()
            status, headers, body = await http.request("POST", "/", b'{"jsonrpc":"2.0","method":"qenex_status"}')
            assert (status, body) == (204, b"")
            assert "content-length" not in headers
            assert (await http.request("POST", "/", STATUS))[0] == 200

    run(main)


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("GET", "/", 405, "method_not_allowed"),
        ("PUT", "/", 405, "method_not_allowed"),
        ("OPTIONS", "/", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/ws", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "path_unknown"),
        ("GET", "/../../etc/passwd", 404, "path_unknown"),
        ("POST", "//", 404, "path_unknown"),
        ("DELETE", "/ready", 405, "method_not_allowed"),
    ],
)
def test_other_routes_say_what_there_is(method, target, status, reason):
    async def main():
        async with serving() as service:
            http = service.http()
            answer = await http.request(method, target)
            assert answer[0] == status
            assert json.loads(answer[2])["error"]["data"]["reason"] == reason
            # The connection is still good.
            assert (await http.request("POST", "/?query=ignored", STATUS))[0] == 200

    run(main)


def test_health_and_ready_tell_how_the_node_is():
    async def main():
        async with serving() as service:
            http, node = service.http(), service.node
            assert await _get(http, "/health") == (200, {"alive": True})
            assert await _get(http, "/ready") == (200, {"ready": True, "reasons": []})
            reason = Reason("no_quorum", "2 validators are within reach", (("quorum", 3),))
            node.reasons = [reason]
            shown = {"code": "no_quorum", "message": "2 validators are within reach", "data": {"quorum": 3}}
            assert await _get(http, "/ready") == (503, {"ready": False, "reasons": [shown]})

    run(main)


async def _get(http, target):
    status, _, body = await http.request("GET", target)
    return status, json.loads(body)


def test_a_fault_of_ours_ends_one_connection_and_is_logged(caplog):
    async def main():
        async with serving() as service:
            service.node.readiness = None
            http = service.http()
            await http.raw(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await http.stream.receive_some(1000) == b""
            assert (await service.http().request("POST", "/", STATUS))[0] == 200
            assert service.counts.drops == {"internal_error": 1}

    run(main)
    assert "NoneType" in caplog.text


def test_a_head_request_has_the_head_of_the_answer_alone():
    async def main():
        async with serving() as service:
            http = service.http()
            for _ in range(2):
                status, headers, body = await http.request("HEAD", "/ready")
                assert (status, body) == (200, b"")
                assert int(headers["content-length"]) > 10

    run(main)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:27101", True),
        ("127.0.0.1", True),
        ("127.0.0.1:8545", True),
        ("10.1.2.3:80", True),
        ("[::1]:8545", True),
        ("[::1]", True),
        ("node.bank.example", True),
        ("Node.Bank.Example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("node.bank.example.evil.example", False),
        ("", False),
        ("[evil]", False),
    ],
)
def test_only_hosts_that_name_this_node_are_answered(host, allowed):
    async def main():
        async with serving(access=Access(hosts=["node.bank.example"])) as service:
            for target in ("/", "/health", "/ws"):
                method = "POST" if target == "/" else "GET"
                answer = await service.http().request(method, target, STATUS, [("host", host)])
                assert (answer[0] != 403) == allowed
                if not allowed:
                    assert json.loads(answer[2])["error"]["data"]["reason"] == "host_not_allowed"
                    assert answer[1]["connection"] == "close"

    run(main)


def test_pages_of_foreign_origins_may_not_call():
    async def main():
        async with serving(access=Access(origins=["https://wallet.example"])) as service:
            for origin in ("https://evil.example", "null", "https://wallet.example.evil", "http://wallet.example"):
                status, headers, body = await service.http().request("POST", "/", STATUS, [("origin", origin)])
                assert status == 403
                assert json.loads(body)["error"]["data"]["reason"] == "origin_not_allowed"
                assert "access-control-allow-origin" not in headers
            fine = [("origin", "https://wallet.example")]
            http = service.http()
            status, headers, _ = await http.request("POST", "/", STATUS, fine)
            assert (status, headers["access-control-allow-origin"]) == (200, "https://wallet.example")
            status, headers, _ = await http.request("OPTIONS", "/", b"", fine)
            assert status == 204
            assert "POST" in headers["access-control-allow-methods"]

    run(main)


def test_a_body_above_the_limit_is_refused_before_it_is_read():
    async def main():
        async with serving(body_bytes_max=300_000) as service:
            http = service.http()
            await http.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300001\r\n\r\n")
            status, headers, body = await _response(http)
            assert (status, headers["connection"]) == (413, "close")
            error = json.loads(body)["error"]
            assert (error["code"], error["data"]["reason"]) == (-32001, "body_bytes_max")
            assert service.counts.drops["body_bytes_max"] == 1

    run(main)


def test_a_chunked_body_above_the_limit_is_refused_when_it_gets_there():
    async def main():
        async with serving(body_bytes_max=300_000) as service:
            http = service.http()
            await http.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(301):
                await http.raw(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            assert (await _response(http))[0] == 413

    run(main)


async def _response(http):
    """Reads an answer to what was sent raw."""
    data = b""
    while True:
        part = await http.stream.receive_some(65536)
        if not part:
            break
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


def test_bodies_that_are_being_received_are_bounded_together():
    async def main():
        async with serving(body_bytes_max=300_000, bodies_bytes_max=500_000) as service:
            senders = [service.http() for _ in range(2)]
            for sender in senders:
                await sender.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 290000\r\n\r\n")
                await sender.raw(b" " * 280_000)
                await trio.testing.wait_all_tasks_blocked()
            status, _, body = await _response(senders[1])
            assert (status, json.loads(body)["error"]["data"]["reason"]) == (503, "bodies_bytes_max")
            await senders[0].raw(b" " * 10_000)
            assert (await senders[0].stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
            third = service.http()
            assert (await third.request("POST", "/", b" " * 290_000))[0] == 200

    run(main)


def test_headers_are_bounded():
    async def main():
        async with serving(header_bytes_max=4096) as service:
            http = service.http()
            await http.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + b"x: " + b"y" * 5000)
            status, _, body = await _response(http)
            assert (status, json.loads(body)["error"]["data"]["reason"]) == (431, "header_bytes_max")

    run(main)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 3000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n" * 50 + b"no\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
        b"{}\r\n\r\n",
    ],
    ids=range(11),
)
def test_garbage_gets_a_clear_error_and_is_dropped(garbage):
    async def main():
        async with serving() as service:
            http = service.http()
            await http.raw(garbage)
            status, _, body = await _response(http)
            assert 400 <= status < 502
            assert json.loads(body)["error"]["code"] in (-32600, -32001)
            # The server lets the client read the answer before it closes for good.
            await trio.sleep(2)
            assert service.server.connection_count == 0

    run(main)


def test_random_bytes_never_stop_the_server():
    async def main():
        rng = random.Random(7)
        async with serving() as service:
            for _ in range(300):
                stream = service.connect()
                await stream.send_all(rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n")
                await stream.send_eof()
                with trio.move_on_after(5):
                    while await stream.receive_some(65536):
                        pass
            await trio.testing.wait_all_tasks_blocked()
            assert service.server.connection_count == 0
            assert (await service.http().request("POST", "/", STATUS))[0] == 200

    run(main)


def test_malformed_bodies_by_the_thousand_are_each_answered():
    async def main():
        rng = random.Random(11)
        async with serving() as service:
            http = service.http()
            for _ in range(2_000):
                body = bytearray(STATUS)
                for _ in range(rng.randrange(1, 6)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                if rng.random() < 0.3:
                    del body[rng.randrange(len(body)) :]
                status, _, answer = await http.request("POST", "/", bytes(body))
                assert status in (200, 204)
                if answer:
                    json.loads(answer)
            assert service.server.connection_count == 1
            assert sum(service.counts.answers.values()) >= 1_900

    run(main)


@pytest.mark.parametrize(
    ("sent", "reason", "seconds", "told"),
    [
        (b"", "idle_timeout_s", 60, False),
        (b"POST / HTT", "header_timeout_s", 10, True),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{", "body_timeout_s", 30, True),
    ],
)
def test_who_says_nothing_for_too_long_is_dropped(sent, reason, seconds, told):
    async def main():
        async with serving() as service:
            stream = service.connect()
            start = trio.current_time()
            if sent:
                await stream.send_all(sent)
            data = await stream.receive_some(65536)
            assert math.isclose(trio.current_time() - start, seconds, abs_tol=0.01)
            assert data.startswith(b"HTTP/1.1 408") if told else data == b""
            await trio.testing.wait_all_tasks_blocked()
            assert service.counts.drops == {reason: 1}
            assert service.server.connection_count == 0

    run(main)


def test_bytes_that_trickle_do_not_extend_the_time():
    async def main():
        async with serving() as service:
            stream = service.connect()
            for byte in b"POST / HT":
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
                assert service.server.connection_count == 1
            await trio.sleep(2)
            assert service.server.connection_count == 0
            assert service.counts.drops == {"header_timeout_s": 1}

    run(main)


def test_a_reader_that_does_not_read_is_dropped():
    async def main():
        def pair():
            return trio.testing.lockstep_stream_pair()

        async with serving() as service:
            stream = service.connect(stream_pair=pair)
            await stream.send_all(
                b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(STATUS), STATUS)
            )
            start = trio.current_time()
            await trio.sleep(11)
            assert service.counts.drops == {"slow_reader": 1}
            assert service.server.connection_count == 0
            assert trio.current_time() - start == 11

    run(main)


def test_the_longest_idle_connection_makes_room_for_a_new_one():
    async def main():
        async with serving(connections_max=3) as service:
            clients = [service.http(f"10.0.0.{n}") for n in range(3)]
            for client in clients:
                await client.request("POST", "/", STATUS)
            await clients[0].request("POST", "/", STATUS)
            fourth = service.http("10.0.0.9")
            assert (await fourth.request("POST", "/", STATUS))[0] == 200
            assert await clients[1].stream.receive_some(100) == b""
            assert (await clients[0].request("POST", "/", STATUS))[0] == 200
            assert service.server.connection_count == 3
            assert service.counts.drops == {"idle_evicted": 1}

    run(main)


def test_where_all_connections_are_busy_a_new_one_is_refused():
    async def main():
        async with serving(connections_max=2) as service:
            for address in ("10.0.0.1", "10.0.0.2"):
                await service.http(address).raw(UPGRADE)
            await trio.testing.wait_all_tasks_blocked()
            status, headers, body = await _response(service.http("10.0.0.3"))
            assert (status, headers["retry-after"]) == (503, "5")
            assert json.loads(body)["error"]["data"] == {"reason": "connections_max", "maximum": 2}
            assert service.counts.drops == {"connections_max": 1}

    run(main)


def test_requests_that_never_end_do_not_keep_a_new_connection_out():
    async def main():
        async with serving(connections_max=2, connections_per_address_max=2) as service:
            slow = [service.http("10.0.0.1"), service.http("10.0.0.1")]
            for client in slow:
                await client.raw(b"POST / HTTP/1.1\r\n")
                await trio.testing.wait_all_tasks_blocked()
            for address in ("10.0.0.1", "10.0.0.2"):
                assert (await service.http(address).request("POST", "/", STATUS))[0] == 200
            assert service.server.connection_count == 2
            assert service.counts.drops == {"idle_evicted": 2}

    run(main)


def test_one_address_has_its_own_limit():
    async def main():
        async with serving(connections_per_address_max=2) as service:
            for _ in range(2):
                await service.http("10.0.0.1").raw(UPGRADE)
            await trio.testing.wait_all_tasks_blocked()
            status, _, body = await _response(service.http("10.0.0.1"))
            assert (status, json.loads(body)["error"]["data"]["reason"]) == (503, "connections_per_address_max")
            assert (await service.http("10.0.0.2").request("POST", "/", STATUS))[0] == 200

    run(main)


def test_idle_connections_over_real_sockets_cost_their_places_and_nothing_else():
    async def main():
        node = FakeNode()
        listeners = await open_listeners("127.0.0.1", 0)
        port = listeners[0].socket.getsockname()[1]
        from qenex_node.rpc.limits import RpcLimits

        server = RpcServer(node, registry(node.ledger, "0"), limits=RpcLimits(connections_max=40))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listeners)
            idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(200)]
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            http = Http(stream)
            for _ in range(5):
                assert (await http.request("POST", "/", STATUS))[0] == 200
            assert server.connection_count <= 40
            for opened in (*idle, stream):
                await trio.aclose_forcefully(opened)
            nursery.cancel_scope.cancel()

    trio.run(main)
