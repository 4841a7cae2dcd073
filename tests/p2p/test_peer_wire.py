"""Frames: what goes through unchanged, and what is refused before it costs anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import limits
from p2p.wire import (
    ESTABLISHED_KINDS,
    GREETING_KINDS,
    KINDS,
    FrameError,
    Framer,
    Kind,
    batches,
    encode_frame,
)
from state.codec import encode
from state.errors import InvariantError

ALL = frozenset(Kind)
HASH = bytes(range(32))
SAMPLES: list[tuple[Kind, Any]] = [
    (Kind.HELLO, (1, "chain")),
    (Kind.HELLO_ACK, (None, None)),
    (Kind.REJECT, ("code", "message")),
    (Kind.PING, 7),
    (Kind.PONG, (7, 1_700_000_000_000)),
    (Kind.PEERS, (HASH,)),
    (Kind.STATUS, 5),
    (Kind.CONSENSUS, b"vote"),
    (Kind.TRANSACTIONS, (b"one", b"two")),
    (Kind.TX_ANNOUNCE, (HASH, HASH)),
    (Kind.TX_REQUEST, ()),
    (Kind.TX_HELD, (HASH,)),
    (Kind.BODY_REQUEST, HASH),
    (Kind.BODY, b"body"),
    (Kind.BLOCK_REQUEST, (10, 100)),
    (Kind.BLOCKS, ((b"block", b"certificate"),)),
    (Kind.SNAPSHOTS_REQUEST, 10),
    (Kind.SNAPSHOTS, ((20, HASH),)),
    (Kind.MANIFEST_REQUEST, HASH),
    (Kind.MANIFEST, (HASH, b"manifest", b"certificate")),
    (Kind.CHUNK_REQUEST, (HASH, 3)),
    (Kind.CHUNK, (HASH, 3, b"chunk")),
    (Kind.LIGHT_REQUEST, 9),
    (Kind.LIGHT, (9, b"light block")),
]


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def refusal(data: bytes, expected: frozenset[Kind] = ALL) -> str:
    framer = Framer(expected)
    framer.feed(data)
    with pytest.raises(FrameError) as caught:
        framer.next_frame()
    return caught.value.code


def test_the_samples_cover_every_kind() -> None:
    assert {kind for kind, _ in SAMPLES} == ALL


@given(st.lists(st.sampled_from(SAMPLES), max_size=20), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    messages: list[tuple[Kind, Any]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(kind, body) for kind, body in messages)
    framer, received, raw, turn = Framer(ALL), [], b"", 0
    while stream:
        size = cuts[turn % len(cuts)]
        turn += 1
        framer.feed(stream[:size])
        stream = stream[size:]
        while (frame := framer.next_frame()) is not None:
            received.append((frame.kind, frame.body))
            raw += frame.raw
    assert received == messages
    assert raw == b"".join(encode_frame(kind, body) for kind, body in messages)
    assert framer.buffered_bytes == 0


@given(st.binary(max_size=400))
def test_random_bytes_give_frames_or_a_frame_error_and_nothing_else(data: bytes) -> None:
    framer = Framer(ALL)
    framer.feed(data)
    try:
        while framer.next_frame() is not None:
            pass
    except FrameError:
        pass


@pytest.mark.parametrize("kind", list(Kind))
def test_a_frame_above_its_kinds_bound_is_refused_on_its_first_six_bytes(kind: Kind) -> None:
    size = KINDS[kind].bytes_max + 1
    assert refusal(size.to_bytes(4, "big") + bytes([0x92, kind])) == "frame_oversize"


def test_a_length_above_every_bound_is_refused_on_its_first_four_bytes() -> None:
    assert refusal(b"\xff\xff\xff\xff") == "frame_oversize"


def test_lengths_too_small_for_any_frame_are_refused() -> None:
    assert refusal(framed(b"")) == "frame_oversize"
    assert refusal(framed(b"\x92\x04")) == "frame_oversize"


@pytest.mark.parametrize(
    "payload",
    [
        b"\x92\x7f\x00",
        b"\x92\x00\x00",
        b"\x91\x04\x00",
        b"\x94\x04\x00\x00",
        b"\x82\x04\x00\x00\x00",
        b"\x92\xcc\x04\x00",
        b"\x92\x04\xcc\x01",
        b"\x92\x04\x01\x00",
        b"\x92\x08\xc5\x00\x01x",
        b"\x92\x0c\xca\x00\x00\x00\x00",
        b"\x92\x0c\x80",
        b"\x92\x0c\xff",
        b"\x92\x0c\xd4\x01\x00",
        b"\x92\x0b\xc0",
        b"\x92\x05\x92\x01\xc3",
        b"\x92\x04\xc3",
        b"\x92\x06\x91\xc4\x01x",
        b"\x92\x10\x91\x91\xc4\x00",
        b"\x92\x0c" + b"\x91" * 20 + b"\xc0",
        b"\x92\x0c" + b"\x91" * 5000 + b"\xc0",
    ],
)
def test_what_is_not_a_canonical_frame_of_a_known_kind_and_shape_is_malformed(payload: bytes) -> None:
    assert refusal(framed(payload)) == "frame_malformed"


def test_a_body_nested_a_million_deep_is_malformed() -> None:
    body = b"\x91" * (limits.CONSENSUS_BYTES_MAX - 3) + b"\xc0"
    assert refusal(framed(b"\x92\x08" + body)) == "frame_malformed"


def test_greeting_frames_are_legal_only_in_the_greeting_and_others_only_after() -> None:
    assert refusal(encode_frame(Kind.CONSENSUS, b"early"), GREETING_KINDS) == "frame_unexpected"
    assert refusal(encode_frame(Kind.HELLO, (1,)), ESTABLISHED_KINDS) == "frame_unexpected"
    framer = Framer(GREETING_KINDS)
    framer.feed(encode_frame(Kind.HELLO_ACK, (None, None)) + encode_frame(Kind.CONSENSUS, b"next"))
    assert framer.next_frame() is not None
    framer.expect(ESTABLISHED_KINDS)
    frame = framer.next_frame()
    assert frame is not None
    assert frame.body == b"next"


def test_a_flood_id_is_for_flooded_kinds_alone_and_has_one_size() -> None:
    framer = Framer(ALL)
    framer.feed(encode_frame(Kind.CONSENSUS, b"vote", b"12345678"))
    frame = framer.next_frame()
    assert frame is not None
    assert frame.flood_id == b"12345678"
    assert refusal(encode_frame(Kind.CONSENSUS, b"vote", b"1234567")) == "frame_malformed"
    assert refusal(framed(encode((int(Kind.CONSENSUS), b"vote", 5)))) == "frame_malformed"
    assert refusal(encode_frame(Kind.BODY, b"body", b"12345678")) == "frame_malformed"


def test_an_incomplete_frame_is_held_and_no_more_than_that() -> None:
    frame = encode_frame(Kind.CONSENSUS, bytes(1000))
    framer = Framer(ALL)
    framer.feed(frame + frame[:-1])
    assert framer.next_frame() is not None
    assert framer.next_frame() is None
    assert framer.buffered_bytes == len(frame) - 1
    framer.feed(frame[-1:])
    assert framer.next_frame() is not None


def test_our_own_oversize_frame_is_our_bug() -> None:
    with pytest.raises(InvariantError):
        encode_frame(Kind.BODY_REQUEST, bytes(100))


@given(st.lists(st.integers(1, 200_000), max_size=40))
def test_batches_keep_order_and_each_fits_a_frame(sizes: list[int]) -> None:
    items = [bytes(min(size, 131_072)) for size in sizes]
    bodies = list(batches(items, kind=Kind.TRANSACTIONS))
    assert [item for body in bodies for item in body] == items
    for body in bodies:
        encode_frame(Kind.TRANSACTIONS, body)


def test_a_batch_holds_at_most_what_its_shape_allows() -> None:
    bodies = list(batches([HASH] * (limits.HASHES_MAX + 1), kind=Kind.TX_ANNOUNCE))
    assert [len(body) for body in bodies] == [limits.HASHES_MAX, 1]
    framer = Framer(ALL)
    framer.feed(b"".join(encode_frame(Kind.TX_ANNOUNCE, body) for body in bodies))
    assert framer.next_frame() is not None
