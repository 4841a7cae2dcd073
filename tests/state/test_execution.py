"""Blocks: what may enter one, what it leaves behind, and by which rule a bad one is refused."""

from tests.state.ledger.world import World, key, pay

ANN, BOB, CEM = key(1), key(2), key(3)


def world(**kwargs):
    return World({ANN.address: {"QNX": 1000}, BOB.address: {"QNX": 500}}, **kwargs)


def test_a_transfer_changes_two_balances_and_the_senders_sequence():
    w = world()
    (receipt,) = w.block(w.tx(ANN, pay(CEM.address, 300)))
    assert receipt.code == "ok"
    assert (w.available(ANN.address), w.available(CEM.address)) == (700, 300)
    assert w.ledger.read_account(w, ANN.address).lanes == (1,)
