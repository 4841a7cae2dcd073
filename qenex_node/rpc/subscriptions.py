"""The subscriptions of one WebSocket: who is subscribed to what, within which bounds, and how they are told.

A subscription is a task with a cursor (see streams.py). It produces only while little waits to be written, so a slow
reader slows down its own subscriptions and nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from qenex_node.rpc.errors import INTERNAL_ERROR, NOT_FOUND, RpcError, limit_reached
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics import RpcMetrics
from qenex_node.rpc.outbox import Outbox
from state.errors import JsonValue, Rejected

NOTIFICATION: Final = "qenex_subscription"

log = logging.getLogger("qenex.rpc")

_dumps: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class SubscriptionEnded(Exception):
    """A stream cannot go on: the client is told why, and from which height it may subscribe again."""

    def __init__(self, reason: str, message: str, from_height: int | None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.from_height = from_height


@dataclass(slots=True)
class SubscriptionCount:
    """How many subscriptions the whole server has."""

    count: int = 0


@dataclass(slots=True, eq=False)
class Subscription:
    """One running subscription."""

    id: str
    channel: str
    session: Session
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def tell(self, event: str) -> None:
        """Sends one event, given as JSON text, once there is room for it."""
        session = self.session
        await session.outbox.room()
        session.send(
            f'{{"jsonrpc":"2.0","method":"{NOTIFICATION}","params":'
            f'{{"subscription":"{self.id}","channel":"{self.channel}","event":{event}}}}}'
        )

    def tell_end(self, ended: SubscriptionEnded) -> None:
        """Tells the client that no more events will come."""
        end: dict[str, JsonValue] = {"reason": ended.reason, "message": ended.message, "from_height": ended.from_height}
        self.session.send(
            f'{{"jsonrpc":"2.0","method":"{NOTIFICATION}","params":'
            f'{{"subscription":"{self.id}","channel":"{self.channel}","ended":{_dumps(end)}}}}}'
        )


Stream = Callable[[Subscription], Awaitable[None]]


class Session:
    """One WebSocket as methods and subscriptions see it."""

    def __init__(
        self,
        limits: RpcLimits,
        metrics: RpcMetrics,
        total: SubscriptionCount,
        nursery: trio.Nursery,
        outbox: Outbox,
        send: Callable[[str | bytes], None],
    ) -> None:
        """Takes bounds, counters, where tasks run, what waits to be written, and how a text message is sent."""
        self._limits = limits
        self._metrics = metrics
        self._total = total
        self._nursery = nursery
        self._subscriptions: dict[str, Subscription] = {}
        self._unstarted: list[tuple[Subscription, Stream]] = []
        self._numbers = 0
        self.outbox = outbox
        self.send = send

    def subscribe(self, channel: str, stream: Stream) -> str:
        """Makes a subscription and returns its id; it runs once `start_subscriptions` is called.

        Raises RpcError(LIMIT_REACHED).
        """
        limits = self._limits
        if len(self._subscriptions) >= limits.subscriptions_per_connection_max:
            maximum = limits.subscriptions_per_connection_max
            message = f"a connection has at most {maximum} subscriptions"
            raise limit_reached("subscriptions_per_connection_max", maximum, message)
        if self._total.count >= limits.subscriptions_max:
            message = "the node has as many subscriptions as it may: try another node"
            raise limit_reached("subscriptions_max", limits.subscriptions_max, message)
        self._numbers += 1
        subscription = Subscription(f"{channel}-{self._numbers}", channel, self)
        self._subscriptions[subscription.id] = subscription
        self._unstarted.append((subscription, stream))
        self._total.count += 1
        self._metrics.subscriptions(1)
        return subscription.id

    def start_subscriptions(self) -> None:
        """Lets new subscriptions run: called after their ids were answered, so that no event comes before its id."""
        unstarted, self._unstarted = self._unstarted, []
        for subscription, stream in unstarted:
            self._nursery.start_soon(self._run, subscription, stream)

    def unsubscribe(self, subscription_id: str) -> None:
        """Ends a subscription; no event of it is sent afterwards. Raises RpcError(NOT_FOUND)."""
        subscription = self._subscriptions.get(subscription_id)
        if subscription is None:
            raise RpcError(NOT_FOUND, "this connection has no such subscription", reason="subscription_unknown")
        subscription.scope.cancel()
        self._forget(subscription)

    def close(self) -> None:
        """Gives back what the subscriptions count for; the connection is gone."""
        for subscription in list(self._subscriptions.values()):
            self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        if self._subscriptions.pop(subscription.id, None) is not None:
            self._total.count -= 1
            self._metrics.subscriptions(-1)

    def _end(self, subscription: Subscription, ended: SubscriptionEnded) -> None:
        self._metrics.dropped(f"subscription_{ended.reason}")
        subscription.tell_end(ended)

    async def _run(self, subscription: Subscription, stream: Stream) -> None:
        with subscription.scope:
            try:
                await stream(subscription)
            except SubscriptionEnded as ended:
                self._end(subscription, ended)
            except Rejected as refused:
                self._end(subscription, SubscriptionEnded(refused.code, refused.message, None))
            except Exception as error:
                # A fault of ours ends this subscription, not the connection's others.
                log.error("unexpected error in subscription %s", subscription.id, exc_info=error)
                self._end(subscription, SubscriptionEnded(INTERNAL_ERROR.name, INTERNAL_ERROR.meaning, None))
        self._forget(subscription)
