"""`qenex status`: where a running node stands, what its consensus does, and what waits."""

from __future__ import annotations

import time

import click

from cli import output
from cli.node import ask_all
from cli.settings import Settings, common_options, rpc_option


@click.command("status")
@rpc_option
@common_options
@click.pass_obj
def command(settings: Settings) -> None:
    """Show where a running node stands."""
    status, consensus, mempool, peers = ask_all(
        settings, "qenex_status", "consensus_state", "mempool_status", "net_peers"
    )
    if settings.json:
        output.answer(settings, {**status, "consensus": consensus, "mempool": mempool, "peers": len(peers["peers"])})
        return
    head = status["head"]
    age_s = max(0, time.time_ns() // 1_000_000 - head["time_ms"]) // 1000
    if status["sync"]["syncing"]:
        sync = f"catching up to {status['sync']['target_height']}"
    else:
        sync = "at the head" if peers["peers"] else "no peer tells the head"
    shown = {
        "chain": status["chain_id"],
        "node": f"{status['node_id']} ({status['role']}, version {status['version']})",
        "head": f"{head['height']}  {head['hash']}" + (f", {age_s} s ago" if head["height"] else ", genesis"),
        "state root": head["state_root"],
        "view": f"{status['view']}, primary {status['primary'] or '-'}, {consensus['phase']}",
        "sync": sync,
        "waiting": f"{mempool['count']} transactions, {mempool['ready']} of them ready",
        "peers": len(peers["peers"]),
    }
    output.answer(settings, status, output.fields(shown))
