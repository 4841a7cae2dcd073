"""Transactions: one encoding, an id that nobody can change, signatures bound to one chain, strict shapes."""

import pytest

from state.codec import encode
from state.errors import DecodeError, Rejected
from state.hashing import TAG_TRANSACTION, TAG_WIRE, sha256
from state.keys import ED25519, ML_DSA_65, ML_DSA_87, Policy, SigningKey
from state.transaction import (
    Authorisation,
    Operation,
    assemble,
    body_value,
    decode_for_simulation,
    decode_transaction,
    sign_transaction,
    signing_bytes,
    verify_signatures,
)
from state.types import ChainContext

CONTEXT = ChainContext("test-1", sha256(b"genesis"))
OTHER = ChainContext("test-1", sha256(b"another genesis"))
PAY = Operation("transfer", 1, (None, "QNX", ((bytes(32), b"\x05"),)))


def key(number, scheme=ED25519):
    return SigningKey(scheme, sha256(bytes([number])))


ANN, BOB, QUANTUM = key(1), key(2), key(3, ML_DSA_65)


def body(context=CONTEXT, **changes):
    given = {"sender": ANN.address, "lane": 3, "sequence": 7, "not_after_ms": 1_700_000_000_000, "operations": [PAY]}
    given.update(changes)
    return body_value(context, **given)


def signed(*signers, context=CONTEXT, **changes):
    return sign_transaction(context, body(context, **changes), {s.address: [s] for s in signers or (ANN,)})


def code_of(wire, context=CONTEXT):
    with pytest.raises(Rejected) as caught:
        verify_signatures(decode_transaction(wire, context))
    return caught.value.code


def test_a_transaction_reads_back_with_all_its_fields():
    wire = signed(ANN, BOB, payer=BOB.address, fee_max=900, memo=b"for tea")
    tx = decode_transaction(wire, CONTEXT)
    verify_signatures(tx)
    assert (tx.sender, tx.lane, tx.sequence, tx.not_after_ms) == (ANN.address, 3, 7, 1_700_000_000_000)
    assert (tx.payer, tx.fee_max, tx.memo, tx.operations) == (BOB.address, 900, b"for tea", (PAY,))
    assert tx.wire == wire
    assert tx.signature_count == 2
    assert assemble(body(payer=BOB.address, fee_max=900, memo=b"for tea"), tx.authorisations) == wire


def test_id_and_wire_hash_are_these_hashes():
    tx = decode_transaction(signed(), CONTEXT)
    assert tx.signing_bytes == TAG_TRANSACTION + CONTEXT.genesis_hash + encode(body())
    assert tx.id == sha256(tx.signing_bytes)
    assert tx.wire_hash == sha256(TAG_WIRE + tx.wire)


def test_another_signature_changes_the_wire_hash_and_never_the_id():
    one, other = (sign_transaction(CONTEXT, body(), {QUANTUM.address: [QUANTUM], ANN.address: [ANN]}) for _ in range(2))
    assert one != other  # ML-DSA signs with fresh randomness
    first, second = decode_transaction(one, CONTEXT), decode_transaction(other, CONTEXT)
    assert first.id == second.id
    assert first.wire_hash != second.wire_hash


def test_a_signature_holds_for_one_genesis_alone():
    assert code_of(signed(context=OTHER)) == "bad_signature"


def test_a_transaction_of_another_chain_is_refused_by_name():
    other = ChainContext("test-2", CONTEXT.genesis_hash)
    with pytest.raises(Rejected, match="'test-2'"):
        decode_transaction(signed(context=other), CONTEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"lane": 4},
        {"sequence": 8},
        {"not_after_ms": 5},
        {"memo": b"x"},
        {"fee_max": 1},
        {"operations": [PAY, PAY]},
    ],
)
def test_a_signature_covers_every_field(change):
    authorisations = decode_transaction(signed(), CONTEXT).authorisations
    assert code_of(assemble(body(**change), authorisations)) == "bad_signature"


@pytest.mark.parametrize("scheme", [ED25519, ML_DSA_65, ML_DSA_87])
def test_each_scheme_signs(scheme):
    signer = key(5, scheme)
    verify_signatures(decode_transaction(signed(signer, sender=signer.address), CONTEXT))


def test_sender_and_payer_must_be_among_those_who_sign():
    assert code_of(signed(BOB)) == "not_authorised"
    assert code_of(signed(ANN, payer=BOB.address)) == "not_authorised"


def with_body(*changes):
    value = list(body())
    for place, item in changes:
        value[place] = item
    message = signing_bytes(CONTEXT, tuple(value))
    return assemble(tuple(value), [Authorisation(ANN.address, None, ((ANN.public, ANN.sign(message)),))])


MALFORMED = [
    ("version", with_body((0, 2)), "version_unknown"),
    ("version as boolean", with_body((0, True)), "version_unknown"),
    ("chain id of another type", with_body((1, b"test-1")), "malformed"),
    ("short sender", with_body((2, ANN.address[:31])), "malformed"),
    ("lane 16", with_body((3, (16, 0))), "malformed"),
    ("last sequence", with_body((3, (0, 2**64 - 1))), "malformed"),
    ("lane without sequence", with_body((3, (0,))), "malformed"),
    ("text for a time", with_body((4, "soon")), "malformed"),
    ("short payer", with_body((5, b"x")), "malformed"),
    ("fee as integer", with_body((6, 5)), "malformed"),
    ("fee with a leading zero", with_body((6, b"\x00\x01")), "malformed"),
    ("no operation", with_body((7, ())), "malformed"),
    ("too many operations", with_body((7, (PAY.to_value(),) * 1025)), "malformed"),
    ("an operation of two parts", with_body((7, (("transfer", 1),))), "malformed"),
    ("fields that are no array", with_body((7, (("transfer", 1, "x"),))), "malformed"),
    ("a long memo", with_body((8, bytes(129))), "malformed"),
    ("a text memo", with_body((8, "hi")), "malformed"),
    ("not a transaction", encode((1, 2, 3)), "malformed"),
    ("too large", bytes(128 * 1024 + 1), "transaction_too_large"),
]


@pytest.mark.parametrize(("wire", "code"), [m[1:] for m in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_another_shape_is_refused(wire, code):
    assert code_of(wire) == code


def authorised(*items):
    return encode((body(), tuple(items)))


def item(who, *pairs, policy=None):
    return (who.address, policy, tuple((k.public.to_value(), bytes(s)) for k, s in pairs))


def ordered(*keys):
    return sorted(keys, key=lambda k: k.public)


A, B = ordered(ANN, BOB)
FIRST, SECOND = sorted((ANN, BOB), key=lambda k: k.address)
AUTHORISATIONS = [
    ("out of order", authorised(item(SECOND, (SECOND, 64)), item(FIRST, (FIRST, 64))), "malformed"),
    ("an address twice", authorised(item(ANN, (ANN, 64)), item(ANN, (ANN, 64))), "malformed"),
    ("keys out of order", authorised(item(ANN, (B, 64), (A, 64))), "malformed"),
    ("a key twice", authorised(item(ANN, (ANN, 64), (ANN, 64))), "malformed"),
    ("no signature", authorised(item(ANN)), "malformed"),
    ("a short signature", authorised(item(ANN, (ANN, 63))), "malformed"),
    ("an unknown scheme", authorised((ANN.address, None, (((9, bytes(32)), bytes(64)),))), "scheme_unknown"),
    ("17 signatures", authorised(item(ANN, *((key(n), 64) for n in range(100, 117)))), "malformed"),
    ("a bad policy", authorised(item(ANN, (ANN, 64), policy=(2, (ANN.public.to_value(),)))), "policy_invalid"),
]


@pytest.mark.parametrize(("wire", "code"), [a[1:] for a in AUTHORISATIONS], ids=[a[0] for a in AUTHORISATIONS])
def test_authorisations_of_another_shape_are_refused(wire, code):
    assert code_of(wire) == code


def test_sixteen_signatures_over_several_accounts_are_the_most():
    signers = {
        Policy.of(8, tuple(key(n).public for n in group)).address: [key(n) for n in group]
        for group in (range(100, 108), range(110, 118))
    }
    wire = sign_transaction(CONTEXT, body(sender=next(iter(signers))), signers)
    assert decode_transaction(wire, CONTEXT).signature_count == 16
    signers[ANN.address] = [ANN]
    with pytest.raises(DecodeError):
        decode_transaction(sign_transaction(CONTEXT, body(sender=next(iter(signers))), signers), CONTEXT)


def test_an_unsigned_transaction_is_read_only_for_a_simulation():
    unsigned = encode((body(), ()))
    assert decode_for_simulation(unsigned, CONTEXT).authorisations == ()
    assert code_of(unsigned) == "not_authorised"
    with pytest.raises(Rejected):
        decode_for_simulation(signed(BOB), CONTEXT)
    assert decode_for_simulation(signed(), CONTEXT).id == decode_transaction(signed(), CONTEXT).id
