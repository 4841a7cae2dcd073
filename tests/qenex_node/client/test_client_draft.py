"""Transactions in files: signed by several people apart, put together, and refused when anything was changed."""

import json
from dataclasses import replace

import pytest

from qenex_node.client import Draft, Slot
from state.errors import Rejected
from state.keys import ML_DSA_65, Policy, SigningKey
from state.transaction import body_value, verify_signatures
from tests.qenex_node.client.client_support import ANN, BOB, CEM, HonestNode, key
from tests.state.ledger.world import pay

KEYS = [key(60 + n) for n in range(3)]
SHARED = Policy.of(2, tuple(k.public for k in KEYS))


def draft(sender=None, others=(), **fields):
    node = HonestNode()
    slot = sender or Slot(SHARED.address, SHARED)
    body = body_value(node.context, slot.address, 0, 0, node.now_ms() + 1000, [pay(CEM.address, 5)], **fields)
    return node, Draft.make(node.context, body, [slot, *others])


def through_a_file(made):
    return Draft.from_json(json.loads(json.dumps(made.to_json())))


def test_people_sign_one_after_the_other():
    node, made = draft()
    assert made.missing == ((SHARED.address, 2),)
    for signer in KEYS[:2]:
        made = through_a_file(made).signed_by(signer)
    tx = made.transaction()
    verify_signatures(tx)
    assert (tx.id, made.missing) == (made.id, ())
    assert tx.authorisations[0].policy == SHARED
    assert node.ledger.admission(node.world, tx, node.now_ms())


def test_people_sign_apart_and_the_order_of_putting_together_does_not_matter():
    _, made = draft()
    first, second = (through_a_file(made).signed_by(signer) for signer in KEYS[1:])
    assert first.merged(second).wire() == second.merged(first).wire()
    assert first.merged(first) == first
    assert first.signed_by(KEYS[1]) == first


def test_a_draft_is_complete_only_when_each_account_has_enough_signatures():
    _, made = draft(Slot(ANN.address), [Slot(BOB.address), Slot(SHARED.address, SHARED)])
    for signer, missing in ((ANN, 2), (KEYS[0], 2), (BOB, 1), (KEYS[2], 0)):
        made = made.signed_by(signer)
        assert len(made.missing) == missing
        if missing:
            with pytest.raises(Rejected, match="signatures_missing"):
                made.wire()
    assert made.transaction().signature_count == 4


def test_a_stored_policy_does_not_travel():
    _, made = draft(Slot(ANN.address, SHARED, stored=True))
    tx = made.signed_by(KEYS[0]).signed_by(KEYS[1]).transaction()
    assert tx.authorisations[0].policy is None


def test_post_quantum_signatures_survive_the_file():
    signer = SigningKey(ML_DSA_65, bytes(32))
    _, made = draft(Slot(signer.address))
    verify_signatures(through_a_file(made.signed_by(signer)).transaction())


def test_a_key_that_no_account_counts_is_refused():
    _, made = draft()
    with pytest.raises(Rejected, match="key_not_needed"):
        made.signed_by(ANN)


def test_drafts_of_different_transactions_are_not_put_together():
    _, made = draft()
    _, other = draft(memo=b"other")
    with pytest.raises(Rejected, match="draft_differs"):
        made.merged(other)
    with pytest.raises(Rejected, match="draft_differs"):
        made.merged(replace(made, slots=(replace(made.slots[0], stored=True),)))


def changed(made, *path, to):
    document = json.loads(json.dumps(made.to_json()))
    holder = document
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = to(holder[path[-1]])
    return document


def _flip(text):
    return text[:-1] + ("0" if text[-1] != "0" else "1")


CHANGES = [
    (("body",), _flip),
    (("genesis_hash",), _flip),
    (("authorisations", 0, "signatures", 0, "signature"), _flip),
    (("authorisations", 0, "signatures", 0, "key"), _flip),
    (("authorisations", 0, "policy"), lambda policy: None),
    (("authorisations", 0, "address"), lambda address: 5),
    (("authorisations",), lambda slots: [{}]),
    (("chain_id",), lambda name: "other-1"),
    (("body",), lambda body: "0x00"),
    (("body",), lambda body: None),
    (("format",), lambda name: "other"),
    (("version",), lambda version: 2),
]


@pytest.mark.parametrize(("path", "to"), CHANGES, ids=range(len(CHANGES)))
def test_a_changed_file_is_refused(path, to):
    _, made = draft()
    signed = made.signed_by(KEYS[0])
    assert through_a_file(signed) == signed
    with pytest.raises(Rejected) as caught:
        Draft.from_json(changed(signed, *path, to=to))
    assert caught.value.code in ("draft_invalid", "version_unknown", "address_invalid")


def test_the_unsigned_form_is_what_a_simulation_takes():
    _, made = draft()
    assert made.unsigned().endswith(b"\x90")
