"""Command-line options for an operation, made from the fields that its plug-in declares.

Each field is an option by its name; a list of records is its inner fields, each given as often as there are records. An
amount is written with a decimal point, in the asset of the same operation; an account is an address or a name here. A
new plug-in's operations get their commands without a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from cli.amounts import parse_amount
from cli.wallet import ASSET_DEFAULT, Decimals, Names
from state.errors import Rejected
from state.keys import Policy, PublicKey, scheme_named
from state.ledger.fields import (
    AddressType,
    AmountType,
    AssetCodeType,
    BooleanType,
    Field,
    FieldType,
    IntegerType,
    ListType,
    OptionalType,
    PolicyType,
    Record,
    bytes_from_hex,
)
from state.ledger.plugin import OperationType

Option = Callable[[Any], Any]

_RESERVED: Final = frozenset(
    ("from", "key", "policy", "payer", "lane", "valid", "fee-max", "memo", "wait", "timeout", "draft", "signer", "rpc")
)
_PREFIX: Final = "field_"


def fields_of(declared: OperationType) -> Record:
    """Returns the fields of the newest rules."""
    return declared.versions[declared.newest].fields


def options_of(declared: OperationType) -> list[Option]:
    """Returns the click options of an operation's fields, in their order."""
    return [option for field in fields_of(declared).fields for option in _field_options(field)]


def _field_options(field: Field, multiple: bool = False) -> Iterator[Option]:
    kind = _inner(field.type)
    if isinstance(kind, ListType) and isinstance(kind.inner, Record):
        for inner in kind.inner.fields:
            yield from _field_options(inner, multiple=True)
    elif isinstance(kind, PolicyType):
        yield click.option("--threshold", _PREFIX + "threshold", type=int, default=1, help="How many keys must sign.")
        yield click.option(
            "--new-key",
            _PREFIX + "new_key",
            multiple=True,
            required=True,
            metavar="KEY",
            help="A key that may act from then on: a name here, a key file, or scheme:0xHEX. Repeat it for more.",
        )
    elif isinstance(kind, BooleanType):
        yield click.option(f"--{_option_name(field)}", _PREFIX + field.name, is_flag=True, help=field.summary)
    else:
        default = _default(field, kind)
        yield click.option(
            f"--{_option_name(field)}",
            _PREFIX + field.name,
            type=int if isinstance(kind, IntegerType) else str,
            required=not field.optional and default is None,
            default=None if multiple else default,
            multiple=multiple,
            show_default=default is not None,
            metavar=_metavar(kind),
            help=_capital(field.summary.replace(", in base units", "")),
        )


def _inner(kind: FieldType) -> FieldType:
    return kind.inner if isinstance(kind, OptionalType) else kind


def _option_name(field: Field) -> str:
    name = field.name.replace("_", "-")
    return f"field-{name}" if name in _RESERVED else name


def _default(field: Field, kind: FieldType) -> Any:
    if isinstance(kind, AssetCodeType) and field.name == "asset":
        return ASSET_DEFAULT
    if isinstance(kind, AmountType) and kind.minimum == 0:
        return "0"
    return 0 if field.name == "flags" else None


def _metavar(kind: FieldType) -> str | None:
    if isinstance(kind, AddressType):
        return "ACCOUNT"
    if isinstance(kind, AssetCodeType):
        return "CODE"
    return "AMOUNT" if isinstance(kind, AmountType) else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


class Reader:
    """Turns what was given on a command line into the fields of an operation."""

    def __init__(self, names: Names, decimals: Decimals, public_key: Callable[[str], PublicKey]) -> None:
        self._names = names
        self._decimals = decimals
        self._public_key = public_key

    def fields(self, declared: OperationType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields as builders take them; raises Rejected naming what does not fit."""
        record = fields_of(declared)
        values = {name.removeprefix(_PREFIX): value for name, value in given.items()}
        places = self._places(values)
        return {field.name: self._field(field, values, places) for field in record.fields}

    def _places(self, values: Mapping[str, Any]) -> Callable[[], int]:
        """Tells the decimal places of the amounts: an operation that makes an asset says them itself."""
        if values.get("decimals") is not None:
            return lambda: int(values["decimals"])
        return lambda: self._decimals.of(str(values.get("asset", ASSET_DEFAULT)))

    def _field(self, field: Field, values: Mapping[str, Any], places: Callable[[], int]) -> Any:
        kind = _inner(field.type)
        if isinstance(kind, ListType) and isinstance(kind.inner, Record):
            return self._records(kind.inner, values, places)
        if isinstance(kind, PolicyType):
            keys = tuple(self._public_key(text) for text in values["new_key"])
            return Policy.of(values["threshold"], keys)
        value = values[field.name]
        return None if value is None else self._value(kind, value, places)

    def _records(self, record: Record, values: Mapping[str, Any], places: Callable[[], int]) -> list[dict[str, Any]]:
        columns = {field.name: values[field.name] for field in record.fields}
        counts = {len(column) for column in columns.values()}
        if len(counts) != 1 or 0 in counts:
            names = " and ".join(f"--{name}" for name in columns)
            raise Rejected("options_uneven", f"give {names} equally often, at least once")
        return [
            {field.name: self._value(_inner(field.type), columns[field.name][row], places) for field in record.fields}
            for row in range(counts.pop())
        ]

    def _value(self, kind: FieldType, value: Any, places: Callable[[], int]) -> Any:
        if isinstance(kind, AddressType):
            return self._names.address(value)
        return parse_amount(value, places()) if isinstance(kind, AmountType) else value


def public_key_of(names: Names, text: str) -> PublicKey:
    """Returns the public key meant by scheme:0xHEX, a key file or a name; it never needs the private key."""
    scheme, colon, data = text.partition(":")
    if colon and data.startswith("0x"):
        return PublicKey.from_value((scheme_named(scheme).number, bytes_from_hex(data, "key")))
    from qenex_node.keystore import inspect_key

    path = Path(text).expanduser()
    return inspect_key(path if path.suffix == ".json" and path.is_file() else names.key_file(text)).public
