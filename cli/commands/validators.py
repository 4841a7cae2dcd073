"""`qenex validators`: who votes, at the head or at any height."""

from __future__ import annotations

import click

from cli import output
from cli.node import ask
from cli.settings import Settings, common_options, rpc_option


@click.command("validators")
@click.option("--height", type=click.IntRange(0), help="The height [default: the next one].")
@rpc_option
@common_options
@click.pass_obj
def command(settings: Settings, height: int | None) -> None:
    """List the validators in force."""
    found = ask(settings, "qenex_getValidators", height=height)
    if settings.json:
        output.answer(settings, found)
        return
    members = found["validators"]
    rows = [(index, v["name"], v["key"], v["node_key"]) for index, v in enumerate(members)]
    output.table(
        f"Validators at height {found['height']}: {found['quorum']} of {len(members)} make a quorum",
        ["index", "name", "key", "node key"],
        rows,
    )
