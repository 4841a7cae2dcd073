"""Fakes for the peer layer's tests: an internet in memory, nodes that record what they are told, and a peer by hand."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from p2p.hello import Greeting, LocalNode, PermittedPeer, Role
from p2p.identity import NodeKey, tls_contexts
from p2p.network import Network, Target
from p2p.peer import Peer
from p2p.session import TlsStream, secure
from p2p.transport import TcpTransport, Transport
from p2p.wire import ESTABLISHED_KINDS, GREETING_KINDS, Frame, Framer, Kind, encode_frame
from state.hashing import sha256
from state.keys import ED25519, SigningKey, verify_ed25519
from state.types import ChainContext

CHAIN = ChainContext("test-chain", sha256(b"genesis"))


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what the in-memory internet brings."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.deliver, self._arrivals = trio.open_memory_channel[trio.abc.Stream](1000)

    async def accept(self) -> trio.abc.Stream:
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        self._arrivals.close()
        await trio.lowlevel.checkpoint()


class MemoryInternet:
    """Listeners by address, and every connection ever made."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryListener] = {}
        self.dials: list[tuple[float, str, str]] = []
        self.streams: list[trio.abc.Stream] = []


class MemoryTransport:
    """One host of the in-memory internet."""

    def __init__(self, internet: MemoryInternet, host: str) -> None:
        self._internet = internet
        self._host = host
        self._addresses: dict[int, str] = {}

    async def listen(self, address: str) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        listener = self._internet.listeners[address] = MemoryListener(address)
        await trio.lowlevel.checkpoint()
        return [listener]

    async def dial(self, address: str) -> trio.abc.Stream:
        self._internet.dials.append((trio.current_time(), self._host, address))
        listener = self._internet.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        ours, theirs = trio.testing.memory_stream_pair()
        self._internet.streams += [ours, theirs]
        try:
            await listener.deliver.send(theirs)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError(f"nobody listens at {address} any more") from None
        return ours

    def listener_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        assert isinstance(listener, MemoryListener)
        return listener.address

    def remote_address(self, stream: trio.abc.Stream) -> str:
        return "memory:1"

    async def first_byte(self, stream: trio.abc.Stream) -> None:
        await trio.lowlevel.checkpoint()


class Recorder:
    """A node that only writes down what it is told, and answers to `until`."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.messages: list[tuple[str, Kind, Any]] = []
        self.react: Callable[[Peer, Kind, Any, bytes], None] = lambda peer, kind, body, raw: None
        self._changed = trio.Event()

    def _note(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def on_connected(self, peer: Peer) -> None:
        self.events.append(("connected", peer.name))
        self._note()

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        self.events.append(("disconnected", peer.name, reason))
        self._note()

    def on_message(self, peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
        self.messages.append((peer.name, kind, body))
        try:
            self.react(peer, kind, body, raw)
        finally:
            self._note()

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Waits until a callback made the condition true."""
        with trio.fail_after(seconds):
            while not condition():
                await self._changed.wait()


class FakeNode:
    """A node key, a validator key and a network between them; `relaying` makes it pass on what is flooded."""

    def __init__(self, name: str, number: int, *, role: Role = Role.VALIDATOR) -> None:
        self.name = name
        self.key = NodeKey(bytes([number]) * 32)
        self.validator = SigningKey(ED25519, bytes([number + 100]) * 32)
        self.role = role
        self.chain = CHAIN
        self.height = number
        self.votes: dict[bytes, bytes] = {}
        self.handler = Recorder()
        self.network: Network

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def entry(self) -> PermittedPeer:
        validator_key = self.validator.public.data if self.role is Role.VALIDATOR else None
        return PermittedPeer(self.name, self.key.public, validator_key)

    def local(self) -> LocalNode:
        return LocalNode(
            chain=self.chain,
            role=self.role,
            listen_address=f"{self.name}:1",
            validator_key=self.entry.validator_key,
            head_height=lambda: self.height,
            sign=self.validator.sign,
            verify=verify_ed25519,
            latest_vote_seen=self.votes.get,
        )

    def build(
        self,
        transport: Transport,
        permitted: Iterable[FakeNode],
        targets: Iterable[FakeNode] = (),
        *,
        listen: str | None = None,
        clock_ms: int = 1_000_000,
        seed: int = 1,
    ) -> Network:
        self.network = Network(
            self.key,
            self.local(),
            self.handler,
            listen=listen if listen is not None else f"{self.name}:1",
            targets=[Target(node.key.id, f"{node.name}:1") for node in targets],
            permitted=[node.entry for node in permitted],
            transport=transport,
            random=random.Random(seed),
            wall_clock_ms=lambda: clock_ms + int(trio.current_time() * 1000),
        )
        return self.network

    def relay_floods(self) -> None:
        def react(peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
            self.network.relay(kind, raw, peer)

        self.handler.react = react

    def bodies(self, kind: Kind) -> list[Any]:
        return [body for _, seen, body in self.handler.messages if seen is kind]

    def closed(self, reason: str) -> int:
        return self.network.counters["connections_closed"][reason]


@asynccontextmanager
async def running(*nodes: FakeNode) -> AsyncIterator[trio.Nursery]:
    """Runs the nodes' networks for the time of an `async with`."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.network.run)
        yield nursery
        nursery.cancel_scope.cancel()


async def joined(node: FakeNode, *others: FakeNode) -> None:
    """Waits until `node` has these peers."""
    names = {other.name for other in others}
    await node.handler.until(lambda: names <= {peer.name for peer in node.network.peers()})


async def poll(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for a condition that no callback announces."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


def simulate(main: Callable[[], Any]) -> None:
    """Runs a test on a clock that jumps over every wait."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def internet(*nodes: FakeNode) -> tuple[MemoryInternet, list[MemoryTransport]]:
    """Returns an internet and a transport for each node."""
    net = MemoryInternet()
    return net, [MemoryTransport(net, node.name) for node in nodes]


class HandPeer:
    """A peer that a test plays by hand, byte for byte."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream = stream
        self.framer = Framer(GREETING_KINDS | ESTABLISHED_KINDS)

    @classmethod
    async def dial(cls, transport: Transport, node: FakeNode, address: str, server: FakeNode) -> HandPeer:
        """Connects to `server` as `node`, TLS only."""
        raw = await transport.dial(address)
        return cls(await secure(raw, tls_contexts(node.key, [server.key.public]), server_side=False))

    async def send(self, kind: Kind, body: Any, flood_id: bytes | None = None) -> None:
        await self.stream.send_all(encode_frame(kind, body, flood_id))

    async def receive(self) -> Frame | None:
        """Returns the next frame, None at the end."""
        while (frame := self.framer.next_frame()) is None:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self.framer.feed(data)
        return frame

    async def receive_kind(self, kind: Kind) -> Frame:
        """Returns the next frame of a kind, over others."""
        while True:
            frame = await self.receive()
            assert frame is not None, f"the connection ended before a {kind.name} came"
            if frame.kind is kind:
                return frame

    async def answer_pings(self) -> None:
        """Shows signs of life until the connection ends."""
        while (frame := await self.receive()) is not None:
            if frame.kind is Kind.PING:
                await self.send(Kind.PONG, (frame.body, 0))

    async def greet(self, node: FakeNode, server: FakeNode) -> None:
        """Greets as an honest node would."""
        greeting = Greeting(node.local(), node.key.id, server.key.id, bytes(32))
        await self.send(Kind.HELLO, greeting.hello())
        while not greeting.accepted:
            frame = await self.receive()
            assert frame is not None
            if frame.kind is Kind.HELLO:
                await self.send(Kind.HELLO_ACK, greeting.receive_hello(frame.body))
            else:
                assert frame.kind is Kind.HELLO_ACK, frame
                greeting.receive_ack(frame.body)


__all__ = ["CHAIN", "FakeNode", "HandPeer", "TcpTransport", "internet", "joined", "poll", "running", "simulate"]
