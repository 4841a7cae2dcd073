"""Submitting: sequence numbers, deadlines, what is sent again and what is signed again, and how waiting ends."""

import pytest
import trio

from qenex_node.client import (
    AsyncClient,
    Expired,
    NotFound,
    Retry,
    RpcError,
    Session,
    Signer,
    StillPending,
    Terms,
    TransactionFailed,
    TransportError,
)
from qenex_node.client.errors import Busy, Dropped, RequestRejected
from qenex_node.client.submit import wait_wire
from qenex_node.rpc.view import Dropped as DroppedFate
from qenex_node.rpc.view import Expired as ExpiredFate
from state.errors import Rejected
from state.keys import ML_DSA_65, Policy, SigningKey
from state.transaction import decode_transaction
from tests.qenex_node.client.client_support import (
    ANN,
    BOB,
    CEM,
    START_MS,
    HonestNode,
    answering,
    key,
    run,
    session,
    wired,
)


def transfer(client, to=CEM, amount=5, **fields):
    return client.session.operations.transfer(asset="QNX", recipients=[(to.address, amount)], **fields)


def test_a_transfer_returns_once_it_is_final():
    client, _, node = wired()
    done = client.transfer(ANN, CEM.address, 300, "QNX")
    assert (done.height, done.index, done.code) == (1, 0, "ok")
    assert done.receipt["events"][0]["fields"]["amount"] == "300"
    assert node.world.available(CEM.address) == 300


def test_a_transfer_in_a_trusted_session_needs_no_word_of_the_node_about_its_chain():
    client, wire, node = wired(trust=True)
    assert client.context() == node.context
    assert wire.calls["qenex_status"] == 0
    client.transfer(ANN, CEM.address, 300, "QNX")
    assert client.balance(CEM.address, "QNX").available == 300


def test_a_failed_transaction_raises_with_its_receipt_and_can_be_asked_not_to():
    client, _, _ = wired()
    with pytest.raises(TransactionFailed) as caught:
        client.transfer(ANN, CEM.address, 10**9, "QNX")
    assert caught.value.code == "balance_insufficient"
    assert caught.value.receipt["events"] == []
    done = client.submit_and_wait(ANN, [transfer(client, amount=10**9)], check=False)
    assert (done.code, done.height) == ("balance_insufficient", 2)


def test_numbers_are_counted_locally_after_the_first_question():
    client, wire, node = wired()
    for _ in range(5):
        client.submit(ANN, [transfer(client)])
    assert wire.calls["qenex_getAccount"] == 1
    assert node.world.available(CEM.address) == 25


def test_lanes_are_counted_by_themselves():
    client, _, node = wired()
    prepared = [client.prepare(ANN, [transfer(client)], Terms(lane=lane)) for lane in (0, 3, 0, 3)]
    assert [(tx.lane, tx.sequence) for tx in prepared] == [(0, 0), (3, 0), (0, 1), (3, 1)]
    assert all(not isinstance(one, Exception) for one in client.submit_many(prepared))
    assert node.ledger.read_account(node.world, ANN.address).lanes == (2, 0, 0, 2)


def test_what_waits_in_the_mempool_counts_for_a_new_client():
    node = HonestNode()
    node.slow = True
    first, _, _ = wired(node)
    first.submit(ANN, [transfer(first)])
    second, _, _ = wired(node)
    assert second.prepare(ANN, [transfer(second)]).sequence == 1


def test_many_go_out_in_one_request_and_each_has_its_own_outcome():
    client, wire, node = wired()
    prepared = [client.prepare(ANN, [transfer(client, amount=n)]) for n in (1, 2, 3)]
    prepared[1] = prepared[0]
    before = wire.connections
    outcomes = client.submit_many(prepared)
    assert [type(one).__name__ for one in outcomes] == ["Submitted", "Submitted", "Submitted"]
    assert wire.connections == before
    assert node.submits == [3]
    assert client.submit_many([]) == []


def test_the_deadline_is_counted_from_the_later_of_block_time_and_clock():
    client, _, node = wired(valid_ms=60_000)
    assert client.prepare(ANN, [transfer(client)]).not_after_ms == START_MS + 60_000
    client.session.now_ms = lambda: 5
    assert client.prepare(ANN, [transfer(client)]).not_after_ms == START_MS + 60_000
    client.session.now_ms = lambda: START_MS + 500
    assert client.prepare(ANN, [transfer(client)], Terms(valid_ms=7)).not_after_ms == START_MS + 507
    assert node.world.head.time_ms == START_MS


def test_all_terms_stand_in_the_transaction():
    client, _, node = wired()
    terms = Terms(lane=2, fee_max=77, memo=b"rent", payer=BOB, cosigners=(CEM,))
    tx = decode_transaction(client.prepare(ANN, [transfer(client)], terms).wire, node.context)
    assert (tx.lane, tx.fee_max, tx.memo, tx.payer) == (2, 77, b"rent", BOB.address)
    assert {a.address for a in tx.authorisations} == {ANN.address, BOB.address, CEM.address}


def test_two_accounts_pay_each_other_in_one_transaction():
    client, _, node = wired()
    operations = [transfer(client, to=BOB, amount=7), transfer(client, to=ANN, amount=9, source=BOB.address)]
    client.submit_and_wait(ANN, operations, Terms(cosigners=(BOB,)))
    assert node.world.available(ANN.address) == 1_000_000 + 2


def test_keys_of_other_schemes_sign_too():
    client, _, node = wired()
    quantum = SigningKey(ML_DSA_65, bytes(range(32)))
    client.transfer(ANN, quantum.address, 50, "QNX")
    client.transfer(quantum, CEM.address, 20, "QNX")
    assert node.world.available(quantum.address) == 30


def test_an_account_of_several_keys_pays_from_birth_and_after_its_keys_were_changed():
    client, _, node = wired()
    keys = tuple(key(40 + n) for n in range(3))
    policy = Policy.of(2, tuple(k.public for k in keys))
    shared = Signer.shared(policy, keys[:2])
    client.transfer(ANN, shared.address, 100, "QNX")
    client.transfer(shared, CEM.address, 10, "QNX")
    changed = Policy.single(keys[2].public)
    client.submit_and_wait(shared, [client.session.operations.set_policy(policy=changed)])
    with pytest.raises(RpcError) as caught:
        client.transfer(shared, CEM.address, 10, "QNX")
    assert caught.value.reason == "not_authorised"
    client.transfer(Signer.rotated(shared.address, changed, keys[2:]), CEM.address, 10, "QNX")
    assert node.world.available(CEM.address) == 20
    with pytest.raises(Rejected, match="key_not_in_policy"):
        Signer.shared(policy, (ANN,))
    with pytest.raises(Rejected, match="signatures_missing"):
        client.transfer(Signer.shared(policy, keys[:1]), CEM.address, 1, "QNX")


# Lost connections and refusals


@pytest.mark.parametrize("fault", ["refused", "unsent", "unanswered", "silent"])
def test_the_same_bytes_are_sent_again_after_a_lost_connection_and_pay_once(fault):
    client, wire, node = wired()
    prepared = client.prepare(ANN, [transfer(client, amount=300)])
    client.close()
    wire.faults = [fault, fault]
    done = client.wait(prepared)
    assert done.id == prepared.id
    assert node.world.available(CEM.address) == 300
    assert len(wire.slept) == 2


def test_an_outcome_that_stays_unknown_is_told_with_the_bytes_to_send_again():
    client, wire, node = wired(attempts=2)
    first = client.prepare(ANN, [transfer(client)])
    client.session.sequences.give_back(ANN.address, 0, first.sequence)
    wire.faults = ["unanswered", "refused"]
    with pytest.raises(StillPending) as caught:
        client.transfer(ANN, CEM.address, 300, "QNX")
    assert caught.value.sent
    done = client.run(wait_wire(caught.value.wire, caught.value.tx_id))
    assert (done.height, node.world.available(CEM.address)) == (1, 300)


def test_a_transaction_that_was_never_sent_gives_its_number_back():
    client, wire, _ = wired(attempts=2)
    client.prepare(ANN, [transfer(client)])
    client.close()
    wire.faults = ["refused", "refused"]
    with pytest.raises(TransportError) as caught:
        client.submit(ANN, [transfer(client)])
    assert not caught.value.sent
    assert client.prepare(ANN, [transfer(client)]).sequence == 1


def test_a_number_that_another_client_took_is_replaced_and_the_transaction_signed_again():
    node = HonestNode()
    mine, _, _ = wired(node)
    theirs, _, _ = wired(node)
    mine.transfer(ANN, CEM.address, 1, "QNX")
    theirs.transfer(ANN, CEM.address, 10, "QNX")
    done = mine.transfer(ANN, CEM.address, 100, "QNX")
    assert done.height == 3
    assert node.world.available(CEM.address) == 111


def test_a_number_that_another_waiting_transaction_holds_is_replaced_too():
    node = HonestNode()
    mine, _, _ = wired(node)
    theirs, _, _ = wired(node)
    node.slow = True
    first = mine.prepare(ANN, [transfer(mine)])
    theirs.submit(ANN, [transfer(theirs, amount=10)])
    assert mine.session.sequences.take(ANN.address, 0) == 1
    mine.session.sequences.give_back(ANN.address, 0, 1)
    mine.session.sequences.give_back(ANN.address, 0, first.sequence)
    sent = mine.submit(ANN, [transfer(mine, amount=100)])
    assert decode_transaction(sent.wire, node.context).sequence == 1


def test_nothing_is_signed_again_while_an_earlier_sending_may_still_be_carried_out():
    client, wire, node = wired()
    prepared = client.prepare(ANN, [transfer(client)])
    client.session.sequences.give_back(ANN.address, 0, prepared.sequence)
    node.slow = True
    other, _, _ = wired(node)
    other.submit(ANN, [transfer(other, amount=10)])
    wire.faults = ["unanswered"]
    with pytest.raises(RequestRejected) as caught:
        client.transfer(ANN, CEM.address, 300, "QNX")
    assert caught.value.retried
    assert caught.value.reason == "sequence_taken"


def refuse_first(node, times, refusal):
    """Makes a node refuse so many submissions, then take them."""
    honest, left = node.submit, [times]

    async def submit(wires):
        if left[0]:
            left[0] -= 1
            return [refusal] * len(wires)
        return await honest(wires)

    node.submit = submit


def test_a_busy_node_is_asked_again_with_growing_pauses():
    client, wire, node = wired()
    refuse_first(node, 3, Rejected("mempool_full", "full"))
    client.transfer(ANN, CEM.address, 5, "QNX")
    assert wire.slept == [0.1, 0.2, 0.4]
    refuse_first(node, 100, Rejected("account_limit", "too much"))
    with pytest.raises(Busy):
        client.transfer(ANN, CEM.address, 5, "QNX")
    assert len(wire.slept) < 20


def test_a_refused_transaction_gives_its_number_back():
    client, _, node = wired()
    refuse_first(node, 1, Rejected("fee_too_low", "more"))
    with pytest.raises(RequestRejected) as caught:
        client.transfer(ANN, CEM.address, 5, "QNX")
    assert (caught.value.code, caught.value.reason) == (-32000, "fee_too_low")
    assert client.prepare(ANN, [transfer(client)]).sequence == 0


def test_a_wait_that_ends_early_can_be_taken_up_again():
    async def test():
        node = HonestNode()
        node.slow = True
        async with (
            answering(node) as (_, connect),
            AsyncClient("http://localhost:1", session=session(), connect=connect) as client,
        ):
            prepared = await client.prepare(ANN, [transfer(client)])
            with pytest.raises(StillPending) as caught:
                await client.wait(prepared, wait_ms=70_000)
            assert caught.value.wire == prepared.wire
            assert trio.current_time() >= 70
            node.commit()
            assert (await client.wait(prepared)).height == 1

    run(test)


@pytest.mark.parametrize(
    ("fate", "error"),
    [(ExpiredFate(9, 1), Expired), (DroppedFate(Rejected("sequence_used", "used")), Dropped)],
)
def test_a_transaction_that_can_never_be_committed_says_so(fate, error):
    client, _, node = wired()
    prepared = client.prepare(ANN, [transfer(client)])
    node.slow = True
    node.fates[prepared.id] = fate
    with pytest.raises(error):
        client.wait(prepared)


def test_waiting_by_id_asks_until_it_is_final():
    client, wire, node = wired()
    node.slow = True
    sent = client.submit(ANN, [transfer(client)])
    client._sleep = lambda seconds: wire.slept.append(seconds) or (len(wire.slept) == 3 and node.commit())
    assert client.wait_id(sent.id).height == 1
    assert wire.slept == [0.05, 0.1, 0.2]
    with pytest.raises(NotFound):
        client.wait_id(bytes(32))


def test_waiting_by_id_ends_with_the_callers_patience():
    client, wire, node = wired()
    node.slow = True
    sent = client.submit(ANN, [transfer(client)])
    with pytest.raises(StillPending):
        client.wait_id(sent.id, wait_ms=5_000)
    assert 5 <= sum(wire.slept) <= 7


def test_a_node_on_another_chain_than_the_expected_one_gets_no_transaction():
    client, _, _ = wired(trust=True)
    other = HonestNode(balance=7)
    client._connect = wired(other)[1].connect
    with pytest.raises(Rejected, match="wrong_chain"):
        client.transfer(ANN, CEM.address, 1, "QNX")
    assert other.submits == []


def test_a_simulation_tells_the_receipt_and_sends_nothing():
    client, _, node = wired()
    prepared = client.prepare(ANN, [transfer(client, amount=10**9)])
    assert client.simulate(prepared.wire)["code"] == "balance_insufficient"
    assert node.submits == []


def test_sessions_can_be_shared_and_retries_are_bounded():
    session = Session()
    assert session.context is None
    with pytest.raises(Rejected, match="retry_invalid"):
        Retry(attempts=0)
    delays = [Retry(delay_ms=100, delay_ms_max=800).delay_s(n, 0) for n in range(1, 7)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 0.8, 0.8]
