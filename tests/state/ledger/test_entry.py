"""What may enter a block, as the mempool asks before and the block's rules ask again."""

import pytest

from state.errors import Rejected
from state.limits import NOT_AFTER_AHEAD_MS_MAX
from state.transaction import decode_for_simulation, decode_transaction
from tests.state.ledger.world import World, key, pay

ANN, BOB, CEM = key(1), key(2), key(3)


def world(**kwargs):
    return World({ANN.address: {"QNX": 1000}}, **kwargs)


def admit(w, tx, now_ms=None):
    return w.ledger.admission(w.executor.state, tx, w.head.time_ms if now_ms is None else now_ms)


def code_of(call):
    with pytest.raises(Rejected) as caught:
        call()
    return caught.value.code


def test_admission_tells_the_next_sequence_of_the_lane():
    w = world()
    later = w.tx(ANN, pay(BOB.address, 1), sequence=7)
    assert (admit(w, later).next_sequence, admit(w, later).units) == (0, 2)
    w.block(w.tx(ANN, pay(BOB.address, 1)))
    assert admit(w, later).next_sequence == 1


def test_a_transaction_enters_only_once():
    w = world()
    tx = w.tx(ANN, pay(BOB.address, 1))
    w.block(tx)
    assert code_of(lambda: admit(w, tx)) == "sequence_used"
    assert w.build(tx) is None
    executed = w.build(*[w.tx(ANN, pay(BOB.address, 1))] * 2)
    assert len(executed.transactions) == 1


def test_lanes_are_independent():
    w = world()
    by_lane = [w.tx(ANN, pay(BOB.address, 1), lane=lane) for lane in (15, 3, 0)]
    gap = w.tx(ANN, pay(BOB.address, 1), lane=5, sequence=1)
    after_gap = w.tx(ANN, pay(BOB.address, 1), lane=3)
    executed = w.build(gap, *by_lane, after_gap)
    assert [tx.id for tx in executed.transactions] == [tx.id for tx in (*by_lane, after_gap)]
    w.commit(executed)
    assert w.ledger.query(w, "account_lanes", {"address": text(ANN)})["lanes"] == [1, 0, 0, 2, *[0] * 11, 1]


def text(who):
    from state.address import to_text

    return to_text(who.address)


@pytest.mark.parametrize(("offset", "enters"), [(-1, False), (0, True), (NOT_AFTER_AHEAD_MS_MAX, True)])
def test_the_deadline_is_compared_with_the_blocks_time(offset, enters):
    w = world()
    time = w.head.time_ms + 500
    tx = w.tx(ANN, pay(BOB.address, 1), not_after_ms=time + offset)
    assert (w.build(tx, time_ms=time) is not None) == enters


def test_deadlines_past_and_too_far_have_their_codes():
    w = world()
    past = w.tx(ANN, pay(BOB.address, 1), not_after_ms=w.head.time_ms - 1)
    far = w.tx(ANN, pay(BOB.address, 1), not_after_ms=w.head.time_ms + NOT_AFTER_AHEAD_MS_MAX + 1)
    assert code_of(lambda: admit(w, past)) == "expired"
    assert code_of(lambda: admit(w, far)) == "deadline_too_far"
    assert w.build(past, far) is None


def test_who_cannot_pay_the_fee_does_not_enter():
    w = world(price=lambda units: 100 * units)
    low = w.tx(ANN, pay(BOB.address, 1), fee_max=199)
    poor = w.tx(BOB, pay(ANN.address, 1), fee_max=10**6)
    assert code_of(lambda: admit(w, low)) == "fee_too_low"
    assert code_of(lambda: admit(w, poor)) == "fee_unaffordable"
    assert w.build(low, poor) is None
    assert w.codes(w.tx(ANN, pay(BOB.address, 1), fee_max=200, sequence=0)) == ["ok"]


def test_the_builder_says_why_it_left_a_transaction_out():
    w = world()
    reasons = []
    gap = w.tx(ANN, pay(BOB.address, 1), sequence=5)
    work = w.executor.build(
        w.head.time_ms + 1, [gap], bytes(32), lambda: False, lambda tx, error: reasons.append((tx.id, error.code))
    )
    assert list(work) == []
    assert reasons == [(gap.id, "sequence_gap")]


def test_a_simulation_shows_the_receipt_and_changes_nothing():
    from state.ledger import Environment

    w = world()
    now = Environment(w.head.height + 1, w.head.time_ms + 1)
    before = dict(w.state)
    signed = w.tx(ANN, pay(BOB.address, 400))
    assert w.ledger.simulate(w.executor.state, now, signed).code == "ok"
    unsigned = decode_for_simulation(w.wire(ANN.address, pay(BOB.address, 4000), sequence=9), w.context)
    assert w.ledger.simulate(w.executor.state, now, unsigned).code == "balance_insufficient"
    for_two = w.wire(ANN.address, pay(ANN.address, 1, source=BOB.address), pay(BOB.address, 5), sequence=9)
    assert w.ledger.simulate(w, now, decode_for_simulation(for_two, w.context)).code == "balance_insufficient"
    assert code_of(lambda: decode_transaction(for_two, w.context)) == "not_authorised"
    assert (dict(w.state), w.available(ANN.address)) == (before, 1000)
