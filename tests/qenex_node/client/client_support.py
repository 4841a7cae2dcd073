"""A node for client tests: the real RPC server over a ledger in memory, certified by real signatures, that can lie.

`HonestNode` commits what is submitted at once, each submission in a block of its own. `Wire` stands between it and the
blocking client: it loses connections, answers or both when told to, and may change an answer on its way (`lie`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from qenex_node.client import Client, Retry, Session, TrustedChain
from qenex_node.rpc.dispatch import Dispatcher
from qenex_node.rpc.feed import CommittedBlock
from qenex_node.rpc.http import HttpConnection, Request
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.methods import registry
from state.block import evidence_hash, vote_preimage
from state.types import VOTE_COMMIT, Certificate
from tests.qenex_node.rpc.rpc_support import ANN, BOB, CEM, Counts, FakeNode, run, serving
from tests.state.ledger.world import key

__all__ = ["ANN", "BOB", "CEM", "HonestNode", "Wire", "answering", "certified", "key", "run", "session", "wired"]

START_MS = 1_700_000_000_000
VALIDATOR_KEYS = [key(9000 + n) for n in range(4)]


def certified(header, genesis_hash, validators_hash=None, *, signers=(0, 1, 2), kind=VOTE_COMMIT, keys=VALIDATOR_KEYS):
    """The certificate of a block, signed by the validators with these indexes."""
    preimage = vote_preimage(
        genesis_hash, validators_hash or header.validators_hash, kind, header.height, 0, header.hash
    )
    signatures = tuple((index, keys[index].sign(preimage)) for index in signers)
    return Certificate(kind, header.height, 0, header.hash, signatures)


class HonestNode(FakeNode):
    """A node whose certificates hold, and that commits at once unless `slow`."""

    def __init__(self, balance: int = 1_000_000) -> None:
        super().__init__(balance)
        world = self.world
        world.head = world.headers[0] = replace(world.head, evidence_hash=evidence_hash(()))
        world.certificate_at = self.certificate_at
        self.slow = False

    def certificate_at(self, height):
        return None if height == 0 else certified(self.world.headers[height], self.context.genesis_hash)

    def commit(self, *transactions, in_feed=True):
        executed = self.world.build(*(transactions or self.mempool.candidates()))
        if executed is None:
            return None
        self.world.commit(executed)
        self.mempool.committed(executed.transactions, executed.block.header.time_ms)
        certificate = self.certificate_at(self.world.head.height)
        self.feed.committed(CommittedBlock(executed.block, certificate, executed.receipt_bytes, executed.touched))
        self.changed.unpark_all()
        return executed

    async def submit(self, wires):
        outcomes = await super().submit(wires)
        if not self.slow:
            self.commit()
        return outcomes


class Wire:
    """Streams in memory from a blocking client to a node, and what goes wrong on them.

    `faults` are used up one by one, one for each request: "refused" (no connection), "unsent" (closed before the node
    read it), "unanswered" (closed after the node carried it out), "silent" (no answer in time), "" (nothing).
    """

    def __init__(self, node: HonestNode) -> None:
        self.node = node
        self.faults: list[str] = []
        self.lie: Callable[[str, Any], Any] = lambda method, result: result
        self.calls: Counter[str] = Counter()
        self.connections = 0
        self.endpoints: list[str] = []
        self.raw: bytes | None = None
        self.dispatcher = Dispatcher(registry(node.ledger, "0.1.0"), node, RpcLimits(), Counts())

    def connect(self, endpoint, timeout_s):
        self.endpoints.append(str(endpoint))
        if self.faults and self.faults[0] == "refused":
            self.faults.pop(0)
            raise ConnectionRefusedError(111, "Connection refused")
        self.connections += 1
        return _Stream(self)

    def answer(self, body: bytes) -> bytes:
        """The answer to one request, changed by the lie."""
        if self.raw is not None:
            return self.raw
        asked = json.loads(body)
        told = json.loads(trio.run(self._dispatch, body, clock=trio.testing.MockClock(autojump_threshold=0)))
        one = isinstance(asked, dict)
        asked, told = ([asked], [told]) if one else (asked, told)
        for request, answer in zip(asked, told, strict=True):
            self.calls[request["method"]] += 1
            if "result" in answer:
                answer["result"] = self.lie(request["method"], answer["result"])
        return json.dumps(told[0] if one else told).encode()

    async def _dispatch(self, body: bytes) -> bytes:
        answer = self.dispatcher.begin(body)
        return answer if isinstance(answer, bytes) else await answer


class _Stream:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.http = HttpConnection(65536, 1 << 20)
        self.out = b""
        self.silent = False

    def settimeout(self, seconds):
        assert seconds > 0

    def close(self):
        self.out = b""

    def sendall(self, data):
        self.http.receive(data)
        event = self.http.next_event()
        while isinstance(event, Request):
            fault = self.wire.faults.pop(0) if self.wire.faults else ""
            self.silent = fault == "silent"
            if fault == "unsent":
                return
            answer = self.wire.answer(event.body)
            if not fault:
                self.out += self.http.answer(200, answer)
            assert self.http.next_cycle() or fault
            event = self.http.next_event()

    def recv(self, size):
        if self.silent:
            raise TimeoutError
        # A few bytes at a time: an answer never comes in one piece.
        data, self.out = self.out[:4000], self.out[4000:]
        return data


def wired(node: HonestNode | None = None, *, trust: bool = False, attempts: int = 4, **session: Any):
    """A blocking client, its wire and its node."""
    node = node or HonestNode()
    wire = Wire(node)
    trusted = TrustedChain(node.world.genesis) if trust else None
    slept: list[float] = []
    client = Client(
        "http://a:1",
        "http://b:2",
        session=Session(trusted, now_ms=lambda: START_MS, **session),
        retry=Retry(attempts=attempts),
        connect=wire.connect,
        sleep=slept.append,
    )
    wire.slept = slept
    return client, wire, node


def session(**more: Any) -> Session:
    """A session whose clock is the test chain's."""
    return Session(now_ms=lambda: START_MS, **more)


@asynccontextmanager
async def answering(node: HonestNode | None = None, **limits: Any):
    """Serves a node in memory; yields the service and a `connect` for trio clients."""
    async with serving(node or HonestNode(), **limits) as service:

        async def connect(endpoint):
            return service.connect()

        yield service, connect
