"""Payments: who is debited and credited, who must have authorised, and what a failure leaves behind."""

import pytest

from state.errors import Rejected
from state.keys import ML_DSA_65, ML_DSA_87
from state.ledger import FEE_POOL
from state.ledger.account import account_key
from state.transaction import Operation, decode_transaction
from tests.state.ledger.world import World, key, pay, pay_all

ANN, BOB, CEM, DAN = key(1), key(2), key(3), key(4)


def world(**kwargs):
    return World(
        {ANN.address: {"EUR": 50, "QNX": 1000}, BOB.address: {"QNX": 500}}, [("EUR", ANN.address, 0)], **kwargs
    )


def test_one_transfer_pays_many():
    w = world()
    (receipt,) = w.block(w.tx(ANN, pay_all([(BOB.address, 1), (CEM.address, 2), (BOB.address, 3)])))
    assert [event.kind for event in receipt.events] == ["moved"] * 3
    assert receipt.units == 1 + 3
    assert (w.available(ANN.address), w.available(BOB.address), w.available(CEM.address)) == (994, 504, 2)


def test_paying_oneself_changes_no_balance():
    w = world()
    assert w.codes(w.tx(ANN, pay(ANN.address, 1000))) == ["ok"]
    assert w.available(ANN.address) == 1000
    assert w.codes(w.tx(ANN, pay(ANN.address, 1001))) == ["balance_insufficient"]


def test_an_account_that_pays_its_last_unit_keeps_its_sequence():
    w = world()
    w.block(w.tx(BOB, pay(CEM.address, 500)))
    account = w.ledger.read_account(w, BOB.address)
    assert account.balances == {}
    assert account.lanes == (1,)


def test_a_failed_payment_changes_nothing_but_the_sequence():
    w = world()
    before = dict(w.state)
    (receipt,) = w.block(w.tx(ANN, pay(BOB.address, 10), pay(CEM.address, 5000)))
    assert (receipt.code, receipt.events) == ("balance_insufficient", ())
    changed = {k for k in w.state.keys() | before.keys() if w.state.get(k) != before.get(k)}
    assert changed == {account_key(ANN.address)}
    assert w.ledger.read_account(w, ANN.address).lanes == (1,)
    assert w.available(ANN.address) == 1000


def test_operations_see_what_earlier_ones_did():
    w = world()
    first, second = pay(CEM.address, 700), pay(DAN.address, 700, source=CEM.address)
    assert w.codes(w.tx(ANN, first, second, signers=[CEM])) == ["ok"]
    assert (w.available(CEM.address), w.available(DAN.address)) == (0, 700)


def test_an_account_that_is_emptied_without_ever_acting_leaves_no_record():
    w = world()
    w.block(w.tx(ANN, pay(CEM.address, 7)))
    assert account_key(CEM.address) in w.state
    w.block(w.tx(ANN, pay(DAN.address, 7, source=CEM.address), signers=[CEM]))
    assert account_key(CEM.address) not in w.state


def test_two_signers_swap_or_neither_does():
    w = world()
    legs = pay(BOB.address, 50, "EUR"), pay(ANN.address, 200, source=BOB.address)
    assert w.codes(w.tx(ANN, *legs, signers=[BOB])) == ["ok"]
    assert (w.available(BOB.address, "EUR"), w.available(ANN.address)) == (50, 1200)
    too_much = pay(ANN.address, 50, "EUR", source=BOB.address), pay(BOB.address, 5000)
    assert w.codes(w.tx(ANN, *too_much, signers=[BOB])) == ["balance_insufficient"]
    assert w.available(BOB.address, "EUR") == 50


def test_another_account_is_debited_only_if_it_authorised():
    w = world()
    assert w.codes(w.tx(ANN, pay(ANN.address, 500, source=BOB.address))) == ["not_authorised"]
    forged = {ANN.address: [ANN], BOB.address: [CEM]}
    assert w.codes(w.tx(ANN.address, pay(ANN.address, 500, source=BOB.address), sequence=1, keys=forged)) == [
        "not_authorised"
    ]
    assert w.available(BOB.address) == 500


@pytest.mark.parametrize("scheme", [ML_DSA_65, ML_DSA_87])
def test_a_post_quantum_account_pays(scheme):
    quantum = key(7, scheme)
    w = World({quantum.address: {"QNX": 10}})
    assert w.codes(w.tx(quantum, pay(BOB.address, 4))) == ["ok"]
    assert w.available(BOB.address) == 4


def test_the_payer_pays_the_fee_and_the_sender_the_payment():
    w = world(price=lambda units: 3 * units)
    (receipt,) = w.block(w.tx(ANN, pay(CEM.address, 100), signers=[BOB], payer=BOB.address, fee_max=9))
    assert (receipt.code, receipt.fee, receipt.units) == ("ok", 9, 3)
    assert (w.available(ANN.address), w.available(BOB.address), w.available(FEE_POOL)) == (900, 491, 9)


def test_a_failed_transaction_pays_its_fee():
    w = world(price=lambda units: 3 * units)
    (receipt,) = w.block(w.tx(ANN, pay(CEM.address, 995), fee_max=6))
    assert (receipt.code, receipt.fee) == ("balance_insufficient", 6)
    assert (w.available(ANN.address), w.available(CEM.address), w.available(FEE_POOL)) == (994, 0, 6)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (Operation("transfer", 1, (None, "QNX", ())), "no recipient"),
        (Operation("transfer", 1, (None, "QNX", ((bytes(32), b""),))), "an amount of zero"),
        (Operation("transfer", 1, (None, "QNX", ((bytes(31), b"\x01"),))), "a short address"),
        (Operation("transfer", 1, (None, "qnx", ((bytes(32), b"\x01"),))), "a code in lower case"),
        (Operation("transfer", 1, (None, "QNX", ((bytes(32), b"\x00\x01"),))), "an amount that is not minimal"),
        (Operation("transfer", 1, (None, "QNX")), "a missing field"),
        (Operation("transfer", 2, (None, "QNX", ((bytes(32), b"\x01"),))), "an unknown version"),
        (Operation("teleport", 1, ()), "an unknown operation"),
    ],
)
def test_a_malformed_operation_never_enters_a_block(operation, why):
    w = world()
    wire = w.wire(ANN, operation)
    with pytest.raises(Rejected) as caught:
        w.ledger.parse(decode_transaction(wire, w.context))
    assert caught.value.code in ("malformed", "operation_unknown", "asset_code_invalid")
    assert w.build(decode_transaction(wire, w.context)) is None


def test_the_widest_transfer_that_fits_stays_below_the_greatest_weight():
    w = world()
    with pytest.raises(Rejected, match="transaction_too_large"):
        w.tx(ANN, *[pay_all([(BOB.address, 1)] * 865)] * 4)
    tx = w.tx(ANN, *[pay_all([(BOB.address, 1)] * 850)] * 4, sequence=0)
    assert w.ledger.parse(tx).units == 1 + 4 * 850
    assert w.codes(tx) == ["balance_insufficient"]
