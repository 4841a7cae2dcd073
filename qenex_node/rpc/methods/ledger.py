"""ledger_<domain>_<query>: the queries that the ledger's plug-ins declare, each a method of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from qenex_node.rpc.errors import HEIGHT_AHEAD, HEIGHT_PRUNED, NOT_FOUND
from qenex_node.rpc.methods.accounts import EXAMPLE_ADDRESS
from qenex_node.rpc.methods.heights import AT_HEIGHT, state_at
from qenex_node.rpc.params import ParamType
from qenex_node.rpc.registry import Call, Method, Param, Result
from state.errors import JsonValue
from state.ledger import Ledger
from state.ledger.fields import AddressType, AssetCodeType, Field, FieldType, IntegerType, TextType
from state.ledger.plugin import Query

EXAMPLES: Final[dict[type[FieldType], JsonValue]] = {
    AddressType: EXAMPLE_ADDRESS,
    AssetCodeType: "QNX",
    IntegerType: 1,
    TextType: "a",
}


def methods(ledger: Ledger) -> Iterator[Method]:
    """Yields one method for each query of each plug-in."""
    for name, (_, query) in ledger.registry.queries.items():
        yield _method(name, query)


def _method(name: str, query: Query) -> Method:
    # A request may leave out optional parameters, so by position they come after the others.
    fields = sorted(query.params.fields, key=lambda field: field.optional)
    order = [query.params.fields.index(field) for field in fields]

    def run(call: Call, *given: Any) -> JsonValue:
        values: list[Any] = [None] * len(fields)
        for place, value in zip(order, given[:-1], strict=True):
            values[place] = value
        _, reader = state_at(call, given[-1])
        return query.result.to_json(query.run(reader, tuple(values)))

    return Method(
        f"ledger_{name}",
        query.summary,
        params=(*(_param(field) for field in fields), AT_HEIGHT),
        result=Result(query.name, query.result.schema(), query.summary),
        errors=(NOT_FOUND, HEIGHT_AHEAD, HEIGHT_PRUNED),
        example=tuple([EXAMPLES.get(type(field.type)) for field in fields if not field.optional]),
        plain=run,
    )


def _param(field: Field) -> Param:
    def parse(value: JsonValue) -> Any:
        return field.type.from_json(value, field.name)

    kind = ParamType(type(field.type).__name__.removesuffix("Type").lower(), field.type.schema(), parse)
    return Param(field.name, kind, field.summary, None) if field.optional else Param(field.name, kind, field.summary)
