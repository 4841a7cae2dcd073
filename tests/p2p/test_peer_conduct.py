"""Budgets, scores, bans, the send queue, the relay rule, the seen-cache, pings, admission: the parts without I/O."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2p import limits
from p2p.admission import Pending
from p2p.conduct import Bucket, Budgets, Conduct
from p2p.counters import CLOSE_REASONS, LOG_FIELDS, Counters, QuietLog
from p2p.flood import SeenCache, relay_targets
from p2p.identity import NodeId
from p2p.network import retry_seconds
from p2p.peer import Pings
from p2p.sendqueue import SendQueue
from p2p.transport import join_address, split_address
from p2p.wire import KINDS, Kind, Lane
from state.errors import Rejected


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = Bucket(rate=10, burst=20, now=100)
    assert bucket.take(20, 100)
    assert not bucket.take(1, 100)
    assert bucket.take(5, 100.5)
    assert not bucket.take(1, 100.5)
    assert bucket.take(20, 1000)
    assert not bucket.take(1, 1000)


def test_a_budget_bounds_messages_and_bytes_of_each_kind_on_its_own() -> None:
    budgets = Budgets(now=0)
    burst = int(KINDS[Kind.PING].budget.messages_burst)
    assert all(budgets.allow(Kind.PING, 10, 0) for _ in range(burst))
    assert not budgets.allow(Kind.PING, 10, 0)
    assert budgets.allow(Kind.PONG, 10, 0)
    body_burst = int(KINDS[Kind.TRANSACTIONS].budget.bytes_burst)
    assert budgets.allow(Kind.TRANSACTIONS, body_burst, 0)
    assert not budgets.allow(Kind.TRANSACTIONS, 1, 0)
    assert budgets.allow(Kind.TRANSACTIONS, 1, 1)


def test_a_score_halves_each_minute_and_bans_at_its_bound_with_an_end() -> None:
    conduct = Conduct()
    assert not conduct.add(80, now=0)
    assert conduct.score(60) == pytest.approx(40)
    assert not conduct.add(59, now=60)
    assert conduct.add(1, now=60)
    assert conduct.ban_seconds_left(60) == limits.BAN_SECONDS
    assert conduct.ban_seconds_left(60 + limits.BAN_SECONDS) == 0
    assert conduct.score(60) == 0


def test_lanes_leave_in_order_and_each_first_in_first_out() -> None:
    queue = SendQueue()
    for frame, lane in [
        (b"s", Lane.SYNC),
        (b"t", Lane.TRANSACTIONS),
        (b"b", Lane.BLOCKS),
        (b"1", Lane.CONSENSUS),
        (b"2", Lane.CONSENSUS),
    ]:
        assert queue.push(frame, lane)
    assert queue.take(100) == b"12bts"
    assert queue.bytes == 0
    assert queue.take(100) == b""


def test_a_proposal_leaves_after_the_transactions_queued_before_it_and_before_all_else_but_votes() -> None:
    queue = SendQueue()
    queue.push(b"sync ", Lane.SYNC)
    queue.push(b"body ", Lane.BLOCKS)
    queue.push(b"tx1 ", Lane.TRANSACTIONS)
    queue.push(b"tx2 ", Lane.TRANSACTIONS)
    queue.push(b"proposal1 ", Lane.CONSENSUS, after_transactions=True)
    queue.push(b"tx3 ", Lane.TRANSACTIONS)
    queue.push(b"vote ", Lane.CONSENSUS)
    queue.push(b"proposal2 ", Lane.CONSENSUS, after_transactions=True)
    queue.push(b"proposal3 ", Lane.CONSENSUS, after_transactions=True)
    assert queue.take(1000).split() == b"vote tx1 tx2 proposal1 tx3 proposal2 proposal3 body sync".split()


def test_a_proposal_with_nothing_before_it_keeps_its_place_among_votes() -> None:
    queue = SendQueue()
    queue.push(b"proposal ", Lane.CONSENSUS, after_transactions=True)
    queue.push(b"vote ", Lane.CONSENSUS)
    assert queue.take(1000).split() == [b"proposal", b"vote"]


def test_a_write_is_bounded_but_holds_at_least_one_frame() -> None:
    queue = SendQueue()
    for frame in (b"aaaa", b"bbbb", b"cccc"):
        queue.push(frame, Lane.SYNC)
    assert queue.take(8) == b"aaaabbbb"
    assert queue.take(1) == b"cccc"


def test_a_queue_refuses_what_passes_its_bound_and_stays_as_it_was() -> None:
    queue = SendQueue(bytes_max=10)
    assert queue.push(bytes(10), Lane.SYNC)
    assert not queue.push(b"x", Lane.CONSENSUS)
    assert queue.bytes == 10
    queue.clear()
    assert queue.push(b"x", Lane.CONSENSUS)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Lane)), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_no_proposal_overtakes_a_transaction_queued_before_it(pushes: list[tuple[Lane, bool, bool]]) -> None:
    queue, sent, expected = SendQueue(), [], []
    for number, (lane, proposal, take) in enumerate(pushes):
        frame = bytes([lane, proposal, number])
        queue.push(frame, Lane.CONSENSUS if proposal else lane, after_transactions=proposal)
        expected.append(frame)
        if take:
            sent.append(queue.take(7))
    sent.append(queue.take(10_000))
    joined = b"".join(sent)
    frames = [joined[start : start + 3] for start in range(0, len(joined), 3)]
    assert sorted(frames) == sorted(expected)
    place = {frame: position for position, frame in enumerate(frames)}
    for later in expected:
        for earlier in expected:
            if later[1] and not earlier[1] and earlier[0] == Lane.TRANSACTIONS and earlier[2] < later[2]:
                assert place[earlier] < place[later]


@dataclass
class Node:
    """What the relay rule sees of a peer."""

    id: NodeId
    neighbours: frozenset[NodeId] = frozenset()


def mesh(edges: str) -> dict[str, dict[str, Node]]:
    """Returns each node's view of its direct peers, from edges such as "ab bc"."""
    around: dict[str, set[str]] = {}
    for a, b in edges.split():
        around.setdefault(a, set()).add(b)
        around.setdefault(b, set()).add(a)
    return {
        name: {peer: Node(NodeId(peer), frozenset(NodeId(n) for n in around[peer])) for peer in sorted(peers)}
        for name, peers in around.items()
    }


def deliveries(edges: str, origin: str) -> dict[str, int]:
    """Returns how many copies each node gets of one flood from `origin`."""
    views = mesh(edges)
    copies = dict.fromkeys(views, 0)
    wire = [(origin, peer.id) for peer in relay_targets(views[origin].values(), None)]
    while wire:
        sender, receiver = wire.pop(0)
        copies[receiver] += 1
        if copies[receiver] == 1 and receiver != origin:
            view = views[receiver]
            wire += [(receiver, peer.id) for peer in relay_targets(view.values(), view[sender])]
    return copies


def test_a_full_mesh_passes_on_nothing() -> None:
    assert deliveries("ab ac ad bc bd cd", "a") == {"a": 0, "b": 1, "c": 1, "d": 1}


def test_a_line_passes_on_everything_once() -> None:
    assert deliveries("ab bc cd", "a") == {"a": 0, "b": 1, "c": 1, "d": 1}
    assert deliveries("ab bc cd", "b") == {"a": 1, "b": 0, "c": 1, "d": 1}


def test_a_hub_passes_on_everything_once() -> None:
    assert deliveries("ha hb hc hd", "a") == {"h": 1, "a": 0, "b": 1, "c": 1, "d": 1}


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_a_flood_reaches_every_node_of_any_connected_network(extra: list[tuple[int, int]]) -> None:
    names = "abcdefgh"
    line = [f"{names[i]}{names[i + 1]}" for i in range(7)]
    edges = " ".join(line + [f"{names[a]}{names[b]}" for a, b in extra if a != b])
    for origin in names:
        copies = deliveries(edges, origin)
        assert all(count >= 1 for name, count in copies.items() if name != origin)


def test_a_node_cannot_cut_off_others_by_claiming_to_be_their_neighbour() -> None:
    liar = Node(NodeId("x"), frozenset({NodeId("t")}))
    cut_off = Node(NodeId("t"), frozenset({NodeId("me")}))
    assert relay_targets([liar, cut_off], liar) == [cut_off]


def test_the_seen_cache_knows_what_it_saw_and_forgets_only_the_oldest() -> None:
    cache = SeenCache(entries_max=100)
    assert cache.add(b"first")
    assert not cache.add(b"first")
    for number in range(50):
        assert cache.add(b"%d" % number)
    assert not cache.add(b"49")
    assert not cache.add(b"0")
    for number in range(1000):
        cache.add(b"more %d" % number)
        assert len(cache) <= 100
    assert cache.add(b"first")


def test_delays_before_dialing_again_grow_to_a_bound_and_are_jittered() -> None:
    source = random.Random(1)
    delays = [[retry_seconds(failures, source) for _ in range(50)] for failures in range(40)]
    for failures, sample in enumerate(delays):
        whole = min(limits.RETRY_SECONDS_MAX, limits.RETRY_SECONDS_BASE * 2**failures)
        assert all(whole / 2 <= delay <= whole for delay in sample)
        assert len(set(sample)) > 1


def test_the_clock_offset_is_that_of_the_quickest_answer() -> None:
    pings = Pings()
    assert pings.ask(now=10.0, wall_ms=1000) == 1
    assert pings.ask(now=10.1, wall_ms=1100) is None
    assert pings.silent_seconds(12.0) == 2.0
    pings.answer(1, their_wall_ms=1550, now=10.1)
    assert pings.latency_ms == pytest.approx(100)
    assert pings.clock_offset_ms == pytest.approx(500)
    assert pings.ask(now=20.0, wall_ms=11_000) == 2
    pings.answer(2, their_wall_ms=20_000, now=21.0)
    assert pings.clock_offset_ms == pytest.approx(500)
    pings.answer(2, their_wall_ms=99_000, now=21.0)
    assert pings.silent_seconds(100) == 0


def test_a_full_house_lets_the_newcomer_in_and_the_longest_silent_of_the_busiest_out() -> None:
    async def main() -> None:
        pending = Pending(total_max=4, per_key_max=3)
        left: list[str] = []

        async def hold(key: str, name: str, *, heard: bool) -> None:
            with pending.slot(key) as slot:
                slot.heard = heard
                await trio.sleep_forever()
            assert slot.evicted
            left.append(name)

        async with trio.open_nursery() as nursery:
            for key, name, heard in [
                ("x", "x1 heard", True),
                ("x", "x2", False),
                ("x", "x3", False),
                ("y", "y1", False),
                ("z", "z1", False),
                ("x", "x4", False),
                ("x", "x5", False),
            ]:
                nursery.start_soon(lambda key=key, name=name, heard=heard: hold(key, name, heard=heard))
                await trio.testing.wait_all_tasks_blocked()
            assert left == ["x2", "x3", "x4"]
            assert len(pending) == 4
            nursery.cancel_scope.cancel()
        assert len(pending) == 0

    trio.run(main)


def test_every_counter_stands_at_zero_from_the_start() -> None:
    values = Counters().values
    assert set(values["connections_closed"]) == set(CLOSE_REASONS)
    assert set(values["messages_in"]) == {kind.name.lower() for kind in Kind}
    assert all(number == 0 for series in values.values() for number in series.values())


def test_the_log_says_a_thing_once_a_second_and_how_often_it_kept_quiet(caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog()
    with caplog.at_level(logging.INFO, "qenex.p2p"):
        for step in range(100):
            log.write(logging.INFO, "refused", "10.0.0.1", step / 100, {"why": "x"})
        log.write(logging.INFO, "refused", "10.0.0.2", 0.5, {"why": "x"})
        log.write(logging.INFO, "refused", "10.0.0.1", 1.5, {"why": "x"})
    assert [(record.message, getattr(record, LOG_FIELDS)) for record in caplog.records] == [
        ("refused", {"subject": "10.0.0.1", "why": "x"}),
        ("refused", {"subject": "10.0.0.2", "why": "x"}),
        ("refused", {"subject": "10.0.0.1", "why": "x", "left_out": 99}),
    ]


def test_the_logs_memory_is_bounded() -> None:
    log = QuietLog(logging.getLogger("qenex.p2p.test-silent"))
    for number in range(limits.LOG_SUBJECTS_MAX * 3):
        log.write(logging.DEBUG, "refused", str(number), 0.0, {})
    assert len(log._last) <= limits.LOG_SUBJECTS_MAX


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:x", "host:70000", "::1:1", "h" * 300 + ":1", "h:²"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Rejected, match="address_invalid"):
        split_address(address)


def test_addresses_split_and_join() -> None:
    for address, parts in [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]:9", ("::1", 9)),
        ("a.example:1", ("a.example", 1)),
    ]:
        assert split_address(address) == parts
        assert join_address(*parts) == address
