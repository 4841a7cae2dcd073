"""A WebSocket that stays: calls of many tasks at once over one connection, and subscriptions that survive its loss.

Theory of operation. One task owns the connection: it connects, begins the subscriptions (again), sends what waits, and
reads until the connection ends; then it pauses and does so again. Whoever calls leaves a record under a number and
sleeps on it. When the connection is lost, calls that are safe to repeat (retry.py) wait for the next one; the others
fail. A subscription has a cursor (subscription.py), so that it goes on where it stood. It is entered in the very step
that reads the answer with its id: the next message may be its first event.

Nobody who is slow stops anybody else: a subscription holds at most `EVENTS_MAX` events that were not fetched. When they
are full the node is told to end it, and it is begun again where it stood once they were fetched.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio
import trio.abc

from qenex_node.client import jsonrpc
from qenex_node.client.async_queries import AsyncQueries
from qenex_node.client.driving import drive
from qenex_node.client.errors import ClientError, HeightAhead, ProtocolError, RpcError, TimedOut, TransportError
from qenex_node.client.flows import Flow
from qenex_node.client.http import Endpoint
from qenex_node.client.jsonrpc import Answer, Call, Notification
from qenex_node.client.retry import Retry, is_safe
from qenex_node.client.session import Session
from qenex_node.client.subscription import STATUS, Cursor, Event
from qenex_node.client.websocket import Ended, Message, Opened, Reply, WebSocketConnection
from state.errors import JsonValue
from state.types import Address

T = TypeVar("T")

EVENTS_MAX: Final = 1_024
CALLS_MAX: Final = 10_000
READ_BYTES: Final = 65_536
SILENCE_S_MAX: Final = 60.0
"""The node pings more often than this: a connection that is silent for so long is dead."""

LIVE_RETRY: Final = Retry(attempts=60, delay_ms=100, delay_ms_max=2_000)

Connect = Callable[[Endpoint], Awaitable[trio.abc.Stream]]
Taken = Callable[[JsonValue | ClientError], None]


class _Pending:
    """One call that was not answered yet. `own` calls begin subscriptions again and have nobody who waits."""

    __slots__ = ("call", "done", "own", "result", "retried", "sent", "taken")

    def __init__(self, call: Call, taken: Taken | None, own: bool) -> None:
        self.call = call
        self.taken = taken
        self.own = own
        self.done = trio.Event()
        self.result: JsonValue | ClientError = None
        self.sent = False
        self.retried = False

    def finish(self, result: JsonValue | ClientError) -> None:
        """Takes the result and wakes who waits for it."""
        if isinstance(result, RpcError):
            result.retried = self.retried
        if self.taken is not None:
            self.taken(result)
        self.result = result
        self.done.set()


class Subscription:
    """Events as they come, for one reader: `async for event in subscription`."""

    def __init__(self, live: Live, cursor: Cursor) -> None:
        self._live = live
        self._cursor = cursor
        self._events: deque[Event] = deque()
        self._changed = trio.Event()
        self._error: ClientError | None = None
        self._full = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        """Returns the next event; raises what ended the subscription for good."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._full:
                self._full = False
                self._live._begin_again(self)
            self._changed = trio.Event()
            await self._changed.wait()
        return self._events.popleft()

    async def aclose(self) -> None:
        """Ends the subscription."""
        await self._live._unsubscribe(self)

    @property
    def begin_call(self) -> Call:
        """The call that begins it, or goes on with it."""
        return self._cursor.call()

    def begun(self, answer: JsonValue) -> str:
        """Takes the answer to `begin_call` and returns the subscription's id."""
        return self._cursor.begun(answer)

    def tell(self, event: JsonValue) -> bool:
        """Takes one event of the node; returns False if there is no room for it."""
        if len(self._events) >= EVENTS_MAX:
            if self._cursor.channel != STATUS:
                self._full = True
                return False
            self._events.popleft()
        taken = self._cursor.take(event)
        if taken is not None:
            self._events.append(taken)
            self._changed.set()
        return True

    @property
    def full(self) -> bool:
        """Whether it waits for its events to be fetched before it goes on."""
        return self._full

    def ended(self, end: JsonValue) -> None:
        """Takes the node's word that it ended the subscription."""
        self._cursor.ended(end)

    def fail(self, error: ClientError) -> None:
        """Ends it for good, once the events that came before are read."""
        self._error = error
        self._changed.set()


class Live(AsyncQueries):
    """A WebSocket for calls and subscriptions; `AsyncClient.live` opens one."""

    def __init__(
        self, endpoints: Sequence[Endpoint], connect: Connect, session: Session, retry: Retry, timeout_s: float
    ) -> None:
        self.session = session
        self._endpoints = deque(endpoints)
        self._connect = connect
        self._retry = retry
        self._timeout_s = timeout_s
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._by_id: dict[str, Subscription] = {}
        self._active: dict[Subscription, str | None] = {}
        self._websocket: WebSocketConnection | None = None
        self._outgoing: deque[bytes] = deque()
        self._work = trio.Event()
        self._failed: ClientError | None = None
        self._calls = trio.CapacityLimiter(CALLS_MAX)

    async def run(self, flow: Flow[T]) -> T:
        """Carries out a flow and returns its result."""
        return await drive(flow, self._call, self.batch)

    async def call(self, method: str, **params: JsonValue) -> JsonValue:
        """Returns the result of any method; many tasks may call at once. Raises RpcError or TransportError."""
        return await self._call(Call(method, params))

    async def _call(self, call: Call, taken: Taken | None = None) -> JsonValue:
        result = (await self._results([call], taken))[0]
        if isinstance(result, ClientError):
            raise result
        return result

    async def batch(self, calls: Sequence[Call]) -> list[JsonValue | RpcError]:
        """Returns the results or errors of many calls that go out in one message, in their order."""
        results: list[JsonValue | RpcError] = []
        for result in await self._results(calls, None):
            if isinstance(result, ClientError) and not isinstance(result, RpcError):
                raise result
            results.append(result)
        return results

    async def _results(self, calls: Sequence[Call], taken: Taken | None) -> list[JsonValue | ClientError]:
        async with self._calls:
            if self._failed is not None:
                raise self._failed
            first = self._number + 1
            entered = [self._enter(call, taken) for call in calls]
            if self._websocket is not None and entered:
                self._send(first, entered)
            wait_ms = max((call.wait_ms for call in calls), default=0)
            try:
                with trio.move_on_after(self._timeout_s + wait_ms / 1000):
                    for pending in entered:
                        await pending.done.wait()
            finally:
                for number in range(first, first + len(entered)):
                    self._pending.pop(number, None)
            late = [pending.sent for pending in entered if not pending.done.is_set()]
            if late:
                raise TimedOut("the node did not answer in time", sent=any(late))
            return [pending.result for pending in entered]

    def _enter(self, call: Call, taken: Taken | None = None, own: bool = False) -> _Pending:
        self._number += 1
        pending = self._pending[self._number] = _Pending(call, taken, own)
        return pending

    def _send(self, first: int, entered: Sequence[_Pending]) -> None:
        websocket = self._websocket
        if websocket is None:
            return
        for pending in entered:
            pending.retried = pending.retried or pending.sent
            pending.sent = True
        calls = [pending.call for pending in entered]
        body = jsonrpc.encode(calls[0], first) if len(calls) == 1 else jsonrpc.encode_batch(calls, first)
        self._put(websocket.text(body))

    def _put(self, data: bytes) -> None:
        self._outgoing.append(data)
        self._work.set()

    async def subscribe(
        self, channel: str, *, account: Address | None = None, from_height: int | None = None
    ) -> Subscription:
        """Returns a subscription to blocks, transactions, evidence or status, from a height on if one is given.

        Raises RpcError if the node refuses it. It goes on by itself after a lost connection, without a gap.
        """
        subscription = Subscription(self, Cursor(channel, account, from_height))
        await self._call(subscription.begin_call, lambda answer: self._begun(subscription, answer))
        return subscription

    def _begun(self, subscription: Subscription, answer: JsonValue | ClientError) -> None:
        if not isinstance(answer, ClientError):
            name = subscription.begun(answer)
            self._active[subscription] = name
            self._by_id[name] = subscription

    def _begin_again(self, subscription: Subscription) -> None:
        """Has the subscription go on where it stands; without a connection the next one begins it anyway."""
        if subscription not in self._active or self._websocket is None:
            return

        def taken(answer: JsonValue | ClientError) -> None:
            if isinstance(answer, HeightAhead):
                # The node that we came to is behind the one that was lost: not an end, but not our node either.
                raise TransportError("the node is behind what was seen already", sent=True)
            if isinstance(answer, ClientError):
                self._active.pop(subscription, None)
                subscription.fail(answer)
            elif subscription in self._active:
                self._begun(subscription, answer)

        pending = self._enter(subscription.begin_call, taken, own=True)
        self._send(self._number, [pending])

    def _forget_id(self, subscription: Subscription) -> str | None:
        name = self._active.get(subscription)
        if name is not None:
            self._by_id.pop(name, None)
        return name

    async def _unsubscribe(self, subscription: Subscription) -> None:
        name = self._forget_id(subscription)
        self._active.pop(subscription, None)
        if name is not None and self._failed is None:
            self._end_at_node(name)
        await trio.lowlevel.checkpoint()

    def _end_at_node(self, name: str) -> None:
        if self._websocket is not None:
            pending = self._enter(Call("qenex_unsubscribe", {"subscription": name}), own=True)
            self._send(self._number, [pending])

    # The connection

    async def keep(self) -> None:
        """Keeps a connection open until it cannot be had any more; then everything that waits fails."""
        failures = 0
        while True:
            opened, error = await self._serve_once()
            failures = 1 if opened else failures + 1
            self._lost(error)
            if failures >= self._retry.attempts:
                self._fail(error)
                return
            self._endpoints.rotate(-1)
            await trio.sleep(self._retry.delay_s(failures, random.random()))

    def _lost(self, error: ClientError) -> None:
        self._websocket = None
        self._outgoing.clear()
        self._by_id.clear()
        for number, pending in list(self._pending.items()):
            if pending.own:
                del self._pending[number]
            elif pending.sent and not is_safe(pending.call.method):
                pending.finish(TransportError(str(error), sent=True))

    def _fail(self, error: ClientError) -> None:
        self._failed = error
        for pending in self._pending.values():
            pending.finish(TransportError(str(error), sent=pending.sent))
        for subscription in self._active:
            subscription.fail(error)

    async def _serve_once(self) -> tuple[bool, ClientError]:
        """Serves one connection to its end; returns whether it was opened, and why it ended."""
        endpoint = self._endpoints[0]
        opened = False
        try:
            with trio.fail_after(self._timeout_s):
                stream = await self._connect(endpoint)
        except (OSError, trio.TooSlowError) as error:
            return False, TransportError(f"{endpoint}: {error or 'no answer'}", sent=False)
        websocket = WebSocketConnection(endpoint)
        ended: ClientError = TransportError(f"{endpoint} closed the connection", sent=True)
        async with stream:
            try:
                with trio.fail_after(self._timeout_s):
                    rest = await _shake_hands(stream, websocket)
                opened = True
                await self._serve(stream, websocket, rest)
            except trio.TooSlowError:
                ended = TimedOut(f"{endpoint} did not answer in time", sent=True)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                ended = TransportError(f"{endpoint}: {error}", sent=True)
            except ClientError as error:
                ended = error
        return opened, ended

    async def _serve(self, stream: trio.abc.Stream, websocket: WebSocketConnection, rest: list[Message]) -> None:
        self._websocket = websocket
        for number, pending in list(self._pending.items()):
            self._send(number, [pending])
        for subscription in list(self._active):
            if not subscription.full:
                self._begin_again(subscription)
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream, nursery.cancel_scope)
            try:
                for message in rest:
                    self._take(message)
                await self._read(stream, websocket)
            except (ClientError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as failure:
                error = failure
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _write(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while True:
                self._work = trio.Event()
                if self._outgoing:
                    data = b"".join(self._outgoing)
                    self._outgoing.clear()
                    await stream.send_all(data)
                else:
                    await self._work.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    async def _read(self, stream: trio.abc.Stream, websocket: WebSocketConnection) -> None:
        while True:
            with trio.fail_after(SILENCE_S_MAX):
                data = await stream.receive_some(READ_BYTES)
            for event in websocket.receive(bytes(data)):
                if isinstance(event, Message):
                    self._take(event)
                elif isinstance(event, Reply):
                    self._put(event.data)
                elif isinstance(event, Ended):
                    raise TransportError(event.reason, sent=True)

    def _take(self, message: Message) -> None:
        for said in jsonrpc.decode_message(message.data):
            if isinstance(said, Answer):
                pending = None if said.id is None else self._pending.get(said.id)
                if said.id is None and isinstance(said.result, RpcError):
                    raise said.result
                if pending is not None:
                    if pending.own and said.id is not None:
                        del self._pending[said.id]
                    pending.finish(said.result)
            else:
                self._notified(said)

    def _notified(self, told: Notification) -> None:
        name = told.params.get("subscription")
        subscription = self._by_id.get(name) if isinstance(name, str) else None
        if subscription is None or not isinstance(name, str):
            return
        if "ended" in told.params:
            self._forget_id(subscription)
            subscription.ended(told.params["ended"])
            self._begin_again(subscription)
        elif not subscription.tell(told.params.get("event")):
            self._forget_id(subscription)
            self._end_at_node(name)


async def _shake_hands(stream: trio.abc.Stream, websocket: WebSocketConnection) -> list[Message]:
    """Opens the WebSocket; returns the messages that came with its acceptance."""
    await stream.send_all(websocket.handshake())
    opened = False
    messages: list[Message] = []
    while not opened:
        data = await stream.receive_some(READ_BYTES)
        for event in websocket.receive(bytes(data)):
            if isinstance(event, Opened):
                opened = True
            elif isinstance(event, Message):
                messages.append(event)
            elif isinstance(event, Ended):
                raise TransportError(event.reason, sent=False)
        if not data and not opened:
            raise ProtocolError("the node closed the connection instead of opening a WebSocket")
    return messages


@asynccontextmanager
async def open_live(
    endpoints: Sequence[Endpoint], connect: Connect, session: Session, retry: Retry, timeout_s: float
) -> AsyncIterator[Live]:
    """Opens a WebSocket that is kept until the block is left."""
    live = Live(endpoints, connect, session, retry, timeout_s)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.keep)
        try:
            yield live
        except Exception as error:
            # Raised again outside: the nursery would wrap the caller's own error into a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
