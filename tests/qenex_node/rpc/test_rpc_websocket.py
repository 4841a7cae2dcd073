"""WebSockets: handshake, messages whole and in fragments, pings, closing, and the limits of one connection."""

import json

import pytest
import trio
import trio.testing
from wsproto import events as ws
from wsproto.frame_protocol import CloseReason

from tests.qenex_node.rpc.rpc_support import Socket, request, run, serving
from tests.qenex_node.rpc.test_rpc_dispatch import METHODS


def test_calls_are_answered_and_counted_as_a_websocket():
    async def main():
        async with serving() as service:
            socket = await service.socket()
            assert (await socket.call("qenex_status"))["role"] == "validator"
            assert service.counts.open == {"http": 1, "websocket": 1}
            await socket.stream.send_all(socket.ws.send(ws.CloseConnection(code=1000)))
            closed = await socket.event()
            assert (type(closed), closed.code) == (ws.CloseConnection, 1000)
            await trio.testing.wait_all_tasks_blocked()
            assert service.counts.open == {"http": 0, "websocket": 0}
            assert service.counts.drops == {}

    run(main)


def test_a_batch_and_a_binary_message_are_answered_too():
    async def main():
        async with serving(methods=METHODS) as service:
            socket = await service.socket()
            await socket.send([request("echo", [1], 1), request("bulk", [2], 2)])
            assert [answer["id"] for answer in await socket.message()] == [1, 2]
            body = json.dumps(request("echo", [3], 3)).encode()
            await socket.stream.send_all(socket.ws.send(ws.BytesMessage(data=body)))
            assert (await socket.message())["result"] == [3, "x"]

    run(main)


def test_a_slow_call_does_not_hold_up_the_next():
    async def main():
        async with serving(methods=METHODS) as service:
            socket = await service.socket()
            await socket.send(request("later", [1], 1))
            await socket.send(request("echo", [2], 2))
            assert [(await socket.message())["id"] for _ in range(2)] == [2, 1]

    run(main)


def test_a_message_in_fragments_is_one_message():
    async def main():
        async with serving(methods=METHODS) as service:
            socket = await service.socket()
            text = json.dumps(request("echo", [1], "é" * 50), ensure_ascii=False)
            for place, letter in enumerate(text):
                last = place == len(text) - 1
                await socket.stream.send_all(socket.ws.send(ws.TextMessage(data=letter, message_finished=last)))
                if place == 5:
                    await socket.stream.send_all(socket.ws.send(ws.Ping(payload=b"amid")))
            pong = await socket.event()
            assert (type(pong), pong.payload) == (ws.Pong, b"amid")
            assert (await socket.message())["id"] == "é" * 50

    run(main)


def test_malformed_messages_are_answered_and_the_connection_lives():
    async def main():
        async with serving(methods=METHODS) as service:
            socket = await service.socket()
            for text in ("", "{", "[]", "5", "[" * 50_000):
                await socket.stream.send_all(socket.ws.send(ws.TextMessage(data=text)))
                assert (await socket.message())["error"]["code"] in (-32700, -32600)
            await socket.stream.send_all(socket.ws.send(ws.BytesMessage(data=b"\xff\xfe")))
            assert (await socket.message())["error"]["code"] == -32700
            assert await socket.call("echo", 1) == [1, "x"]

    run(main)


@pytest.mark.parametrize("pieces", [1, 10])
def test_an_oversize_message_is_refused_by_name(pieces):
    async def main():
        async with serving(body_bytes_max=300_000) as service:
            socket = await service.socket()
            for piece in range(pieces):
                frame = socket.ws.send(
                    ws.TextMessage(data="x" * (310_000 // pieces), message_finished=piece == pieces - 1)
                )
                await socket.stream.send_all(frame)
            closed = await socket.event()
            assert closed.code == CloseReason.MESSAGE_TOO_BIG
            await trio.testing.wait_all_tasks_blocked()
            assert service.counts.drops == {"body_bytes_max": 1}
            assert service.server.connection_count == 0

    run(main)


def test_unfinished_messages_are_bounded_in_bytes_and_time():
    async def main():
        async with serving(body_bytes_max=300_000, bodies_bytes_max=500_000) as service:
            sockets = [await service.socket() for _ in range(2)]
            for socket in sockets:
                frame = socket.ws.send(ws.TextMessage(data="x" * 280_000, message_finished=False))
                await socket.stream.send_all(frame)
                await trio.testing.wait_all_tasks_blocked()
            assert service.counts.drops == {"bodies_bytes_max": 1}
            assert service.server.connection_count == 1
            for _ in range(10):
                await trio.sleep(5)
                if service.server.connection_count:
                    await sockets[0].stream.send_all(sockets[0].ws.send(ws.Ping()))
                    await sockets[0].event()
            assert service.counts.drops["body_timeout"] == 1
            assert service.server.connection_count == 0

    run(main)


def test_frames_that_break_the_protocol_end_the_connection():
    async def main():
        async with serving() as service:
            for frame in (b"\xff" * 20, b"\x81\x05hello", b"\x83\x80\x00\x00\x00\x00", b"\x09\x80\x00\x00\x00\x00"):
                socket = await service.socket()
                await socket.stream.send_all(frame)
                closed = await socket.event()
                assert closed.code == CloseReason.PROTOCOL_ERROR
            await trio.testing.wait_all_tasks_blocked()
            assert service.server.connection_count == 0

    run(main)


def test_text_that_is_not_utf8_ends_the_connection():
    async def main():
        async with serving() as service:
            socket = await service.socket()
            await socket.stream.send_all(b"\x81\x82\x00\x00\x00\x00\xff\xfe")
            assert (await socket.event()).code == CloseReason.INVALID_FRAME_PAYLOAD_DATA

    run(main)


def test_a_silent_client_is_pinged_and_dropped_when_it_does_not_answer():
    async def main():
        async with serving() as service:
            quiet, alive = await service.socket(), await service.socket()
            start = trio.current_time()

            async def answer_pings():
                while True:
                    event = await alive.event()
                    await alive.stream.send_all(alive.ws.send(event.response()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_pings)
                assert type(await quiet.event()) is ws.Ping
                while type(await quiet.event()) is ws.Ping:
                    pass
                assert trio.current_time() - start <= 61
                await trio.sleep(300)
                assert service.server.connection_count == 1
                assert service.counts.drops == {"ping_timeout": 1}
                nursery.cancel_scope.cancel()

    run(main)


def test_a_reader_too_slow_for_its_answers_is_dropped_by_name():
    async def main():
        limits = {"answer_bytes_max": 1_000_000, "outbox_bytes_max": 1_000_000, "send_timeout_s": 1000.0}
        async with serving(methods=METHODS, **limits) as service:
            ours, theirs = trio.testing.lockstep_stream_pair()
            service.nursery.start_soon(service.server.serve_stream, theirs, "10.0.0.1")
            socket = Socket(ours)
            await socket.open()
            for number in range(4):
                await socket.send(request("big", [], number))
            await trio.testing.wait_all_tasks_blocked()
            assert service.counts.drops == {"slow_reader": 1}
            assert service.server.connection_count == 0

    run(main)


def test_a_reader_that_stops_reading_is_dropped_after_the_time_limit():
    async def main():
        async with serving(methods=METHODS, ping_interval_s=1000.0) as service:
            ours, theirs = trio.testing.lockstep_stream_pair()
            service.nursery.start_soon(service.server.serve_stream, theirs, "10.0.0.1")
            socket = Socket(ours)
            await socket.open()
            await socket.send(request("echo", [1]))
            await trio.sleep(9)
            assert service.server.connection_count == 1
            await trio.sleep(2)
            assert service.counts.drops == {"slow_reader": 1}
            assert service.server.connection_count == 0

    run(main)


def test_a_connection_with_too_many_waiting_calls_is_not_read_until_one_is_answered():
    async def main():
        async with serving(methods=METHODS, pending_per_connection_max=2) as service:
            socket = await service.socket()
            for number in range(5):
                await socket.send(request("later", [number], number))
            start = trio.current_time()
            ids = [(await socket.message())["id"] for _ in range(5)]
            assert sorted(ids) == [0, 1, 2, 3, 4]
            # Two at a time and a second each, for those that were not read together with the first.
            assert trio.current_time() - start >= 1

    run(main)


@pytest.mark.parametrize(
    "headers",
    [
        [("upgrade", "websocket"), ("connection", "upgrade")],
        [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")],
        [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "7"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    ],
)
def test_a_bad_handshake_is_told_why(headers):
    async def main():
        async with serving() as service:
            status, _, body = await service.http().request("GET", "/ws", b"", headers)
            assert status in (400, 426)
            assert json.loads(body)["error"]["data"]["reason"] == "websocket_handshake"

    run(main)


def test_a_websocket_from_a_foreign_page_is_refused():
    async def main():
        async with serving() as service:
            socket = Socket(service.connect())
            refused = await socket.open(headers=[(b"origin", b"https://evil.example")])
            assert refused.status_code == 403
            assert (await Socket(service.connect()).open(host="evil.example")).status_code == 403

    run(main)


def test_messages_sent_with_the_handshake_are_not_lost():
    async def main():
        async with serving(methods=METHODS) as service:
            socket = Socket(service.connect())
            handshake = socket.ws.send(ws.Request(host="localhost", target="/ws"))
            body = json.dumps(request("echo", [1])).encode()
            frame = b"\x81" + bytes([0x80 | len(body)]) + bytes(4) + body
            await socket.stream.send_all(handshake + frame)
            assert isinstance(await socket.event(), ws.AcceptConnection)
            assert (await socket.message())["result"] == [1, "x"]

    run(main)
