"""The canonical encoding: a strict subset of MessagePack in which every value has exactly one form.

Values are nil, booleans, unsigned integers below 2**64, byte strings, UTF-8 text, and arrays of values. There are no
maps, floats, extensions or negative integers. Integers and lengths take their shortest form. Decoding bounds size and
nesting, then encodes again and compares, so that two different byte strings never decode to the same value.

Amounts go up to 2**128 - 1 and travel as minimal big-endian byte strings; zero is the empty string.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from state.errors import DecodeError, InvariantError

DEPTH_MAX: Final = 12
AMOUNT_LIMIT: Final = 1 << 128
UINT_LIMIT: Final = 1 << 64

_packer = msgpack.Packer(use_bin_type=True, strict_types=False, autoreset=True)
_pack = _packer.pack


def encode(value: Any) -> bytes:
    """Returns the canonical bytes of a value built of None, bool, int, bytes, str, tuples and lists.

    Raises InvariantError for what MessagePack cannot hold. Callers encode only what they built: negative integers,
    floats and maps are not looked for here, and `decode` refuses them.
    """
    try:
        return _pack(value)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvariantError(f"value has no canonical encoding: {error}") from error


def decode(data: bytes, *, bytes_max: int, depth_max: int = DEPTH_MAX, items_max: int = UINT_LIMIT) -> Any:
    """Returns the value whose canonical encoding is `data`, arrays as tuples.

    Raises DecodeError if `data` is longer than `bytes_max`, nested deeper than `depth_max`, has an array of more than
    `items_max` items, or is in any way not the one canonical form.
    """
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data)} bytes are more than the {bytes_max} allowed")
    try:
        value = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
            # The decoder makes room for as many items as a header claims, at each of some hundred nested headers.
            max_array_len=min(items_max, len(data)),
        )
        again = _pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise DecodeError(f"not canonical msgpack: {type(error).__name__}") from error
    if again != data:
        raise DecodeError("not the shortest canonical form")
    _check_values(value, depth_max)
    return value


def _check_values(value: Any, depth_left: int) -> None:
    """Refuses what MessagePack has and the canonical encoding has not, and nesting beyond the bound."""
    if type(value) is not tuple:
        value = (value,)
    elif depth_left == 0:
        raise DecodeError("nested too deep")
    for item in value:
        kind = type(item)
        if kind is bytes or kind is str:
            continue
        if kind is tuple:
            _check_values(item, depth_left - 1)
        elif kind is int:
            if item < 0:
                raise DecodeError("negative integer")
        elif item is not None and kind is not bool:
            raise DecodeError(f"type {kind.__name__} is not part of the encoding")


def encode_amount(amount: int) -> bytes:
    """Returns the minimal big-endian form of an amount in base units; zero is empty."""
    if not 0 <= amount < AMOUNT_LIMIT:
        raise InvariantError(f"amount {amount} is outside 0 .. 2**128 - 1")
    return amount.to_bytes((amount.bit_length() + 7) >> 3, "big")


def decode_amount(data: Any) -> int:
    """Returns the amount in base units; raises DecodeError unless `data` is its minimal form below 2**128."""
    if type(data) is not bytes or len(data) > 16 or (data and data[0] == 0):
        raise DecodeError("an amount is at most 16 bytes, big-endian, without leading zeros")
    return int.from_bytes(data, "big")


def expect_tuple(value: Any, length: int, what: str) -> tuple[Any, ...]:
    """Returns `value` if it is an array of exactly `length` items; raises DecodeError otherwise."""
    if type(value) is not tuple or len(value) != length:
        raise DecodeError(f"{what} must be an array of {length} items")
    return value


def expect_array(value: Any, length_max: int, what: str) -> tuple[Any, ...]:
    """Returns `value` if it is an array of at most `length_max` items; raises DecodeError otherwise."""
    if type(value) is not tuple or len(value) > length_max:
        raise DecodeError(f"{what} must be an array of at most {length_max} items")
    return value


def expect_int(value: Any, what: str, *, limit: int = UINT_LIMIT) -> int:
    """Returns `value` if it is an integer with 0 <= value < limit; raises DecodeError otherwise."""
    if type(value) is not int or not 0 <= value < limit:
        raise DecodeError(f"{what} must be an integer from 0 below {limit}")
    return value


def expect_bytes(value: Any, size: int, what: str) -> bytes:
    """Returns `value` if it is a byte string of exactly `size` bytes; raises DecodeError otherwise."""
    if type(value) is not bytes or len(value) != size:
        raise DecodeError(f"{what} must be {size} bytes")
    return value


def expect_blob(value: Any, size_max: int, what: str) -> bytes:
    """Returns `value` if it is a byte string of at most `size_max` bytes; raises DecodeError otherwise."""
    if type(value) is not bytes or len(value) > size_max:
        raise DecodeError(f"{what} must be at most {size_max} bytes")
    return value


def expect_str(value: Any, length_max: int, what: str) -> str:
    """Returns `value` if it is text of at most `length_max` characters; raises DecodeError otherwise."""
    if type(value) is not str or len(value) > length_max:
        raise DecodeError(f"{what} must be text of at most {length_max} characters")
    return value


def expect_bool(value: Any, what: str) -> bool:
    """Returns `value` if it is a boolean; raises DecodeError otherwise."""
    if type(value) is not bool:
        raise DecodeError(f"{what} must be true or false")
    return value
