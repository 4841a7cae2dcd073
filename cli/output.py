"""How commands answer: one JSON document with --json, else lines and tables for people. Errors go the same two ways."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from cli.settings import Settings
from state.errors import JsonValue

PIPE_WIDTH: Final = 400


def answer(settings: Settings, document: Mapping[str, Any] | Sequence[Any], *human: str) -> None:
    """Writes `document` as JSON, or the lines for people."""
    if settings.json:
        click.echo(json.dumps(document, indent=2))
    else:
        for line in human:
            click.echo(line)


def fields(pairs: Mapping[str, object]) -> str:
    """Returns aligned lines of "name  value" for people."""
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in pairs.items())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table for people to standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(_shown(cell)) for cell in row))
    # What is written to a file or a pipe is not folded: addresses must stay whole for the next program.
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(drawn)


def _shown(value: object) -> str:
    """Returns a value as people write it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def error(as_json: bool, code: str, message: str, exit_code: int, data: Mapping[str, JsonValue]) -> None:
    """Writes an error: an object on standard output with --json, else a line on standard error."""
    if as_json:
        document = {"error": {"code": code, "message": message, "exit_code": exit_code, "data": dict(data)}}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"qenex: {message} ({code})", file=sys.stderr)
