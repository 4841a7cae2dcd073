"""The reference of all methods and errors in docs/rpc.md, made from their declarations.

`python -m qenex_node.rpc.reference` writes it anew. A generated part stands between `<!-- begin NAME -->` and
`<!-- end NAME -->`; the rest of the page is written by hand. A test compares, so that the page cannot lag behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from qenex_node.rpc.errors import APPLICATION_KINDS, STANDARD_KINDS, ErrorKind
from qenex_node.rpc.methods import registry
from qenex_node.rpc.registry import Method, Param, Registry
from state.errors import InvariantError, JsonValue
from state.ledger import Ledger

PAGE: Final = Path(__file__).parents[2] / "docs" / "rpc.md"
RPC_URL: Final = "http://127.0.0.1:27101"
WEBSOCKET_METHODS: Final = ("qenex_subscribe", "qenex_unsubscribe")
_WORDS: Final = {"boolean": "true or false", "integer": "number", "null": "null"}


def overview(methods: Registry) -> str:
    """Returns the table of all methods as Markdown."""
    rows = ["| method | params | what |", "|---|---|---|"]
    for method in methods:
        params = ", ".join(f"`{param.name}`{'' if param.required else '?'}" for param in method.params) or "none"
        rows.append(f"| [`{method.name}`](#{_anchor(method.name)}) | {params} | {_cell(method.summary)} |")
    return "\n".join(rows)


def methods_in_full(methods: Registry) -> str:
    """Returns the chapter of each method as Markdown."""
    return "\n\n".join(_method(method) for method in methods)


def errors() -> str:
    """Returns the table of errors as Markdown."""
    rows = ["| code | name | meaning | `data` beside `reason` |", "|---|---|---|---|"]
    for kind in (*STANDARD_KINDS, *APPLICATION_KINDS):
        fields = ", ".join(f"`{name}`" for name in kind.data)
        rows.append(f"| {kind.code} | `{kind.name}` | {_cell(kind.meaning)} | {fields} |")
    return "\n".join(rows)


def generated(page: str) -> str:
    """Returns the page with all its generated parts as they should be."""
    methods = registry(Ledger(), "")
    parts = {"overview": overview(methods), "methods": methods_in_full(methods), "errors": errors()}
    for name, text in parts.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise InvariantError(f"the page must hold {begin} and {end}, once each")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    return page


def _method(method: Method) -> str:
    parts = [f"### {method.name}", method.summary]
    if method.params:
        rows = ["| param | type | |", "|---|---|---|"]
        rows += [
            f"| `{param.name}` | {_type(param)} | {_cell(param.doc)}{_default(param)} |" for param in method.params
        ]
        parts.append("\n".join(rows))
    shape = _shape(method.result.schema)
    parts.append(f"Result: `{shape}`. {method.result.doc}" if shape != "any" else f"Result: {method.result.doc}")
    named = ", ".join(f"`{kind.name}` ({kind.code})" for kind in _distinct(method.errors))
    if named:
        parts.append(f"Errors: {named}.")
    parts.append(_example(method))
    return "\n\n".join(parts)


def _distinct(kinds: Iterable[ErrorKind]) -> Iterable[ErrorKind]:
    return dict.fromkeys(kinds)


def _default(param: Param) -> str:
    if param.required:
        return ""
    return " (optional)" if param.default is None else f" (default `{json.dumps(param.default)}`)"


def _type(param: Param) -> str:
    values = param.type.schema.get("enum")
    if isinstance(values, list):
        return " or ".join(f'`"{value}"`' for value in values)
    schema = param.type.schema
    if schema.get("type") == "integer" and "maximum" in schema:
        return f"number, {schema['minimum']} to {schema['maximum']}"
    return param.type.name.replace("_", " ")


def _shape(schema: Mapping[str, Any]) -> str:
    """Returns a schema in short: field names, with what they hold where that is not plain."""
    kind = schema.get("type")
    if "oneOf" in schema:
        return " or ".join(_shape(option) for option in schema["oneOf"])
    if kind == "array":
        return f"[{_shape(schema['items'])} ...]" if "items" in schema else "[...]"
    if kind == "object":
        fields = schema.get("properties")
        return "{" + ", ".join(_field(name, inner) for name, inner in fields.items()) + "}" if fields else "{...}"
    return _WORDS.get(kind or "", "text" if kind == "string" else "any")


def _field(name: str, schema: Mapping[str, Any]) -> str:
    shape = _shape(schema)
    return name if shape in ("text", "number", "any") else f"{name}: {shape}"


def _example(method: Method) -> str:
    params: JsonValue = list(method.example)
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method.name, "params": params})
    if method.name in WEBSOCKET_METHODS:
        return f"```\n{request}\n```"
    return f"```sh\ncurl -s {RPC_URL} -d '{request}'\n```"


def _anchor(name: str) -> str:
    return name.lower().replace(".", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Writes the generated parts of docs/rpc.md anew."""
    PAGE.write_text(generated(PAGE.read_text()))


if __name__ == "__main__":
    main()
