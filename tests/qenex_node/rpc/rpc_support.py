"""A node in memory for the RPC tests: real ledger, tree and mempool, a store of dictionaries, and clients by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import h11
import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from qenex_node.mempool import Mempool, MempoolLimits
from qenex_node.rpc.access import Access
from qenex_node.rpc.feed import CommittedBlock, Feed
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.methods import registry
from qenex_node.rpc.server import RpcServer
from qenex_node.rpc.view import (
    Accepted,
    Admitted,
    Committed,
    ConsensusInfo,
    EvidenceInfo,
    Location,
    NodeStatus,
    PeerInfo,
    Reason,
    SyncStatus,
    ViewChangeInfo,
)
from state.address import to_text
from state.errors import Rejected
from state.hashing import sha256
from state.ledger import Receipt
from state.transaction import decode_transaction, verify_signatures
from state.tree.prove import prove
from state.types import VOTE_COMMIT, Certificate
from tests.state.ledger.world import World, key, pay

ANN, BOB, CEM = key(1), key(2), key(3)
ANN_TEXT, BOB_TEXT, CEM_TEXT = (to_text(who.address) for who in (ANN, BOB, CEM))


class ChainWorld(World):
    """A World that remembers its blocks, receipts and states: what the RPC reads of a store."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headers = [self.head]
        self.executed = [None]
        self.states = [dict(self.state)]
        self.places: dict[bytes, tuple[int, int]] = {}
        self.oldest_state_height = 0
        self.base_height = 0
        self.accounts_indexed_from: int | None = 1
        self.reads: Counter[str] = Counter()

    def commit(self, executed):
        super().commit(executed)
        self.headers.append(self.head)
        self.executed.append(executed)
        self.states.append(dict(self.state))
        for index, tx in enumerate(executed.transactions):
            self.places[tx.id] = (self.head.height, index)

    def header_at(self, height):
        return self.headers[height] if height <= self.head.height else None

    def block_at(self, height):
        self.reads["block_at"] += 1
        if height == 0:
            return SimpleNamespace(header=self.headers[0], transactions=(), evidence=())
        return self.executed[height].block if height <= self.head.height else None

    def height_of(self, block_hash):
        return next((header.height for header in self.headers if header.hash == block_hash), None)

    def certificate_at(self, height):
        return None if height == 0 else certificate(self.headers[height])

    def receipt_bytes_at(self, height):
        return () if height == 0 else self.executed[height].receipt_bytes

    def receipt_at(self, height, index):
        return Receipt.decode(self.receipt_bytes_at(height)[index])

    def transaction_at(self, height, index):
        return self.executed[height].block.transactions[index]

    def locate(self, tx_id):
        return self.places.get(tx_id)

    def account_transactions(self, address, before, limit):
        self.reads["account_transactions"] += 1
        if self.accounts_indexed_from is None:
            raise Rejected("index_off", "this node keeps no account index")
        places = [
            (height, index)
            for height, executed in enumerate(self.executed)
            if executed is not None
            for index, touched in enumerate(executed.touched)
            if address in touched and (before is None or (height, index) < before)
        ]
        return list(reversed(places))[:limit]

    def validators_at(self, height):
        return self.validators

    def get_at(self, height, state_key):
        return self.states[height].get(state_key)

    def prove(self, height, state_key):
        return prove(self.nodes, height, sha256(state_key))


def certificate(header):
    """A certificate as a node would show it; its signatures prove nothing."""
    return Certificate(VOTE_COMMIT, header.height, 0, header.hash, ((0, bytes(64)), (2, bytes([1]) * 64)))


class FakeNode:
    """A NodeView over a ChainWorld: it admits for real, and commits when a test says so."""

    def __init__(self, balance: int = 1_000_000) -> None:
        balances = {who.address: {"QNX": balance} for who in (ANN, BOB)}
        self.world = ChainWorld(balances)
        self.store = self.world
        self.context = self.world.context
        self.ledger = self.world.ledger
        self.state = self.world.executor.state
        self.mempool = Mempool(MempoolLimits(), self._next_sequence)
        self.feed = Feed()
        self.reasons: list[Reason] = []
        self.found: list[EvidenceInfo] = []
        self.view = 0
        self.submits: list[int] = []
        self.acknowledge = True
        self.fates: dict[bytes, Any] = {}
        self.changed = trio.lowlevel.ParkingLot()

    def _next_sequence(self, address, lane):
        account = self.ledger.read_account(self.world, address)
        return 0 if account is None else account.sequence(lane)

    def now_ms(self):
        return self.world.head.time_ms + 5

    def status(self):
        return NodeStatus(self.view, "v0", SyncStatus(False, self.world.head.height), "0.1.0", bytes(32), "validator")

    def readiness(self):
        return self.reasons

    def peers(self):
        return [
            PeerInfo(bytes(32), "v1", "127.0.0.1:9", "outbound", "validator", 3, 2, 100, 200, 0, 1_700_000_000_000),
            PeerInfo(bytes([1]) * 32, None, "127.0.0.1:8", "inbound", "full", 3, None, 1, 2, -5, 1_700_000_000_001),
        ]

    def consensus_state(self):
        change = ViewChangeInfo(3, 0, 1, 1_700_000_000_000, ("no progress for 1000 ms",))
        return ConsensusInfo(4, 1, "prepare", "v1", bytes(32), ("v0",), (), ("v3",), 4, (("progress", 800),), (change,))

    def evidence(self, after, limit):
        return [info for info in self.found if info.number > after][:limit]

    async def submit(self, wires):
        self.submits.append(len(wires))
        await trio.lowlevel.checkpoint()
        outcomes = []
        for wire in wires:
            try:
                tx = decode_transaction(wire, self.context)
                verify_signatures(tx)
                place = self.world.locate(tx.id)
                if place is None:
                    self.ledger.admission(self.world, tx, self.now_ms())
                    self.mempool.add(tx, self.now_ms())
                outcomes.append(Admitted(tx.id, tx.not_after_ms, Location(*place) if place else None))
            except Rejected as refused:
                outcomes.append(refused)
        return outcomes

    async def wait_accepted(self, ids, timeout_ms):
        if not self.acknowledge:
            await trio.sleep(timeout_ms / 1000)
            return [None] * len(ids)
        return [Accepted(1)] * len(ids)

    async def wait_committed(self, ids, timeout_ms):
        def fate(tx_id):
            place = self.world.locate(tx_id)
            return Committed(Location(*place)) if place else self.fates.get(tx_id)

        with trio.move_on_after(timeout_ms / 1000):
            while any(fate(tx_id) is None for tx_id in ids):
                await self.changed.park()
        return [fate(tx_id) for tx_id in ids]

    def commit(self, *transactions, in_feed=True):
        """Makes a block of these transactions, or of what waits, and tells of it."""
        executed = self.world.build(*(transactions or self.mempool.candidates()))
        assert executed is not None
        self.world.commit(executed)
        self.mempool.committed(executed.transactions, executed.block.header.time_ms)
        if in_feed:
            self.feed.committed(
                CommittedBlock(
                    executed.block, certificate(executed.block.header), executed.receipt_bytes, executed.touched
                )
            )
        self.changed.unpark_all()
        return executed


@dataclass
class Counts:
    """Metrics in lists."""

    answers: Counter = field(default_factory=Counter)
    drops: Counter = field(default_factory=Counter)
    open: Counter = field(default_factory=Counter)
    subscribed: int = 0

    def answered(self, method, outcome, count, seconds):
        self.answers[method, outcome] += count

    def connections(self, transport, change):
        self.open[transport] += change

    def subscriptions(self, change):
        self.subscribed += change

    def dropped(self, reason):
        self.drops[reason] += 1


class Http:
    """One keep-alive HTTP connection, by hand."""

    def __init__(self, stream):
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def raw(self, data):
        await self.stream.send_all(data)

    async def request(self, method, target, body=b"", headers=()):
        fields = [("host", "localhost"), ("content-length", str(len(body))), *headers]
        names = {name for name, _ in headers}
        fields = [(n, v) for i, (n, v) in enumerate(fields) if i >= 2 or n not in names]
        await self.stream.send_all(
            self._h11.send(h11.Request(method=method, target=target, headers=fields))
            + (self._h11.send(h11.Data(data=body)) or b"")
            + self._h11.send(h11.EndOfMessage())
        )
        return await self.response()

    async def response(self):
        """Returns (status, headers, body)."""
        head, body = None, b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some(65536))
            elif type(event) is h11.Response:
                head = event
            elif type(event) is h11.Data:
                body += bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                break
            else:
                raise AssertionError(f"unexpected {event}")
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return head.status_code, {n.decode(): v.decode() for n, v in head.headers}, body

    async def post(self, value):
        """Returns the JSON answer to a JSON value (or to raw bytes), None where there is none."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        _, _, answer = await self.request("POST", "/", body)
        return json.loads(answer) if answer else None

    async def call(self, method, *params, **named):
        """Returns the result of a call, raises what it answers as RpcFailure."""
        answer = await self.post({"jsonrpc": "2.0", "id": 7, "method": method, "params": named or list(params)})
        return unwrap(answer)


class RpcFailure(Exception):
    """A JSON-RPC error as tests look at it."""

    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.code = error["code"]
        self.data = error["data"]
        self.reason = error["data"]["reason"]


def unwrap(answer):
    """Returns the result of an answer; raises RpcFailure."""
    assert answer["jsonrpc"] == "2.0"
    if "error" in answer:
        raise RpcFailure(answer["error"])
    return answer["result"]


class Socket:
    """One WebSocket, by hand."""

    def __init__(self, stream):
        self.stream = stream
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.inbox: list[Any] = []
        self._text = ""
        self._numbers = 0

    async def open(self, target="/ws", host="localhost", headers=()):
        await self.stream.send_all(self.ws.send(ws.Request(host=host, target=target, extra_headers=list(headers))))
        return await self.event()

    async def event(self):
        """Returns the next protocol event."""
        while not self.inbox:
            data = await self.stream.receive_some(65536)
            self.ws.receive_data(data or None)
            self.inbox.extend(self.ws.events())
        return self.inbox.pop(0)

    async def send(self, value):
        await self.stream.send_all(self.ws.send(ws.TextMessage(data=json.dumps(value))))

    async def message(self):
        """Returns the next whole message as JSON; answers pings on the way."""
        while True:
            event = await self.event()
            if isinstance(event, ws.Ping):
                await self.stream.send_all(self.ws.send(event.response()))
            elif isinstance(event, ws.TextMessage):
                self._text += event.data
                if event.message_finished:
                    text, self._text = self._text, ""
                    return json.loads(text)
            else:
                raise AssertionError(f"unexpected {event}")

    async def call(self, method, *params, **named):
        """Returns a result; notifications that come before it are lost, so call before events flow."""
        self._numbers += 1
        await self.send({"jsonrpc": "2.0", "id": self._numbers, "method": method, "params": named or list(params)})
        while True:
            message = await self.message()
            if message.get("id") == self._numbers:
                return unwrap(message)


class Service:
    """A server over a FakeNode, reached through streams in memory."""

    def __init__(self, nursery, node, server, counts):
        self.nursery = nursery
        self.node = node
        self.server = server
        self.counts = counts

    def connect(self, address="10.0.0.1", stream_pair: Callable[[], Any] = trio.testing.memory_stream_pair):
        ours, theirs = stream_pair()
        self.nursery.start_soon(self.server.serve_stream, theirs, address)
        return ours

    def http(self, address="10.0.0.1"):
        return Http(self.connect(address))

    async def socket(self, address="10.0.0.1"):
        socket = Socket(self.connect(address))
        assert isinstance(await socket.open(), ws.AcceptConnection)
        return socket


@asynccontextmanager
async def serving(node=None, *, access=None, methods=None, **limits) -> AsyncIterator[Service]:
    """Serves a node; the server must end without an error when the test is done."""
    node = node or FakeNode()
    counts = Counts()
    bounds = RpcLimits(**limits)
    server = RpcServer(
        node,
        methods or registry(node.ledger, "0.1.0"),
        limits=bounds,
        access=access or Access(),
        metrics=counts,
    )
    async with trio.open_nursery() as nursery:
        yield Service(nursery, node, server, counts)
        nursery.cancel_scope.cancel()


def run(test, *args, clock=None):
    """Runs an async test with time that jumps over every wait."""

    async def bounded():
        with trio.fail_after(10_000):
            await test(*args)

    trio.run(bounded, clock=clock or trio.testing.MockClock(autojump_threshold=0))


def request(method, params=None, id_=1):
    """A request as a JSON value."""
    value = {"jsonrpc": "2.0", "id": id_, "method": method}
    return value if params is None else {**value, "params": params}


def hexed(data):
    return "0x" + data.hex()


def with_node(test, node=None, **limits):
    """Runs `test(node, http)` with a served node."""

    async def main():
        async with serving(node, **limits) as service:
            await test(service.node, service.http())

    run(main)


async def refused(http, method, *params, **named):
    with pytest.raises(RpcFailure) as caught:
        await http.call(method, *params, **named)
    return caught.value


def pay_tx(node, sender=ANN, to=CEM, amount=5, **kwargs):
    return node.world.tx(sender, pay(to.address, amount), **kwargs)
