"""The blocking face of the client: one keep-alive connection, for scripts, the command line and threads of their own.

    with Client("http://127.0.0.1:27101") as client:
        done = client.transfer(key, to, 1_000, "QNX")
        print(done.height, client.balance(to, "QNX").available)

A client serves one thread at a time. What it does stands in flows.py; here is only how bytes come and go.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from qenex_node.client import jsonrpc
from qenex_node.client.errors import ClientError, RpcError, TimedOut, TransportError
from qenex_node.client.flows import Batch, Flow, Pause, Step
from qenex_node.client.http import Endpoint, HttpConnection
from qenex_node.client.jsonrpc import Call
from qenex_node.client.queries import Queries
from qenex_node.client.retry import Retry, is_safe
from qenex_node.client.session import Session
from state.errors import JsonValue, Rejected

T = TypeVar("T")

READ_BYTES = 65_536


class Stream(Protocol):
    """What a connection must offer: a connected socket does."""

    def sendall(self, data: bytes, /) -> None:
        """Sends all of `data`; raises OSError, TimeoutError included."""

    def recv(self, size: int, /) -> bytes:
        """Returns what came, nothing at the end; raises OSError, TimeoutError included."""

    def settimeout(self, seconds: float, /) -> None:
        """Bounds each later call."""

    def close(self) -> None:
        """Ends the connection."""


Connect = Callable[[Endpoint, float], Stream]


def connect_tcp(endpoint: Endpoint, timeout_s: float) -> Stream:
    """Returns a connected socket that sends at once what it is given."""
    stream = socket.create_connection((endpoint.host, endpoint.port), timeout_s)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class Client(Queries):
    """A node's client that waits for each answer."""

    def __init__(
        self,
        *urls: str,
        session: Session | None = None,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        connect: Connect = connect_tcp,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the RPC addresses of one or more nodes; with more than one the next is tried when one fails.

        `session` holds what is trusted and which sequence numbers are used; `timeout_s` bounds each answer.
        """
        if not urls:
            raise Rejected("url_invalid", "a client needs the RPC address of at least one node")
        self.session = session or Session()
        self._endpoints = [Endpoint.parse(url) for url in urls]
        self._timeout_s = timeout_s
        self._retry = retry or Retry()
        self._connect = connect
        self._sleep = sleep
        self._clock = clock
        self._open: tuple[Stream, HttpConnection] | None = None
        self._number = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the next call makes a new one."""
        if self._open is not None:
            stream = self._open[0]
            self._open = None
            with suppress(OSError):
                stream.close()

    def call(self, method: str, **params: JsonValue) -> JsonValue:
        """Returns the result of any method of the node; raises RpcError, TransportError or ProtocolError."""
        return self._call(Call(method, params))

    def batch(self, calls: Sequence[Call]) -> list[JsonValue | RpcError]:
        """Returns the results or errors of many calls in one request, in their order."""
        return self._batch(calls)

    def run(self, flow: Flow[T]) -> T:
        """Carries out a flow (flows.py) and returns its result."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = self._perform(step)
                except ClientError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self._call(step)
        if isinstance(step, Batch):
            return self._batch(step.calls)
        return self._pause(step)

    def _pause(self, step: Pause) -> None:
        self._sleep(step.seconds)

    def _call(self, call: Call) -> JsonValue:
        self._number += 1
        number = self._number
        body, again = self._exchange(jsonrpc.encode(call, number), call.wait_ms, is_safe(call.method))
        result = jsonrpc.decode(body, number)
        if isinstance(result, RpcError):
            result.retried = again
            raise result
        return result

    def _batch(self, calls: Sequence[Call]) -> list[JsonValue | RpcError]:
        first = self._number + 1
        self._number += len(calls)
        wait_ms = max((call.wait_ms for call in calls), default=0)
        safe = all(is_safe(call.method) for call in calls)
        body, again = self._exchange(jsonrpc.encode_batch(calls, first), wait_ms, safe)
        results = jsonrpc.decode_batch(body, first, len(calls))
        for result in results:
            if isinstance(result, RpcError):
                result.retried = again
        return results

    def _exchange(self, body: bytes, wait_ms: int, safe: bool) -> tuple[bytes, bool]:
        """Returns the answer's body, and whether an earlier sending was lost after it may have arrived."""
        lost = False
        attempt = 1
        while True:
            try:
                return self._exchange_once(body, wait_ms), lost
            except TransportError as error:
                self.close()
                lost = lost or error.sent
                if attempt >= self._retry.attempts or (error.sent and not safe):
                    error.sent = lost
                    raise
            self._endpoints.append(self._endpoints.pop(0))
            self._sleep(self._retry.delay_s(attempt, random.random()))
            attempt += 1

    def _exchange_once(self, body: bytes, wait_ms: int) -> bytes:
        timeout_s = self._timeout_s + wait_ms / 1000
        end = self._clock() + timeout_s
        sent = False
        try:
            stream, connection = self._connection()
            request = connection.request(body)
            stream.settimeout(self._left(end))
            sent = True
            stream.sendall(request)
            answer = None
            while answer is None:
                # The limit is for the whole answer: a node that trickles must not extend it byte by byte.
                stream.settimeout(self._left(end))
                answer = connection.receive(stream.recv(READ_BYTES))
        except TimeoutError:
            raise TimedOut(f"{self._endpoints[0]} did not answer within {timeout_s:g} s", sent=sent) from None
        except OSError as error:
            raise TransportError(f"{self._endpoints[0]}: {error.strerror or error}", sent=sent) from None
        except ClientError:
            self.close()
            raise
        if not connection.reusable:
            self.close()
        return answer.body

    def _left(self, end: float) -> float:
        left = end - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _connection(self) -> tuple[Stream, HttpConnection]:
        if self._open is None:
            endpoint = self._endpoints[0]
            self._open = (self._connect(endpoint, self._timeout_s), HttpConnection(endpoint))
        return self._open
