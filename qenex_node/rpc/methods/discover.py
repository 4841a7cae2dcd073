"""rpc.discover: the OpenRPC document."""

from __future__ import annotations

from qenex_node.rpc import schemas
from qenex_node.rpc.openrpc import document
from qenex_node.rpc.registry import Call, Method, Registry, Result
from state.errors import JsonValue


def method(registry: Registry, version: str) -> Method:
    """Returns the method that describes all methods of `registry`, itself included once it is added."""
    made: list[JsonValue] = []

    def discover(call: Call) -> JsonValue:
        if not made:
            made.append(document(registry, version))
        return made[0]

    return Method(
        "rpc.discover",
        "The OpenRPC document of this node: every method with its parameters, result and errors.",
        params=(),
        result=Result("document", schemas.ANY_OBJECT, "An OpenRPC document."),
        plain=discover,
    )
