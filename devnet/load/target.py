"""One node as the load sees it: connections to send batches over, and whether it answers at present."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from devnet.http import HttpLink
from devnet.load.book import Book, Entry
from qenex_node.client.errors import TransportError

DOWN_SECONDS: Final = 0.5
LINKS_MAX: Final = 64
CONNECT_SECONDS: Final = 2.0
BODY_BYTES_MAX: Final = 512 * 1024
READ_BATCH: Final = 500


class Target:
    """A node, by name, that takes batches; not to be used by two event loops."""

    def __init__(self, name: str, rpc: str) -> None:
        """Takes its RPC address."""
        self.name = name
        self.port = urlsplit(rpc).port or 80
        self.down_until = 0.0
        self._idle: list[HttpLink] = []
        self._links = trio.CapacityLimiter(LINKS_MAX)

    @property
    def up(self) -> bool:
        """Whether it may be tried now: a node that failed is left alone for a moment."""
        return trio.current_time() >= self.down_until

    async def send(self, batch: Sequence[Entry], book: Book, wait: str, timeout_s: float) -> None:
        """Sends transactions as one request and notes what is answered. It never raises for what a node does."""
        body = send_body([entry.signed.wire for entry in batch], wait, round(timeout_s * 1000))
        async with self._links:
            answers = await self._exchange(body, timeout_s + CONNECT_SECONDS)
        now = trio.current_time()
        if not isinstance(answers, list) or len(answers) != len(batch):
            book.lost_connection(batch)
            return
        for entry, answer in zip(batch, answers, strict=True):
            result = answer.get("result")
            if result is not None:
                book.answered(entry, result["status"], now)
                if result["status"] == "committed" and result["receipt"]["code"] != "ok":
                    book.failed.add(entry.signed.id)
            else:
                error = answer["error"]
                book.refused(entry, error["code"], error["data"]["reason"])

    async def read(self, calls: Sequence[tuple[str, list[Any]]], timeout_s: float = 30.0) -> list[Any]:
        """Returns the results of reading calls, in few requests; None for one that is refused.

        Raises TransportError if the node does not answer.
        """
        results: list[Any] = []
        for start in range(0, len(calls), READ_BATCH):
            body = json.dumps(
                [
                    {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                    for number, (method, params) in enumerate(calls[start : start + READ_BATCH])
                ]
            ).encode()
            async with self._links:
                answers = await self._exchange(body, timeout_s)
            if not isinstance(answers, list):
                raise TransportError(f"{self.name} does not answer", sent=True)
            results += [answer.get("result") for answer in answers]
        return results

    async def _exchange(self, body: bytes, timeout_s: float) -> Any:
        """Returns the answer's JSON, None where there is none."""
        link = self._idle.pop() if self._idle else HttpLink(self.port)
        try:
            with trio.fail_after(timeout_s):
                status, answer = await link.post(body)
            if status != 200:
                raise TransportError(f"{self.name} answered with HTTP status {status}", sent=True)
        except (TransportError, trio.TooSlowError):
            link.close()
            self.down_until = trio.current_time() + DOWN_SECONDS
            return None
        self._idle.append(link)
        return json.loads(answer)

    def close(self) -> None:
        """Ends its connections."""
        while self._idle:
            self._idle.pop().close()


def send_body(wires: Sequence[bytes], wait: str, timeout_ms: int) -> bytes:
    """Returns the request that submits these transactions; by hand, because json would take as long as the node."""
    end = f'","{wait}",{timeout_ms}],"id":'
    calls = [
        f'{{"jsonrpc":"2.0","method":"qenex_sendTransaction","params":["0x{wire.hex()}{end}{number}}}'
        for number, wire in enumerate(wires)
    ]
    return f"[{','.join(calls)}]".encode()
