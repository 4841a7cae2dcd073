"""Operations by their names, generated from what the ledger's plug-ins declare.

    operations = Operations()
    operations.mint(asset="EUR", to="qx1...", amount=500)

Each kind of operation of each registered plug-in is a function here whose keyword arguments are the declared fields. A
field takes its value as Python programs hold it (an integer amount, 32 address bytes, a Policy) or in its JSON form (a
decimal string, bech32m text). A new plug-in needs no change here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from state.errors import JsonValue, Rejected
from state.ledger import DEFAULT_PLUGINS, Ledger, Plugin
from state.ledger.fields import (
    AddressType,
    AmountType,
    BytesType,
    FieldType,
    ListType,
    OptionalType,
    PolicyType,
    Record,
)
from state.ledger.plugin import OperationType
from state.transaction import Operation


class Operations:
    """The builders of all operations that the given plug-ins declare, in the newest version of their rules."""

    def __init__(self, plugins: Iterable[Plugin] = DEFAULT_PLUGINS) -> None:
        self.ledger = Ledger(plugins)
        self._types = self.ledger.registry.operations

    @property
    def types(self) -> Mapping[str, OperationType]:
        """The declared operations by kind."""
        return self._types

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._types]

    def __getattr__(self, kind: str) -> Callable[..., Operation]:
        declared = self.__dict__.get("_types", {}).get(kind)
        if declared is None:
            raise AttributeError(f"no plug-in declares an operation {kind!r}")

        def build(**fields: Any) -> Operation:
            return self.build(kind, fields)

        build.__name__ = kind
        build.__doc__ = _doc(declared)
        build.__signature__ = _signature(declared)  # type: ignore[attr-defined]
        return build

    def build(self, kind: str, fields: Mapping[str, Any]) -> Operation:
        """Returns the operation of this kind; raises Rejected naming the field that is wrong or missing."""
        declared = self._types.get(kind)
        if declared is None:
            raise Rejected("operation_unknown", f"operation {kind!r} is unknown; known: {', '.join(self._types)}")
        record = declared.versions[declared.newest].fields
        return self.ledger.build(kind, to_json(record, dict(fields)))


def to_json(kind: FieldType, value: Any) -> JsonValue:
    """Returns the JSON form of a field's value, which may be in that form already."""
    if isinstance(kind, Record):
        return _record_to_json(kind, value)
    if isinstance(kind, OptionalType):
        return None if value is None else to_json(kind.inner, value)
    if isinstance(kind, ListType):
        return [to_json(kind.inner, item) for item in value]
    as_held = (
        (isinstance(kind, AmountType) and type(value) is int and value >= 0)
        or (isinstance(kind, AddressType | BytesType) and isinstance(value, bytes))
        or (isinstance(kind, PolicyType) and not isinstance(value, dict))
    )
    return kind.to_json(value) if as_held else value


def _record_to_json(record: Record, value: Any) -> JsonValue:
    if isinstance(value, tuple | list):
        if len(value) != len(record.fields):
            raise Rejected("malformed", f"{len(value)} values for the fields {', '.join(record.names)}")
        value = dict(zip(record.names, value, strict=True))
    types = {field.name: field.type for field in record.fields}
    return {name: to_json(types[name], item) if name in types else item for name, item in value.items()}


def _doc(declared: OperationType) -> str:
    fields = declared.versions[declared.newest].fields.fields
    return "\n".join([declared.summary, "", *(f"{field.name}: {field.summary}" for field in fields)])


def _signature(declared: OperationType) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if field.optional else inspect.Parameter.empty,
            )
            for field in declared.versions[declared.newest].fields.fields
        ],
        return_annotation=Operation,
    )
