"""Clients that cheat or err: every transaction happens at most once, and whoever sent it learns what became of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_support import KeepAlive, log_errors

from devnet.network import Devnet
from devnet.prepare import Wish
from qenex_node.client import Operations, Session, TrustedChain
from state.address import to_text
from state.errors import Rejected
from state.hashing import sha256
from state.keys import ML_DSA_65, ML_DSA_87, SigningKey
from state.transaction import Operation, body_value, decode_transaction, sign_transaction
from state.types import Address, ChainContext

NAMES = ["validator-01", "validator-02", "validator-03", "validator-04"]
DAY_MS = 24 * 3600 * 1000
OPERATIONS = Operations()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    home: Path = tmp_path_factory.mktemp("clients") / "net"
    with Devnet(home, wish=Wish(validators=4, accounts=200)) as devnet:
        yield devnet
        faults = log_errors(devnet, NAMES)
        assert not faults, faults
        assert devnet.running == NAMES
        assert len({devnet.call(name, "qenex_getAsset", "QNX")["supply"] for name in NAMES}) == 1


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def pay(to: Address | bytes, amount: int, **more: Any) -> Operation:
    return OPERATIONS.transfer(asset="QNX", recipients=[{"to": to, "amount": amount}], **more)


def signed(
    net: Devnet,
    key: SigningKey,
    *operations: Operation,
    sequence: int = 0,
    lane: int = 0,
    valid_ms: int = 60_000,
    context: ChainContext | None = None,
    **more: Any,
) -> bytes:
    context = context or net.genesis.context
    body = body_value(context, key.address, lane, sequence, now_ms() + valid_ms, operations, **more)
    return sign_transaction(context, body, {key.address: [key]})


def send(net: Devnet, name: str, wire: bytes, wait: str = "committed", timeout_ms: int = 1_500) -> dict[str, Any]:
    told = net.call(name, "qenex_sendTransaction", "0x" + wire.hex(), wait, timeout_ms)
    assert isinstance(told, dict)
    return told


def reason(told: dict[str, Any]) -> str:
    assert "error" in told, told
    return str(told["error"]["data"]["reason"])


def balance(net: Devnet, address: Address, name: str = NAMES[0]) -> int:
    told = net.call(name, "qenex_getBalance", to_text(address), "QNX")
    return int(told["available"])


def both(
    net: Devnet, first: tuple[str, bytes], second: tuple[str, bytes], timeout_ms: int = 1_500
) -> list[dict[str, Any]]:
    """Sends two transactions to two nodes at the same time."""
    told: list[dict[str, Any]] = [{}, {}]
    gate = threading.Barrier(2)

    def work(place: int, name: str, wire: bytes) -> None:
        gate.wait()
        told[place] = send(net, name, wire)

    threads = [threading.Thread(target=work, args=(place, *item)) for place, item in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_of_two_payments_with_one_sequence_number_exactly_one_is_committed(net: Devnet) -> None:
    for number in range(8):
        key = net.bulk_key(number)
        wires = [signed(net, key, pay(sha256(b"%d %d" % (number, side)), 1_000)) for side in range(2)]
        told = both(net, (NAMES[number % 4], wires[0]), (NAMES[(number + 1) % 4], wires[1]))
        won = [answer for answer in told if answer.get("status") == "committed"]
        assert len(won) == 1, told
        lost = next(answer for answer in told if answer is not won[0])
        assert reason(lost) in ("sequence_used", "sequence_taken", "conflict", "dropped"), lost
        ids = [decode_transaction(wire, net.genesis.context).id.hex() for wire in wires]
        statuses = [{net.call(name, "qenex_getTransaction", "0x" + i)["status"] for name in NAMES} for i in ids]
        assert sorted("committed" in one for one in statuses) == [False, True], statuses
        assert sum(balance(net, Address(sha256(b"%d %d" % (number, side)))) for side in range(2)) == 1_000


def test_money_is_spent_once_however_many_lanes_spend_it(net: Devnet) -> None:
    key, to = net.bulk_key(20), Address(sha256(b"lanes"))
    has = balance(net, key.address)
    wires = [signed(net, key, pay(to, has), lane=lane) for lane in range(16)]
    told = [both(net, (NAMES[0], wires[i]), (NAMES[1], wires[i + 1])) for i in range(0, 16, 2)]
    codes = [answer["receipt"]["code"] for pair in told for answer in pair]
    assert codes.count("ok") == 1, codes
    assert set(codes) == {"ok", "insufficient_balance"} or len(set(codes)) == 2, codes
    assert balance(net, to) == has
    assert balance(net, key.address) == 0
    assert reason(send(net, NAMES[0], signed(net, key, pay(to, 1), lane=16))) in ("malformed", "lane_unknown")


def test_a_replay_is_answered_with_what_the_first_did(net: Devnet) -> None:
    key, to = net.bulk_key(21), Address(sha256(b"replay"))
    wire = signed(net, key, pay(to, 7))
    first = send(net, NAMES[0], wire)
    assert first["receipt"]["code"] == "ok"
    for name in NAMES:
        again = send(net, name, wire)
        assert (again["height"], again["index"], again["id"]) == (first["height"], first["index"], first["id"])
        assert send(net, name, wire, "accepted")["status"] in ("committed", "accepted")
    batch = [
        {"jsonrpc": "2.0", "id": n, "method": "qenex_sendTransaction", "params": ["0x" + wire.hex(), "committed"]}
        for n in range(50)
    ]
    connection = KeepAlive(net.node(NAMES[1]).ports.rpc)
    ((_, body),) = connection.pipeline([json.dumps(batch).encode()])
    connection.close()
    assert {answer["result"]["height"] for answer in json.loads(body)} == {first["height"]}
    assert balance(net, to) == 7


def test_what_cannot_enter_is_refused_with_its_reason(net: Devnet) -> None:
    key, other = net.bulk_key(22), net.bulk_key(23)
    good = signed(net, key, pay(other.address, 1))
    tampered = bytearray(good)
    tampered[-1] ^= 1
    body_changed = good.replace(b"\xa3QNX", b"\xa3QNY")
    chain = ChainContext("other-chain", net.genesis.context.genesis_hash)
    fork = ChainContext(net.genesis.context.chain_id, sha256(b"fork"))
    forged = body_value(net.genesis.context, key.address, 0, 0, now_ms() + 9_000, [pay(other.address, 1)])
    cases: list[tuple[bytes, tuple[str, ...]]] = [
        (bytes(tampered), ("bad_signature",)),
        (body_changed, ("bad_signature",)),
        (good[:-1], ("malformed",)),
        (good + b"\x00", ("malformed",)),
        (b"", ("malformed", "invalid_params")),
        (b"\x00" * 200_000, ("too_long",)),
        (signed(net, key, pay(other.address, 1), context=chain), ("wrong_chain",)),
        (signed(net, key, pay(other.address, 1), context=fork), ("bad_signature", "wrong_chain")),
        (signed(net, key, pay(other.address, 1), valid_ms=-1_000), ("expired",)),
        (signed(net, key, pay(other.address, 1), valid_ms=DAY_MS + 60_000), ("deadline_too_far",)),
        (
            signed(net, key, pay(other.address, 1), sequence=(1 << 64) - 2),
            ("sequence_too_far",),
        ),
        (sign_transaction(net.genesis.context, forged, {key.address: [other]}), ("not_authorised",)),
        (sign_transaction(net.genesis.context, forged, {other.address: [other]}), ("not_authorised", "malformed")),
        (signed(net, key, Operation("transfer", 2, pay(other.address, 1).fields)), ("operation_unknown", "malformed")),
        (signed(net, key, Operation("no_such", 1, ())), ("operation_unknown",)),
        (signed(net, key, pay(other.address, 1), memo=b"x" * 129), ("malformed",)),
        (signed(net, key), ("malformed",)),
    ]
    for wire, wanted in cases:
        told = reason(send(net, NAMES[1], wire))
        assert told in wanted, (told, wanted, wire[:60].hex())
    assert send(net, NAMES[1], good)["receipt"]["code"] == "ok"


def test_the_deadline_may_be_a_day_ahead_and_not_a_second_more(net: Devnet) -> None:
    key, to = net.bulk_key(24), Address(sha256(b"day"))
    done = send(net, NAMES[0], signed(net, key, pay(to, 1), valid_ms=DAY_MS - 500), timeout_ms=1_800)
    assert done.get("status") == "committed", done
    assert (
        reason(send(net, NAMES[0], signed(net, key, pay(to, 1), sequence=1, valid_ms=DAY_MS + 5_000)))
        == "deadline_too_far"
    )


def test_amounts_at_the_ends_of_their_range_make_no_money(net: Devnet) -> None:
    key, to = net.bulk_key(25), Address(sha256(b"extreme"))
    has = balance(net, key.address)
    top = (1 << 128) - 1
    for sequence, operations in enumerate(
        (
            [pay(to, top)],
            [pay(to, has + 1)],
            [pay(to, has), pay(to, top)],
            [pay(key.address, has), pay(key.address, has)],
            [OPERATIONS.transfer(asset="QNX", recipients=[{"to": to, "amount": has}, {"to": to, "amount": top}])],
            [OPERATIONS.mint(asset="QNX", to=key.address, amount=top)],
            [OPERATIONS.burn(asset="QNX", amount=has + 1)],
            [pay(to, 1, source=net.bulk_key(26).address)],
        )
    ):
        told = send(net, NAMES[sequence % 4], signed(net, key, *operations, sequence=sequence))
        code = told["receipt"]["code"]
        assert (code == "ok") == (sequence == 3), (sequence, told)
    assert balance(net, key.address) == has
    with pytest.raises(Rejected):
        pay(to, 1 << 128)


def test_the_heaviest_legal_transactions_are_committed(net: Devnet) -> None:
    told = []
    for number in range(4):
        key = net.bulk_key(30 + number)
        to = [{"to": sha256(b"%d/%d" % (number, n)), "amount": 1} for n in range(1_024)]
        told.append(send(net, NAMES[number], signed(net, key, OPERATIONS.transfer(asset="QNX", recipients=to))))
    assert all(answer["receipt"]["code"] == "ok" for answer in told), told
    with pytest.raises(Rejected):
        OPERATIONS.transfer(asset="QNX", recipients=[{"to": sha256(b"%d" % n), "amount": 1} for n in range(1_025)])
    net.wait_same_head(NAMES)


def test_waiting_ends_with_the_time_limit_and_what_waits_says_why(net: Devnet) -> None:
    key = net.bulk_key(40)
    wire = signed(net, key, pay(key.address, 1), sequence=3, valid_ms=3_000)
    began = time.monotonic()
    told = send(net, NAMES[2], wire, timeout_ms=300)
    assert time.monotonic() - began < 1.5
    assert told["error"]["data"]["reason"] == "timeout", told
    shown = net.call(NAMES[2], "qenex_getTransaction", told["error"]["data"]["id"])
    assert (shown["status"], shown["waiting"]["code"]) == ("pending", "sequence_gap"), shown
    # Expired is a fact once a block is later than the deadline.
    time.sleep(3)
    assert send(net, NAMES[0], signed(net, net.bulk_key(41), pay(key.address, 1)))["receipt"]["code"] == "ok"
    net.wait_for(
        lambda: net.call(NAMES[2], "qenex_getTransaction", told["error"]["data"]["id"])["status"] == "expired",
        "it is expired",
        5,
    )
    assert reason(send(net, NAMES[1], wire)) == "expired"


def test_post_quantum_keys_pay_through_blocks_and_a_restart(net: Devnet) -> None:
    keys = [SigningKey(scheme, sha256(b"pq%d" % scheme)) for scheme in (ML_DSA_65, ML_DSA_87)]
    with net.client() as client:
        for key in keys:
            client.transfer(net.bulk_key(50), key.address, 1_000, "QNX")
        done = client.transfer(keys[0], keys[1].address, 10, "QNX")
        client.transfer(keys[1], keys[0].address, 5, "QNX")
    assert net.stop(NAMES[3]) == 0
    net.start(NAMES[3])
    net.wait_ready()
    with net.client(NAMES[3], session=Session(TrustedChain(net.genesis))) as client:
        assert client.balance(keys[0].address, "QNX").available == 995
        client.transfer(keys[0], keys[1].address, 5, "QNX")
        assert client.balance(keys[1].address, "QNX").available == 1_010
    assert done.code == "ok"


def test_a_failed_payment_has_a_receipt_in_its_block(net: Devnet) -> None:
    key = net.bulk_key(60)
    told = send(net, NAMES[0], signed(net, key, pay(sha256(b"f"), 1 << 100)))
    assert told["receipt"]["code"] != "ok"
    for name in NAMES:
        net.wait_height(told["height"], [name])
        receipt = net.call(name, "qenex_getReceipt", told["id"])
        assert (receipt["status"], receipt["code"]) == ("committed", told["receipt"]["code"])
        block = net.call(name, "qenex_getBlock", told["height"], "full")
        assert "error" not in block, block
