"""Attackers for integration tests: a permitted node that says what it likes, raw sockets, and load that must go on.

`Hostile` holds the keys of a node of the network and speaks the peer protocol frame by frame, from a thread of its own.
`Load` keeps paying while somebody attacks, and says afterwards how that went. Everything is loopback and bounded.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio

from consensus.messages import SignedMessage, encode_message, signing_preimage
from devnet.network import Devnet
from p2p.hello import Greeting, LocalNode, PermittedPeer, Role
from p2p.identity import NodeKey, tls_contexts
from p2p.session import ConnectionFailed, TlsStream, greet, secure
from p2p.transport import TcpTransport
from p2p.wire import ESTABLISHED_KINDS, GREETING_KINDS, Frame, FrameError, Framer, Kind, encode_frame
from qenex_node.client.errors import ClientError
from qenex_node.testnet import derived_key
from state.keys import SigningKey, verify_ed25519
from state.types import ChainContext, ValidatorSet

FRAMES_KEPT = 2_000
MIB = 1024 * 1024


def rss_anon(net: Devnet, name: str) -> int:
    """Bytes of memory of a node that no file backs."""
    usage = net.usage(name)
    assert usage is not None, f"{name} does not run"
    return usage.rss_anon


def metric(net: Devnet, name: str, line_start: str) -> float:
    """The sum of a node's samples whose line starts so."""
    lines = [line for line in net.metrics(name).splitlines() if line.startswith(line_start)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Load:
    """Transfers one after the other through some nodes, each waited for, while the block is open."""

    def __init__(self, net: Devnet, names: Sequence[str], account: int = 0) -> None:
        self._net = net
        self._names = list(names)
        self._key = net.bulk_key(account)
        self._to = net.bulk_key(account + 1).address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.longest_pause_s = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        last = time.monotonic()
        with self._net.client(*self._names) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    client.transfer(self._key, self._to, 1, "QNX")
                except (ClientError, OSError) as error:
                    self.errors.append(repr(error))
                    time.sleep(0.05)
                    continue
                now = time.monotonic()
                self.latencies.append(now - began)
                self.longest_pause_s = max(self.longest_pause_s, now - last)
                last = now
                time.sleep(0.01)

    def text(self) -> str:
        worst = max(self.latencies, default=0.0)
        return f"{len(self.latencies)} paid, worst {worst:.2f} s, pause {self.longest_pause_s:.2f} s, {self.errors[:3]}"


@dataclass
class Link:
    """One connection of an attacker to a node, and what came over it."""

    stream: TlsStream
    frames: deque[Frame]
    ended: threading.Event
    why: str = ""


class Hostile:
    """A permitted node of the network that an attacker plays; the real one must not run."""

    def __init__(self, net: Devnet, name: str) -> None:
        self.net = net
        self.name = name
        self.validator = name.startswith("validator")
        seed = net.network.seed
        genesis = net.genesis
        self.context: ChainContext = genesis.context
        self.validators: ValidatorSet = genesis.validators
        self.node_key = NodeKey(derived_key(seed, "node", name).seed)
        self.key: SigningKey = derived_key(seed, "validator", name)
        found = self.validators.index_of(self.key.public.data) if self.validator else None
        self.index: int = -1 if found is None else found
        self.links: dict[str, Link] = {}
        self.shown_vote: Callable[[bytes], bytes | None] = lambda key: None
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._thread = threading.Thread(target=lambda: trio.run(self._main), daemon=True)

    def __enter__(self) -> Hostile:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        assert self._nursery is not None
        trio.from_thread.run_sync(self._nursery.cancel_scope.cancel, trio_token=self._token)
        self._thread.join(10)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._ready.set()
            await trio.sleep_forever()

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Runs an async function on the attacker's loop and returns its result."""
        return trio.from_thread.run(work, *args, trio_token=self._token)

    # Connections

    def local(self, context: ChainContext | None = None) -> LocalNode:
        return LocalNode(
            chain=context or self.context,
            role=Role.VALIDATOR if self.validator else Role.FULL,
            listen_address="",
            validator_key=self.key.public.data if self.validator else None,
            head_height=lambda: 0,
            sign=self.key.sign,
            verify=verify_ed25519,
            latest_vote_seen=lambda key: self.shown_vote(key),
        )

    def entry(self, name: str) -> PermittedPeer:
        seed = self.net.network.seed
        node_key = derived_key(seed, "node", name).public.data
        role_key = derived_key(seed, "validator", name).public.data if name.startswith("validator") else None
        return PermittedPeer(name, node_key, role_key)

    async def dial(self, name: str, context: ChainContext | None = None) -> tuple[TlsStream, Framer]:
        """Connects and greets; raises ConnectionFailed or Rejected."""
        entry = self.entry(name)
        raw = await TcpTransport().dial(f"127.0.0.1:{self.net.node(name).ports.p2p}")
        tls = await secure(raw, tls_contexts(self.node_key, [entry.node_key]), server_side=False)
        framer = Framer(GREETING_KINDS)
        peer_id = NodeKey(derived_key(self.net.network.seed, "node", name).seed).id
        await greet(tls, framer, Greeting(self.local(context), self.node_key.id, peer_id, bytes(32)))
        framer.expect(ESTABLISHED_KINDS)
        return tls, framer

    async def greet_as(self, name: str, context: ChainContext) -> str:
        """Greets with another chain's HELLO and returns the node's REJECT."""
        entry = self.entry(name)
        raw = await TcpTransport().dial(f"127.0.0.1:{self.net.node(name).ports.p2p}")
        tls = await secure(raw, tls_contexts(self.node_key, [entry.node_key]), server_side=False)
        greeting = Greeting(self.local(context), self.node_key.id, self.node_key.id, bytes(32))
        framer = Framer(GREETING_KINDS)
        with trio.fail_after(5):
            await tls.send_all(encode_frame(Kind.HELLO, greeting.hello()))
            while True:
                while (frame := framer.next_frame()) is not None:
                    if frame.kind is Kind.REJECT:
                        await trio.aclose_forcefully(raw)
                        return str(frame.body)
                framer.feed(await tls.receive_some(65536))

    def connect(self, *names: str) -> None:
        """Joins nodes; tries again for a while, as a node may still hold an earlier connection."""
        for name in names:
            self.run(self._connect, name)

    async def _connect(self, name: str) -> None:
        for attempt in range(40):
            try:
                tls, framer = await self.dial(name)
                break
            except (ConnectionFailed, OSError):
                if attempt == 39:
                    raise
                await trio.sleep(0.1)
        link = self.links[name] = Link(tls, deque(maxlen=FRAMES_KEPT), threading.Event())
        assert self._nursery is not None
        self._nursery.start_soon(self._read, link, framer)

    async def _read(self, link: Link, framer: Framer) -> None:
        try:
            while True:
                while (frame := framer.next_frame()) is not None:
                    if frame.kind is Kind.PING:
                        await self._send(link, encode_frame(Kind.PONG, (frame.body, time.time_ns() // 1_000_000)))
                    else:
                        link.frames.append(frame)
                    if frame.kind is Kind.REJECT:
                        link.why = str(frame.body)
                data = await link.stream.receive_some(65536)
                if not data:
                    return
                framer.feed(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, FrameError):
            return
        finally:
            link.ended.set()

    async def _send(self, link: Link, data: bytes) -> None:
        for _ in range(200):
            try:
                await link.stream.send_all(data)
                return
            except trio.BusyResourceError:
                await trio.sleep(0.005)

    def raw(self, name: str, data: bytes, timeout_s: float = 10.0) -> bool:
        """Sends bytes inside the connection to a node; returns False if it is over or does not take them in time."""

        async def send() -> bool:
            try:
                with trio.move_on_after(timeout_s) as scope:
                    await self._send(self.links[name], data)
                return not scope.cancelled_caught
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False

        return bool(self.run(send))

    def send(self, name: str, kind: Kind, body: Any, flood_id: bytes | None = None, times: int = 1) -> bool:
        return self.raw(name, encode_frame(kind, body, flood_id) * times)

    def say(self, message: Any, *names: str) -> None:
        """Tells a consensus message to nodes, to all that are joined by default."""
        for name in names or tuple(self.links):
            self.send(name, Kind.CONSENSUS, encode_message(message))

    def sign(self, message: SignedMessage) -> Any:
        """Returns a message with the validator's own, valid signature."""
        assert self.validator
        preimage = signing_preimage(message, self.context.genesis_hash, self.validators.hash)
        return replace(message, signature=self.key.sign(preimage))

    def received(self, name: str, kind: Kind) -> list[Any]:
        """The bodies of a kind that a node sent, as far as they are kept."""
        return [frame.body for frame in list(self.links[name].frames) if frame.kind is kind]

    def ended(self, name: str, timeout_s: float = 5.0) -> str | None:
        """Waits for the end of a connection; returns the reason that the node gave, None if it did not end."""
        link = self.links[name]
        return link.why if link.ended.wait(timeout_s) else None


def connect_tcp(port: int, timeout_s: float = 5.0) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def exchange(port: int, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Sends bytes and returns all that comes back until the other side closes or falls silent."""
    got = bytearray()
    with connect_tcp(port, timeout_s) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                got += part
        except OSError:
            pass
    return bytes(got)


def post(body: bytes, *, host: bytes = b"127.0.0.1", extra: bytes = b"") -> bytes:
    """A POST / with this body."""
    head = b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/json\r\n" + extra
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


class KeepAlive:
    """One HTTP connection that takes any bytes as a body and returns status and answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock = connect_tcp(port, 20)
        self._buffer = bytearray()
        self.reconnects = 0

    def close(self) -> None:
        self._sock.close()

    def pipeline(self, bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Sends many requests at once and returns the answers in order."""
        self._sock.sendall(b"".join(post(body) for body in bodies))
        return [self._answer() for _ in bodies]

    def _answer(self) -> tuple[int, bytes]:
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, _ = bytes(self._buffer).partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        end = len(head) + 4 + size
        while len(self._buffer) < end:
            self._fill()
        body = bytes(self._buffer[len(head) + 4 : end])
        del self._buffer[:end]
        return status, body

    def _fill(self) -> None:
        part = self._sock.recv(65536)
        if not part:
            raise ConnectionError("the node hung up")
        self._buffer += part


@contextmanager
def sampled(net: Devnet, peaks: dict[str, int]) -> Iterator[None]:
    """Keeps the greatest memory of each named node, looked at fifty times a second."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for name in peaks:
                usage = net.usage(name)
                peaks[name] = max(peaks[name], usage.rss_anon if usage is not None else 0)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@contextmanager
def undisturbed(
    net: Devnet, names: Sequence[str], *, growth_max: int = 40 * MIB, pause_max_s: float = 4.0, account: int = 0
) -> Iterator[Load]:
    """Pays all the while; afterwards the nodes live, money went on, memory never grew past a bound, all agree."""
    before = {name: rss_anon(net, name) for name in names}
    peaks = dict(before)
    with Load(net, names, account) as load, sampled(net, peaks):
        net.wait_for(lambda: load.latencies, "the first transfer is paid", 15, alive=names)
        yield load
        paid = len(load.latencies)
        net.wait_for(lambda: len(load.latencies) > paid + 2, f"transfers go on ({load.text()})", 20, alive=names)
    assert load.longest_pause_s < pause_max_s, load.text()
    grown = {name: (peaks[name] - before[name]) // MIB for name in names}
    assert all(size * MIB < growth_max for size in grown.values()), f"memory grew, MiB: {grown}"
    net.wait_same_head(names, 10)


def log_errors(net: Devnet, names: Sequence[str]) -> Counter[str]:
    """Lines of the nodes' logs that tell of a fault of their own."""
    found: Counter[str] = Counter()
    for name in names:
        for line in net.log(name).splitlines():
            if any(
                word in line for word in ("Traceback", "InvariantError", "unforeseen", "unexpected error", "failed on")
            ):
                found[line[:160]] += 1
    return found
