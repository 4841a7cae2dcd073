"""The trio face of the client: calls of many tasks at once over a few keep-alive connections, and WebSockets.

    async with AsyncClient("http://127.0.0.1:27101") as client:
        done = await client.transfer(key, to, 1_000, "QNX")
        async with client.live() as live:
            blocks = await live.subscribe("blocks", from_height=done.height)
            async for block in blocks: ...

What it does stands in flows.py and its siblings; here is only how bytes come and go.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

import trio
import trio.abc

from qenex_node.client import jsonrpc
from qenex_node.client.async_queries import AsyncQueries
from qenex_node.client.driving import drive
from qenex_node.client.errors import ClientError, RpcError, TimedOut, TransportError
from qenex_node.client.flows import Flow
from qenex_node.client.http import Endpoint, HttpConnection
from qenex_node.client.jsonrpc import Call
from qenex_node.client.live import LIVE_RETRY, Connect, Live, open_live
from qenex_node.client.retry import Retry, is_safe
from qenex_node.client.session import Session
from state.errors import JsonValue, Rejected

T = TypeVar("T")

CONNECTIONS_MAX: Final = 16
READ_BYTES: Final = 65_536


async def connect_tcp(endpoint: Endpoint) -> trio.abc.Stream:
    """Returns a connected stream."""
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


class AsyncClient(AsyncQueries):
    """A node's client whose methods are awaited; any number of tasks may use it at once."""

    def __init__(
        self,
        *urls: str,
        session: Session | None = None,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        connections_max: int = CONNECTIONS_MAX,
        connect: Connect = connect_tcp,
    ) -> None:
        """Takes the RPC addresses of one or more nodes; with more than one the next is tried when one fails.

        `session` holds what is trusted and which sequence numbers are used; `timeout_s` bounds each answer.
        """
        if not urls:
            raise Rejected("url_invalid", "a client needs the RPC address of at least one node")
        self.session = session or Session()
        self._endpoints = deque(Endpoint.parse(url) for url in urls)
        self._timeout_s = timeout_s
        self._retry = retry or Retry()
        self._connect = connect
        self._idle: list[tuple[trio.abc.Stream, HttpConnection]] = []
        self._slots = trio.CapacityLimiter(connections_max)
        self._number = 0

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connections that are idle."""
        idle, self._idle = self._idle, []
        for stream, _ in idle:
            await trio.aclose_forcefully(stream)

    def live(self, retry: Retry = LIVE_RETRY) -> AbstractAsyncContextManager[Live]:
        """Opens a WebSocket for subscriptions and many calls at once: `async with client.live() as live`."""
        return open_live(tuple(self._endpoints), self._connect, self.session, retry, self._timeout_s)

    async def call(self, method: str, **params: JsonValue) -> JsonValue:
        """Returns the result of any method of the node; raises RpcError, TransportError or ProtocolError."""
        return await self._call(Call(method, params))

    async def batch(self, calls: Sequence[Call]) -> list[JsonValue | RpcError]:
        """Returns the results or errors of many calls in one request, in their order."""
        first = self._number + 1
        self._number += len(calls)
        wait_ms = max((call.wait_ms for call in calls), default=0)
        safe = all(is_safe(call.method) for call in calls)
        body, again = await self._exchange(jsonrpc.encode_batch(calls, first), wait_ms, safe)
        results = jsonrpc.decode_batch(body, first, len(calls))
        for result in results:
            if isinstance(result, RpcError):
                result.retried = again
        return results

    async def run(self, flow: Flow[T]) -> T:
        """Carries out a flow (flows.py) and returns its result."""
        return await drive(flow, self._call, self.batch)

    async def _call(self, call: Call) -> JsonValue:
        self._number += 1
        number = self._number
        body, again = await self._exchange(jsonrpc.encode(call, number), call.wait_ms, is_safe(call.method))
        result = jsonrpc.decode(body, number)
        if isinstance(result, RpcError):
            result.retried = again
            raise result
        return result

    async def _exchange(self, body: bytes, wait_ms: int, safe: bool) -> tuple[bytes, bool]:
        """Returns the answer's body, and whether an earlier sending was lost after it may have arrived."""
        lost = False
        attempt = 1
        while True:
            try:
                async with self._slots:
                    return await self._exchange_once(body, wait_ms), lost
            except TransportError as error:
                lost = lost or error.sent
                if attempt >= self._retry.attempts or (error.sent and not safe):
                    error.sent = lost
                    raise
            self._endpoints.rotate(-1)
            await trio.sleep(self._retry.delay_s(attempt, random.random()))
            attempt += 1

    async def _exchange_once(self, body: bytes, wait_ms: int) -> bytes:
        endpoint = self._endpoints[0]
        timeout_s = self._timeout_s + wait_ms / 1000
        sent = False
        taken: tuple[trio.abc.Stream, HttpConnection] | None = None
        try:
            with trio.fail_after(timeout_s):
                taken = self._idle.pop() if self._idle else await self._open(endpoint)
                stream, connection = taken
                sent = True
                await stream.send_all(connection.request(body))
                answer = None
                while answer is None:
                    answer = connection.receive(bytes(await stream.receive_some(READ_BYTES)))
            if connection.reusable:
                self._idle.append(taken)
                taken = None
            return answer.body
        except trio.TooSlowError:
            raise TimedOut(f"{endpoint} did not answer within {timeout_s:g} s", sent=sent) from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # The node that closed one connection has most likely closed all.
            await self.aclose()
            raise TransportError(f"{endpoint}: {error}", sent=sent) from None
        except ClientError:
            await self.aclose()
            raise
        finally:
            if taken is not None:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(taken[0])

    async def _open(self, endpoint: Endpoint) -> tuple[trio.abc.Stream, HttpConnection]:
        return await self._connect(endpoint), HttpConnection(endpoint)
