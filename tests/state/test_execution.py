"""Blocks: what may enter one, what it leaves behind, and by which rule a bad one is refused."""

from dataclasses import replace

import pytest

from state import rfc6962, slices
from state.block import Block
from state.errors import InvariantError, Rejected
from state.execution import Executor
from state.hashing import sha256
from state.ledger import Environment
from state.ledger.account import account_key
from state.tree.hashes import root_of
from tests.state.ledger.world import PROPOSER, World, key, pay, pay_all

ANN, BOB, CEM = key(1), key(2), key(3)
OTHER = sha256(b"another hash")


def world(**kwargs):
    return World({ANN.address: {"QNX": 1000}, BOB.address: {"QNX": 500}}, **kwargs)


def rule_of(w, header, transactions):
    with pytest.raises(Rejected) as caught:
        slices.run(w.executor.execute(header, transactions))
    assert caught.value.code == "block_invalid"
    return caught.value.data["rule"]


def test_a_transfer_changes_two_balances_and_the_senders_sequence():
    w = world()
    (receipt,) = w.block(w.tx(ANN, pay(CEM.address, 300)))
    assert receipt.code == "ok"
    assert (w.available(ANN.address), w.available(CEM.address)) == (700, 300)
    assert w.ledger.read_account(w, ANN.address).lanes == (1,)


def test_a_block_commits_to_its_content_and_to_the_state_after_it():
    w = world()
    transactions = [w.tx(ANN, pay(CEM.address, 300)), w.tx(BOB, pay(CEM.address, 3000))]
    executed = w.build(*transactions)
    header = executed.block.header
    assert (header.height, header.parent_hash, header.proposer) == (1, w.head.hash, PROPOSER)
    assert header.tx_root == rfc6962.root([tx.wire_hash for tx in transactions])
    assert header.receipts_root == rfc6962.root([receipt.encode() for receipt in executed.receipts])
    assert header.units_used == sum(receipt.units for receipt in executed.receipts) == 4
    w.commit(executed)
    assert header.state_root == root_of(w.state)
    again = Block.decode(executed.block.encoded)
    assert again == executed.block
    assert again.wire_hashes == executed.block.wire_hashes


def test_a_block_lists_the_accounts_that_each_transaction_touched():
    w = world()
    executed = w.build(
        w.tx(ANN, pay_all([(CEM.address, 1), (BOB.address, 2)])),
        w.tx(ANN, pay(BOB.address, 10**6)),
        w.tx(ANN, pay(CEM.address, 1, source=BOB.address), signers=[BOB]),
    )
    assert executed.touched[0] == (ANN.address, CEM.address, BOB.address)
    assert executed.touched[1] == (ANN.address,)
    assert set(executed.touched[2]) == {ANN.address, BOB.address, CEM.address}


def test_nothing_to_propose_is_no_block():
    w = world()
    assert w.build() is None
    assert w.build(w.tx(CEM, pay(ANN.address, 1), sequence=3)) is None


def test_a_block_is_later_than_its_parent_whatever_the_clock_says():
    w = world()
    executed = w.build(w.tx(ANN, pay(CEM.address, 1)), time_ms=w.head.time_ms - 5000)
    assert executed.block.header.time_ms == w.head.time_ms + 1


def test_building_stops_when_its_time_is_over():
    w = world()
    transactions = [w.tx(ANN, pay(CEM.address, 1)) for _ in range(10)]
    asked = iter([False] * 3 + [True] * 10)
    executed = slices.run(w.executor.build(w.head.time_ms + 1, transactions, PROPOSER, lambda: next(asked)))
    assert len(executed.transactions) == 3


def test_a_block_takes_no_more_bytes_than_the_chain_allows():
    w = world(block_bytes_max=128 * 1024)
    transactions = [w.tx(ANN, pay_all([(CEM.address, 1)] * 700)) for _ in range(6)]
    executed = w.build(*transactions)
    size = len(transactions[0].wire)
    assert len(executed.transactions) == 128 * 1024 // size
    assert rule_of(w, executed.block.header, transactions) == "bytes"


def test_a_block_takes_no_more_units_than_the_chain_allows():
    w = world(block_units_max=4096)
    transactions = [w.tx(ANN, pay_all([(CEM.address, 1)] * 1023)) for _ in range(6)]
    executed = w.build(*transactions)
    assert executed.block.header.units_used == 4096
    assert rule_of(w, executed.block.header, transactions) == "units"


def test_what_is_too_big_for_the_rest_of_a_block_is_passed_over():
    w = world(block_units_max=4096)
    big = [w.tx(ANN, pay_all([(CEM.address, 1)] * 1000), lane=1) for _ in range(6)]
    small = w.tx(BOB, pay(CEM.address, 1))
    executed = w.build(*big, small)
    assert [tx.id for tx in executed.transactions] == [tx.id for tx in (*big[:4], small)]


CHANGES = [
    ("version", {"version": 2}),
    ("chain", {"chain_id": "test-2"}),
    ("height", {"height": 2}),
    ("parent", {"parent_hash": OTHER}),
    ("validators", {"validators_hash": OTHER}),
    ("next_validators", {"next_validators_hash": OTHER}),
    ("evidence", {"evidence_hash": OTHER}),
    ("tx_root", {"tx_root": OTHER}),
    ("receipts_root", {"receipts_root": OTHER}),
    ("state_root", {"state_root": OTHER}),
    ("units_used", {"units_used": 3}),
]


@pytest.mark.parametrize(("rule", "change"), CHANGES, ids=[rule for rule, _ in CHANGES])
def test_a_header_that_says_something_else_is_refused_by_its_rule(rule, change):
    w = world()
    executed = w.build(w.tx(ANN, pay(CEM.address, 1)))
    assert rule_of(w, replace(executed.block.header, **change), executed.transactions) == rule


def test_a_block_not_later_than_its_parent_is_refused():
    w = world()
    executed = w.build(w.tx(ANN, pay(CEM.address, 1)))
    assert rule_of(w, replace(executed.block.header, time_ms=w.head.time_ms), executed.transactions) == "time"


def test_a_block_far_ahead_of_any_clock_is_not_refused_here():
    w = world()
    ahead = w.head.time_ms + 30 * 24 * 3600 * 1000
    executed = w.build(w.tx(ANN, pay(CEM.address, 1), not_after_ms=ahead + 5), time_ms=ahead)
    slices.run(w.executor.execute(executed.block.header, executed.transactions))


def bad_transactions(w):
    yield "empty", ()
    good = w.tx(ANN, pay(CEM.address, 1), sequence=0)
    yield "sequence", (good, good)
    yield "sequence", (w.tx(ANN, pay(CEM.address, 1), sequence=1),)
    yield "deadline", (w.tx(ANN, pay(CEM.address, 1), sequence=0, not_after_ms=w.head.time_ms),)
    yield "authorisation", (w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [BOB]}, sequence=0),)
    from state.transaction import Operation

    yield "operation", (w.tx(ANN, Operation("teleport", 1, ()), sequence=0),)


@pytest.mark.parametrize("number", range(6))
def test_a_block_with_a_transaction_that_may_not_enter_is_refused_by_its_rule(number):
    w = world()
    header = w.build(w.tx(BOB, pay(CEM.address, 1))).block.header
    rule, transactions = list(bad_transactions(w))[number]
    assert rule_of(w, header, transactions) == rule


def test_a_fee_that_cannot_be_paid_breaks_the_rule_fee():
    free, priced = world(), world(price=lambda units: 10**6)
    executed = free.build(free.tx(ANN, pay(CEM.address, 1)))
    assert rule_of(priced, executed.block.header, executed.transactions) == "fee"


def test_a_refused_block_does_not_spoil_the_next_execution():
    w = world()
    good = w.build(w.tx(ANN, pay(CEM.address, 1)))
    bad = [w.tx(BOB, pay(CEM.address, 500), sequence=0), w.tx(BOB, pay(CEM.address, 500), sequence=0)]
    assert rule_of(w, good.block.header, bad) == "sequence"
    again = slices.run(w.executor.execute(good.block.header, good.transactions))
    assert again.changes == good.changes


def test_several_blocks_may_be_executed_for_one_height_and_one_committed():
    w = world()
    first, second = w.build(w.tx(ANN, pay(CEM.address, 900))), w.build(w.tx(BOB, pay(CEM.address, 5)))
    w.commit(second)
    assert (w.available(ANN.address), w.available(BOB.address)) == (1000, 495)
    assert w.executor.state.account(ANN.address).balances == {"QNX": (1000, 0)}
    assert rule_of(w, first.block.header, first.transactions) == "height"


def test_a_commit_under_a_running_execution_breaks_it_off():
    w = world()
    transactions = [w.tx(ANN, pay(CEM.address, 1)) for _ in range(200)]
    executed = w.build(*transactions)
    work = w.executor.execute(executed.block.header, executed.transactions)
    next(work)
    w.commit(w.build(w.tx(BOB, pay(CEM.address, 5))))
    with pytest.raises(Rejected) as caught:
        slices.run(work)
    assert caught.value.code == "superseded"


def test_a_commit_under_a_running_build_leaves_nothing_to_propose():
    w = world()
    work = w.executor.build(
        w.head.time_ms + 1, [w.tx(ANN, pay(CEM.address, 1)) for _ in range(200)], PROPOSER, lambda: False
    )
    next(work)
    w.commit(w.build(w.tx(BOB, pay(CEM.address, 5))))
    assert slices.run(work) is None


def test_caches_follow_a_head_that_changed_by_other_means():
    w = world()
    assert w.executor.state.account(ANN.address).balances == {"QNX": (1000, 0)}
    other = Executor(w.ledger, w.context, w)
    mine, w.executor = w.executor, other
    w.commit(w.build(w.tx(ANN, pay(CEM.address, 400))))
    assert mine.state.account(ANN.address).balances == {"QNX": (600, 0)}


def test_a_block_called_committed_must_be_the_head():
    w = world()
    executed = w.build(w.tx(ANN, pay(CEM.address, 1)))
    with pytest.raises(InvariantError):
        w.executor.committed(executed)


def test_the_account_cache_is_bounded_and_drops_what_was_used_longest_ago():
    people = [key(n) for n in range(20)]
    w = World({who.address: {"QNX": 10} for who in people}, accounts_cached=5)
    cache = w.executor.state
    for who in people[:5]:
        cache.account(who.address)
    cache.account(people[0].address)
    cache.account(people[6].address)
    assert len(cache) == 5
    record = w.state.pop(account_key(people[0].address))
    assert cache.account(people[0].address) is not None
    w.state[account_key(people[0].address)] = record
    w.block(*[w.tx(who, pay(people[0].address, 1)) for who in people[1:]])
    assert len(cache) == 5


def test_a_record_that_goes_leaves_the_cache_too():
    w = world()
    w.block(w.tx(ANN, pay(CEM.address, 7)))
    assert w.executor.state.account(CEM.address) is not None
    w.block(w.tx(ANN, pay(ANN.address, 7, source=CEM.address), signers=[CEM]))
    assert w.executor.state.account(CEM.address) is None


def test_an_account_that_is_not_changed_is_not_written():
    w = world()
    executed = w.build(w.tx(ANN, pay(BOB.address, 10), pay(ANN.address, 10, source=BOB.address), signers=[BOB]))
    assert executed.receipts[0].ok
    assert set(executed.changes) == {account_key(ANN.address)}


def slices_of(work):
    count = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return count, end.value
        count += 1


def test_long_work_pauses_at_least_once_for_each_128_units():
    w = world()
    transactions = [w.tx(ANN, pay(CEM.address, 1)) for _ in range(1000)]
    count, executed = slices_of(w.executor.build(w.head.time_ms + 1, transactions, PROPOSER, lambda: False))
    assert len(executed.transactions) == 1000
    assert count >= executed.block.header.units_used // 128


def test_a_heavy_transaction_pauses_after_each_of_its_operations():
    w = world()
    heavy = w.tx(ANN, *[pay_all([(CEM.address, 1)] * 128)] * 7)
    run = w.ledger.begin_block(w.executor.state, Environment(1, w.head.time_ms + 1))
    count, receipt = slices_of(run.apply_in_slices(heavy))
    assert (count, receipt.code) == (7, "ok")


def test_a_heavy_transaction_that_fails_late_is_undone_whole():
    w = world()
    heavy = w.tx(ANN, *[pay_all([(CEM.address, 1)] * 128)] * 8)
    assert w.codes(heavy) == ["balance_insufficient"]
    assert (w.available(ANN.address), w.available(CEM.address)) == (1000, 0)
