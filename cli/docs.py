"""Keeps the tables in docs/operations.md as the code declares them: `python -m cli.docs` writes them anew.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; everything else in the page is written
by hand and left alone. A test compares, so that the page cannot lag behind.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from cli.main import COMMANDS
from qenex_node import configfile, exitcodes, metrics
from state.errors import InvariantError

EVERYWHERE: Final = frozenset({"--json", "--home"})
PAGE: Final = Path(__file__).parents[1] / "docs" / "operations.md"


def commands() -> str:
    """Returns what every command does and takes, as Markdown."""
    parts: list[str] = []
    for name, entry in COMMANDS.items():
        for path, command in _leaves(f"qenex {name}", import_module(entry.module).command):
            parts.append(_command(path, command))
    return "\n\n".join(parts)


def _leaves(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner is not None:
            yield from _leaves(f"{path} {name}", inner)


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, parent=None)
    arguments = " ".join(command.collect_usage_pieces(context)[1:])
    text = f"#### `{path}{' ' + arguments if arguments else ''}`\n\n{_help(command)}"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [_option(context, option) for option in options if not EVERYWHERE.intersection(option.opts)]
    if rows:
        text += "\n\n| option | meaning |\n|---|---|\n" + "\n".join(rows)
    return text


def _help(command: click.Command) -> str:
    paragraphs = re.split(r"\n\s*\n", (command.help or "").replace("\b", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _option(context: click.Context, option: click.Option) -> str:
    # Defaults and choices are added as `--help` adds them.
    shown, text = option.get_help_record(context) or ("", "")
    return f"| `{shown.replace('|', ', ')}` | {' '.join(text.split()).replace('|', ', ')} |"


PARTS: Final[dict[str, Callable[[], str]]] = {
    "config": configfile.table,
    "metrics": metrics.table,
    "commands": commands,
    "exit codes": exitcodes.table,
}


def generated(page: str) -> str:
    """Returns the page with all its generated parts as they should be."""
    for name, part in PARTS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise InvariantError(f"{PAGE.name} must have {begin} and {end} once each")
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = f"{before}{begin}\n{part()}\n{end}{after}"
    return page


def main() -> None:
    """Writes the page anew."""
    page = PAGE.read_text(encoding="utf-8")
    written = generated(page)
    PAGE.write_text(written, encoding="utf-8")
    print(f"{PAGE}: {'unchanged' if written == page else 'written'}", file=sys.stderr)


if __name__ == "__main__":
    main()
