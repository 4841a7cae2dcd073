"""What the mempool promises: order, bounds, expiry by block time, and a named reason for everything that waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qenex_node.mempool import Acknowledgements, Added, Known, Mempool, MempoolLimits
from state.errors import Rejected
from state.hashing import sha256
from state.limits import TRANSACTION_BYTES_MAX
from state.transaction import Transaction
from state.types import Address, Amount, TimeMs, TxId, WireHash

LATE = 10_000_000


def address(name: str) -> Address:
    return Address(sha256(name.encode()))


def tx(
    sender: str, sequence: int, lane: int = 0, *, not_after: int = LATE, mark: str = "", size: int = 200
) -> Transaction:
    identity = f"{sender}/{lane}/{sequence}/{mark}".encode()
    return Transaction(
        chain_id="test",
        sender=address(sender),
        lane=lane,
        sequence=sequence,
        not_after_ms=TimeMs(not_after),
        payer=None,
        fee_max=Amount(0),
        operations=(),
        memo=b"",
        authorisations=(),
        wire=bytes(size),
        wire_hash=WireHash(sha256(b"wire" + identity)),
        id=TxId(sha256(b"id" + identity)),
        signing_bytes=b"",
    )


class State:
    """The committed sequences that the mempool asks for; absent accounts stand at 0."""

    def __init__(self) -> None:
        self.sequences: dict[tuple[Address, int], int] = {}

    def next(self, sender: Address, lane: int) -> int:
        return self.sequences.get((sender, lane), 0)

    def commit(self, pool: Mempool, transactions: list[Transaction], time_ms: int) -> Any:
        for item in transactions:
            self.sequences[item.sender, item.lane] = item.sequence + 1
        return pool.committed(transactions, time_ms)


def pool(**bounds: int) -> tuple[Mempool, State]:
    state = State()
    return Mempool(MempoolLimits(**bounds), state.next), state


def rejected(code: str, mempool: Mempool, item: Transaction, now_ms: int = 1) -> Rejected:
    with pytest.raises(Rejected) as caught:
        mempool.add(item, now_ms)
    assert caught.value.code == code
    return caught.value


def test_candidates_come_in_arrival_order_across_accounts() -> None:
    mempool, _ = pool()
    arrivals = [tx("b", 0), tx("a", 0), tx("c", 0), tx("a", 1), tx("b", 1)]
    for item in arrivals:
        mempool.add(item, 1)
    assert list(mempool.candidates()) == arrivals


def test_a_lane_keeps_its_order_whatever_order_it_arrives_in() -> None:
    mempool, _ = pool()
    second, other, first = tx("a", 1), tx("b", 0), tx("a", 0)
    for item in (second, other, first):
        mempool.add(item, 1)
    assert list(mempool.candidates()) == [other, first, second]


def test_a_gap_stalls_nobody_else_and_names_the_missing_number() -> None:
    mempool, _ = pool()
    stuck, lane, other = tx("a", 2), tx("a", 0, lane=1), tx("b", 0)
    outcomes = [mempool.add(item, 1) for item in (tx("a", 0), stuck, lane, other)]
    assert [outcome.ready for outcome in outcomes if isinstance(outcome, Added)] == [True, False, True, True]
    assert stuck not in list(mempool.candidates())
    reason = mempool.waiting_reason(stuck.id)
    assert reason is not None
    assert (reason.code, reason.data["missing"]) == ("sequence_gap", 1)
    ready = mempool.waiting_reason(other.id)
    assert ready is not None
    assert ready.code == "next_block"
    assert mempool.next_free(address("a"), 0) == 1


def test_candidates_are_not_disturbed_by_later_changes() -> None:
    mempool, state = pool()
    items = [tx("a", number) for number in range(5)]
    for item in items:
        mempool.add(item, 1)
    reading = mempool.candidates()
    next(reading)
    state.commit(mempool, items[:3], 2)
    mempool.add(tx("b", 0), 2)
    assert list(reading) == items[1:]


def test_a_known_id_is_answered_also_under_another_wire_form() -> None:
    mempool, _ = pool()
    first = tx("a", 0)
    added = mempool.add(first, 1)
    again = tx("a", 0)
    again.wire_hash = WireHash(sha256(b"another signature"))
    answer = mempool.add(again, 2)
    assert isinstance(answer, Known)
    assert isinstance(added, Added)
    assert answer.entry is added.entry
    assert len(mempool) == 1


def test_the_first_holder_of_a_sequence_stays() -> None:
    mempool, _ = pool()
    first = tx("a", 0)
    mempool.add(first, 1)
    error = rejected("sequence_taken", mempool, tx("a", 0, mark="other"))
    assert error.data["id"] == "0x" + first.id.hex()
    assert list(mempool.candidates()) == [first]


def test_a_used_sequence_is_refused_with_the_next_one() -> None:
    mempool, state = pool()
    state.sequences[address("a"), 0] = 7
    mempool.add(tx("a", 7), 1)
    assert rejected("sequence_used", mempool, tx("a", 6)).data["next"] == 8


def test_a_lane_runs_only_a_bounded_number_ahead_of_its_gap() -> None:
    mempool, _ = pool(sequence_ahead_max=3)
    mempool.add(tx("a", 3), 1)
    rejected("sequence_too_far", mempool, tx("a", 4))
    mempool.add(tx("a", 0), 1)
    mempool.add(tx("a", 4), 1)


def test_an_account_is_bounded_in_count_over_all_its_lanes() -> None:
    mempool, state = pool(account_count_max=2)
    first = tx("a", 0)
    mempool.add(first, 1)
    mempool.add(tx("a", 0, lane=5), 1)
    rejected("account_limit", mempool, tx("a", 1))
    mempool.add(tx("b", 0), 1)
    state.commit(mempool, [first], 2)
    mempool.add(tx("a", 1), 2)


def test_an_account_is_bounded_in_bytes() -> None:
    mempool, _ = pool(account_bytes_max=TRANSACTION_BYTES_MAX)
    mempool.add(tx("a", 0, size=TRANSACTION_BYTES_MAX - 100), 1)
    rejected("account_limit", mempool, tx("a", 1, size=101))
    mempool.add(tx("a", 1, size=100), 1)


@pytest.mark.parametrize("bounds", [{"count_max": 2}, {"bytes_max": TRANSACTION_BYTES_MAX}])
def test_a_full_mempool_refuses_the_new_and_keeps_the_accepted(bounds: dict[str, int]) -> None:
    mempool, _ = pool(**bounds)
    held = [tx("a", 0, size=TRANSACTION_BYTES_MAX // 2), tx("b", 0, size=TRANSACTION_BYTES_MAX // 2)]
    for item in held:
        mempool.add(item, 1)
    rejected("mempool_full", mempool, tx("c", 0))
    assert list(mempool.candidates()) == held


def test_expired_is_said_only_once_a_block_is_later_than_the_deadline() -> None:
    mempool, state = pool()
    item = tx("a", 0, not_after=100)
    mempool.add(item, 50)
    mempool.advance(101)
    reason = mempool.waiting_reason(item.id)
    assert reason is not None
    assert reason.code == "deadline_passed"
    assert not mempool.has_work()
    assert mempool.get(item.wire_hash) is item
    assert state.commit(mempool, [], 100).expired == ()
    assert mempool.by_id(item.id) is not None
    removed = state.commit(mempool, [], 101)
    assert [entry.tx for entry in removed.expired] == [item]
    assert mempool.by_id(item.id) is None
    gone = mempool.gone(item.id)
    assert gone is not None
    assert gone.code == "expired"


def test_an_overdue_transaction_may_still_be_committed_by_an_older_block() -> None:
    mempool, state = pool()
    item = tx("a", 0, not_after=100)
    mempool.add(item, 50)
    mempool.advance(200)
    assert [entry.tx for entry in state.commit(mempool, [item], 90).committed] == [item]
    assert len(mempool) == 0


def test_an_overdue_transaction_frees_its_sequence_so_that_an_idle_lane_is_not_stuck() -> None:
    mempool, _ = pool()
    mempool.add(tx("a", 0, not_after=100), 50)
    follower = tx("a", 1)
    mempool.add(follower, 50)
    mempool.advance(101)
    reason = mempool.waiting_reason(follower.id)
    assert reason is not None
    assert (reason.code, reason.data["missing"]) == ("sequence_gap", 0)
    replacement = tx("a", 0, mark="again")
    mempool.add(replacement, 102)
    assert list(mempool.candidates()) == [replacement, follower]


def test_a_mempool_full_of_overdue_transactions_takes_new_ones_without_a_block() -> None:
    mempool, _ = pool(count_max=2, account_count_max=2)
    old = [tx("a", number, not_after=100) for number in range(2)]
    for item in old:
        mempool.add(item, 50)
    mempool.advance(101)
    new = tx("a", 0, mark="new")
    mempool.add(new, 102)
    assert list(mempool.candidates()) == [new]
    gone = mempool.gone(old[0].id)
    assert gone is not None
    assert (gone.code, gone.not_after_ms) == ("deadline_passed", 100)


def test_a_passed_deadline_is_refused_by_our_clock_and_by_block_time() -> None:
    mempool, state = pool()
    rejected("expired", mempool, tx("a", 0, not_after=99), now_ms=100)
    state.commit(mempool, [], 500)
    rejected("expired", mempool, tx("a", 0, not_after=400), now_ms=100)


def test_a_commit_removes_what_it_holds_and_what_lost_its_sequence() -> None:
    mempool, state = pool()
    held, loser, follower = tx("a", 0), tx("a", 1), tx("a", 2)
    for item in (held, loser, follower):
        mempool.add(item, 1)
    removed = state.commit(mempool, [held, tx("a", 1, mark="winner")], 2)
    assert [entry.tx for entry in removed.committed] == [held]
    assert [entry.tx for entry in removed.stale] == [loser]
    assert list(mempool.candidates()) == [follower]
    gone = mempool.gone(loser.id)
    assert gone is not None
    assert gone.code == "sequence_used"


def test_a_commit_of_unknown_transactions_closes_a_gap() -> None:
    mempool, state = pool()
    waiting = tx("a", 2)
    mempool.add(waiting, 1)
    state.commit(mempool, [tx("a", 0), tx("a", 1)], 2)
    assert list(mempool.candidates()) == [waiting]


def test_dropping_one_makes_its_followers_wait_for_that_sequence() -> None:
    mempool, _ = pool()
    items = [tx("a", number) for number in range(3)]
    for item in items:
        mempool.add(item, 1)
    assert mempool.drop(items[0].id, "not_authorised", "the key was rotated away") is not None
    assert not mempool.has_work()
    reason = mempool.waiting_reason(items[2].id)
    assert reason is not None
    assert (reason.code, reason.data["missing"]) == ("sequence_gap", 0)
    gone = mempool.gone(items[0].id)
    assert gone is not None
    assert gone.code == "not_authorised"


def test_the_oldest_is_the_one_ready_longest() -> None:
    mempool, _ = pool()
    mempool.add(tx("a", 1), 1)
    first = tx("b", 0)
    mempool.add(first, 5)
    mempool.add(tx("a", 0), 9)
    oldest = mempool.oldest()
    assert oldest is not None
    assert (oldest.tx, oldest.ready_ms) == (first, 5)
    assert mempool.place(tx("a", 1).id) == 2


def test_the_memory_of_what_is_gone_is_bounded() -> None:
    mempool, state = pool(gone_max=3)
    items = [tx(str(number), 0, not_after=100) for number in range(5)]
    for item in items:
        mempool.add(item, 1)
    state.commit(mempool, [], 101)
    assert [mempool.gone(item.id) is None for item in items] == [True, True, False, False, False]


def test_acknowledgements_count_distinct_validators_of_followed_ids_only() -> None:
    acknowledgements = Acknowledgements(2)
    a, b, c = (TxId(sha256(name)) for name in (b"a", b"b", b"c"))
    assert acknowledgements.acknowledged(a, 1) == 0
    acknowledgements.follow(a)
    assert [acknowledgements.acknowledged(a, index) for index in (1, 1, 3)] == [1, 1, 2]
    acknowledgements.follow(b)
    acknowledgements.follow(c)
    assert (acknowledgements.count(a), len(acknowledgements)) == (0, 2)
    acknowledgements.forget([b, c])
    assert len(acknowledgements) == 0


def test_acknowledgements_count_by_the_validators_in_force() -> None:
    acknowledgements = Acknowledgements(2)
    a = TxId(sha256(b"a"))
    acknowledgements.follow(a)
    for index in (0, 2, 3):
        acknowledgements.acknowledged(a, index)
    # Validator 0 leaves; those after it move up.
    acknowledgements.renumber({1: 0, 2: 1, 3: 2})
    assert acknowledgements.count(a) == 2
    assert [acknowledgements.acknowledged(a, index) for index in (1, 2, 0)] == [2, 2, 3]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 1), st.integers(1, 40)),
        st.tuples(st.just("commit"), st.integers(0, 4), st.integers(0, 3)),
        st.tuples(st.just("foreign"), st.sampled_from("ab"), st.integers(0, 1)),
        st.tuples(st.just("advance"), st.integers(0, 6)),
        st.tuples(st.just("drop"), st.integers(0, 10)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_ready_lanes_are_gapless_and_the_books_balance(steps: list[Any]) -> None:
    mempool, state = pool(count_max=12, account_count_max=8, sequence_ahead_max=4)
    now = 0
    for step in steps:
        if step[0] == "add":
            _, sender, sequence, lane, ttl = step
            try:
                mempool.add(tx(sender, sequence, lane, not_after=now + ttl, mark=str(ttl)), now)
            except Rejected:
                pass
        elif step[0] == "commit":
            now += step[2]
            state.commit(mempool, list(mempool.candidates(step[1])), now)
        elif step[0] == "foreign":
            sequence = state.next(address(step[1]), step[2])
            state.commit(mempool, [tx(step[1], sequence, step[2], mark="foreign")], now)
        elif step[0] == "advance":
            now += step[1]
            mempool.advance(now)
        else:
            mempool.drop(next((item.id for item in list(mempool.candidates())[step[1] :]), TxId(b"")), "test", "")
        check_books(mempool, state)


def check_books(mempool: Mempool, state: State) -> None:
    ready = list(mempool.candidates())
    expected = dict(state.sequences)
    for item in ready:
        place = (item.sender, item.lane)
        assert item.sequence == expected.get(place, 0)
        expected[place] = item.sequence + 1
    for place, following in expected.items():
        assert mempool.next_free(*place) == following
    entries = list(mempool._by_wire.values())
    stats = mempool.stats()
    assert stats.count == stats.ready + stats.gap + stats.overdue == len(mempool._by_id)
    assert stats.bytes == sum(len(entry.tx.wire) for entry in entries)
    assert sum(use.count for use in mempool._uses.values()) == stats.count - stats.overdue
    assert sum(map(len, mempool._deadlines.values())) == stats.count - stats.overdue
    assert sum(len(lane.slots) for lane in mempool._lanes.values()) == stats.count - stats.overdue
    for entry in entries:
        reason = mempool.waiting_reason(entry.tx.id)
        assert reason is not None
        assert (reason.code == "next_block") == (entry.tx in ready)
