"""The canonical encoding: one form for each value, bounded before it is looked into."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import (
    decode,
    decode_amount,
    encode,
    encode_amount,
    expect_array,
    expect_blob,
    expect_bool,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, InvariantError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=20).map(tuple),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_reads_back(value):
    data = encode(value)
    again = decode(data, bytes_max=len(data), depth_max=30)
    assert again == value
    assert type(again) is type(value)


@given(st.binary(max_size=60))
def test_whatever_decodes_has_exactly_these_bytes(data):
    try:
        value = decode(data, bytes_max=60)
    except DecodeError:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xcc\x05",  # 5 in two bytes
        b"\xcd\x00\xff",  # 255 in three
        b"\xd0\x05",  # 5 as signed
        b"\xff",  # -1
        b"\xd3" + b"\xff" * 8,
        b"\xca\x00\x00\x00\x00",  # floats
        b"\xcb" + bytes(8),
        b"\x80",  # maps
        b"\x81\x01\x02",
        b"\xc7\x00\x01",  # extensions
        b"\xd4\x01\x00",
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\xdc\x00\x01\x01",  # array of one with a long length
        b"\xd9\x01a",  # text of one with a long length
        b"\xc5\x00\x01a",  # bytes of one with a long length
        b"\xa1\xff",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate
        b"\x01\x01",  # two values
        b"\x92\x01",  # too short
        b"\xc1",  # never used
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xc6\xff\xff\xff\xff",
    ],
)
def test_what_is_not_canonical_is_refused(data):
    with pytest.raises(DecodeError):
        decode(data, bytes_max=100)


def test_size_is_bounded_before_anything_is_decoded():
    with pytest.raises(DecodeError, match="more than the 3 allowed"):
        decode(b"\xa3abc", bytes_max=3)


def test_arrays_are_bounded_before_room_is_made_for_them():
    decode(encode((None,) * 9), bytes_max=100, items_max=9)
    with pytest.raises(DecodeError):
        decode(encode((None,) * 10), bytes_max=100, items_max=9)
    tracemalloc.start()
    with pytest.raises(DecodeError):
        decode(b"\xdd\x00\x10\x00\x00" * 500, bytes_max=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize("depth", [13, 600, 5000])
def test_deep_nests_are_refused(depth):
    with pytest.raises(DecodeError):
        decode(b"\x91" * depth + b"\x01", bytes_max=depth + 1)
    decode(b"\x91" * 12 + b"\x01", bytes_max=13)


@pytest.mark.parametrize("value", [2**64, object(), {1, 2}])
def test_what_has_no_encoding_is_our_bug(value):
    with pytest.raises(InvariantError):
        encode((1, value))
    assert encode(1) == b"\x01"  # the shared packer is clean again


@given(st.integers(0, 2**128 - 1))
def test_amounts_read_back_from_their_minimal_form(amount):
    data = encode_amount(amount)
    assert decode_amount(data) == amount
    assert len(data) == (amount.bit_length() + 7) // 8


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x01" * 17, "1", 1, None])
def test_other_forms_of_amounts_are_refused(data):
    with pytest.raises(DecodeError):
        decode_amount(data)


@pytest.mark.parametrize("amount", [-1, 2**128])
def test_an_amount_out_of_range_is_our_bug(amount):
    with pytest.raises(InvariantError):
        encode_amount(amount)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda v: expect_tuple(v, 2, "x"), (1, 2), [(1,), [1, 2], None, "ab"]),
        (lambda v: expect_array(v, 2, "x"), (1,), [(1, 2, 3), [1], None]),
        (lambda v: expect_int(v, "x", limit=9), 8, [9, -1, True, "1", None]),
        (lambda v: expect_bytes(v, 2, "x"), b"ab", [b"a", "ab", None]),
        (lambda v: expect_blob(v, 2, "x"), b"", [b"abc", "a", None]),
        (lambda v: expect_str(v, 2, "x"), "ab", ["abc", b"a", None]),
        (lambda v: expect_bool(v, "x"), False, [0, 1, None]),
    ],
)
def test_field_checkers_take_one_shape(check, good, bad):
    assert check(good) == good
    for value in bad:
        with pytest.raises(DecodeError):
            check(value)


@given(VALUES)
def test_the_encoding_is_plain_msgpack(value):
    assert msgpack.unpackb(encode(value), use_list=False, strict_map_key=True) == value
