"""The types of JSON-RPC parameters: each has a name, a JSON schema, and a strict conversion into a Python value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from qenex_node.rpc.schemas import (
    ADDRESS_SCHEMA,
    ASSET_SCHEMA,
    HASH_SCHEMA,
    HEIGHT_SCHEMA,
    HEX_SCHEMA,
    PLACE_SCHEMA,
    Schema,
)
from state.address import from_text
from state.errors import JsonValue, Rejected
from state.genesis import check_asset_code
from state.limits import TRANSACTION_BYTES_MAX

HEIGHT_LIMIT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class ParamType:
    """`parse` returns the Python value or raises Rejected; it never sees null."""

    name: str
    schema: Schema
    parse: Callable[[JsonValue], Any]


def hex_bytes(value: JsonValue) -> bytes:
    """Returns the bytes of 0x-hex text; raises Rejected("hex_invalid")."""
    if type(value) is str and value[:2] == "0x":
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = None
        # fromhex skips blanks, so that two texts would mean the same bytes.
        if data is not None and 2 * len(data) + 2 == len(value):
            return data
    raise Rejected("hex_invalid", "bytes are written as 0x and pairs of hexadecimal digits")


def _blob(size_max: int) -> Callable[[JsonValue], bytes]:
    def parse(value: JsonValue) -> bytes:
        data = hex_bytes(value)
        if len(data) > size_max:
            raise Rejected("too_long", f"at most {size_max} bytes, not {len(data)}")
        return data

    return parse


def _hash(value: JsonValue) -> bytes:
    data = hex_bytes(value)
    if len(data) != 32:
        raise Rejected("hash_invalid", f"a hash has 32 bytes, this one {len(data)}")
    return data


def _address(value: JsonValue) -> bytes:
    if type(value) is not str:
        raise Rejected("address_invalid", "an address is bech32m text that begins with qx1")
    return from_text(value)


def _asset(value: JsonValue) -> str:
    if type(value) is not str:
        raise Rejected("asset_code_invalid", 'an asset is named by its code, like "QNX"')
    return check_asset_code(value)


def _block_ref(value: JsonValue) -> int | bytes | None:
    if value == "latest":
        return None
    if type(value) is str:
        return _hash(value)
    return _integer(0, HEIGHT_LIMIT - 1)(value)


def _integer(low: int, high: int) -> Callable[[JsonValue], int]:
    def parse(value: JsonValue) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Rejected("integer_invalid", f"a whole number from {low} to {high}")
        return value

    return parse


def _key_part(value: JsonValue) -> bytes | str | int:
    """A part of a state key: an address, 0x-hex bytes, a number or a plain name."""
    if type(value) is int and 0 <= value < 1 << 64:
        return value
    if type(value) is str and len(value) <= 256 and value.isascii():
        if value.startswith("qx1"):
            return from_text(value)
        return hex_bytes(value) if value.startswith("0x") else value
    raise Rejected("state_key_invalid", "a part of a state key is an address, 0x-hex, a number or a name")


def _state_key(value: JsonValue) -> bytes | tuple[bytes | str | int, ...]:
    if type(value) is str:
        return _blob(512)(value)
    if type(value) is list and 1 <= len(value) <= 8 and type(value[0]) is str:
        return (value[0], *[_key_part(part) for part in value[1:]])
    raise Rejected("state_key_invalid", 'a state key is an array like ["account", "qx1..."], or its encoding as 0x-hex')


def _place(value: JsonValue) -> tuple[int, int]:
    if type(value) is dict and sorted(value) == ["height", "index"]:
        height, index = value["height"], value["index"]
        if type(height) is int and type(index) is int and 0 <= height < HEIGHT_LIMIT and 0 <= index < HEIGHT_LIMIT:
            return height, index
    raise Rejected("place_invalid", 'a place in the chain is {"height": number, "index": number}')


def integer(low: int, high: int) -> ParamType:
    """Returns the type of whole numbers from `low` to `high`."""
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return ParamType("integer", schema, _integer(low, high))


def choice(*values: str) -> ParamType:
    """Returns the type of one of these words."""

    def parse(value: JsonValue) -> str:
        if type(value) is not str or value not in values:
            raise Rejected("choice_invalid", f"one of {', '.join(values)}")
        return value

    return ParamType("choice", {"type": "string", "enum": list(values)}, parse)


def text(length_max: int) -> ParamType:
    """Returns the type of printable ASCII text of at most `length_max` characters."""

    def parse(value: JsonValue) -> str:
        if type(value) is not str or len(value) > length_max or not value.isascii() or not value.isprintable():
            raise Rejected("text_invalid", f"printable ASCII text of at most {length_max} characters")
        return value

    return ParamType("text", {"type": "string", "maxLength": length_max}, parse)


HASH: Final = ParamType("hash", HASH_SCHEMA, _hash)
TRANSACTION: Final = ParamType("hex", HEX_SCHEMA, _blob(TRANSACTION_BYTES_MAX))
ADDRESS: Final = ParamType("address", ADDRESS_SCHEMA, _address)
ASSET: Final = ParamType("asset", ASSET_SCHEMA, _asset)
HEIGHT: Final = ParamType("height", HEIGHT_SCHEMA, _integer(0, HEIGHT_LIMIT - 1))
BLOCK_REF: Final = ParamType(
    "block", {"oneOf": [HEIGHT_SCHEMA, HASH_SCHEMA, {"type": "string", "const": "latest"}]}, _block_ref
)
STATE_KEY: Final = ParamType(
    "state_key", {"oneOf": [HEX_SCHEMA, {"type": "array", "minItems": 1, "maxItems": 8}]}, _state_key
)
PLACE: Final = ParamType("place", PLACE_SCHEMA, _place)
