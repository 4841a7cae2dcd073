"""`qenex export`: writes a stopped node's blocks as a stream, for audit; --check proves such a stream instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.settings import Settings, common_options
from cli.wallet import GENESIS_FILE, genesis_option
from state.errors import JsonValue, Rejected


@click.command("export")
@click.option("--from", "start", type=click.IntRange(1), metavar="HEIGHT", help="First [default: the lowest kept].")
@click.option("--to", "end", type=click.IntRange(1), metavar="HEIGHT", help="Last height [default: the head].")
@click.option(
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write [default: standard output].",
)
@click.option("--resume", "go_on", is_flag=True, help="Go on with the file where it ends.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["frames", "json"]),
    default="frames",
    show_default=True,
    help="Length-prefixed canonical msgpack, or JSON lines.",
)
@click.option(
    "--check",
    "checked",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Prove this stream instead, from the genesis document; repeated: one after the other.",
)
@genesis_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    start: int | None,
    end: int | None,
    target: Path | None,
    go_on: bool,
    form: str,
    checked: tuple[Path, ...],
    genesis_file: Path | None,
) -> None:
    """Write a stopped node's blocks with certificates and receipts as a stream, for audit.

    With --check it needs no node: every certificate, signature, link and root of the stream is proved from the genesis
    document. docs/operations.md describes the form.
    """
    if checked:
        _check(settings, checked, genesis_file)
        return
    if go_on and target is None:
        raise Rejected("output_missing", "--resume goes on with the file that --output names")
    if target is None and form == "frames" and sys.stdout.isatty():
        raise Rejected("output_missing", "frames are not for a terminal: give --output FILE, or --format json")
    _export(settings, start, end, target, go_on, form)


def _export(
    settings: Settings, start: int | None, end: int | None, target: Path | None, go_on: bool, form: str
) -> None:
    from qenex_node import export
    from qenex_node.homes import open_home
    from qenex_node.options import store_options
    from state.ledger import Ledger
    from state.store import Store

    node_home = open_home(settings.home)
    context = node_home.genesis.context
    store = Store.open(node_home.home.data, node_home.genesis, Ledger(), store_options(node_home.config))
    try:
        # Of the height that a snapshot was restored at, the block itself is not kept.
        first = start or store.base_height + 1
        last = store.head.height if end is None else end
        if last > store.head.height:
            raise Rejected("height_unknown", f"the head is {store.head.height}", {"head_height": store.head.height})
        if target is None:
            stream = sys.stdout.buffer
            writer = export.Writer(stream, form, context)
            for entry in export.entries(store, first, last):
                writer.write(entry)
            stream.flush()
            return
        if go_on and target.exists():
            first, count = export.resume(target, store, context, first, last)
        else:
            count = export.export_to(target, store, context, form, first, last)
    finally:
        store.close()
    document: dict[str, JsonValue] = {"output": str(target), "from": first, "to": first + count - 1, "blocks": count}
    output.answer(settings, document, output.fields(document))


def _check(settings: Settings, files: tuple[Path, ...], genesis_file: Path | None) -> None:
    from qenex_node.export import Reader
    from qenex_node.exportcheck import StreamCheck
    from qenex_node.homes import read_genesis

    path = genesis_file or (settings.network_home or settings.home) / GENESIS_FILE
    if not path.is_file():
        raise Rejected("trust_missing", f"there is no {path}: give the chain's genesis document with --genesis FILE")
    genesis = read_genesis(path)
    check = StreamCheck(genesis)
    for file in files:
        with file.open("rb") as stream:
            check.take(Reader(stream, genesis.context))
    found = check.result()
    document: dict[str, Any] = {
        "ok": True,
        "from": found.first,
        "to": found.last,
        "last_hash": "0x" + found.last_hash.hex(),
        "blocks": found.blocks,
        "transactions": found.transactions,
        "validators": found.validators.n,
    }
    output.answer(settings, document, output.fields(document))
