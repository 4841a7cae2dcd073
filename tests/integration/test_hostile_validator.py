"""A Byzantine validator with valid keys: whatever it says, the other three make blocks, agree and stay small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_support import MIB, Hostile, Load, log_errors, metric, undisturbed

from consensus.evidence import EVIDENCE_PER_VALIDATOR_MAX
from consensus.messages import Kind as Says
from consensus.messages import (
    NewView,
    PrePrepare,
    Status,
    Suspect,
    ViewChange,
    Vote,
    decode_message,
    encode_message,
)
from devnet.network import Devnet
from devnet.prepare import Wish
from p2p.wire import Kind, encode_frame
from qenex_node.client import Operations
from state.hashing import sha256
from state.keys import SigningKey
from state.ledger.domains.governance.rules import OFFENCES_KEPT_MAX
from state.limits import VALIDATORS_MAX
from state.transaction import body_value, sign_transaction, wire_hash_of
from state.types import Certificate, Height, View

HONEST = ["validator-01", "validator-02", "validator-03"]
LIAR = "validator-04"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    home: Path = tmp_path_factory.mktemp("byzantine") / "net"
    with Devnet(home, wish=Wish(validators=4, full_nodes=1, accounts=100), autostart=False) as devnet:
        for name in HONEST:
            devnet.start(name, wait=False)
        devnet.wait_ready(HONEST)
        with devnet.client(*HONEST) as client:
            client.transfer(devnet.bulk_key(90), devnet.bulk_key(91).address, 1, "QNX")
        yield devnet
        faults = log_errors(devnet, HONEST)
        assert not faults, faults
        assert devnet.running == HONEST


@pytest.fixture
def liar(net: Devnet) -> Iterator[Hostile]:
    with Hostile(net, LIAR) as hostile:
        hostile.connect(*HONEST)
        yield hostile


def forgive(net: Devnet) -> None:
    """Lets the bans end: they live as long as the process."""
    for name in HONEST:
        assert net.stop(name) == 0
    for name in HONEST:
        net.start(name, wait=False)
    net.wait_ready(HONEST)


def block_hash(text: str) -> bytes:
    return sha256(text.encode())


def votes(liar: Hostile, kind: Says, height: int, view: int, *texts: str) -> list[Vote]:
    return [liar.sign(Vote(kind, Height(height), View(view), block_hash(text), liar.index)) for text in texts]


def evidence_of(net: Devnet, name: str) -> list[dict[str, object]]:
    told = net.call(name, "consensus_evidence", 0, 100)
    return list(told["evidence"] if isinstance(told, dict) and "evidence" in told else told)


def view_of(net: Devnet, name: str) -> int:
    status = net.status(name)
    assert status is not None
    return int(status["view"])


def test_equivocating_votes_are_evidence_in_rpc_metrics_and_after_a_restart(net: Devnet, liar: Hostile) -> None:
    with undisturbed(net, HONEST):
        height = net.height(HONEST[0]) + 1
        for at in range(height, height + 60):
            for vote in votes(liar, Says.COMMIT, at, 0, "one", "two"):
                liar.say(vote)
            if all(evidence_of(net, name) for name in HONEST):
                break
            time.sleep(0.02)
        net.wait_for(lambda: all(evidence_of(net, name) for name in HONEST), "all have evidence", 10)
    # No more payments: the offence alone is reason enough for the block that records it.
    net.wait_for(
        lambda: all(item["recorded_height"] for name in HONEST for item in evidence_of(net, name)),
        "every offence is on record",
    )
    item = evidence_of(net, HONEST[1])[0]
    assert (item["validator"], item["kind"]) == (LIAR, "commit")
    assert item["first"] != item["second"]
    for name in HONEST:
        assert metric(net, name, "qenex_consensus_evidence_total") >= 1
    assert net.stop(HONEST[2]) == 0
    net.start(HONEST[2])
    assert {**evidence_of(net, HONEST[2])[0], "number": 0} in [
        {**one, "number": 0} for one in evidence_of(net, HONEST[1])
    ]
    net.wait_ready(HONEST)


def test_endless_equivocation_fills_no_memory(net: Devnet, liar: Hostile) -> None:
    with undisturbed(net, HONEST):
        for number in range(1_500):
            height = net.height(HONEST[0]) + 1 if number % 100 == 0 else height  # noqa: F821
            for vote in votes(liar, Says.PREPARE, height, number % 7, f"a{number}", f"b{number}"):
                liar.say(vote, HONEST[number % 3])
    # On the chain's record, and waiting for it.
    most = OFFENCES_KEPT_MAX + EVIDENCE_PER_VALIDATOR_MAX
    assert all(1 <= len(evidence_of(net, name)) <= most for name in HONEST)


def test_votes_for_far_heights_views_and_unknown_blocks_change_nothing(net: Devnet, liar: Hostile) -> None:
    top = (1 << 64) - 2
    with undisturbed(net, HONEST):
        for number in range(300):
            height, view = ((top, 0), (1, top), (net.height(HONEST[0]) + 1 + number % 3, top - number))[number % 3]
            for vote in votes(liar, (Says.PREPARE, Says.COMMIT)[number % 2], height, view, f"x{number}"):
                liar.say(vote)
    assert len({view_of(net, name) for name in HONEST}) == 1


def test_a_claim_of_height_a_billion_stops_nobody(net: Devnet, liar: Hostile) -> None:
    """It must not make the others unready either: whoever balances load by /ready would turn all of them off."""
    with undisturbed(net, HONEST):
        unready: list[object] = []
        end = time.monotonic() + 6
        while time.monotonic() < end:
            status = Status(Height(10**9), View(0), View(0), None, 0, 0, liar.index)
            liar.say(liar.sign(status))
            for name in HONEST:
                ready, why = net.readiness(name)
                if not ready:
                    unready.append((name, why))
            time.sleep(0.1)
        assert not unready, unready[:5]
        state = net.status(HONEST[0])
        assert state is not None
        assert state["sync"]["target_height"] < 10**6, state["sync"]


def test_view_change_spam_moves_no_view(net: Devnet, liar: Hostile) -> None:
    before = view_of(net, HONEST[0])
    with undisturbed(net, HONEST):
        certificate = None
        for number in range(400):
            block = net.call(HONEST[0], "qenex_getBlock", "latest") if number % 100 == 0 else None
            if block is not None:
                certificate = certificate_of(net, block)
            assert certificate is not None
            view = View((before + 1 + number) if number % 2 else (1 << 64) - 2 - number)
            change = ViewChange(Height(certificate.height + 1), view, certificate, None, liar.index)
            liar.say(liar.sign(change), HONEST[number % 3])
            liar.say(liar.sign(Suspect(Height(certificate.height + 1), view, liar.index)))
    assert {view_of(net, name) for name in HONEST} == {before}


def certificate_of(net: Devnet, block: dict[str, object]) -> Certificate:
    told = block["certificate"]
    assert isinstance(told, dict)
    names = [validator.name for validator in net.genesis.validators.validators]
    pairs = []
    for entry in told["signatures"]:
        who = entry["validator"] if isinstance(entry, dict) else entry[0]
        signature = entry["signature"] if isinstance(entry, dict) else entry[1]
        index = names.index(who) if isinstance(who, str) else who
        pairs.append((index, bytes.fromhex(signature[2:])))
    head = block["header"]
    assert isinstance(head, dict)
    return Certificate(
        Says.COMMIT,
        Height(head["height"]),
        View(told["view"]),
        bytes.fromhex(head["hash"][2:]),
        tuple(sorted(pairs)),  # type: ignore[arg-type]
    )


def test_a_huge_new_view_costs_little(net: Devnet, liar: Hostile) -> None:
    """Copies of one VIEW-CHANGE: hundreds of signatures to check in one message. Whoever sends some is banned."""
    block = net.call(HONEST[0], "qenex_getBlock", "latest")
    certificate = certificate_of(net, block)
    change = liar.sign(ViewChange(Height(certificate.height + 1), View(7), certificate, None, liar.index))
    huge = liar.sign(NewView(Height(certificate.height + 1), View(7), (change,) * VALIDATORS_MAX, liar.index))
    frame = encode_frame(Kind.CONSENSUS, encode_message(huge))
    with undisturbed(net, HONEST, pause_max_s=5):
        for _ in range(60):
            for name in HONEST:
                liar.raw(name, frame, 1)
        for name in HONEST:
            assert "banned" in str(liar.ended(name)), name
    assert len({view_of(net, name) for name in HONEST}) == 1
    forgive(net)


def test_a_flood_of_valid_messages_leaves_time_for_blocks(net: Devnet, liar: Hostile) -> None:
    frames = []
    height = net.height(HONEST[0]) + 1
    for number in range(4_000):
        (vote,) = votes(liar, Says.PREPARE, height + 1, 0, f"flood{number}")
        frames.append(encode_frame(Kind.CONSENSUS, encode_message(vote)))
    data = b"".join(frames)
    with undisturbed(net, HONEST, pause_max_s=5):
        for _ in range(3):
            for name in HONEST:
                liar.raw(name, data, 3)
        time.sleep(0.5)


def test_floods_of_requests_are_not_all_answered(net: Devnet, liar: Hostile) -> None:
    with Load(net, HONEST) as load:
        net.wait_height(net.height(HONEST[0]) + 40, HONEST)
    assert load.latencies
    head = net.call(HONEST[0], "qenex_getBlock", "latest")["header"]
    wanted = bytes.fromhex(head["hash"][2:])
    with undisturbed(net, HONEST, growth_max=60 * MIB, pause_max_s=5):
        for name in HONEST:
            liar.send(name, Kind.BLOCK_REQUEST, (1, 64), times=2_000)
            liar.send(name, Kind.BODY_REQUEST, wanted, times=2_000)
            liar.send(name, Kind.BLOCK_REQUEST, ((1 << 64) - 1, (1 << 64) - 1), times=500)
        for name in HONEST:
            assert "banned" in str(liar.ended(name)), name
    forgive(net)


def test_one_large_transaction_asked_for_thousands_of_times_is_sent_once(net: Devnet, liar: Hostile) -> None:
    """A waiting transaction of 40 kB, named 12,000 times in one request: an answer of half a gigabyte."""
    wire = waiting_transaction(net, net.bulk_key(50), recipients=1_000)
    told = net.call(HONEST[0], "qenex_sendTransaction", "0x" + wire.hex())
    assert "id" in told, told
    with undisturbed(net, HONEST, growth_max=60 * MIB, pause_max_s=5):
        for _ in range(5):
            for name in HONEST:
                liar.send(name, Kind.TX_REQUEST, (wire_hash_of(wire),) * 12_000)
        time.sleep(1)


def waiting_transaction(net: Devnet, key: SigningKey, recipients: int) -> bytes:
    """A transaction that waits: its sequence number is not its turn yet."""
    to = [{"to": sha256(b"%d" % n), "amount": 1} for n in range(recipients)]
    operation = Operations().transfer(asset="QNX", recipients=to)
    now_ms = time.time_ns() // 1_000_000
    body = body_value(net.genesis.context, key.address, 0, 5, now_ms + 600_000, [operation])
    return sign_transaction(net.genesis.context, body, {key.address: [key]})


def test_false_acknowledgements_and_announcements_lead_nowhere(net: Devnet, liar: Hostile) -> None:
    ids = [block_hash(f"id{n}") for n in range(8_000)]
    with undisturbed(net, HONEST):
        for number in range(10):
            for name in HONEST:
                liar.send(name, Kind.TX_HELD, (tuple(ids), None, None))
                liar.send(name, Kind.TX_ANNOUNCE, tuple(block_hash(f"h{number}-{n}") for n in range(10_000)))
        time.sleep(0.5)


def test_an_old_vote_shown_at_the_greeting_silences_nobody(net: Devnet) -> None:
    """Records of decided heights are gone: a vote from there that a peer shows does not mean that they were lost."""
    with Hostile(net, LIAR) as first:
        first.connect(*HONEST)
        with Load(net, HONEST, account=60) as load:
            net.wait_for(lambda: len(load.latencies) > 5, "transfers are paid", 10)
        seen: dict[bytes, bytes] = {}
        for name in HONEST:
            for body in first.received(name, Kind.CONSENSUS):
                message = decode_message(body)
                if isinstance(message, Vote | PrePrepare):
                    seen[first.validators.validators[message.sender].key] = body
    assert len(seen) == 3
    with Load(net, HONEST, account=60) as load:
        net.wait_for(lambda: len(load.latencies) > 3, "transfers are paid", 10)
    with Hostile(net, LIAR) as second, undisturbed(net, HONEST):
        second.shown_vote = seen.get
        second.connect(*HONEST)
        time.sleep(0.3)
    for name in HONEST:
        assert metric(net, name, "qenex_consensus_voting") == 1
        assert net.readiness(name) == (True, [])


def test_transactions_with_bad_signatures_ban_their_sender_alone(net: Devnet) -> None:
    wires = []
    for number in range(50):
        wire = bytearray(waiting_transaction(net, net.bulk_key(70), recipients=1 + number))
        wire[-1] ^= 1
        wires.append(bytes(wire))
    with undisturbed(net, HONEST), Hostile(net, LIAR) as hostile:
        for name in HONEST:
            hostile.connect(name)
            hostile.send(name, Kind.TRANSACTIONS, tuple(wires))
            assert "banned" in str(hostile.ended(name)), name
    forgive(net)
