"""Messages: one canonical form each, truth checked before the core sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster import GENESIS, Cluster, block_on
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traps import signed_messages

from consensus.evidence import contradiction
from consensus.messages import (
    MESSAGE_BYTES_MAX,
    Decided,
    Kind,
    Status,
    Suspect,
    Vote,
    decode_message,
    encode_message,
)
from consensus.verify import verify_message
from state.codec import decode, encode
from state.errors import DecodeError, Rejected
from state.hashing import ZERO_HASH, Hash
from state.limits import VALIDATORS_MAX
from state.types import Certificate, Height, View

CLUSTER = Cluster(4, real=True)
BLOCK = block_on(CLUSTER.genesis, CLUSTER.set_at(Height(1)), CLUSTER.identities["a"].key, b"A")
OTHER = block_on(CLUSTER.genesis, CLUSTER.set_at(Height(1)), CLUSTER.identities["a"].key, b"B")


def every_message() -> list:
    forger = CLUSTER.forger("a")
    votes = [forger.vote(Kind.COMMIT, 1, 0, block.header.hash) for block in (BLOCK, OTHER)]
    proposals = [forger.propose(0, block) for block in (BLOCK, OTHER)]
    return [
        *signed_messages(CLUSTER),
        Decided(CLUSTER.certificate(Kind.COMMIT, 1, 0, BLOCK.header.hash, "abc")),
        contradiction(*votes),
        contradiction(*proposals),
    ]


@pytest.mark.parametrize("message", every_message(), ids=lambda message: type(message).__name__)
def test_every_message_round_trips_and_verifies(message) -> None:
    data = encode_message(message)
    assert decode_message(data) == message
    assert len(data) <= MESSAGE_BYTES_MAX
    verify_message(decode_message(data), GENESIS, CLUSTER.set_at)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(every_message()) - 1), st.data())
def test_mutated_messages_never_verify(number: int, data) -> None:
    """Whatever byte of a message is changed, it is refused by form or by signature."""
    wire = bytearray(encode_message(every_message()[number]))
    place = data.draw(st.integers(0, len(wire) - 1))
    wire[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Rejected):
        verify_message(decode_message(bytes(wire)), GENESIS, CLUSTER.set_at)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9).map(tuple),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.lists(VALUES, max_size=8))
def test_any_canonical_array_is_decoded_or_refused(kind: int, rest: list) -> None:
    try:
        message = decode_message(encode((kind, *rest)))
    except DecodeError:
        return
    assert encode_message(message) == encode((kind, *rest))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_field_of_any_other_value_is_decoded_or_refused(data) -> None:
    """Structured garbage: a real message in which one field, however deep, is something else."""
    message = data.draw(st.sampled_from(every_message()))
    value = decode(encode_message(message), bytes_max=MESSAGE_BYTES_MAX)
    path: list[int] = []
    inner = value
    while type(inner) is tuple and inner and (not path or data.draw(st.booleans())):
        path.append(data.draw(st.integers(0, len(inner) - 1)))
        inner = inner[path[-1]]
    with_other = replaced(value, path, data.draw(VALUES))
    try:
        again = decode_message(encode(with_other))
    except Rejected:
        return
    assert encode_message(again) == encode(with_other)


def replaced(value, path: list[int], new):
    if not path:
        return new
    return (*value[: path[0]], replaced(value[path[0]], path[1:], new), *value[path[0] + 1 :])


numbers = st.integers(1, 2**64 - 2)


@given(numbers, numbers, st.binary(min_size=32, max_size=32), st.integers(0, VALIDATORS_MAX - 1))
def test_votes_round_trip(height: int, view: int, block_hash: bytes, sender: int) -> None:
    for message in (
        Vote(Kind.PREPARE, Height(height), View(view), Hash(block_hash), sender, bytes(64)),
        Suspect(Height(height), View(view), sender, bytes(64)),
        Status(Height(height), View(view), View(view), Hash(block_hash), view, height, sender, bytes(64)),
    ):
        assert decode_message(encode_message(message)) == message


FALSE = {
    "another chain's": lambda good: (good, ZERO_HASH),
    "another sender's": lambda good: (replace(good, sender=2), GENESIS),
    "another kind's": lambda good: (replace(good, kind=Kind.COMMIT), GENESIS),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_signature_counts_for_its_own_place_only(name: str) -> None:
    message, genesis_hash = FALSE[name](CLUSTER.forger("b").vote(Kind.PREPARE, 1, 0, BLOCK.header.hash))
    with pytest.raises(Rejected, match="signature_invalid"):
        verify_message(message, genesis_hash, CLUSTER.set_at)


def test_certificates_inside_messages_are_proved() -> None:
    """A VIEW-CHANGE with a certificate of too few votes is refused, however well it is signed itself."""
    short = CLUSTER.certificate(Kind.COMMIT, 1, 0, BLOCK.header.hash, "ab")
    with pytest.raises(Rejected, match="certificate_invalid"):
        verify_message(CLUSTER.forger("b").view_change(2, 1, short), GENESIS, CLUSTER.set_at)
    with pytest.raises(Rejected, match="certificate_invalid"):
        verify_message(Decided(short), GENESIS, CLUSTER.set_at)


def test_a_certificate_of_one_view_does_not_pass_for_another() -> None:
    good = CLUSTER.certificate(Kind.COMMIT, 1, 0, BLOCK.header.hash, "abc")
    moved = Certificate(good.kind, good.height, View(1), good.block_hash, good.signatures)
    with pytest.raises(Rejected, match="certificate_invalid"):
        verify_message(Decided(moved), GENESIS, CLUSTER.set_at)


@pytest.mark.parametrize("spoilt", ["copies", "too few", "out of order", "another view", "above its height"])
def test_a_new_view_of_impossible_form_costs_no_signature_check(spoilt: str) -> None:
    changes = tuple(CLUSTER.forger(name).view_change(1, 1) for name in "abc")
    good = CLUSTER.forger("b").new_view(1, *changes)
    high = CLUSTER.forger("a").view_change(2, 1, CLUSTER.certificate(Kind.COMMIT, 1, 0, BLOCK.header.hash, "abc"))
    bad = {
        "copies": changes[:1] * 64,
        "too few": changes[:2],
        "out of order": changes[::-1],
        "another view": (CLUSTER.forger("a").view_change(1, 2), *changes[1:]),
        "above its height": (high, *changes[1:]),
    }[spoilt]
    proved: list[bytes] = []

    def note(key: bytes, preimage: bytes, signature: bytes) -> bool:
        proved.append(signature)
        return True

    with pytest.raises(Rejected, match="new_view_form"):
        verify_message(replace(good, view_changes=bad), GENESIS, CLUSTER.set_at, note)
    assert proved == []
    verify_message(good, GENESIS, CLUSTER.set_at, note)
    assert len(proved) == 4


def test_a_message_of_an_unknown_set_is_refused_by_name() -> None:
    vote = CLUSTER.forger("b").vote(Kind.PREPARE, 1, 0, BLOCK.header.hash)
    with pytest.raises(Rejected, match="validators_unknown"):
        verify_message(vote, GENESIS, lambda height: None)
    with pytest.raises(Rejected, match="sender_unknown"):
        verify_message(replace(vote, sender=9), GENESIS, CLUSTER.set_at)
