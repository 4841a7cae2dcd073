"""What only real sockets show: TCP options, back pressure of a slow reader, crowds of idle connections, garbage."""

from __future__ import annotations

import random
import socket

import trio
from p2p_support import FakeNode, HandPeer, TcpTransport, joined, poll

from p2p import limits
from p2p.network import Target
from p2p.wire import Kind, encode_frame

LOOPBACK = "127.0.0.1:0"


async def started(nursery: trio.Nursery, node: FakeNode, *permitted: FakeNode) -> str:
    """Starts a node's network on a free port and returns its address."""
    node.build(TcpTransport(), permitted, listen=LOOPBACK)
    (address,) = await nursery.start(node.network.run)
    return str(address)


async def dialing(nursery: trio.Nursery, node: FakeNode, server: FakeNode, address: str) -> None:
    """Starts a node's network that dials a server and does not listen for others."""
    node.build(TcpTransport(), [server], listen=LOOPBACK)
    node.network.set_targets([Target(server.key.id, address)])
    await nursery.start(node.network.run)


def tcp_no_delay(stream: trio.abc.Stream) -> bool:
    assert isinstance(stream, trio.SocketStream)
    return bool(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def test_small_frames_are_not_delayed_by_tcp_on_either_side() -> None:
    async def main() -> None:
        transport = TcpTransport()
        (listener,) = await transport.listen(LOOPBACK)
        async with listener:
            client = await transport.dial(transport.listener_address(listener))
            server = await listener.accept()
            assert tcp_no_delay(client)
            assert tcp_no_delay(server)
            assert transport.remote_address(server).startswith("127.0.0.1:")
            await client.aclose()
            await server.aclose()

    trio.run(main)


def test_five_hundred_idle_connections_do_not_keep_a_permitted_peer_out() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        async with trio.open_nursery() as nursery:
            address = await started(nursery, a, b)
            host, port = address.split(":")
            idle = [await trio.open_tcp_stream(host, int(port)) for _ in range(500)]
            assert a.network.pending_connections <= limits.PENDING_PER_ADDRESS_MAX
            await dialing(nursery, b, a, address)
            await a.handler.until(lambda: bool(a.handler.events), seconds=20)
            assert a.network.peers()[0].name == "b"
            assert a.network.pending_connections <= limits.PENDING_PER_ADDRESS_MAX
            await poll(lambda: a.closed("evicted") >= 500 - limits.PENDING_PER_ADDRESS_MAX, seconds=20)
            for stream in idle:
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_random_bytes_on_the_port_disturb_nobody() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        source = random.Random(7)
        async with trio.open_nursery() as nursery:
            address = await started(nursery, a, b)
            await dialing(nursery, b, a, address)
            await joined(a, b)
            host, port = address.split(":")
            for round_number in range(30):
                stream = await trio.open_tcp_stream(host, int(port))
                prefix = b"\x16\x03\x01\x02\x00" if round_number % 2 else b""
                try:
                    await stream.send_all(prefix + source.randbytes(source.randrange(1, 3000)))
                    await stream.send_eof()
                except OSError:
                    pass
                except trio.BrokenResourceError:
                    pass
                await trio.aclose_forcefully(stream)
            await poll(lambda: a.closed("tls_failed") + a.closed("connection_lost") == 30, seconds=20)
            assert b.network.send(a.key.id, Kind.BODY, b"still here")
            await a.handler.until(lambda: a.bodies(Kind.BODY) == [b"still here"])
            assert [event[0] for event in a.handler.events] == ["connected"]
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_peer_that_does_not_read_is_dropped_and_never_waited_for() -> None:
    async def main() -> None:
        a, b, c = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
        async with trio.open_nursery() as nursery:
            address = await started(nursery, a, b, c)
            await dialing(nursery, c, a, address)
            slow = await HandPeer.dial(TcpTransport(), b, address, a)
            await slow.greet(b, a)
            await joined(a, b, c)
            body = bytes(4 * limits.MIB)
            sent = 0
            while a.network.send(b.key.id, Kind.BODY, body):
                sent += 1
                await trio.lowlevel.checkpoint()
                assert sent <= 100
            assert sent * len(body) >= limits.QUEUE_BYTES_MAX - len(body)
            assert a.network.send(c.key.id, Kind.CONSENSUS, b"vote")
            await c.handler.until(lambda: bool(c.handler.messages))
            await a.handler.until(lambda: ("disconnected", "b", "queue_full") in a.handler.events)
            assert [peer.name for peer in a.network.peers()] == ["c"]
            await trio.aclose_forcefully(slow.stream)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_frames_of_every_size_go_through_real_tls() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        async with trio.open_nursery() as nursery:
            address = await started(nursery, a, b)
            await dialing(nursery, b, a, address)
            await joined(b, a)
            bodies = [bytes([size % 251]) * size for size in (0, 1, 16_384, 300_000, limits.BODY_BYTES_MAX - 16)]
            for body in bodies:
                assert b.network.send(a.key.id, Kind.BODY, body)
            await a.handler.until(lambda: len(a.handler.messages) == len(bodies), seconds=20)
            assert a.bodies(Kind.BODY) == bodies
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_ten_thousand_small_messages_go_out_in_few_writes() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        async with trio.open_nursery() as nursery:
            address = await started(nursery, a, b)
            await dialing(nursery, b, a, address)
            await joined(b, a)
            peer = b.network.peer(a.key.id)
            assert peer is not None
            writes = 0
            send_all = peer._stream.send_all

            async def counted(data: bytes) -> None:
                nonlocal writes
                writes += 1
                await send_all(data)

            peer._stream.send_all = counted  # type: ignore[assignment, method-assign]
            frame = encode_frame(Kind.CONSENSUS, bytes(200))
            for _ in range(10_000):
                peer.send_frame(Kind.CONSENSUS, frame)
            await a.handler.until(lambda: len(a.handler.messages) == 10_000, seconds=20)
            assert writes <= 10_000 * len(frame) // limits.WRITE_BYTES_MAX + 5
            nursery.cancel_scope.cancel()

    trio.run(main)
