"""The RPC listener: accepts connections within the limits and serves each in a task of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio
import trio.abc

from qenex_node.rpc.access import Access
from qenex_node.rpc.connections import Connection, Connections
from qenex_node.rpc.dispatch import Dispatcher
from qenex_node.rpc.errors import INTERNAL_ERROR, RpcError
from qenex_node.rpc.http_link import HttpLink, connection_refused
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics import NoMetrics, RpcMetrics
from qenex_node.rpc.registry import Registry
from qenex_node.rpc.shared import Shared
from qenex_node.rpc.view import NodeView

BACKLOG: Final = 1024
REFUSE_TIMEOUT_S: Final = 1.0

log = logging.getLogger("qenex.rpc")


async def open_listeners(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Returns the listeners for an address; port 0 takes a free one. Raises OSError that names the address."""
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from error


class RpcServer:
    """Serves one node's clients."""

    def __init__(
        self,
        node: NodeView,
        registry: Registry,
        *,
        limits: RpcLimits | None = None,
        access: Access | None = None,
        metrics: RpcMetrics | None = None,
    ) -> None:
        """Takes the node and the methods to serve; then the bounds, who may call, and where to count."""
        limits = limits or RpcLimits()
        metrics = metrics or NoMetrics()
        dispatcher = Dispatcher(registry, node, limits, metrics)
        self._shared = Shared(node, dispatcher, access or Access(), limits, metrics, Connections(limits))

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._shared.connections)

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serves until cancelled; then connections end at once."""
        await trio.serve_listeners(self._accepted, list(listeners))

    async def _accepted(self, stream: trio.SocketStream) -> None:
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:
            # The client is gone already.
            await trio.aclose_forcefully(stream)
            return
        await self.serve_stream(stream, address)

    async def serve_stream(self, stream: trio.abc.HalfCloseableStream, address: str) -> None:
        """Serves one connection of the client at `address` until it ends, and closes it."""
        shared = self._shared
        scope = trio.CancelScope()
        connection = Connection(address, scope.cancel)
        try:
            shared.connections.admit(connection)
        except RpcError as refused:
            shared.metrics.dropped(str(refused.data["reason"]))
            await _refuse(stream, refused)
            return
        shared.metrics.connections("http", 1)
        try:
            await HttpLink(shared, stream, connection, scope).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception as error:
            # A fault of ours on one connection must not end the others.
            log.error("unexpected error on an RPC connection", exc_info=error)
            shared.metrics.dropped(INTERNAL_ERROR.name)
        finally:
            shared.connections.remove(connection)
            shared.metrics.connections("http", -1)
            await trio.aclose_forcefully(stream)


async def _refuse(stream: trio.abc.HalfCloseableStream, refused: RpcError) -> None:
    try:
        with trio.move_on_after(REFUSE_TIMEOUT_S):
            await stream.send_all(connection_refused(refused))
            await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)
