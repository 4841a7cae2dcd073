"""The relay process: takes connections for each link, passes their bytes on as told, and takes orders on its input.

    python -m devnet.relay.process '[["validator-02", "validator-01", "127.0.0.1", 12000], ...]'

It writes the ports that it listens on, one for each link (dialer, target, the target's host and port), as its first
line. Every later line is the answer to one order. It ends with its input, so it cannot outlive whoever started it.

One thread, one selector, plain sockets: it shares the processors with the nodes whose network it plays, so a piece of
bytes must cost microseconds.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import resource
import selectors
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from devnet.relay.schedule import PASSING, Conduct, Schedule
from devnet.ways import Way

READ_BYTES: Final = 256 * 1024
SEED: Final = 1
_BACKLOG: Final = 64


@dataclass(slots=True)
class Carried:
    """What one way has carried so far, over all of its connections."""

    pieces: int = 0
    bytes: int = 0


@dataclass(slots=True, eq=False)
class Stream:
    """One direction of one connection: read here, scheduled, written there."""

    way: Way
    source: socket.socket
    sink: socket.socket
    schedule: Schedule
    carried: Carried
    connection: Connection
    unsent: bytes = b""
    reading: bool = True
    armed: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """A dialed connection and the one to the target that carries it on."""

    dialed: socket.socket
    onward: socket.socket
    streams: list[Stream] = field(default_factory=list)
    connecting: bool = True
    closed: bool = False


class RelayProcess:
    """All links and their connections."""

    def __init__(self, links: list[tuple[str, str, str, int]]) -> None:
        """Opens a listener for each (dialer, target, host, port); raises OSError."""
        self._selector = selectors.DefaultSelector()
        self._conducts: dict[Way, Conduct] = {}
        self._carried: dict[Way, Carried] = {}
        self._connections: set[Connection] = set()
        self._timers: list[tuple[float, int, Stream]] = []
        self._armed = 0
        self._masks: dict[socket.socket, int] = {}
        self._random = random.Random(SEED)
        self.ports = [self._listen(*link) for link in links]

    def _listen(self, dialer: str, target: str, host: str, port: int) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        listener.setblocking(False)
        accept = partial(self._accept, listener, (dialer, target), (host, port))
        self._selector.register(listener, selectors.EVENT_READ, accept)
        return int(listener.getsockname()[1])

    def run(self, orders: int) -> None:
        """Works until the input ends; `orders` is its descriptor."""
        ended: list[bool] = []
        unread = bytearray()

        def read_orders(_: int) -> None:
            data = os.read(orders, READ_BYTES)
            if not data:
                ended.append(True)
            unread.extend(data)
            while (end := unread.find(b"\n")) >= 0:
                line = bytes(unread[:end])
                del unread[: end + 1]
                print(json.dumps(self._obey(json.loads(line))), flush=True)

        self._selector.register(orders, selectors.EVENT_READ, read_orders)
        while not ended:
            timeout = None if not self._timers else max(0.0, self._timers[0][0] - time.monotonic())
            for key, mask in self._selector.select(timeout):
                key.data(mask)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                stream = heapq.heappop(self._timers)[2]
                stream.armed = False
                self._pump(stream, now)

    # Orders

    def _obey(self, order: dict[str, Any]) -> Any:
        ways = {(source, sink) for source, sink in order.get("ways", ())}
        if order["do"] == "set":
            return self._set(ways, Conduct.from_json(order["conduct"]))
        if order["do"] == "close":
            return self._close_all(ways)
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu_s": used.ru_utime + used.ru_stime,
            "connections": len(self._connections),
            "carried": [[*way, carried.pieces, carried.bytes] for way, carried in self._carried.items()],
        }

    def _set(self, ways: Collection[Way], conduct: Conduct) -> int:
        self._conducts.update(dict.fromkeys(ways, conduct))
        changed, now = 0, time.monotonic()
        for connection in list(self._connections):
            for stream in connection.streams:
                if stream.way not in ways:
                    continue
                changed += 1
                stream.schedule.change(conduct)
                if conduct.cut:
                    stream.schedule.lost |= bool(stream.unsent)
                    stream.unsent = b""
                elif stream.schedule.lost:
                    # Bytes are missing in its middle: it can only be made anew.
                    self._close(connection)
                if not connection.closed:
                    self._pump(stream, now)
        return changed

    def _close_all(self, ways: Collection[Way]) -> int:
        chosen = [one for one in self._connections if any(stream.way in ways for stream in one.streams)]
        for connection in chosen:
            self._close(connection)
        return len(chosen)

    # Connections

    def _accept(self, listener: socket.socket, way: Way, target: tuple[str, int], _: int) -> None:
        try:
            dialed, _ = listener.accept()
        except OSError:
            return
        if self._conducts.get(way, PASSING).refused:
            dialed.close()
            return
        onward = socket.socket()
        for end in (dialed, onward):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(dialed, onward)
        connection.streams = [
            self._stream(connection, way, dialed, onward),
            self._stream(connection, (way[1], way[0]), onward, dialed),
        ]
        self._connections.add(connection)
        onward.connect_ex(target)
        self._watch(connection)

    def _stream(self, connection: Connection, way: Way, source: socket.socket, sink: socket.socket) -> Stream:
        schedule = Schedule(self._conducts.get(way, PASSING), self._random)
        return Stream(way, source, sink, schedule, self._carried.setdefault(way, Carried()), connection)

    def _watch(self, connection: Connection) -> None:
        """Sets for both sockets what they are waited for."""
        there, back = connection.streams
        for end, comes, goes in ((connection.dialed, there, back), (connection.onward, back, there)):
            mask = selectors.EVENT_READ if comes.reading and not comes.schedule.full else 0
            if goes.unsent:
                mask |= selectors.EVENT_WRITE
            if connection.connecting:
                mask = selectors.EVENT_WRITE if end is connection.onward else 0
            if self._masks.get(end, 0) == mask:
                continue
            if not mask:
                self._selector.unregister(end)
                del self._masks[end]
                continue
            react = partial(self._ready, comes, goes)
            if end in self._masks:
                self._selector.modify(end, mask, react)
            else:
                self._selector.register(end, mask, react)
            self._masks[end] = mask

    def _ready(self, comes: Stream, goes: Stream, ready: int) -> None:
        connection = comes.connection
        if connection.closed:
            return
        if connection.connecting:
            if connection.onward.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._close(connection)
                return
            connection.connecting = False
            self._watch(connection)
            return
        now = time.monotonic()
        if ready & selectors.EVENT_WRITE:
            self._pump(goes, now)
        if ready & selectors.EVENT_READ and not connection.closed:
            self._read(comes, now)

    def _read(self, stream: Stream, now: float) -> None:
        try:
            data = stream.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            stream.carried.pieces += 1
            stream.carried.bytes += len(data)
            stream.schedule.take(data, now)
        else:
            stream.reading = False
            stream.schedule.finish()
        self._pump(stream, now)

    def _pump(self, stream: Stream, now: float) -> None:
        """Writes what is due, and waits for what comes next."""
        connection, schedule = stream.connection, stream.schedule
        if connection.closed:
            return
        while data := stream.unsent or schedule.due(now):
            try:
                stream.unsent = data[stream.sink.send(data) :]
            except BlockingIOError:
                stream.unsent = data
            except OSError:
                self._close(connection)
                return
            if stream.unsent:
                break
        if schedule.ended and not stream.unsent:
            self._close(connection)
            return
        self._watch(connection)
        at = schedule.next_at
        if at is not None and not stream.armed and not stream.unsent:
            stream.armed = True
            self._armed += 1
            heapq.heappush(self._timers, (at, self._armed, stream))

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._connections.discard(connection)
        for end in (connection.dialed, connection.onward):
            if self._masks.pop(end, 0):
                self._selector.unregister(end)
            with suppress(OSError):
                end.close()


def main() -> None:
    """Runs the process; see the module's docstring."""
    relay = RelayProcess([(dialer, target, host, port) for dialer, target, host, port in json.loads(sys.argv[1])])
    print(json.dumps(relay.ports), flush=True)
    with suppress(KeyboardInterrupt):
        relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
