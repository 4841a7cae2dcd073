"""The configuration as it is written down: the commented file of a node, the table of the documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from qenex_node.config import SECTIONS, Config, Key, keys_of


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if value >= 100_000 else str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if not value:
        return "[]"
    return "[\n" + "".join(f"    {_toml(item)},\n" for item in value) + "]"


def _notes(item: Field[Any]) -> list[str]:
    """Returns the unit, bounds or choices, and reload mark of a key."""
    key: Key = item.metadata["key"]
    notes: list[str] = []
    if key.choices:
        notes.append("one of " + ", ".join(key.choices))
    if type(item.default) is int:
        bounds = f"{key.low} to {key.high}" if key.high < 2**63 - 1 else f"at least {key.low}"
        notes.append(f"{bounds} {key.unit}".rstrip())
    if key.reloadable:
        notes.append("read again on SIGHUP")
    return notes


def _wrapped(text: str, width: int = 110) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width and line != "#":
            yield line
            line = "#"
        line += " " + word
    yield line


def render(config: Config) -> str:
    """Returns the commented configuration file for `config`: every key, with its meaning, bounds and default."""
    lines = ["# The configuration of a QENEX node. docs/operations.md has all of this as a table.", ""]
    for name, kind in SECTIONS.items():
        section = getattr(config, name)
        lines += [*_wrapped(kind.__doc__), f"[{name}]"]
        for key, item in keys_of(kind).items():
            notes = [*_notes(item), f"default {_toml(item.default)}"]
            lines += _wrapped(f"{item.metadata['key'].doc} ({'; '.join(notes)})")
            lines.append(f"{key} = {_toml(getattr(section, key))}")
        lines.append("")
    return "\n".join(lines)


def table() -> str:
    """Returns the Markdown table of all keys for docs/operations.md."""
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for name, kind in SECTIONS.items():
        rows.append(f"| **[{name}]** | | | {kind.__doc__} |")
        for key, item in keys_of(kind).items():
            allowed = (
                "; ".join(_notes(item))
                or {bool: "true, false", str: "text", tuple: "list of texts"}[type(item.default)]
            )
            rows.append(f"| `{name}.{key}` | `{_toml(item.default)}` | {allowed} | {item.metadata['key'].doc} |")
    return "\n".join(rows)
