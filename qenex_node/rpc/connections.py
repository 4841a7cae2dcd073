"""Which connections there are, and who must go when there are too many. Pure bookkeeping: no sockets, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from qenex_node.rpc.errors import limit_reached
from qenex_node.rpc.limits import RpcLimits


@dataclass(slots=True, eq=False)
class Connection:
    """One connection: the client's address, and how to end it."""

    address: str
    end: Callable[[], None]
    held_bytes: int = field(default=0)
    unsent_bytes: int = field(default=0)
    too_slow: bool = field(default=False)


class Connections:
    """The open connections, in all and by address, and those that wait for their clients, the longest first.

    Idle ones wait for a request, receiving ones for the rest of one: thousands of requests that never end must not
    keep out a client that needs but milliseconds.
    """

    def __init__(self, limits: RpcLimits) -> None:
        self._limits = limits
        self._open: dict[Connection, None] = {}
        self._by_address: dict[str, int] = {}
        self._idle: dict[Connection, None] = {}
        self._receiving: dict[Connection, None] = {}
        self._held_bytes = 0
        self._unsent_bytes = 0
        self._unsent_bytes_max = max(limits.unsent_bytes_max, limits.outbox_bytes_max)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> None:
        """Adds a connection.

        When a limit is reached the connection that has been idle longest (of the same address, where that is the
        limit) makes room; if none is idle, the one that has been receiving longest. Raises RpcError(LIMIT_REACHED)
        when all are being answered.
        """
        limits = self._limits
        victim: Connection | None = None
        if self._by_address.get(connection.address, 0) >= limits.connections_per_address_max:
            victim = next((other for other in self._waiting() if other.address == connection.address), None)
            if victim is None:
                maximum = limits.connections_per_address_max
                message = f"this address has {maximum} connections, as many as it may"
                raise limit_reached("connections_per_address_max", maximum, message)
        elif len(self._open) >= limits.connections_max:
            victim = next(self._waiting(), None)
            if victim is None:
                message = "the node has as many connections as it may: try again later"
                raise limit_reached("connections_max", limits.connections_max, message)
        if victim is not None:
            self.remove(victim)
            victim.end()
        self._open[connection] = None
        self._by_address[connection.address] = self._by_address.get(connection.address, 0) + 1

    def _waiting(self) -> Iterator[Connection]:
        yield from self._idle
        yield from self._receiving

    def idle(self, connection: Connection) -> None:
        """Notes that a connection waits for its client's next request."""
        if connection in self._open:
            self._idle[connection] = None

    def receiving(self, connection: Connection) -> None:
        """Notes that a connection waits for the rest of a request."""
        self._idle.pop(connection, None)
        if connection in self._open:
            self._receiving[connection] = None

    def busy(self, connection: Connection) -> None:
        """Notes that a connection has something to do."""
        self._idle.pop(connection, None)
        self._receiving.pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """Forgets a connection; does nothing if it is forgotten already."""
        if connection not in self._open:
            return
        del self._open[connection]
        self.busy(connection)
        self.hold(connection, 0)
        self._unsent_bytes -= connection.unsent_bytes
        connection.unsent_bytes = 0
        left = self._by_address[connection.address] - 1
        if left:
            self._by_address[connection.address] = left
        else:
            del self._by_address[connection.address]

    def hold(self, connection: Connection, size: int) -> bool:
        """Notes that a connection holds `size` bytes of an unfinished body; returns whether all together may."""
        self._held_bytes += size - connection.held_bytes
        connection.held_bytes = size
        return self._held_bytes <= self._limits.bodies_bytes_max

    def unsent(self, connection: Connection, size: int) -> None:
        """Notes that `size` bytes wait to be written to a client; ends who is furthest behind if all are too many."""
        if connection not in self._open:
            return
        self._unsent_bytes += size - connection.unsent_bytes
        connection.unsent_bytes = size
        while self._unsent_bytes > self._unsent_bytes_max:
            slowest = max(self._open, key=lambda other: other.unsent_bytes)
            slowest.too_slow = True
            self.remove(slowest)
            slowest.end()
