"""Typed fields: what operations, events, queries and account extensions are made of.

A field type knows the canonical form (what is signed and stored), the JSON form (what people exchange) and the value
that rules work with, and converts and checks between them. Remote procedures, their OpenRPC description, the command
line and client builders are generated from these descriptions, so a domain describes its fields once, here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from sys import intern
from typing import Any, Final

from state.address import from_text, to_text
from state.codec import (
    AMOUNT_LIMIT,
    UINT_LIMIT,
    decode_amount,
    encode_amount,
    expect_blob,
    expect_bool,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, JsonValue
from state.genesis import check_asset_code
from state.keys import SCHEMES, Policy, PublicKey, scheme_named
from state.limits import ASSET_CODE_LENGTH_MAX, POLICY_KEYS_MAX, RECIPIENTS_MAX
from state.types import Address, Amount, AssetCode

Values = tuple[Any, ...]
"""The values of a list of fields, in their order."""

JSON_INTEGER_LIMIT: Final = 1 << 53


class FieldType(ABC):
    """The conversions of one type. `what` names the field in error messages."""

    @abstractmethod
    def decode(self, value: Any, what: str) -> Any:
        """Returns the value for its canonical form; raises DecodeError."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Returns the canonical form of a value."""

    @abstractmethod
    def from_json(self, value: Any, what: str) -> Any:
        """Returns the value for its JSON form; raises Rejected saying what is expected."""

    @abstractmethod
    def to_json(self, value: Any) -> JsonValue:
        """Returns the JSON form of a value."""

    @abstractmethod
    def schema(self) -> dict[str, JsonValue]:
        """Returns the JSON Schema of the JSON form."""


class AddressType(FieldType):
    """An account: 32 bytes; bech32m text in JSON."""

    def decode(self, value: Any, what: str) -> Address:
        """Reads 32 bytes."""
        return Address(expect_bytes(value, 32, what))

    def encode(self, value: Address) -> bytes:
        """Returns the bytes."""
        return value

    def from_json(self, value: Any, what: str) -> Address:
        """Reads bech32m text."""
        if type(value) is not str:
            raise DecodeError(f"{what} must be an address, as text that begins with qx1")
        return from_text(value)

    def to_json(self, value: Address) -> str:
        """Returns bech32m text."""
        return to_text(value)

    def schema(self) -> dict[str, JsonValue]:
        """Text of 61 characters."""
        return {"type": "string", "pattern": "^qx1[02-9ac-hj-np-z]{58}$", "description": "an address, bech32m"}


@dataclass(frozen=True, slots=True)
class AmountType(FieldType):
    """An amount in base units, at least `minimum`; a decimal string in JSON."""

    minimum: int = 1

    def decode(self, value: Any, what: str) -> Amount:
        """Reads minimal big-endian bytes."""
        amount = decode_amount(value)
        if amount < self.minimum:
            raise DecodeError(f"{what} must be at least {self.minimum}")
        return Amount(amount)

    def encode(self, value: Amount) -> bytes:
        """Returns minimal big-endian bytes."""
        return encode_amount(value)

    def from_json(self, value: Any, what: str) -> Amount:
        """Reads a decimal string without sign, point or leading zeros."""
        if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= 39:
            amount = int(value)
            if self.minimum <= amount < AMOUNT_LIMIT and str(amount) == value:
                return Amount(amount)
        raise DecodeError(f"{what} must be a decimal string of base units from {self.minimum} below 2**128")

    def to_json(self, value: Amount) -> str:
        """Returns the decimal string."""
        return str(value)

    def schema(self) -> dict[str, JsonValue]:
        """Text of decimal digits."""
        pattern = "^[1-9][0-9]{0,38}$" if self.minimum else "^(0|[1-9][0-9]{0,38})$"
        return {"type": "string", "pattern": pattern, "description": "an amount in base units"}


class AssetCodeType(FieldType):
    """An asset's code: 2 to 12 capitals, digits and dots."""

    def decode(self, value: Any, what: str) -> AssetCode:
        """Reads and checks the text; codes are interned, because every balance of a state is keyed by one."""
        return AssetCode(intern(check_asset_code(expect_str(value, ASSET_CODE_LENGTH_MAX, what))))

    def encode(self, value: AssetCode) -> str:
        """Returns the text."""
        return value

    def from_json(self, value: Any, what: str) -> AssetCode:
        """Reads and checks the text."""
        return self.decode(value, what)

    def to_json(self, value: AssetCode) -> str:
        """Returns the text."""
        return value

    def schema(self) -> dict[str, JsonValue]:
        """Text by its pattern."""
        return {"type": "string", "pattern": "^[A-Z][A-Z0-9.]{1,11}$", "description": "an asset's code"}


@dataclass(frozen=True, slots=True)
class IntegerType(FieldType):
    """An integer from `minimum` below `limit`; a number in JSON, so `limit` is at most 2**53."""

    limit: int = JSON_INTEGER_LIMIT
    minimum: int = 0

    def decode(self, value: Any, what: str) -> int:
        """Reads and checks the integer."""
        number = expect_int(value, what, limit=self.limit)
        if number < self.minimum:
            raise DecodeError(f"{what} must be at least {self.minimum}")
        return number

    def encode(self, value: int) -> int:
        """Returns the integer."""
        return value

    def from_json(self, value: Any, what: str) -> int:
        """Reads and checks the number."""
        return self.decode(value, what)

    def to_json(self, value: int) -> int:
        """Returns the number."""
        return value

    def schema(self) -> dict[str, JsonValue]:
        """A bounded integer."""
        return {"type": "integer", "minimum": self.minimum, "maximum": min(self.limit, UINT_LIMIT) - 1}


class BooleanType(FieldType):
    """True or false."""

    def decode(self, value: Any, what: str) -> bool:
        """Reads the boolean."""
        return expect_bool(value, what)

    def encode(self, value: bool) -> bool:
        """Returns the boolean."""
        return value

    def from_json(self, value: Any, what: str) -> bool:
        """Reads the boolean."""
        return expect_bool(value, what)

    def to_json(self, value: bool) -> bool:
        """Returns the boolean."""
        return value

    def schema(self) -> dict[str, JsonValue]:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class TextType(FieldType):
    """Text of at most `length_max` characters."""

    length_max: int

    def decode(self, value: Any, what: str) -> str:
        """Reads and checks the text."""
        return expect_str(value, self.length_max, what)

    def encode(self, value: str) -> str:
        """Returns the text."""
        return value

    def from_json(self, value: Any, what: str) -> str:
        """Reads and checks the text."""
        return expect_str(value, self.length_max, what)

    def to_json(self, value: str) -> str:
        """Returns the text."""
        return value

    def schema(self) -> dict[str, JsonValue]:
        """Bounded text."""
        return {"type": "string", "maxLength": self.length_max}


@dataclass(frozen=True, slots=True)
class ChoiceType(FieldType):
    """One of some words."""

    choices: tuple[str, ...]

    def decode(self, value: Any, what: str) -> str:
        """Reads and checks the word."""
        if type(value) is not str or value not in self.choices:
            raise DecodeError(f"{what} must be one of {', '.join(self.choices)}")
        return value

    def encode(self, value: str) -> str:
        """Returns the word."""
        return value

    def from_json(self, value: Any, what: str) -> str:
        """Reads and checks the word."""
        return self.decode(value, what)

    def to_json(self, value: str) -> str:
        """Returns the word."""
        return value

    def schema(self) -> dict[str, JsonValue]:
        """An enumeration."""
        return {"type": "string", "enum": list(self.choices)}


@dataclass(frozen=True, slots=True)
class BytesType(FieldType):
    """From `size_min` to `size_max` bytes; 0x-hex in JSON."""

    size_max: int
    size_min: int = 0

    def decode(self, value: Any, what: str) -> bytes:
        """Reads and checks the bytes."""
        data = expect_blob(value, self.size_max, what)
        if len(data) < self.size_min:
            raise DecodeError(f"{what} must be at least {self.size_min} bytes")
        return data

    def encode(self, value: bytes) -> bytes:
        """Returns the bytes."""
        return value

    def from_json(self, value: Any, what: str) -> bytes:
        """Reads 0x-hex, lower case."""
        return self.decode(bytes_from_hex(value, what), what)

    def to_json(self, value: bytes) -> str:
        """Returns 0x-hex."""
        return "0x" + value.hex()

    def schema(self) -> dict[str, JsonValue]:
        """Text of hexadecimal digits."""
        return {"type": "string", "pattern": f"^0x([0-9a-f]{{2}}){{{self.size_min},{self.size_max}}}$"}


class PolicyType(FieldType):
    """Who may act for an account: [threshold, keys]; {"threshold", "keys": [{"scheme", "key"}]} in JSON."""

    def decode(self, value: Any, what: str) -> Policy:
        """Reads and checks the policy."""
        return Policy.from_value(value)

    def encode(self, value: Policy) -> Any:
        """Returns the canonical array."""
        return value.to_value()

    def from_json(self, value: Any, what: str) -> Policy:
        """Reads and checks the policy; its keys may be in any order."""
        if type(value) is not dict or sorted(value) != ["keys", "threshold"] or type(value["keys"]) is not list:
            raise DecodeError(f"{what} must have exactly the fields threshold and keys")
        keys = tuple(self._key(item, what) for item in value["keys"][: POLICY_KEYS_MAX + 1])
        return Policy.of(expect_int(value["threshold"], f"{what} threshold", limit=POLICY_KEYS_MAX + 1), keys)

    @staticmethod
    def _key(item: Any, what: str) -> PublicKey:
        if type(item) is not dict or sorted(item) != ["key", "scheme"] or type(item["scheme"]) is not str:
            raise DecodeError(f"each key of {what} must have exactly the fields scheme (a name) and key")
        return PublicKey.from_value((scheme_named(item["scheme"]).number, bytes_from_hex(item["key"], "key")))

    def to_json(self, value: Policy) -> JsonValue:
        """Returns threshold and keys."""
        return {
            "threshold": value.threshold,
            "keys": [{"scheme": SCHEMES[key.scheme].name, "key": "0x" + key.data.hex()} for key in value.keys],
        }

    def schema(self) -> dict[str, JsonValue]:
        """An object with threshold and keys."""
        names: list[JsonValue] = [scheme.name for scheme in SCHEMES.values()]
        key: JsonValue = {
            "type": "object",
            "properties": {"scheme": {"enum": names}, "key": {"type": "string", "pattern": "^0x([0-9a-f]{2})+$"}},
            "required": ["scheme", "key"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {
                "threshold": {"type": "integer", "minimum": 1, "maximum": POLICY_KEYS_MAX},
                "keys": {"type": "array", "items": key, "minItems": 1, "maxItems": POLICY_KEYS_MAX},
            },
            "required": ["threshold", "keys"],
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class OptionalType(FieldType):
    """A value or nothing: nil in the canonical form, null in JSON."""

    inner: FieldType

    def decode(self, value: Any, what: str) -> Any:
        """Reads nil as None."""
        return None if value is None else self.inner.decode(value, what)

    def encode(self, value: Any) -> Any:
        """Returns nil for None."""
        return None if value is None else self.inner.encode(value)

    def from_json(self, value: Any, what: str) -> Any:
        """Reads null as None."""
        return None if value is None else self.inner.from_json(value, what)

    def to_json(self, value: Any) -> JsonValue:
        """Returns null for None."""
        return None if value is None else self.inner.to_json(value)

    def schema(self) -> dict[str, JsonValue]:
        """The inner schema or null."""
        return {"oneOf": [self.inner.schema(), {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class ListType(FieldType):
    """From `length_min` to `length_max` values of one type, in order."""

    inner: FieldType
    length_max: int = RECIPIENTS_MAX
    length_min: int = 0

    def decode(self, value: Any, what: str) -> Values:
        """Reads and checks each item."""
        if type(value) is not tuple or not self.length_min <= len(value) <= self.length_max:
            raise DecodeError(f"{what} must be an array of {self.length_min} to {self.length_max} items")
        decode = self.inner.decode
        return tuple([decode(item, what) for item in value])

    def encode(self, value: Values) -> Values:
        """Returns the canonical array."""
        return tuple(self.inner.encode(item) for item in value)

    def from_json(self, value: Any, what: str) -> Values:
        """Reads and checks each item."""
        if type(value) is not list or not self.length_min <= len(value) <= self.length_max:
            raise DecodeError(f"{what} must be a list of {self.length_min} to {self.length_max} items")
        return tuple(self.inner.from_json(item, f"{what}[{place}]") for place, item in enumerate(value))

    def to_json(self, value: Values) -> JsonValue:
        """Returns a list."""
        return [self.inner.to_json(item) for item in value]

    def schema(self) -> dict[str, JsonValue]:
        """A bounded list."""
        return {
            "type": "array",
            "items": self.inner.schema(),
            "minItems": self.length_min,
            "maxItems": self.length_max,
        }


@dataclass(frozen=True, slots=True)
class Field:
    """A named field of a record. With `optional` its JSON may leave it out: it is then None."""

    name: str
    type: FieldType
    summary: str

    @property
    def optional(self) -> bool:
        """Whether the JSON form may leave the field out."""
        return isinstance(self.type, OptionalType)


@dataclass(frozen=True)
class Record(FieldType):
    """Fields in their order: an array in the canonical form, an object in JSON, a tuple of values for rules."""

    fields: tuple[Field, ...]

    @cached_property
    def _decoders(self) -> tuple[tuple[Any, str], ...]:
        return tuple((field.type.decode, field.name) for field in self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(field.name for field in self.fields)

    def decode(self, value: Any, what: str) -> Values:
        """Reads an array of exactly these fields."""
        items = expect_tuple(value, len(self.fields), what)
        return tuple([decode(item, name) for (decode, name), item in zip(self._decoders, items, strict=True)])

    def encode(self, value: Values) -> Values:
        """Returns the canonical array."""
        return tuple(field.type.encode(item) for field, item in zip(self.fields, value, strict=True))

    def from_json(self, value: Any, what: str) -> Values:
        """Reads an object; unknown fields are refused, optional ones may be absent."""
        if type(value) is not dict:
            raise DecodeError(f"{what} must be an object with the fields {', '.join(self.names)}")
        for name in value:
            if name not in self.names:
                raise DecodeError(f"{what} has no field {name!r}; it has {', '.join(self.names)}")
        for field in self.fields:
            if field.name not in value and not field.optional:
                raise DecodeError(f"{what} lacks the field {field.name}: {field.summary}")
        return tuple(field.type.from_json(value.get(field.name), field.name) for field in self.fields)

    def to_json(self, value: Values) -> JsonValue:
        """Returns an object."""
        return {field.name: field.type.to_json(item) for field, item in zip(self.fields, value, strict=True)}

    def schema(self) -> dict[str, JsonValue]:
        """An object with exactly these properties."""
        properties: dict[str, JsonValue] = {}
        for field in self.fields:
            properties[field.name] = {**field.type.schema(), "title": field.summary}
        return {
            "type": "object",
            "properties": properties,
            "required": [field.name for field in self.fields if not field.optional],
            "additionalProperties": False,
        }


def bytes_from_hex(value: Any, what: str) -> bytes:
    """Returns the bytes of 0x-hex in lower case; raises DecodeError."""
    if type(value) is str and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = b""
        if "0x" + data.hex() == value:
            return data
    raise DecodeError(f"{what} must be 0x and lower-case hexadecimal digits, two for each byte")


ADDRESS: Final = AddressType()
OPTIONAL_ADDRESS: Final = OptionalType(ADDRESS)
AMOUNT: Final = AmountType()
AMOUNT_OR_ZERO: Final = AmountType(minimum=0)
ASSET_CODE: Final = AssetCodeType()
BOOLEAN: Final = BooleanType()
INTEGER: Final = IntegerType()
POLICY: Final = PolicyType()
HASH: Final = BytesType(32, 32)


def record(*fields: tuple[str, FieldType, str]) -> Record:
    """Returns the record of (name, type, summary) fields in this order."""
    return Record(tuple(Field(name, kind, summary) for name, kind, summary in fields))
