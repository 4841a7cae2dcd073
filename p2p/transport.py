"""Where byte streams come from: listening and dialing over TCP, behind an interface that tests replace by memory.

No rules here; who may connect and how often is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from p2p.limits import ADDRESS_LENGTH_MAX
from state.errors import Rejected


class Transport(Protocol):
    """Makes streams. Addresses are `host:port`, an IPv6 host in brackets."""

    async def listen(self, address: str) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Returns open listeners for `address`; raises OSError."""

    async def dial(self, address: str) -> trio.abc.Stream:
        """Returns a stream to `address`; raises OSError."""

    def listener_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        """Returns the address that a listener is bound to."""

    def remote_address(self, stream: trio.abc.Stream) -> str:
        """Returns the address of a stream's other end."""

    async def first_byte(self, stream: trio.abc.Stream) -> None:
        """Returns when the stream has something to read, end included, without reading it."""


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port` or `[host]:port`; raises Rejected("address_invalid")."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    valid = colon and host and len(address) <= ADDRESS_LENGTH_MAX and port.isascii() and port.isdigit()
    if not valid or int(port) > 65535:
        raise Rejected("address_invalid", f"{address!r} is not host:port (an IPv6 host stands in brackets)")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Returns `host:port`, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """Returns the part of a remote address that its connections are counted by."""
    return address.rpartition(":")[0] or address


class TcpTransport:
    """TCP through trio, whose socket streams switch Nagle's delay off (TCP_NODELAY) on both sides."""

    async def listen(self, address: str) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Returns a listener for each address family of `address`; raises OSError that names the address."""
        host, port = split_address(address)
        try:
            return await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise OSError(error.errno, f"{address}: {error.strerror}") from error

    async def dial(self, address: str) -> trio.abc.Stream:
        """Returns a connected stream; raises OSError."""
        host, port = split_address(address)
        return await trio.open_tcp_stream(host, port)

    def listener_address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
        """Returns the address that a listener is bound to."""
        if not isinstance(listener, trio.SocketListener):
            return ""
        name = listener.socket.getsockname()
        return join_address(name[0], name[1])

    def remote_address(self, stream: trio.abc.Stream) -> str:
        """Returns the other end's address, or an empty string if it is gone already."""
        if not isinstance(stream, trio.SocketStream):
            return ""
        try:
            name = stream.socket.getpeername()
        except OSError:
            return ""
        return join_address(name[0], name[1])

    async def first_byte(self, stream: trio.abc.Stream) -> None:
        """Waits on the socket alone, so that a silent connection costs no TLS state."""
        if isinstance(stream, trio.SocketStream):
            await trio.lowlevel.wait_readable(stream.socket)
