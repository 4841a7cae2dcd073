"""What each kind of subscription sends: a loop with a cursor, over the store and the feed.

Theory of operation. A stream of blocks holds the height that it sends next. While the chain has it, the stream sends it
(from the feed if it is new, else from the store) and steps on; else it sleeps on the feed's bell. Replay and live are
thus one loop: nothing is missed or doubled where one becomes the other. Between looking at the head and going to sleep
the loop does not let others run, so no bell is missed.

A stream that was live once and then falls `behind_blocks_max` blocks behind is ended with the reason `too_far_behind`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import trio

from qenex_node.rpc import history, render
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.render import Json
from qenex_node.rpc.subscriptions import Stream, Subscription, SubscriptionEnded
from qenex_node.rpc.view import NodeView
from state.errors import JsonValue

TRANSACTIONS_PER_EVENT: Final = 100
EVIDENCE_PER_READ: Final = 100
STATUS_INTERVAL_S: Final = 0.2

_dumps: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

SendBlock = Callable[[Subscription, int], Awaitable[None]]
Skip = Callable[[int, int], int]


def _no_skip(height: int, head_height: int) -> int:
    return height


async def _follow(
    node: NodeView, limits: RpcLimits, subscription: Subscription, height: int, send: SendBlock, skip: Skip = _no_skip
) -> None:
    """Calls `send` for each height from `height` on, once each, in order, for ever.

    `skip(height, head height)` returns the next height that has something to send.
    """
    live = False
    while True:
        seen = node.feed.count
        head_height = node.store.head.height
        height = skip(height, head_height)
        if height > head_height:
            live = True
            await node.feed.wait_beyond(seen)
            continue
        if live and head_height - height >= limits.behind_blocks_max:
            message = f"this subscription is {head_height - height + 1} blocks behind: subscribe again from_height"
            raise SubscriptionEnded("too_far_behind", message, height)
        await send(subscription, height)
        height += 1
        await trio.lowlevel.checkpoint()


def blocks(node: NodeView, limits: RpcLimits, from_height: int | None) -> Stream:
    """Returns the stream of headers with certificates, from a height or from the next block on."""
    start = node.store.head.height + 1 if from_height is None else from_height

    async def send(subscription: Subscription, height: int) -> None:
        recent = node.feed.recent(height)
        if recent is not None:
            block, certificate = recent.block, render.certificate(recent.certificate)
        else:
            block = history.block_at(node, height)
            certificate = render.certificate(node.store.certificate_at(height))
        event: Json = {
            "header": render.header(block.header),
            "certificate": certificate,
            "transaction_count": len(block.transactions),
        }
        await subscription.tell(_dumps(event))

    async def stream(subscription: Subscription) -> None:
        await _follow(node, limits, subscription, start, send)

    return stream


def transactions(node: NodeView, limits: RpcLimits, account: bytes | None, from_height: int | None) -> Stream:
    """Returns the stream of committed transactions, of one account or all, one event or more for each block."""
    start = node.store.head.height + 1 if from_height is None else from_height

    async def send(subscription: Subscription, height: int) -> None:
        indexes = _indexes(node, height, account)
        if not indexes:
            return
        block = history.block_at(node, height)
        receipts = history.receipts_at(node, height, 0, len(block.transactions))
        for begin in range(0, len(indexes), TRANSACTIONS_PER_EVENT):
            page = indexes[begin : begin + TRANSACTIONS_PER_EVENT]
            shown: list[JsonValue] = []
            pauses = history.Pauses()
            for index in page:
                wire = block.transactions[index]
                shown.append(history.committed_transaction(node, height, index, wire, receipts[index]))
                await pauses.pause()
            event: Json = {
                "height": height,
                "block_hash": render.hexed(block.header.hash),
                "time_ms": block.header.time_ms,
                "transactions": shown,
                "last": begin + TRANSACTIONS_PER_EVENT >= len(indexes),
            }
            await subscription.tell(_dumps(event))

    def skip(height: int, head_height: int) -> int:
        if account is None or height > head_height or node.feed.recent(height) is not None:
            return height
        return _next_indexed(node, account, height, head_height)

    async def stream(subscription: Subscription) -> None:
        await _follow(node, limits, subscription, start, send, skip)

    return stream


def _indexes(node: NodeView, height: int, account: bytes | None) -> list[int]:
    """Returns which transactions of a block are an account's (all of them for None)."""
    recent = node.feed.recent(height)
    if account is None:
        count = len(history.block_at(node, height).transactions) if recent is None else len(recent.receipt_bytes)
        return list(range(count))
    if recent is not None:
        return [index for index, touched in enumerate(recent.touched) if account in touched]
    return sorted(_indexed(node, height, account))


def _indexed(node: NodeView, height: int, account: bytes) -> Iterator[int]:
    """Yields which transactions of a block the index lists for an account, last one first."""
    before = (height + 1, 0)
    while True:
        places = node.store.account_transactions(account, before, TRANSACTIONS_PER_EVENT)
        for at, index in places:
            if at != height:
                return
            yield index
        if len(places) < TRANSACTIONS_PER_EVENT:
            return
        before = places[-1]


def _next_indexed(node: NodeView, account: bytes, height: int, head_height: int) -> int:
    """Returns the first height from `height` on that the index lists for an account; beyond the head if none is.

    The index is read backwards only: a window that doubles finds where something is, and halving it finds the first.
    """

    def any_within(size: int) -> bool:
        places = node.store.account_transactions(account, (height + size, 0), 1)
        return bool(places) and places[0][0] >= height

    window = 64
    while not any_within(window):
        height += window
        if height > head_height:
            return head_height + 1
        window *= 2
    while window > 1:
        half = window // 2
        if any_within(half):
            window = half
        else:
            height += half
            window -= half
    return height


def evidence(node: NodeView, from_height: int | None) -> Stream:
    """Returns the stream of evidence: all from a height on, or what is found from now on."""

    async def stream(subscription: Subscription) -> None:
        number = 0 if from_height is not None else _last_evidence(node)
        while True:
            seen = node.feed.count
            found = node.evidence(number, EVIDENCE_PER_READ)
            for info in found:
                number = info.number
                if from_height is None or info.height >= from_height:
                    await subscription.tell(_dumps(render.evidence(info)))
            if not found:
                await node.feed.wait_beyond(seen)

    return stream


def _last_evidence(node: NodeView) -> int:
    number = 0
    while found := node.evidence(number, EVIDENCE_PER_READ):
        number = found[-1].number
    return number


def status(node: NodeView) -> Stream:
    """Returns the stream of the node's status: the newest one whenever it changed, not each in between."""

    async def stream(subscription: Subscription) -> None:
        told = ""
        while True:
            seen = node.feed.count
            now: Json = {**render.status(node), "ready": not node.readiness()}
            text = _dumps(now)
            if text != told:
                told = text
                await subscription.tell(text)
                await trio.sleep(STATUS_INTERVAL_S)
            else:
                await node.feed.wait_beyond(seen)

    return stream
