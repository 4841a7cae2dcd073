"""`qenex peers`: who a running node is connected to."""

from __future__ import annotations

import click

from cli import output
from cli.node import ask
from cli.settings import Settings, common_options, rpc_option


@click.command("peers")
@rpc_option
@common_options
@click.pass_obj
def command(settings: Settings) -> None:
    """List a running node's peers."""
    found = ask(settings, "net_peers")
    if settings.json:
        output.answer(settings, found)
        return
    rows = [
        (
            peer["name"] or peer["id"][:18],
            peer["role"],
            peer["address"],
            peer["direction"],
            peer["height"],
            "-" if peer["latency_ms"] is None else f"{peer['latency_ms']} ms",
            f"{peer['received_bytes']:,} / {peer['sent_bytes']:,}",
            peer["score"],
        )
        for peer in found["peers"]
    ]
    columns = ["peer", "role", "address", "direction", "height", "latency", "bytes in / out", "score"]
    output.table(f"{len(rows)} peers", columns, rows)
