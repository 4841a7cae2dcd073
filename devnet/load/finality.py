"""Follows the chain at one node at a time and tells the book which transactions are final.

Cheapest for the nodes: one subscription to headers at one node, and the ids of each block from the same node. If that
node ends or falls silent, the next one goes on at the same height.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from devnet.load.book import Book
from devnet.load.target import Target
from qenex_node.client import jsonrpc
from qenex_node.client.errors import ClientError, TransportError
from qenex_node.client.http import Endpoint
from qenex_node.client.jsonrpc import Notification
from qenex_node.client.subscription import BLOCKS, Cursor
from qenex_node.client.websocket import Ended, Message, Opened, Reply, WebSocketConnection

READ_BYTES: Final = 256 * 1024
OPEN_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.2
HEIGHTS_PER_READ: Final = 16
_SUBSCRIBE: Final = 1


class Finality:
    """Where the chain is read; `run` goes on until it is cancelled."""

    def __init__(self, targets: Sequence[Target], book: Book, from_height: int) -> None:
        """Takes the nodes to follow, the first that answers, from a height on."""
        self._targets = targets
        self._book = book
        self._cursor = Cursor(BLOCKS, None, from_height)
        self.blocks = 0
        self.height = from_height - 1

    async def run(self) -> None:
        """Follows one node after the other."""
        place = 0
        while True:
            target = self._targets[place % len(self._targets)]
            with suppress(ClientError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                await self._follow(target)
            place += 1
            await trio.sleep(PAUSE_SECONDS)

    async def _follow(self, target: Target) -> None:
        endpoint = Endpoint("127.0.0.1", target.port)
        websocket = WebSocketConnection(endpoint)
        with trio.fail_after(OPEN_SECONDS):
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        async with stream:
            await stream.send_all(websocket.handshake())
            while True:
                heights: list[int] = []
                for event in websocket.receive(await self._heard(stream, target)):
                    if isinstance(event, Opened):
                        await stream.send_all(websocket.text(jsonrpc.encode(self._cursor.call(), _SUBSCRIBE)))
                    elif isinstance(event, Message):
                        heights += self._take(event.data)
                    elif isinstance(event, Reply):
                        await stream.send_all(event.data)
                    elif isinstance(event, Ended):
                        return
                for start in range(0, len(heights), HEIGHTS_PER_READ):
                    await self._settle(target, heights[start : start + HEIGHTS_PER_READ])

    async def _heard(self, stream: trio.abc.Stream, target: Target) -> bytes:
        """Returns what the node says next; a node that says nothing for long must at least answer a question."""
        while True:
            with trio.move_on_after(SILENCE_SECONDS):
                return bytes(await stream.receive_some(READ_BYTES))
            (status,) = await target.read([("qenex_status", [])], OPEN_SECONDS)
            if status is None or status["head"]["height"] > self.height:
                raise TransportError(f"{target.name} tells nothing of its blocks", sent=True)

    def _take(self, data: bytes) -> list[int]:
        """Returns the heights of the blocks that a message tells of."""
        heights: list[int] = []
        for told in jsonrpc.decode_message(data):
            if isinstance(told, Notification):
                heights += self._take_event(told)
            elif isinstance(told.result, ClientError):
                raise told.result
            else:
                self._cursor.begun(told.result)
        return heights

    def _take_event(self, told: Notification) -> list[int]:
        if "ended" in told.params:
            raise TransportError("the subscription was ended", sent=True)
        event: Any = self._cursor.take(told.params["event"])
        if event is None:
            return []
        height = int(event["header"]["height"])
        self.height = height
        return [height] if event["transaction_count"] else []

    async def _settle(self, target: Target, heights: list[int]) -> None:
        pages = [(height, 0) for height in heights]
        while pages:
            blocks = await target.read([("qenex_getBlock", [height, "ids", offset]) for height, offset in pages])
            now = trio.current_time()
            more: list[tuple[int, int]] = []
            for (height, _), block in zip(pages, blocks, strict=True):
                if block is None:
                    raise TransportError(f"{target.name} does not have block {height}", sent=True)
                self._book.committed(block["transactions"], now)
                if block["next_offset"] is not None:
                    more.append((height, block["next_offset"]))
            pages = more
        self.blocks += len(heights)
