"""The OpenRPC document of a node (https://spec.open-rpc.org), made from the method declarations."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc.errors import ErrorKind
from qenex_node.rpc.registry import Method, Param, Registry
from state.errors import JsonValue

OPENRPC_VERSION: Final = "1.3.2"


def document(registry: Registry, version: str) -> dict[str, JsonValue]:
    """Returns the document that describes all methods; `version` is the node's."""
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "QENEX node",
            "version": version,
            "description": "JSON-RPC 2.0 at POST / and, with subscriptions, as a WebSocket at /ws. Bytes are 0x-hex, "
            "amounts decimal strings of base units, heights numbers, addresses bech32m, times ms since 1970 UTC.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(method) for method in registry],
    }


def _method(method: Method) -> JsonValue:
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": [_param(param) for param in method.params],
        "result": {
            "name": method.result.name,
            "description": method.result.doc,
            "schema": dict(method.result.schema),
        },
        "errors": [_error(kind) for kind in method.errors],
    }


def _param(param: Param) -> JsonValue:
    schema = dict(param.type.schema)
    if not param.required and isinstance(param.default, bool | int | str):
        schema["default"] = param.default
    return {"name": param.name, "description": param.doc, "required": param.required, "schema": schema}


def _error(kind: ErrorKind) -> JsonValue:
    fields: list[JsonValue] = ["reason", *kind.data]
    return {"code": kind.code, "message": kind.meaning, "data": {"fields": fields}}
