"""How transactions come in and get around: each proved once, none lost by a full queue, none able to end the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from p2p.wire import Kind
from qenex_node import gossip as gossip_module
from qenex_node import wanted as wanted_module
from qenex_node.fates import Fates
from qenex_node.gossip import Gossip
from qenex_node.mempool import Mempool, MempoolLimits
from state.errors import Rejected
from state.transaction import Transaction, wire_hash_of
from state.types import WireHash
from tests.qenex_node.node_parts import FakePeer
from tests.state.ledger.world import START_MS, World, key, pay

ANN, BOB = key(1), key(2)


class Bench:
    """One node's gossip over the real ledger, mempool and waiters; it is validator v0, its peers are v1 to v3."""

    def __init__(self, *, queue_bytes_max: int = 1 << 20, **limits: int) -> None:
        self.world = World({ANN.address: {"QNX": 1_000_000}, BOB.address: {"QNX": 1_000}})
        self.now_ms = START_MS + 1_000
        self.fates = Fates()
        self.mempool = Mempool(MempoolLimits(**limits), self.next_sequence)
        self.committed: set[bytes] = set()
        keys = [validator.key for validator in self.world.validators.validators]
        self.peers = [FakePeer(f"v{index}", keys[index]) for index in (1, 2, 3)]
        self.reports: list[tuple[str, str]] = []
        self.floods: list[tuple[Kind, Any]] = []
        self.relays: list[str] = []
        self.works = 0
        self.gossip = Gossip(
            context=self.world.context,
            ledger=self.world.ledger,
            reader=lambda: self.world.executor.state,
            mempool=self.mempool,
            fates=self.fates,
            validators=lambda: self.world.validators,
            validator_key=keys[0],
            sign=key(9000).sign,
            now_ms=lambda: self.now_ms,
            on_work=self.note_work,
            is_committed=lambda tx_id: tx_id in self.committed,
            queue_bytes_max=queue_bytes_max,
        )
        self.gossip.network = self  # type: ignore[assignment]

    def next_sequence(self, sender: bytes, lane: int) -> int:
        account = self.world.ledger.read_account(self.world, sender)
        return 0 if account is None else account.sequence(lane)

    def note_work(self) -> None:
        self.works += 1

    def connected(self) -> Sequence[FakePeer]:
        return self.peers

    def report(self, peer: FakePeer, points: float, reason: str) -> None:
        self.reports.append((peer.name, reason))

    def relay(self, kind: Kind, raw: bytes, peer: FakePeer) -> int:
        self.relays.append(peer.name)
        return 1

    def flood(self, kind: Kind, body: Any) -> int:
        self.floods.append((kind, body))
        return len(self.peers)

    def take(self, peer: int, *wires: bytes) -> None:
        self.gossip.on_transactions(self.peers[peer], wires)  # type: ignore[arg-type]


def run(bench: Bench, test: Callable[[], Awaitable[None]]) -> None:
    """Runs a test beside the gossip's own tasks, on a clock that waits for nothing."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.gossip.run)
            await test()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def test_a_clients_transaction_is_admitted_and_pushed_to_every_direct_peer() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 5))

    async def test() -> None:
        (outcome,) = await bench.gossip.submit([wire])
        assert isinstance(outcome, Transaction)
        await settle()
        assert all(peer.got(Kind.TRANSACTIONS) == [(wire,)] for peer in bench.peers)
        assert bench.works

    run(bench, test)


def test_each_of_a_batch_has_its_own_outcome_in_order() -> None:
    bench = Bench()
    good = bench.world.wire(ANN, pay(BOB.address, 5))
    forged = bytearray(bench.world.wire(ANN, pay(BOB.address, 6)))
    forged[-1] ^= 1

    async def test() -> None:
        outcomes = await bench.gossip.submit([b"garbage", good, bytes(forged), good])
        assert [o.code if isinstance(o, Rejected) else "ok" for o in outcomes] == [
            "malformed",
            "ok",
            "bad_signature",
            "ok",
        ]

    run(bench, test)


def test_a_transaction_of_a_peer_goes_only_to_those_that_it_does_not_serve_and_is_acknowledged() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 5))
    bench.peers[0].neighbours = frozenset({"v2"})
    bench.peers[1].neighbours = frozenset({"v1"})

    async def test() -> None:
        bench.take(0, wire)
        await settle()
        assert [len(peer.got(Kind.TRANSACTIONS)) for peer in bench.peers] == [0, 0, 1]
        tx = bench.mempool.get(wire_hash_of(wire))
        assert tx is not None
        assert bench.peers[0].got(Kind.TX_HELD) == [((tx.id,), None, None)]

    run(bench, test)


def test_a_full_queue_says_so_to_clients_and_drops_what_peers_send() -> None:
    bench = Bench(queue_bytes_max=2_000)
    wires = [bench.world.wire(ANN, pay(BOB.address, 5)) for _ in range(8)]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.gossip.submit, wires[:4])
            await settle()
            assert [o.code for o in await bench.gossip.submit(wires[4:]) if isinstance(o, Rejected)] == ["busy"] * 4
            bench.take(0, *wires[4:])
            assert bench.gossip.rejections["busy"] == 4
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_batch_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    bench = Bench(queue_bytes_max=1_000)
    wires = [bench.world.wire(ANN, pay(BOB.address, 5)) for _ in range(8)]

    async def test() -> None:
        assert all(isinstance(outcome, Transaction) for outcome in await bench.gossip.submit(wires))

    run(bench, test)


def test_empty_transactions_fill_the_queue_too() -> None:
    bench = Bench(queue_bytes_max=10 * gossip_module.ARRIVAL_OVERHEAD_BYTES)
    bench.take(0, *[b""] * 100)
    assert bench.gossip.queued_bytes <= 10 * gossip_module.ARRIVAL_OVERHEAD_BYTES
    assert bench.gossip.rejections["busy"] == 90


def test_what_a_full_mempool_refused_is_taken_when_it_comes_again() -> None:
    """Whoever holds it may count on us to propose it: a refusal for want of room is no reason to ignore it for good."""
    bench = Bench(count_max=1)
    first, second = (bench.world.wire(who, pay(BOB.address, 5)) for who in (ANN, BOB))

    async def test() -> None:
        bench.take(0, first, second)
        await settle()
        assert bench.gossip.rejections == {"mempool_full": 1}
        tx = bench.mempool.get(wire_hash_of(first))
        assert tx is not None
        bench.mempool.drop(tx.id, "test", "made room")
        bench.gossip.on_announce(bench.peers[1], [wire_hash_of(second)])  # type: ignore[arg-type]
        assert bench.peers[1].got(Kind.TX_REQUEST) == [(wire_hash_of(second),)]
        bench.take(1, second)
        await settle()
        assert bench.mempool.get(wire_hash_of(second)) is not None

    run(bench, test)


def test_what_can_never_enter_is_not_looked_at_twice() -> None:
    bench = Bench()
    used = bench.world.tx(ANN, pay(BOB.address, 5))
    bench.world.block(used)

    async def test() -> None:
        bench.take(0, used.wire)
        await settle()
        bench.take(1, used.wire)
        await settle()
        assert bench.gossip.rejections == {"sequence_used": 1}
        assert bench.gossip.known == 1
        assert bench.reports == []

    run(bench, test)


@pytest.mark.parametrize(("change", "reason"), [(slice(0, 3), "malformed"), (slice(None, -1), "malformed")])
def test_bad_form_is_counted_against_whoever_sent_it(change: slice, reason: str) -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 5))[change]

    async def test() -> None:
        bench.take(0, wire)
        await settle()
        assert bench.reports == [("v1", f"transaction {reason}")]

    run(bench, test)


def test_an_unforeseen_error_ends_neither_the_queue_nor_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    wires = [bench.world.wire(ANN, pay(BOB.address, 5)) for _ in range(2)]
    real = gossip_module.decode_transaction

    def failing(wire: bytes, context: Any) -> Transaction:
        if wire == wires[0]:
            raise ZeroDivisionError
        return real(wire, context)

    monkeypatch.setattr(gossip_module, "decode_transaction", failing)

    async def test() -> None:
        first, second = await bench.gossip.submit(wires)
        assert isinstance(first, Rejected)
        assert first.code == "internal_error"
        assert isinstance(second, Transaction)

    run(bench, test)


# Fetching for proposals


def asker(asked: list[tuple[bytes, ...]]) -> Callable[[Sequence[bytes]], None]:
    return lambda hashes: asked.append(tuple(hashes))


def test_two_proposals_that_want_the_same_transaction_both_get_it() -> None:
    bench = Bench()
    shared, first, second = (bench.world.wire(ANN, pay(BOB.address, n)) for n in (1, 2, 3))
    results: dict[str, set[bytes]] = {}

    async def fetch(name: str, *wires: bytes) -> None:
        found = await bench.gossip.fetch([wire_hash_of(wire) for wire in wires], asker([]))
        results[name] = {tx.wire for tx in found.values()}

    async def test() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, "a", shared, first)
                nursery.start_soon(fetch, "b", shared, second)
                await settle()
                bench.take(0, first)
                await settle()
                bench.take(0, shared)
                await settle()
                assert set(results) == {"a"}
                bench.take(0, second)
        assert results == {"a": {shared, first}, "b": {shared, second}}

    run(bench, test)


def test_one_fetch_given_up_takes_nothing_from_the_other() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 1))
    done: list[str] = []

    async def fetch() -> None:
        await bench.gossip.fetch([wire_hash_of(wire)], asker([]))
        done.append("b")

    async def test() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch)
                await settle()
                with trio.move_on_after(0.1):
                    await bench.gossip.fetch([wire_hash_of(wire)], asker([]))
                bench.take(0, wire)
        assert done == ["b"]

    run(bench, test)


def test_a_wanted_transaction_overtakes_a_full_queue() -> None:
    bench = Bench(queue_bytes_max=4_000)
    flood = [bench.world.wire(ANN, pay(BOB.address, 5)) for _ in range(20)]
    wanted = bench.world.wire(BOB, pay(ANN.address, 1))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fetched: list[bytes] = []

            async def fetch() -> None:
                found = await bench.gossip.fetch([wire_hash_of(wanted)], asker([]))
                fetched.extend(tx.wire for tx in found.values())

            nursery.start_soon(fetch)
            await settle()
            bench.take(0, *flood, wanted, wanted)
            assert bench.gossip.rejections["busy"] > 0
            nursery.start_soon(bench.gossip.run)
            await settle()
            assert fetched == [wanted]
            assert next(iter(bench.mempool.candidates())).wire == wanted
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_is_missing_is_asked_for_again_until_it_comes() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 1))
    asked: list[tuple[bytes, ...]] = []

    async def test() -> None:
        with trio.move_on_after(10):
            await bench.gossip.fetch([wire_hash_of(wire)], asker(asked))
        assert 5 <= len(asked) <= 12
        assert set(asked) == {(wire_hash_of(wire),)}

    run(bench, test)


def test_a_named_transaction_that_the_mempool_refuses_still_reaches_its_proposal() -> None:
    bench = Bench(count_max=1)
    held, wanted = (bench.world.wire(who, pay(BOB.address, 1)) for who in (ANN, BOB))

    async def test() -> None:
        await bench.gossip.submit([held])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.gossip.fetch, [wire_hash_of(wanted)], asker([]))
            await settle()
            bench.take(0, wanted)
        assert bench.mempool.get(wire_hash_of(wanted)) is None

    run(bench, test)


def test_a_named_transaction_that_is_forged_settles_that_the_block_is_invalid() -> None:
    bench = Bench()
    forged = bytearray(bench.world.wire(ANN, pay(BOB.address, 1)))
    forged[-1] ^= 1
    caught: list[Rejected] = []

    async def fetch() -> None:
        try:
            await bench.gossip.fetch([wire_hash_of(bytes(forged))], asker([]))
        except Rejected as error:
            caught.append(error)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await settle()
            bench.take(0, bytes(forged))
        assert [(error.code, error.data["rule"]) for error in caught] == [("block_invalid", "transaction")]

    run(bench, test)


def test_a_proposal_cannot_fill_the_memory_with_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted_module, "BLOCK_BYTES_MAX", 300)
    bench = Bench()
    wires = [bench.world.wire(ANN, pay(BOB.address, 1)) for _ in range(4)]
    caught: list[Rejected] = []

    async def fetch() -> None:
        try:
            await bench.gossip.fetch([wire_hash_of(wire) for wire in wires], asker([]))
        except Rejected as error:
            caught.append(error)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await settle()
            bench.take(0, *wires[:3])
        assert [error.data["rule"] for error in caught] == ["bytes"]

    run(bench, test)


# Acknowledgements


def held(bench: Bench, peer: int, body: Any) -> None:
    bench.gossip.on_held(bench.peers[peer], body, b"raw")  # type: ignore[arg-type]


def test_a_transaction_that_waits_here_is_acknowledged_to_whoever_sends_it_again() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 5))

    async def test() -> None:
        bench.take(0, wire)
        await settle()
        bench.take(1, wire)
        await settle()
        tx = bench.mempool.get(wire_hash_of(wire))
        assert tx is not None
        assert bench.peers[1].got(Kind.TX_HELD) == [((tx.id,), None, None)]

    run(bench, test)


def test_a_client_that_sends_what_others_brought_gets_it_pushed_and_so_accepted() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 5))

    async def test() -> None:
        bench.take(0, wire)
        await settle()
        pushed = [len(peer.got(Kind.TRANSACTIONS)) for peer in bench.peers]
        await bench.gossip.submit([wire])
        await settle()
        assert [len(peer.got(Kind.TRANSACTIONS)) for peer in bench.peers] == [count + 1 for count in pushed]

    run(bench, test)


def test_f_other_validators_make_a_transaction_accepted() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 1))

    async def test() -> None:
        (tx,) = await bench.gossip.submit([wire])
        assert isinstance(tx, Transaction)
        assert bench.gossip.acknowledgements_needed() == 1
        woken: list[float] = []

        async def wait() -> None:
            await bench.fates.wait_accepted([tx.id], 60)
            woken.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settle()
            began = trio.current_time()
            held(bench, 0, ((tx.id,), None, None))
        assert woken == [began]

    run(bench, test)


def test_an_acknowledgement_counts_for_its_signer_alone_and_garbage_is_not_passed_on() -> None:
    bench = Bench()
    ids = (bytes(32),)
    preimage = bench.gossip._held_preimage(ids)
    stranger, validator = key(77), key(9003)
    held(bench, 0, (ids, stranger.public.data, stranger.sign(preimage)))
    assert bench.relays == []
    held(bench, 0, (ids, validator.public.data, validator.sign(preimage)))
    assert bench.relays == ["v1"]
    with pytest.raises(Rejected, match="bad_signature"):
        held(bench, 0, (ids, validator.public.data, stranger.sign(preimage)))


@pytest.mark.parametrize("body", [None, (), ((b"short",), None, None), ((), b"x", b"y"), ((), 5, None)])
def test_a_malformed_acknowledgement_is_refused(body: Any) -> None:
    with pytest.raises(Rejected):
        held(Bench(), 0, body)


# Getting around


def test_what_waits_is_announced_ever_more_rarely() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 1))

    async def test() -> None:
        await bench.gossip.submit([wire])
        times: list[int] = []
        for waited_ms in range(0, 40_000, 100):
            bench.now_ms = START_MS + 1_000 + waited_ms
            before = len(bench.peers[0].got(Kind.TX_ANNOUNCE))
            bench.gossip.announce_waiting()
            if len(bench.peers[0].got(Kind.TX_ANNOUNCE)) > before:
                times.append(waited_ms)
        assert times == [500, 2_000, 8_000, 32_000]

    run(bench, test)


def test_a_question_for_more_than_the_queue_takes_is_answered_in_part() -> None:
    bench = Bench()
    wires = [bench.world.wire(ANN, pay(BOB.address, 1)) for _ in range(3)]
    asked = [wire_hash_of(wire) for wire in wires]

    async def test() -> None:
        await bench.gossip.submit(wires)
        await settle()
        peer = bench.peers[0]
        peer.sent.clear()
        bench.gossip.on_request(peer, asked, lambda wire_hash: None)  # type: ignore[arg-type]
        assert peer.got(Kind.TRANSACTIONS) == [tuple(wires)]
        peer.sent.clear()
        peer.queued_bytes = 1 << 24
        bench.gossip.on_request(peer, asked, lambda wire_hash: None)  # type: ignore[arg-type]
        assert peer.sent == []

    run(bench, test)


def test_only_the_committed_state_drops_a_waiting_transaction_and_never_the_clock() -> None:
    bench = Bench()
    wire = bench.world.wire(ANN, pay(BOB.address, 1))

    async def test() -> None:
        (tx,) = await bench.gossip.submit([wire])
        assert isinstance(tx, Transaction)
        assert not bench.gossip.drop_if_hopeless(tx)
        bench.now_ms = tx.not_after_ms + 1
        assert not bench.gossip.drop_if_hopeless(tx)
        assert bench.mempool.by_id(tx.id) is not None
        bench.now_ms = START_MS + 1_000
        bench.world.sequences.clear()
        bench.world.block(bench.world.tx(ANN, pay(BOB.address, 2)))
        assert bench.gossip.drop_if_hopeless(tx)
        gone = bench.mempool.gone(tx.id)
        assert gone is not None
        assert gone.code == "sequence_used"

    run(bench, test)


def test_the_memory_of_announcements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_module, "KNOWN_MAX", 10)
    bench = Bench()
    bench.gossip._announced.update({WireHash(bytes([n])): 1 for n in range(11)})
    bench.gossip.announce_waiting()
    assert len(bench.gossip._announced) == 0
