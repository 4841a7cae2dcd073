"""Blocks, headers, validator sets and certificates: their encodings and what they commit to."""

from dataclasses import fields, replace

import pytest

from state.block import Block, evidence_hash, tx_root, verify_certificate, vote_preimage
from state.codec import decode, encode
from state.errors import DecodeError, InvariantError, Rejected
from state.hashing import TAG_VOTE, sha256
from state.keys import ED25519, SigningKey
from state.types import Certificate, Header, Validator, ValidatorSet

GENESIS = sha256(b"genesis")


def keys(count):
    return [SigningKey(ED25519, sha256(b"v%d" % n)) for n in range(count)]


def set_of(count):
    return ValidatorSet.of(Validator(f"v{n:02}", k.public.data, sha256(b"n%d" % n)) for n, k in enumerate(keys(count)))


def header(**changes):
    given = {field.name: sha256(field.name.encode()) for field in fields(Header)}
    given.update(version=1, chain_id="test-1", height=5, time_ms=1_700_000_000_000, units_used=4)
    given.update(changes)
    return Header(**given)


def block(wires=(b"one", b"two"), evidence=()):
    hashes = Block(header(), tuple(wires)).wire_hashes
    return Block(header(tx_root=tx_root(hashes), evidence_hash=evidence_hash(evidence)), tuple(wires), tuple(evidence))


def test_a_header_reads_back():
    assert Header.decode(header().encoded) == header()


@pytest.mark.parametrize("name", [field.name for field in fields(Header)])
def test_a_blocks_hash_covers_every_field_of_its_header(name):
    value = getattr(header(), name)
    other = value + 1 if type(value) is int else "test-2" if type(value) is str else sha256(value)
    assert header(**{name: other}).hash != header().hash


def test_a_header_of_another_version_is_refused_by_name():
    with pytest.raises(DecodeError, match="header version 2"):
        Header.decode(header(version=2).encoded)


def test_a_block_reads_back_and_commits_to_its_content():
    for one in (block(), block(evidence=(b"proof",)), block(wires=())):
        assert Block.decode(one.encoded) == one


@pytest.mark.parametrize(
    "change",
    [
        lambda b: replace(b, transactions=b.transactions[::-1]),
        lambda b: replace(b, transactions=b.transactions[:1]),
        lambda b: replace(b, transactions=(*b.transactions, b"three")),
        lambda b: replace(b, evidence=(b"proof",)),
    ],
)
def test_a_block_whose_content_is_not_its_headers_is_refused(change):
    with pytest.raises(DecodeError):
        Block.decode(change(block()).encoded)


@pytest.mark.parametrize(
    ("n", "f", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (8, 2, 6), (10, 3, 7), (16, 5, 11)],
)
def test_two_quorums_share_a_correct_validator_for_every_n(n, f, quorum):
    validators = set_of(n)
    assert (validators.f, validators.quorum) == (f, quorum)
    assert 2 * quorum - n > f
    assert quorum <= n - f


def test_the_primary_stays_unless_a_term_is_set():
    validators = set_of(4)
    assert [validators.primary(height, 0, 0) for height in range(5)] == [0] * 5
    assert [validators.primary(7, view, 0) for view in range(5)] == [0, 1, 2, 3, 0]
    assert [validators.primary(height, 1, 2) for height in range(6)] == [1, 1, 2, 2, 3, 3]


def test_a_validator_set_reads_back_in_order_of_names():
    validators = set_of(5)
    assert ValidatorSet.of(reversed(validators.validators)) == validators
    assert ValidatorSet.from_value(decode(encode(validators.to_value()), bytes_max=10_000)) == validators
    assert validators.index_of(validators.validators[3].key) == 3
    assert validators.index_of(bytes(32)) is None


def test_a_validator_set_with_shared_names_or_keys_is_refused():
    a, b = set_of(2).validators
    for pair in ([], [a, replace(b, name=a.name)], [a, replace(b, key=a.key)], [a, replace(b, node_key=a.node_key)]):
        with pytest.raises(DecodeError):
            ValidatorSet.of(pair)
    with pytest.raises(DecodeError):
        ValidatorSet((b, a))


def certificate(signers, kind=2, height=5, view=3, validators=None, block_hash=GENESIS, count=4):
    validators = validators or set_of(count)
    by_key = {k.public.data: k for k in keys(count)}
    message = vote_preimage(GENESIS, validators.hash, kind, height, view, block_hash)
    return Certificate(
        kind,
        height,
        view,
        block_hash,
        tuple((i, by_key[validators.validators[i].key].sign(message)) for i in signers),
    )


def test_a_quorum_of_signatures_proves_a_block():
    for signers in ([0, 1, 2], [0, 1, 2, 3], [1, 2, 3]):
        verify_certificate(certificate(signers), GENESIS, set_of(4))
        assert Certificate.decode(certificate(signers).encode()) == certificate(signers)


@pytest.mark.parametrize(
    "bad",
    [
        certificate([0, 1]),
        replace(certificate([0, 1, 2]), height=6),
        replace(certificate([0, 1, 2]), view=2),
        replace(certificate([0, 1, 2]), kind=1),
        replace(certificate([0, 1, 2]), block_hash=sha256(b"other")),
        replace(certificate([0, 1, 2]), signatures=certificate([0, 1]).signatures * 2),
        replace(certificate([0, 1, 2]), signatures=((0, bytes(64)), *certificate([1, 2]).signatures)),
        replace(certificate([0, 1, 2]), signatures=(*certificate([0, 1]).signatures, (9, bytes(64)))),
    ],
)
def test_a_certificate_that_proves_less_is_refused(bad):
    with pytest.raises(Rejected) as caught:
        verify_certificate(bad, GENESIS, set_of(4))
    assert caught.value.code == "certificate_invalid"


def test_a_certificate_is_for_one_genesis_and_one_validator_set():
    good = certificate([0, 1, 2])
    for genesis, validators in ((sha256(b"other"), set_of(4)), (GENESIS, set_of(5))):
        with pytest.raises(Rejected):
            verify_certificate(good, genesis, validators)


@pytest.mark.parametrize(
    "value",
    [
        (3, 5, 3, GENESIS, ()),
        (True, 5, 3, GENESIS, ()),
        (2, 5, 3, GENESIS, ((1, bytes(64)), (0, bytes(64)))),
        (2, 5, 3, GENESIS, ((1, bytes(64)), (1, bytes(64)))),
        (2, 5, 3, GENESIS, ((1, bytes(63)),)),
        (2, 5, 3, GENESIS, ((64, bytes(64)),)),
        (2, 5, 3, GENESIS[:31], ()),
        (2, 5, 3, GENESIS),
    ],
)
def test_a_certificate_of_another_shape_is_malformed(value):
    with pytest.raises(DecodeError):
        Certificate.decode(encode(value))


def test_no_certificate_is_made_of_other_votes():
    with pytest.raises(InvariantError):
        Certificate(3, 5, 3, GENESIS, ())


def test_a_vote_signs_this_preimage():
    validators = set_of(4)
    expected = TAG_VOTE + encode((GENESIS, validators.hash, 2, 5, 3, sha256(b"block")))
    assert vote_preimage(GENESIS, validators.hash, 2, 5, 3, sha256(b"block")) == expected
