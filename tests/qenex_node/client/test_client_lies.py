"""A node that lies in one part of one answer: each lie is refused by its name, and the truth passes."""

import copy
from dataclasses import replace

import pytest

from qenex_node.client import Freshness, NotFound, TransactionFailed, TrustedChain, VerificationFailed
from qenex_node.client.forms import certificate as read_certificate
from qenex_node.client.forms import header as read_header
from qenex_node.client.forms import hexed, state_key
from qenex_node.client.verify import check_receipt, check_transaction, first_header
from qenex_node.rpc import render
from state import rfc6962
from state.errors import Rejected
from state.genesis import StateFile
from state.hashing import sha256
from state.store import genesis_header
from state.tree.hashes import root_of
from state.types import VOTE_PREPARE, Validator, ValidatorSet
from tests.qenex_node.client.client_support import ANN, BOB, CEM, HonestNode, certified, key, wired
from tests.state.ledger.world import pay

OTHERS = [key(7000 + n) for n in range(4)]


def chain(blocks=3):
    """A client that trusts genesis, over a node with some blocks."""
    client, wire, node = wired(trust=True)
    for amount in range(1, blocks + 1):
        node.commit(node.world.tx(ANN, pay(CEM.address, amount)), node.world.tx(BOB, pay(CEM.address, amount)))
    return client, wire, node


def ids(node, height):
    return [tx.id for tx in node.world.executed[height].transactions]


QUERIES = {
    "account": lambda client, node: client.account(ANN.address),
    "balance": lambda client, node: client.balance(CEM.address, "QNX"),
    "asset": lambda client, node: client.asset("QNX"),
    "prove": lambda client, node: client.prove(state_key(("validators",))),
    "status": lambda client, node: client.status(),
    "block": lambda client, node: client.block(),
    "headers": lambda client, node: client.headers(),
    "transaction": lambda client, node: client.transaction(ids(node, 2)[1]),
    "receipt": lambda client, node: client.receipt(ids(node, 2)[0]),
    "validators": lambda client, node: client.validators(),
}


@pytest.mark.parametrize("query", QUERIES)
def test_the_truth_passes(query):
    client, _, node = chain()
    QUERIES[query](client, node)


def test_what_is_proved_is_what_is_so():
    client, wire, node = chain()
    assert client.balance(CEM.address, "QNX").available == node.world.available(CEM.address) == 12
    account = client.account(ANN.address)
    assert account.proved
    assert account.account.lanes == (3,)
    assert client.account(key(55).address).account is None
    assert client.block(2).receipts[0].id == ids(node, 2)[0]
    assert client.transaction(ids(node, 2)[1]).proved
    assert wire.calls["qenex_getAccount"] == 0


def test_an_older_height_is_proved_when_it_is_asked_for():
    client, _, _ = chain()
    client.status()
    assert client.balance(CEM.address, "QNX", height=1).available == 2
    assert client.balance(CEM.address, "QNX").available == 12


def test_an_absent_asset_is_proved_to_be_absent():
    client, _, _ = chain()
    with pytest.raises(NotFound):
        client.asset("EUR")


def _flip(text, place=-1):
    place = place % len(text)
    return text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]


def lying(*path, change, method=None):
    """Returns a lie that changes one field, reached by `path`, of the answers that have it."""

    def lie(called, result):
        result = copy.deepcopy(result)
        holder = result
        for part in path[:-1]:
            holder = holder[part] if isinstance(holder, list) or part in holder else None
            if holder is None:
                return result
        if method in (None, called) and (isinstance(holder, list) or path[-1] in holder):
            holder[path[-1]] = change(holder[path[-1]])
        return result

    return lie


def swapped(node, keys, **changes):
    """The certificate made again for a header with these changes, by other keys."""

    def lie(called, result):
        if "certificate" not in result:
            return result
        header = read_header(result["header"] | changes)
        certificate = certified(header, node.context.genesis_hash, keys=keys)
        return result | {"header": render.header(header), "certificate": render.certificate(certificate)}

    return lie


FIELD_LIES = [
    # Proved records.
    ("account", "value", lying("value", change=_flip)),
    ("account", "value", lying("value", change=lambda value: None)),
    ("account", "proof", lying("proof", "siblings", 0, change=_flip)),
    ("account", "proof", lying("proof", "siblings", change=lambda siblings: siblings[1:])),
    ("account", "header", lying("header", "state_root", change=_flip)),
    ("account", "header", lying("header", "time_ms", change=lambda time: time + 1)),
    ("account", "chain", lying("header", "chain_id", change=lambda name: "other-1")),
    ("account", "validators", lying("header", "validators_hash", change=_flip)),
    ("account", "certificate", lying("certificate", change=lambda value: None)),
    ("account", "certificate", lying("certificate", "signatures", change=lambda signed: signed[:2])),
    ("account", "certificate", lying("certificate", "signatures", 1, "signature", change=_flip)),
    ("account", "certificate", lying("certificate", "view", change=lambda view: view + 1)),
    ("account", "header", lying("certificate", "height", change=lambda height: height + 1)),
    ("balance", "value", lying("value", change=_flip)),
    ("balance", "proof", lying("proof", "siblings", -1, change=_flip)),
    ("balance", "header", lying("header", "state_root", change=_flip)),
    ("balance", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("asset", "value", lying("value", change=lambda value: None)),
    ("asset", "value", lying("value", change=_flip)),
    ("asset", "proof", lying("proof", "siblings", 0, change=_flip)),
    ("asset", "header", lying("header", "units_used", change=lambda units: units + 1)),
    ("asset", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("prove", "value", lying("value", change=_flip)),
    # Status.
    ("status", "chain", lying("chain_id", change=lambda name: "other-1")),
    ("status", "header", lying("head", "hash", change=_flip)),
    ("status", "header", lying("head", "time_ms", change=lambda time: time + 1)),
    ("status", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("status", "header", lying("header", "state_root", change=_flip)),
    # Blocks and what is in them.
    ("block", "header", lying("header", "tx_root", change=_flip)),
    ("block", "certificate", lying("certificate", "signatures", 2, "signature", change=_flip)),
    ("block", "transaction", lying("transactions", change=lambda entries: entries[:1])),
    ("block", "transaction", lying("transactions", change=lambda entries: entries[::-1])),
    ("block", "transaction", lying("transactions", 0, "transaction", "wire", change=lambda wire: _flip(wire, -1))),
    ("block", "receipt", lying("transactions", 0, "receipt", "code", change=lambda code: "asset_unknown")),
    ("block", "receipt", lying("transactions", 0, "receipt", "events", change=lambda events: [])),
    (
        "block",
        "receipt",
        lying("transactions", 1, "receipt", "events", 0, "fields", "amount", change=lambda amount: "9"),
    ),
    ("block", "evidence", lying("evidence", change=lambda items: ["0x00"])),
    ("headers", "link", lying("headers", 1, "state_root", change=_flip)),
    ("headers", "link", lying("headers", change=lambda headers: headers[:1] + headers[2:])),
    ("headers", "header", lying("headers", -1, "state_root", change=_flip)),
    ("headers", "height", lying("headers", change=lambda headers: [])),
    ("headers", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("transaction", "transaction", lying("index", change=lambda index: 0, method="qenex_getTransaction")),
    ("transaction", "transaction", lying("index", change=lambda index: 7, method="qenex_getTransaction")),
    ("transaction", "transaction", lying("height", change=lambda height: 1, method="qenex_getTransaction")),
    ("transaction", "transaction", lying("id", change=_flip, method="qenex_getTransaction")),
    ("transaction", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("transaction", "header", lying("header", "tx_root", change=_flip)),
    ("receipt", "receipt", lying("code", change=lambda code: "asset_unknown")),
    ("receipt", "receipt", lying("events", 0, "fields", "amount", change=lambda amount: "999")),
    ("receipt", "receipt", lying("index", change=lambda index: 1, method="qenex_getReceipt")),
    ("receipt", "receipt", lying("height", change=lambda height: 1, method="qenex_getReceipt")),
    ("receipt", "certificate", lying("certificate", "signatures", 0, "signature", change=_flip)),
    ("receipt", "header", lying("header", "receipts_root", change=_flip)),
    ("validators", "validators", lying("validators", 0, "key", change=_flip)),
    ("validators", "validators", lying("validators", change=lambda members: members[:3])),
]


@pytest.mark.parametrize(
    ("query", "name", "lie"), FIELD_LIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_changed_field_is_refused_by_name(query, name, lie):
    client, wire, node = chain()
    wire.lie = lie
    with pytest.raises(VerificationFailed) as caught:
        QUERIES[query](client, node)
    assert caught.value.lie == name
    assert name in VerificationFailed.LIES


PROVED = ("account", "balance", "asset", "status", "block", "transaction", "receipt")


@pytest.mark.parametrize("query", PROVED)
def test_a_block_that_other_validators_signed_is_refused(query):
    client, wire, node = chain()
    wire.lie = swapped(node, OTHERS)
    with pytest.raises(VerificationFailed) as caught:
        QUERIES[query](client, node)
    assert caught.value.lie == "certificate"


@pytest.mark.parametrize("query", PROVED)
def test_a_block_that_names_the_set_that_signed_it_is_refused_as_another_set(query):
    others = ValidatorSet.of(Validator(f"x{n}", k.public.data, key(7500 + n).public.data) for n, k in enumerate(OTHERS))
    client, wire, node = chain()
    wire.lie = swapped(node, OTHERS, validators_hash=hexed(others.hash))
    with pytest.raises(VerificationFailed) as caught:
        QUERIES[query](client, node)
    assert caught.value.lie == "validators"


def test_prepares_make_nothing_final():
    client, wire, node = chain()

    def lie(called, result):
        header = read_header(result["header"])
        prepared = certified(header, node.context.genesis_hash, kind=VOTE_PREPARE)
        return result | {"certificate": render.certificate(prepared)}

    wire.lie = lie
    with pytest.raises(VerificationFailed, match=r"^certificate"):
        client.account(ANN.address)


def test_a_true_proof_of_another_key_is_refused():
    client, wire, node = chain()
    _, other_wire, _ = wired(node)
    told = {}

    def catch(called, result):
        told.update(result)
        return result

    other_wire.lie = catch
    client_of_other = wired(node, trust=True)[0]
    client_of_other._connect = other_wire.connect
    client_of_other.account(BOB.address)
    wire.lie = lambda called, result: told
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == "key"


def test_a_true_absence_of_another_key_is_refused():
    client, wire, _ = chain()
    told = {}
    wire.lie = lambda called, result: told.update(result) or result
    client.account(key(55).address)
    wire.lie = lambda called, result: told
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie in ("proof", "value")


@pytest.mark.parametrize("query", ["account", "balance", "asset", "status", "block", "headers"])
def test_an_answer_older_than_one_seen_before_is_stale(query):
    client, wire, node = chain()
    answers = {}
    wire.lie = lambda called, result: answers.setdefault(called, result)
    QUERIES[query](client, node)
    wire.lie = lambda called, result: result
    node.commit(node.world.tx(ANN, pay(CEM.address, 5)))
    client.prove(state_key(("validators",)))
    wire.lie = lambda called, result: answers.get(called, result)
    with pytest.raises(VerificationFailed) as caught:
        QUERIES[query](client, node)
    assert caught.value.lie == "stale"


def test_an_answer_older_than_the_caller_allows_is_stale():
    client, _, node = chain()
    now_ms = node.world.head.time_ms + 10_000
    client.session.now_ms = lambda: now_ms
    client.session.age_ms_max = 10_000
    client.account(ANN.address)
    client.session.age_ms_max = 9_999
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == "stale"


def test_an_answer_below_the_height_that_the_caller_demands_is_stale():
    client, _, node = chain()
    client.session.trusted.height = 4
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == "stale"
    header = node.world.headers[2]
    trusted = TrustedChain(node.world.genesis)
    with pytest.raises(VerificationFailed, match="stale"):
        trusted.accept(header, node.certificate_at(2), Freshness(height_min=3), None)


def test_an_answer_for_another_height_than_the_one_asked_for_is_refused():
    client, wire, _ = chain()
    answers = []
    wire.lie = lambda called, result: answers.append(result) or result
    client.account(ANN.address, height=1)
    wire.lie = lambda called, result: answers[0]
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address, height=2)
    assert caught.value.lie == "height"
    wire.lie = lying("height", change=lambda height: height + 1, method="qenex_getValidators")
    with pytest.raises(VerificationFailed, match="height"):
        client.validators(height=1)


def test_everything_from_another_chain_is_refused():
    client, _, node = chain()
    other = HonestNode(balance=7)
    other.commit(other.world.tx(ANN, pay(CEM.address, 1)))
    assert other.context.chain_id == node.context.chain_id
    assert other.context.genesis_hash != node.context.genesis_hash
    client._connect = wired(other)[1].connect
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == "certificate"


def test_another_genesis_document_than_the_expected_one_is_another_chain():
    node = HonestNode()
    TrustedChain(node.world.genesis, node.world.genesis.hash)
    with pytest.raises(VerificationFailed) as caught:
        TrustedChain(node.world.genesis, bytes(32))
    assert caught.value.lie == "chain"


# Block 0 has no certificate: it follows from the genesis document.


def test_block_0_is_made_of_the_genesis_document_as_the_store_makes_it():
    node = HonestNode()
    genesis = node.world.genesis
    assert first_header(genesis) == genesis_header(genesis, root_of(node.world.state))
    client, _, _ = wired(node, trust=True)
    assert client.balance(ANN.address, "QNX").available == 1_000_000


@pytest.mark.parametrize(("field", "name"), [("state_root", "header"), ("parent_hash", "chain")])
def test_another_block_0_is_refused(field, name):
    client, wire, _ = wired(trust=True)
    wire.lie = lying("header", field, change=_flip)
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == name


# Sets that change, and single inclusions.


def handing_over(node, at, following, keys):
    """Makes the chain show another set above height `at`, signed by these keys."""
    headers, certificate_at = node.world.headers, node.world.certificate_at
    headers[at] = replace(headers[at], next_validators_hash=following.hash)
    for height in range(at + 1, len(headers)):
        changed = {"validators_hash": following.hash, "next_validators_hash": following.hash}
        headers[height] = replace(headers[height], parent_hash=headers[height - 1].hash, **changed)
    node.world.head = headers[-1]
    before = node.world.validators
    node.world.validators_at = lambda height: following if height > at else before

    def certified_by(height):
        if height <= at:
            return certificate_at(height)
        return certified(headers[height], node.context.genesis_hash, keys=keys)

    node.world.certificate_at = certified_by


def another_set(keys):
    return ValidatorSet.of(Validator(f"x{n}", k.public.data, key(7500 + n).public.data) for n, k in enumerate(keys))


@pytest.mark.parametrize("query", QUERIES)
def test_answers_are_proved_through_a_change_of_the_set(query):
    client, wire, node = chain(4)
    handing_over(node, 2, another_set(OTHERS), OTHERS)
    QUERIES[query](client, node)
    client.account(ANN.address)
    assert client.session.trusted.validators_at(4) == another_set(OTHERS)
    assert client.session.trusted.validators_at(2) == node.world.validators
    # Once its set is trusted, a height costs no further question.
    asked = wire.calls["qenex_getLightBlock"]
    client.account(ANN.address)
    assert wire.calls["qenex_getLightBlock"] == asked


def test_a_set_that_no_trusted_one_hands_over_to_is_refused():
    client, _, node = chain(4)
    handing_over(node, 2, another_set(OTHERS), OTHERS)
    node.world.headers[2] = replace(node.world.headers[2], next_validators_hash=node.world.validators.hash)
    with pytest.raises(VerificationFailed) as caught:
        client.account(ANN.address)
    assert caught.value.lie == "validators"
    with pytest.raises(VerificationFailed):
        client.light_block(4)


def test_a_light_block_is_proved_and_shown_over_rpc():
    client, _, node = chain(3)
    block = client.light_block(2)
    assert block.header == node.world.headers[2]
    assert block.validators == node.world.validators
    assert block.certificate == node.certificate_at(2)


def test_one_transaction_and_one_receipt_are_proved_by_their_audit_paths():
    _, _, node = chain()
    executed = node.world.executed[2]
    header, wires = executed.block.header, executed.block.transactions
    path = rfc6962.path(executed.block.wire_hashes, 1)
    tx = check_transaction(header, node.context, ids(node, 2)[1], wires[1], 1, 2, path)
    assert tx.sender == BOB.address
    for wire, index, wrong in ((wires[0], 1, path), (wires[1], 0, path), (wires[1], 1, (sha256(b""),))):
        with pytest.raises(VerificationFailed, match="transaction"):
            check_transaction(header, node.context, ids(node, 2)[1], wire, index, 2, wrong)
    with pytest.raises(VerificationFailed, match="transaction"):
        check_transaction(header, node.context, ids(node, 2)[0], wires[1], 1, 2, path)
    receipts = executed.receipt_bytes
    path = rfc6962.path(receipts, 0)
    check_receipt(header, receipts[0], 0, 2, path)
    with pytest.raises(VerificationFailed, match="receipt"):
        check_receipt(header, receipts[1], 0, 2, path)


def test_certificates_keep_their_form_through_json():
    _, _, node = chain(1)
    certificate = node.certificate_at(1)
    assert read_certificate(render.certificate(certificate)) == certificate
    assert read_header(render.header(node.world.head)) == node.world.head


# Final transactions


def lying_about_the_outcome(called, result):
    if called == "qenex_sendTransaction" and result.get("status") == "committed":
        return result | {"receipt": result["receipt"] | {"code": "balance_insufficient", "events": []}}
    return result


def lying_about_the_place(called, result):
    return result | {"height": 2} if called == "qenex_sendTransaction" else result


def lying_that_it_is_final(called, result):
    receipt = {"id": result.get("id"), "code": "ok", "units": 1, "fee": "0", "events": []}
    if called == "qenex_sendTransaction":
        return result | {"status": "committed", "height": 1, "index": 0, "receipt": receipt}
    return result


@pytest.mark.parametrize("lie", [lying_about_the_outcome, lying_about_the_place, lying_that_it_is_final])
def test_what_a_node_says_of_a_payments_end_is_proved_before_anyone_pays_again_or_delivers(lie):
    client, wire, node = chain()
    if lie is lying_that_it_is_final:
        node.slow = True
        node.wait_committed = node.wait_accepted
    wire.lie = lie
    with pytest.raises(VerificationFailed) as caught:
        client.transfer(ANN, CEM.address, 5, "QNX")
    assert caught.value.lie == "receipt"


def test_a_payments_true_end_is_proved():
    client, wire, _ = chain()
    assert client.transfer(ANN, CEM.address, 5, "QNX").height == 4
    with pytest.raises(TransactionFailed) as caught:
        client.transfer(ANN, CEM.address, 10**12, "QNX")
    assert caught.value.code == "balance_insufficient"
    assert wire.calls["qenex_getReceipt"] == 2


def test_block_0_of_a_state_in_a_file_cannot_be_proved_and_is_no_lie():
    node = HonestNode()
    genesis = replace(node.world.genesis, state_file=StateFile(sha256(b"file"), 0, ()))
    header = replace(node.world.head, parent_hash=genesis.hash)
    with pytest.raises(Rejected, match="proof_unavailable"):
        TrustedChain(genesis).check_header(header, None)


def test_that_a_transaction_can_never_be_committed_is_proved_by_its_unused_number_after_its_deadline():
    client, wire, node = wired(trust=True, valid_ms=15)
    operation = client.session.operations.transfer(asset="QNX", recipients=[(CEM.address, 5)])
    late = client.prepare(ANN, [operation])
    node.commit(node.world.tx(BOB, pay(CEM.address, 1)))
    assert not client.never(late)
    node.commit(node.world.tx(BOB, pay(CEM.address, 1)))
    assert node.world.head.time_ms > late.not_after_ms
    assert client.never(late)
    assert wire.calls["qenex_getProof"] == 2
    node.commit(node.world.tx(ANN, pay(CEM.address, 1), sequence=late.sequence))
    assert not client.never(late)


def test_nothing_is_known_never_to_be_committed_without_trust():
    client, _, _ = wired()
    operation = client.session.operations.transfer(asset="QNX", recipients=[(CEM.address, 5)])
    with pytest.raises(Rejected, match="trust_missing"):
        client.never(client.prepare(ANN, [operation]))
