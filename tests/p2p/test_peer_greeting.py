"""The greeting as a machine: who accepts whom, by which name others are refused, and why a proof cannot be replayed."""

from __future__ import annotations

from typing import Any

import pytest
from p2p_support import CHAIN, FakeNode

from p2p.hello import PROTOCOL_VERSION, Greeting, Role, decode_reject, encode_reject, proof_preimage
from p2p.wire import Kind, encode_frame
from state.errors import DecodeError, Rejected
from state.hashing import sha256
from state.types import ChainContext

A, B, C = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
FULL = FakeNode("f", 4, role=Role.FULL)


def greeting(own: FakeNode, other: FakeNode, nonce: int = 0) -> Greeting:
    return Greeting(own.local(), own.key.id, other.key.id, bytes([nonce]) * 32)


def refusal(ours: Greeting, hello: Any) -> str:
    with pytest.raises(Rejected) as caught:
        ours.receive_hello(hello)
    return caught.value.code


def test_two_validators_accept_each_other() -> None:
    ours, theirs = greeting(A, B, 1), greeting(B, A, 2)
    our_ack, their_ack = ours.receive_hello(theirs.hello()), theirs.receive_hello(ours.hello())
    assert not ours.accepted
    ours.receive_ack(their_ack)
    theirs.receive_ack(our_ack)
    assert ours.accepted
    assert theirs.accepted
    assert ours.remote.validator_key == B.validator.public.data
    assert (ours.remote.role, ours.remote.head_height, ours.remote.listen_address) == (Role.VALIDATOR, 2, "b:1")


def test_a_full_node_and_a_validator_accept_each_other() -> None:
    ours, theirs = greeting(A, FULL, 1), greeting(FULL, A, 2)
    ours_ack, theirs_ack = ours.receive_hello(theirs.hello()), theirs.receive_hello(ours.hello())
    assert theirs_ack[0] is None
    ours.receive_ack(theirs_ack)
    theirs.receive_ack(ours_ack)
    assert ours.remote.role is Role.FULL


def test_each_learns_the_latest_vote_that_the_other_has_seen_of_it() -> None:
    seer = FakeNode("b", 2)
    seer.votes[A.validator.public.data] = b"a vote of a"
    ours, theirs = greeting(A, seer), greeting(seer, A)
    ours.receive_hello(theirs.hello())
    ours.receive_ack(theirs.receive_hello(ours.hello()))
    assert ours.vote_seen == b"a vote of a"


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (0, PROTOCOL_VERSION + 1, "wrong_version"),
        (1, "another-chain", "wrong_chain"),
        (2, sha256(b"another genesis"), "wrong_genesis"),
        (3, bytes.fromhex(C.id), "wrong_node_id"),
        (4, "full", "not_a_validator"),
        (4, "admiral", "malformed"),
        (5, "x" * 1000, "malformed"),
        (6, "high", "malformed"),
        (7, None, "not_a_validator"),
        (7, b"short", "malformed"),
        (8, b"short", "malformed"),
    ],
)
def test_a_wrong_field_is_refused_by_name(place: int, value: Any, code: str) -> None:
    hello = list(greeting(B, A).hello())
    hello[place] = value
    assert refusal(greeting(A, B), tuple(hello)) == code


@pytest.mark.parametrize("hello", [None, 5, (), (1,), b"hello", ("1",)])
def test_a_hello_of_another_shape_is_malformed(hello: Any) -> None:
    assert refusal(greeting(A, B), hello) == "malformed"


def test_a_later_versions_hello_is_named_whatever_else_it_holds() -> None:
    assert refusal(greeting(A, B), (2, "new", "fields")) == "wrong_version"


def test_a_stated_key_that_did_not_sign_the_greeting_is_refused() -> None:
    hello = list(greeting(B, A).hello())
    hello[7] = C.validator.public.data
    ours, theirs = greeting(A, B), greeting(B, A)
    ours.receive_hello(tuple(hello))
    with pytest.raises(Rejected, match="proof_invalid"):
        ours.receive_ack(theirs.receive_hello(greeting(A, B).hello()))


def test_a_proof_recorded_in_another_greeting_is_refused() -> None:
    recorded_at, recorded_by = greeting(A, B, 1), greeting(B, A, 2)
    old_hello = recorded_by.hello()
    old_ack = recorded_by.receive_hello(recorded_at.hello())
    ours = greeting(A, B, 9)
    ours.receive_hello(old_hello)
    with pytest.raises(Rejected, match="proof_invalid"):
        ours.receive_ack(old_ack)
    assert not ours.accepted


def test_a_proof_relayed_live_between_two_other_nodes_is_refused() -> None:
    victim_to_middle = greeting(B, C, 2)
    ours = greeting(A, B, 1)
    as_middle = list(greeting(C, B, 1).hello())
    relayed_ack = victim_to_middle.receive_hello(tuple(as_middle))
    ours.receive_hello(greeting(B, A, 2).hello())
    with pytest.raises(Rejected, match="proof_invalid"):
        ours.receive_ack(relayed_ack)


def test_a_validator_without_proof_is_refused() -> None:
    ours = greeting(A, B)
    ours.receive_hello(greeting(B, A).hello())
    with pytest.raises(DecodeError):
        ours.receive_ack((None, None))


def test_greeting_frames_out_of_order_are_refused() -> None:
    ours = greeting(A, B)
    with pytest.raises(Rejected, match="unexpected_frame"):
        ours.receive_ack((None, None))
    ours.receive_hello(greeting(B, A).hello())
    assert refusal(ours, greeting(B, A).hello()) == "unexpected_frame"


def test_the_proof_binds_genesis_both_nodes_and_both_nonces() -> None:
    nonces = (bytes(32), bytes([1]) * 32)
    base = proof_preimage(CHAIN.genesis_hash, A.key.id, B.key.id, nonces)
    others = [
        proof_preimage(sha256(b"other"), A.key.id, B.key.id, nonces),
        proof_preimage(CHAIN.genesis_hash, B.key.id, A.key.id, nonces),
        proof_preimage(CHAIN.genesis_hash, C.key.id, B.key.id, nonces),
        proof_preimage(CHAIN.genesis_hash, A.key.id, B.key.id, (nonces[1], nonces[0])),
    ]
    assert base not in others
    assert base.startswith(b"QENEX/hello/1\x00")


def test_the_largest_legal_greeting_fits_its_frames() -> None:
    node = FakeNode("n", 5)
    node.chain = ChainContext("c" * 32, CHAIN.genesis_hash)
    node.height = 2**64 - 1
    encode_frame(Kind.HELLO, greeting(node, A).hello())
    encode_frame(Kind.HELLO_ACK, (bytes(64), bytes(16 * 1024)))


def test_a_refusal_is_cut_to_its_bounds_and_safe_to_log() -> None:
    body = encode_reject("code", "line\nbreak\x1b[31m" + "x" * 10_000)
    encode_frame(Kind.REJECT, body)
    code, message = decode_reject(body)
    assert code == "code"
    assert message.startswith("line?break?[31m")
    with pytest.raises(DecodeError):
        decode_reject(("code",))
