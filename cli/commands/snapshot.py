"""`qenex snapshot`: makes, lists, proves and restores snapshots of a stopped node's state."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from cli import output
from cli.settings import Settings, common_options
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from state.store.snapshots import Snapshot

PROGRESS_SECONDS: Final = 1.0


@click.group("snapshot")
@common_options
def command() -> None:
    """Make, list, prove and restore snapshots of the state.

    A running node makes them itself, at each height that `snapshots.interval_heights` divides, and serves them to
    others; a new node begins with one by itself. These commands are for stopped nodes.
    """


def _block_hash_option(function: Any) -> Any:
    return click.option(
        "--block-hash",
        metavar="HEX",
        help="The snapshot's block hash, from a source that you trust: needed where the validators have changed.",
    )(function)


@command.command("create")
@common_options
@click.pass_obj
def create(settings: Settings) -> None:
    """Make a snapshot of a stopped node's newest state, in its home's `snapshots/`."""
    from qenex_node import snapshot_tools
    from qenex_node.homes import open_home

    snapshot = snapshot_tools.create(open_home(settings.home))
    document = _document(snapshot)
    output.answer(settings, document, output.fields(document))


@command.command("list")
@common_options
@click.pass_obj
def list_command(settings: Settings) -> None:
    """List the snapshots of a home."""
    from qenex_node import snapshot_tools
    from qenex_node.homes import open_home
    from state.store.snapshots import Snapshot

    documents: list[JsonValue] = []
    rows: list[tuple[object, ...]] = []
    for found in snapshot_tools.listed(open_home(settings.home)):
        if isinstance(found, Snapshot):
            document = _document(found)
            documents.append(document)
            rows.append(tuple(document[name] for name in ("height", "chunks", "bytes", "manifest_hash")))
        else:
            path, error = found
            documents.append({"path": str(path), "error": {"code": error.code, "message": error.message}})
            rows.append((path.name, "-", "-", f"{error.message} ({error.code})"))
    if settings.json:
        output.answer(settings, {"snapshots": documents})
    elif rows:
        output.table("Snapshots", ("height", "chunks", "bytes", "manifest hash"), rows)
    else:
        click.echo("There are none.")


@command.command("verify")
@click.argument("snapshot")
@_block_hash_option
@common_options
@click.pass_obj
def verify(settings: Settings, snapshot: str, block_hash: str | None) -> None:
    """Prove a snapshot, a height or a directory: its header, certificate and every chunk."""
    from qenex_node import snapshot_tools
    from qenex_node.homes import open_home

    node_home = open_home(settings.home)
    found = snapshot_tools.find(node_home, snapshot)
    snapshot_tools.prove(found, node_home.genesis, _hash(block_hash), _Progress())
    document: dict[str, JsonValue] = {"ok": True, **_document(found)}
    output.answer(settings, document, output.fields(document))


@command.command("restore")
@click.argument("snapshot")
@_block_hash_option
@common_options
@click.pass_obj
def restore(settings: Settings, snapshot: str, block_hash: str | None) -> None:
    """Put a snapshot, a height or a directory, in the place of a stopped node's database.

    Everything is proved first; vote records and keys stay. The node has no blocks up to the snapshot's height then: it
    answers block_pruned for them. A crash leaves the old database or the new one. A home that has none yet gets one by
    `qenex init --genesis` first.
    """
    from qenex_node import snapshot_tools
    from qenex_node.homes import open_home

    node_home = open_home(settings.home)
    found = snapshot_tools.find(node_home, snapshot)
    restored = snapshot_tools.restore(node_home, found, _hash(block_hash), _Progress())
    document: dict[str, JsonValue] = {
        "home": str(node_home.home.path),
        "head_before": restored.head_before,
        "head": restored.snapshot.height,
        "vote_records": restored.votes_exist,
    }
    lines = [output.fields(document)]
    if node_home.is_validator and not restored.votes_exist:
        lines.append("The vote records are missing: `qenex recover` before this validator signs again.")
    else:
        lines.append(f"Next: qenex start --home {node_home.home.path}; it fetches the blocks above {document['head']}.")
    output.answer(settings, document, *lines)


def _document(snapshot: Snapshot) -> dict[str, JsonValue]:
    header = snapshot.manifest.header
    return {
        "height": header.height,
        "block_hash": f"0x{header.hash.hex()}",
        "state_root": f"0x{header.state_root.hex()}",
        "time_ms": header.time_ms,
        "manifest_hash": f"0x{snapshot.manifest.hash.hex()}",
        "chunks": len(snapshot.manifest.chunks),
        "bytes": snapshot.size_bytes(),
        "path": str(snapshot.path),
    }


def _hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        data = b""
    if len(data) != 32:
        raise Rejected("hash_invalid", f"{text!r} is no hash: 64 hexadecimal digits are wanted")
    return data


class _Progress:
    """Tells a person at a terminal how far it is, at most once a second."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS and sys.stderr.isatty():
            self._told = now
            click.echo(f"chunks: {done} of {total}", err=True)
