"""Fetching what a proposal names, and answering those who fetch: nobody waits for ever, nobody is sent too much."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from p2p.wire import Kind
from qenex_node.gossip import Gossip
from qenex_node.mempool import Acknowledgements
from state.errors import Rejected
from state.hashing import sha256
from state.keys import SigningKey
from state.limits import BLOCK_BYTES_MAX
from state.transaction import Operation, body_value, decode_transaction, sign_transaction, wire_hash_of
from state.types import ChainContext

CONTEXT = ChainContext("test", sha256(b"genesis"))


class EmptyMempool:
    """A mempool that takes nothing, but may hold what a test puts there."""

    def __init__(self) -> None:
        self.held: dict[bytes, Any] = {}

    def get(self, wire_hash: bytes) -> Any:
        return self.held.get(wire_hash)

    def add(self, tx: Any, now_ms: int) -> Any:
        raise Rejected("mempool_full", "nothing fits")


class AskingPeer:
    def __init__(self) -> None:
        self.id = self.name = "asking"
        self.queued_bytes = 0
        self.sent: list[bytes] = []

    def send(self, kind: Kind, body: Any) -> bool:
        assert kind is Kind.TRANSACTIONS
        self.sent += body
        return True


def gossip() -> tuple[Gossip, EmptyMempool]:
    mempool = EmptyMempool()
    made = Gossip(
        context=CONTEXT,
        ledger=SimpleNamespace(admission=lambda reader, tx, now_ms: None),  # type: ignore[arg-type]
        reader=lambda: None,  # type: ignore[arg-type, return-value]
        mempool=mempool,  # type: ignore[arg-type]
        fates=None,  # type: ignore[arg-type]
        validators=lambda: None,  # type: ignore[arg-type, return-value]
        validator_key=None,
        sign=lambda data: data,
        now_ms=lambda: 0,
        on_work=lambda: None,
        is_committed=lambda tx_id: False,
        queue_bytes_max=1024 * 1024,
    )
    assert isinstance(made.acknowledgements, Acknowledgements)
    made.network = SimpleNamespace(connected=lambda: (), report=lambda *_: None)  # type: ignore[assignment]
    return made, mempool


def transaction() -> bytes:
    key = SigningKey.generate()
    body = body_value(CONTEXT, key.address, 0, 0, 1_000, [Operation("burn", 1, (b"X",))])
    return sign_transaction(CONTEXT, body, {key.address: [key]})


def test_two_blocks_that_lack_the_same_transaction_both_get_it() -> None:
    """The first to be served must not take the transaction away from the other, whose proposal would wait for ever."""

    async def main() -> None:
        node, _ = gossip()
        wire = transaction()
        found: list[Any] = []

        async def fetch() -> None:
            got = await node.fetch([wire_hash_of(wire)], lambda hashes: None)
            found.append(got[wire_hash_of(wire)].id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            with trio.fail_after(30):
                async with trio.open_nursery() as fetching:
                    fetching.start_soon(fetch)
                    fetching.start_soon(fetch)
                    await trio.testing.wait_all_tasks_blocked()
                    node.on_transactions(AskingPeer(), [wire])  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()
        assert found == [decode_transaction(wire, CONTEXT).id] * 2

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_request_that_names_a_transaction_very_often_is_sent_it_once() -> None:
    node, mempool = gossip()
    peer = AskingPeer()
    mempool.held = {bytes([n]) * 32: SimpleNamespace(wire=bytes([n]) * 100_000) for n in range(60)}
    node.on_request(peer, [bytes(32)] * 12_000, lambda wire_hash: None)  # type: ignore[arg-type]
    assert len(peer.sent) == 1
    node.on_request(peer, list(mempool.held), lambda wire_hash: None)  # type: ignore[arg-type]
    assert BLOCK_BYTES_MAX - 200_000 < sum(map(len, peer.sent)) - 100_000 <= BLOCK_BYTES_MAX
    peer.queued_bytes = BLOCK_BYTES_MAX + 1
    peer.sent.clear()
    node.on_request(peer, [bytes(32)], lambda wire_hash: None)  # type: ignore[arg-type]
    assert not peer.sent
