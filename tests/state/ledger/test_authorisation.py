"""Who may act for an account: from its birth, after its keys were changed, and never anyone else."""

import pytest

from state.address import to_text
from state.errors import Rejected
from state.keys import ML_DSA_65, SCHEMES, Policy
from tests.state.ledger.world import World, key, pay

ANN, BOB, CEM, DAN = key(1), key(2), key(3), key(4)
SHARED = Policy.of(2, (ANN.public, BOB.public, key(9, ML_DSA_65).public))
QUANTUM = key(9, ML_DSA_65)


def policy_json(policy):
    keys = [{"scheme": SCHEMES[k.scheme].name, "key": "0x" + k.data.hex()} for k in policy.keys]
    return {"threshold": policy.threshold, "keys": keys}


def set_policy(w, policy, account=None):
    return w.ledger.build("set_policy", {"account": account and to_text(account), "policy": policy_json(policy)})


def shared_world():
    return World({SHARED.address: {"QNX": 100}, ANN.address: {"QNX": 100}})


def shared_tx(w, signers, policy=SHARED, **kwargs):
    return w.tx(
        SHARED.address,
        pay(CEM.address, 1),
        keys={SHARED.address: signers},
        policies={SHARED.address: policy} if policy else {},
        **kwargs,
    )


@pytest.mark.parametrize("signers", [[ANN, BOB], [BOB, QUANTUM], [ANN, BOB, QUANTUM]])
def test_k_of_n_keys_act_from_birth(signers):
    w = shared_world()
    assert w.codes(shared_tx(w, signers)) == ["ok"]
    assert w.ledger.read_account(w, SHARED.address).policy is None


@pytest.mark.parametrize(
    ("signers", "policy"),
    [
        ([ANN], SHARED),
        ([ANN, CEM], SHARED),
        ([ANN, BOB, CEM], SHARED),
        ([ANN, BOB], None),
        ([ANN], None),
        ([ANN], Policy.single(ANN.public)),
        ([CEM, DAN], Policy.of(2, (CEM.public, DAN.public))),
    ],
)
def test_fewer_or_other_keys_never_bring_a_transaction_into_a_block(signers, policy):
    w = shared_world()
    tx = shared_tx(w, signers, policy)
    assert w.build(tx) is None
    with pytest.raises(Rejected) as caught:
        w.ledger.admission(w, tx, w.head.time_ms)
    assert caught.value.code == "not_authorised"


def test_after_a_rotation_only_the_new_keys_act():
    w = shared_world()
    assert w.codes(w.tx(ANN, set_policy(w, Policy.single(DAN.public)))) == ["ok"]
    old = w.tx(ANN, pay(CEM.address, 1))
    assert w.build(old) is None
    renewed = w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [DAN]}, sequence=1)
    assert w.codes(renewed) == ["ok"]
    with_old_policy = w.tx(
        ANN.address,
        pay(CEM.address, 1),
        keys={ANN.address: [ANN]},
        policies={ANN.address: Policy.single(ANN.public)},
        sequence=2,
    )
    assert w.build(with_old_policy) is None


def test_a_waiting_transaction_of_a_rotated_key_drops_out_of_the_block_being_built():
    w = shared_world()
    rotate = w.tx(ANN, set_policy(w, Policy.single(DAN.public)))
    waiting = w.tx(ANN, pay(CEM.address, 1))
    executed = w.build(rotate, waiting)
    assert [tx.id for tx in executed.transactions] == [rotate.id]


def test_a_rotation_binds_from_the_next_transaction_on():
    w = shared_world()
    assert w.codes(w.tx(ANN, set_policy(w, Policy.single(DAN.public)), pay(CEM.address, 5))) == ["ok"]
    assert w.available(CEM.address) == 5


def test_one_key_becomes_k_of_n_and_the_policy_need_not_travel():
    w = shared_world()
    assert w.codes(w.tx(ANN, set_policy(w, SHARED))) == ["ok"]
    by_two = w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [BOB, QUANTUM]}, sequence=1)
    by_one = w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [ANN]}, sequence=2)
    assert w.codes(by_two) == ["ok"]
    assert w.build(by_one) is None


def test_a_policy_is_set_only_by_its_account():
    w = shared_world()
    assert w.codes(w.tx(ANN, set_policy(w, Policy.single(ANN.public), BOB.address))) == ["not_authorised"]
    assert w.codes(w.tx(ANN, set_policy(w, Policy.single(ANN.public), BOB.address), signers=[BOB])) == ["ok"]
    assert w.ledger.read_account(w, BOB.address).policy == Policy.single(ANN.public)


def test_a_policy_brought_along_must_be_the_stored_one():
    w = shared_world()
    stored, wider = Policy.single(DAN.public), Policy.of(1, (DAN.public, ANN.public))
    assert w.codes(w.tx(ANN, set_policy(w, stored))) == ["ok"]
    signed = [
        w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [DAN]}, policies={ANN.address: policy}, sequence=1)
        for policy in (wider, stored)
    ]
    assert w.build(signed[0]) is None
    assert w.codes(signed[1]) == ["ok"]


def test_a_failed_rotation_leaves_the_old_keys():
    w = shared_world()
    tx = w.tx(ANN, set_policy(w, Policy.single(DAN.public)), pay(CEM.address, 10**6))
    assert w.codes(tx) == ["balance_insufficient"]
    assert w.ledger.read_account(w, ANN.address).policy is None
    assert w.codes(w.tx(ANN, pay(CEM.address, 1))) == ["ok"]


def test_the_payer_must_have_authorised():
    w = shared_world()
    forged = w.tx(
        ANN.address, pay(CEM.address, 1), payer=BOB.address, keys={ANN.address: [ANN], BOB.address: [CEM]}, sequence=0
    )
    assert w.build(forged) is None
    assert w.codes(w.tx(ANN.address, pay(CEM.address, 1), payer=BOB.address, signers=[ANN, BOB], sequence=0)) == ["ok"]


def test_a_void_authorisation_of_a_bystander_harms_nobody():
    w = shared_world()
    tx = w.tx(ANN.address, pay(CEM.address, 1), keys={ANN.address: [ANN], BOB.address: [CEM]}, sequence=0)
    executed = w.build(tx)
    assert executed.receipts[0].code == "ok"
    assert BOB.address not in executed.touched[0]
