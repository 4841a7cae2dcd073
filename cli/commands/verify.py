"""`qenex verify`: proves a stopped node's whole chain and state anew, from the genesis document alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import click

from cli import output
from cli.settings import Settings, common_options
from qenex_node.exitcodes import ExitCode
from state.errors import JsonValue

PROGRESS_SECONDS: Final = 1.0


@click.command("verify")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory with room for a second copy of the state [default: the system's].",
)
@common_options
@click.pass_context
def command(context: click.Context, scratch: Path | None) -> None:
    """Audit a stopped node's whole chain and state.

    Executes every block again from the genesis document, proving every signature and certificate, and compares all
    records byte for byte. Nothing is repaired; whatever is not as it must be is named. A node that was restored from a
    snapshot is audited from that height, its `base`, on: by executing again if the snapshot is still kept, otherwise by
    the certificates.
    """
    from qenex_node.homes import open_home
    from state.ledger import Ledger
    from state.store.verify import verify

    settings: Settings = context.obj
    node_home = open_home(settings.home)
    report = verify(
        node_home.home.data,
        node_home.genesis,
        Ledger(),
        state_file=node_home.state_file,
        snapshots=node_home.home.snapshots,
        scratch=scratch,
        progress=_Progress(),
    )
    findings: list[JsonValue] = [{"record": f.record, "problem": f.problem} for f in report.findings]
    document: dict[str, JsonValue] = {
        "ok": report.ok,
        "complete": report.complete,
        "base": report.base,
        "head": report.head,
        "executed_to": report.height,
        "transactions": report.transactions,
        "records": report.records,
        "vote_records": report.votes,
        "findings": findings,
        "findings_left_out": report.findings_left_out,
    }
    shown = {name: value for name, value in document.items() if name != "findings"}
    named = [f"{finding.record}: {finding.problem}" for finding in report.findings]
    output.answer(settings, document, output.fields(shown), *named)
    context.exit(ExitCode.OK if report.ok else ExitCode.AUDIT_FAILED)


class _Progress:
    """Tells a person at a terminal how far the audit is, at most once a second."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS and sys.stderr.isatty():
            self._told = now
            click.echo(f"{stage}: {done}{f' of {total}' if total else ''}", err=True)
