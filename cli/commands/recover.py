"""`qenex recover`: lets a validator that lost its vote records sign again, safely and not at once."""

from __future__ import annotations

import sys
import time

import click

from cli import output
from cli.settings import Settings, common_options
from state.errors import JsonValue, Rejected

WARNING = """\
This notes durably that this validator does not know what it has signed. It will then follow the chain and sign nothing
until the others have committed far enough without it. Use it after the database was lost, damaged or restored from a
backup. Make sure that no other machine runs with this validator's key."""


@click.command("recover")
@click.option(
    "--chain-intact",
    is_flag=True,
    help="Only the vote records are gone; the chain has every block that this validator ever held.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@click.pass_obj
def command(settings: Settings, chain_intact: bool, yes: bool) -> None:
    """Let a validator sign again after its vote records were lost.

    Run it on the stopped node. At most f validators may recover at a time.
    """
    from qenex_node.homes import open_home
    from qenex_node.recovery import begin_recovery

    node_home = open_home(settings.home)
    if not yes:
        if not sys.stdin.isatty():
            raise Rejected("confirmation_needed", "say with --yes that you mean it, or run it at a terminal")
        click.echo(WARNING, err=True)
        click.confirm("Go on?", abort=True, err=True)
    begun = begin_recovery(node_home, chain_intact=chain_intact, now_ms=time.time_ns() // 1_000_000)
    document: dict[str, JsonValue] = {
        "home": str(node_home.home.path),
        "head": begun.head_height,
        "signed_at_most": begun.signed_at_most,
        "started_ms": begun.started_ms,
        "vote_records_created": begun.votes_created,
        "records_dropped": begun.records_dropped,
    }
    output.answer(
        settings,
        document,
        output.fields(document),
        f"Next: qenex start --home {node_home.home.path}; /ready says when the node votes again.",
    )
