"""`qenex rollback`: takes the newest block of a stopped node's database back, so that the node commits it anew."""

from __future__ import annotations

import sys

import click

from cli import output
from cli.settings import Settings, common_options
from state.errors import JsonValue, Rejected

WARNING = """\
This takes the newest block out of this node's state and indexes. The block stays final: the network goes on with it,
and this node fetches it again. Vote records are kept, so that a validator contradicts nothing that it signed."""


@click.command("rollback")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@click.pass_obj
def command(settings: Settings, yes: bool) -> None:
    """Take the newest block of a stopped node's database back.

    The state of the height below must still be kept. The block is executed again first, which proves that it follows
    from that state; then one atomic write takes it back, and what is left is proved.
    """
    from qenex_node.homes import open_home
    from qenex_node.recovery import roll_back

    node_home = open_home(settings.home)
    if not yes:
        if not sys.stdin.isatty():
            raise Rejected("confirmation_needed", "say with --yes that you mean it, or run it at a terminal")
        click.echo(WARNING, err=True)
        click.confirm("Go on?", abort=True, err=True)
    done = roll_back(node_home)
    document: dict[str, JsonValue] = {
        "home": str(node_home.home.path),
        "taken_back": done.height,
        "block_hash": "0x" + done.block_hash.hex(),
        "head": done.head.height,
        "head_hash": "0x" + done.head.hash.hex(),
        "state_root": "0x" + done.head.state_root.hex(),
        "records_restored": done.records,
    }
    output.answer(
        settings,
        document,
        output.fields(document),
        f"Next: qenex start --home {node_home.home.path}; it commits block {done.height} again.",
    )
