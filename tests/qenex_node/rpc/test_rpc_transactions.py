"""Sending, waiting for, finding and simulating transactions, against a real ledger and mempool."""

import json

import pytest
import trio

from qenex_node.rpc.view import Dropped, Expired
from state.codec import encode
from state.errors import InvariantError, Rejected
from state.transaction import body_value, sign_transaction
from tests.qenex_node.rpc.rpc_support import (
    ANN,
    ANN_TEXT,
    BOB,
    CEM,
    CEM_TEXT,
    hexed,
    pay_tx,
    refused,
    run,
    serving,
    with_node,
)
from tests.state.ledger.world import pay


def test_a_sent_transaction_is_accepted_once_others_hold_it():
    async def test(node, http):
        tx = pay_tx(node)
        answer = await http.call("qenex_sendTransaction", hexed(tx.wire))
        assert answer == {"id": hexed(tx.id), "not_after_ms": tx.not_after_ms, "status": "accepted"}
        assert node.mempool.by_id(tx.id) is not None
        assert await http.call("qenex_sendTransaction", hexed(tx.wire)) == answer

    with_node(test)


def test_who_waits_for_the_commit_gets_place_and_receipt():
    async def test(node, http):
        tx = pay_tx(node)
        answers = []

        async def sender():
            answers.append(await http.call("qenex_sendTransaction", hexed(tx.wire), "committed"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            node.commit()
        (answer,) = answers
        assert (answer["status"], answer["height"], answer["index"]) == ("committed", 1, 0)
        assert (answer["receipt"]["code"], answer["receipt"]["id"]) == ("ok", hexed(tx.id))
        # A known id is answered with its outcome, whatever is waited for.
        assert await http.call("qenex_sendTransaction", hexed(tx.wire)) == answer

    with_node(test)


def test_a_batch_of_sends_is_admitted_as_one_and_each_has_its_own_answer():
    async def main():
        async with serving() as service:
            node, http = service.node, service.http()
            txs = [pay_tx(node) for _ in range(5)]
            wires = [hexed(tx.wire) for tx in txs]
            wires[3] = "0x00"
            waits = ["accepted", "accepted", "committed", "accepted", "committed"]
            batch = [
                {"jsonrpc": "2.0", "id": n, "method": "qenex_sendTransaction", "params": [wire, wait, 3000]}
                for n, (wire, wait) in enumerate(zip(wires, waits, strict=True))
            ]
            answers = []

            async def sender():
                answers.extend(await http.post(batch))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender)
                await trio.testing.wait_all_tasks_blocked()
                node.commit()
            assert node.submits == [5]
            assert [answer["id"] for answer in answers] == [0, 1, 2, 3, 4]
            outcomes = [
                answer["result"]["status"] if "result" in answer else answer["error"]["data"]["reason"]
                for answer in answers
            ]
            assert outcomes == ["accepted", "accepted", "committed", "malformed", "timeout"]
            assert service.counts.answers["qenex_sendTransaction", "ok"] == 3
            assert service.counts.answers["qenex_sendTransaction", "rejected"] == 1

    run(main)


def _wrong_chain(node):
    context = type(node.context)("other-1", node.context.genesis_hash)
    body = body_value(context, ANN.address, 0, 0, node.now_ms() + 1000, [pay(CEM.address, 1)])
    return sign_transaction(context, body, {ANN.address: [ANN]})


def _bad_signature(node):
    wire = bytearray(pay_tx(node).wire)
    wire[-1] ^= 1
    return bytes(wire)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda node: b"", "malformed"),
        (lambda node: b"\xc1" * 10, "malformed"),
        (lambda node: b"\x91" * 5000, "malformed"),
        (_wrong_chain, "wrong_chain"),
        (_bad_signature, "bad_signature"),
        (lambda node: pay_tx(node, not_after_ms=5).wire, "expired"),
        (lambda node: pay_tx(node, not_after_ms=node.now_ms() + 48 * 3600_000).wire, "deadline_too_far"),
        (lambda node: pay_tx(node, sequence=5000).wire, "sequence_too_far"),
        (lambda node: node.world.wire(ANN.address, pay(CEM.address, 1), keys={ANN.address: [BOB]}), "not_authorised"),
    ],
    ids=range(9),
)
def test_a_transaction_that_can_never_enter_is_refused_with_its_reason(make, reason):
    async def test(node, http):
        failure = await refused(http, "qenex_sendTransaction", hexed(make(node)))
        assert (failure.code, failure.reason) == (-32000, reason)
        assert len(node.mempool) == 0

    with_node(test)


def test_a_used_sequence_says_which_is_next():
    async def test(node, http):
        node.commit(pay_tx(node))
        failure = await refused(http, "qenex_sendTransaction", hexed(pay_tx(node, sequence=0).wire))
        assert (failure.reason, failure.data["next_sequence"], failure.data["lane"]) == ("sequence_used", 1, 0)

    with_node(test)


@pytest.mark.parametrize("text", ["00", "0x0", "0xgg", 5, None, "0x" + "00" * 200_000, "0x 00", "0X00"])
def test_a_transaction_that_is_no_hex_is_a_wrong_parameter(text):
    async def test(node, http):
        failure = await refused(http, "qenex_sendTransaction", text)
        assert (failure.code, failure.data["param"]) == (-32602, "transaction")

    with_node(test)


def test_a_wait_that_ends_first_says_that_the_transaction_is_still_pending():
    async def test(node, http):
        node.acknowledge = False
        for wait in ("accepted", "committed"):
            tx = pay_tx(node)
            start = trio.current_time()
            failure = await refused(http, "qenex_sendTransaction", hexed(tx.wire), wait, 2500)
            assert trio.current_time() - start == 2.5
            assert (failure.code, failure.data["id"], failure.data["timeout_ms"]) == (-32006, hexed(tx.id), 2500)
            assert (await http.call("qenex_getTransaction", hexed(tx.id)))["status"] == "pending"

    with_node(test)


def test_the_node_bounds_how_long_a_call_may_wait():
    async def test(node, http):
        start = trio.current_time()
        failure = await refused(http, "qenex_sendTransaction", hexed(pay_tx(node).wire), "committed", 600_000)
        assert (trio.current_time() - start, failure.data["timeout_ms"]) == (7, 7000)

    with_node(test, wait_ms_max=7000)


def test_a_transaction_that_expires_or_is_dropped_while_it_is_waited_for_is_told():
    async def test(node, http):
        tx = pay_tx(node)
        node.fates[tx.id] = Expired(9, tx.not_after_ms + 1)
        failure = await refused(http, "qenex_sendTransaction", hexed(tx.wire), "committed")
        assert (failure.code, failure.data["height"], failure.data["time_ms"]) == (-32007, 9, tx.not_after_ms + 1)
        tx = pay_tx(node)
        node.fates[tx.id] = Dropped(Rejected("sequence_used", "another one took its place", {"lane": 0}))
        failure = await refused(http, "qenex_sendTransaction", hexed(tx.wire), "committed")
        assert failure.code == -32008
        assert failure.data == {"reason": "sequence_used", "lane": 0, "id": hexed(tx.id)}

    with_node(test)


def test_a_failure_of_the_node_while_sending_is_told_without_its_inside(caplog):
    async def test(node, http):
        async def submit(wires):
            raise InvariantError("secret inside")

        node.submit = submit
        failure = await refused(http, "qenex_sendTransaction", "0x00")
        assert failure.code == -32603
        assert "secret" not in json.dumps(failure.data)

    with_node(test)
    assert "secret inside" in caplog.text


@pytest.mark.parametrize("in_feed", [True, False])
def test_a_transaction_and_its_receipt_by_id(in_feed):
    async def test(node, http):
        txs = [pay_tx(node, memo=b"rent"), pay_tx(node, BOB, ANN, 10**9)]
        executed = node.commit(*txs, in_feed=in_feed)
        for index, tx in enumerate(txs):
            shown = await http.call("qenex_getTransaction", hexed(tx.id))
            assert (shown["status"], shown["height"], shown["index"]) == ("committed", 1, index)
            assert shown["transaction"]["wire"] == hexed(tx.wire)
            receipt = await http.call("qenex_getReceipt", hexed(tx.id))
            assert (receipt["status"], receipt["code"]) == ("committed", executed.receipts[index].code)
            assert receipt["id"] == hexed(tx.id)
        shown = (await http.call("qenex_getTransaction", hexed(txs[0].id)))["transaction"]
        assert (shown["sender"], shown["memo"], shown["payer"], shown["fee_max"]) == (ANN_TEXT, "0x72656e74", None, "0")
        operation = shown["operations"][0]
        assert operation["kind"] == "transfer"
        assert CEM_TEXT in json.dumps(operation["fields"])
        assert shown["authorisations"][0]["signatures"][0]["scheme"] == "ed25519"
        assert '"5"' in json.dumps((await http.call("qenex_getReceipt", hexed(txs[0].id)))["events"])

    with_node(test)


def test_a_transaction_that_no_block_holds_is_pending_expired_or_unknown():
    async def test(node, http):
        waiting, ready = pay_tx(node, sequence=3), pay_tx(node, sequence=0, not_after_ms=node.now_ms() + 10)
        for tx in (waiting, ready):
            await http.call("qenex_sendTransaction", hexed(tx.wire))
        shown = await http.call("qenex_getReceipt", hexed(waiting.id))
        assert (shown["status"], shown["waiting"]["code"]) == ("pending", "sequence_gap")
        assert shown["waiting"]["data"]["missing"] == 1
        shown = await http.call("qenex_getTransaction", hexed(ready.id))
        assert (shown["status"], shown["waiting"]["code"]) == ("pending", "next_block")
        assert shown["transaction"]["wire"] == hexed(ready.wire)
        # Past its deadline by the clock it is still pending; it is expired when a block is later.
        node.mempool.advance(ready.not_after_ms + 1)
        shown = await http.call("qenex_getReceipt", hexed(ready.id))
        assert (shown["status"], shown["waiting"]["code"]) == ("pending", "deadline_passed")
        executed = node.world.build(pay_tx(node, BOB), time_ms=ready.not_after_ms + 1)
        node.world.commit(executed)
        node.mempool.committed(executed.transactions, executed.block.header.time_ms)
        for method in ("qenex_getTransaction", "qenex_getReceipt"):
            shown = await http.call(method, hexed(ready.id))
            assert (shown["status"], shown["not_after_ms"]) == ("expired", ready.not_after_ms)
            assert (await http.call(method, hexed(bytes(32)))) == {"id": hexed(bytes(32)), "status": "unknown"}

    with_node(test)


def test_a_transaction_that_lost_its_sequence_to_another_says_so():
    async def test(node, http):
        lost = pay_tx(node, amount=1, sequence=0)
        await http.call("qenex_sendTransaction", hexed(lost.wire))
        node.commit(pay_tx(node, amount=2, sequence=0))
        shown = await http.call("qenex_getReceipt", hexed(lost.id))
        assert (shown["status"], shown["left_mempool"]["code"]) == ("unknown", "sequence_used")

    with_node(test)


@pytest.mark.parametrize("verbosity", ["ids", "full"])
def test_an_accounts_transactions_come_newest_first_in_pages(verbosity):
    async def test(node, http):
        ids = []
        for number in range(7):
            executed = node.commit(pay_tx(node), pay_tx(node, BOB, BOB), in_feed=number % 2 == 0)
            ids.append(hexed(executed.receipts[0].id))
        seen, before = [], None
        while True:
            page = await http.call("qenex_getTransactions", CEM_TEXT, before, 3, verbosity)
            seen += [entry["id"] if verbosity == "ids" else entry["receipt"]["id"] for entry in page["transactions"]]
            before = page["next"]
            if before is None:
                break
        assert seen == ids[::-1]

    with_node(test)


def test_an_index_that_is_switched_off_is_named():
    async def test(node, http):
        node.world.accounts_indexed_from = None
        failure = await refused(http, "qenex_getTransactions", CEM_TEXT)
        assert (failure.code, failure.reason) == (-32010, "index_off")

    with_node(test)


def test_a_simulation_answers_with_the_receipt_and_changes_nothing():
    async def test(node, http):
        body = body_value(node.context, ANN.address, 0, 0, node.now_ms() + 1000, [pay(CEM.address, 7)])
        for wire in (encode((body, ())), sign_transaction(node.context, body, {ANN.address: [ANN]})):
            shown = await http.call("qenex_simulate", hexed(wire))
            assert (shown["height"], shown["receipt"]["code"]) == (0, "ok")
            assert '"7"' in json.dumps(shown["receipt"]["events"])
        poor = body_value(node.context, CEM.address, 0, 0, node.now_ms() + 1000, [pay(ANN.address, 7)])
        shown = await http.call("qenex_simulate", hexed(encode((poor, ()))))
        assert shown["receipt"]["code"] == "balance_insufficient"
        forged = sign_transaction(node.context, body, {ANN.address: [BOB]})
        assert (await refused(http, "qenex_simulate", hexed(forged))).reason == "not_authorised"
        broken = bytearray(sign_transaction(node.context, body, {ANN.address: [ANN]}))
        broken[-1] ^= 1
        assert (await refused(http, "qenex_simulate", hexed(broken))).reason == "bad_signature"
        assert len(node.mempool) == 0
        assert node.world.available(ANN.address) == 1_000_000

    with_node(test)
