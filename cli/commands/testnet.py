"""`qenex testnet`: the homes of a whole test network, wired, funded and ready to be started."""

from __future__ import annotations

from pathlib import Path

import click

from cli import output
from cli.settings import Settings, common_options
from state.errors import JsonValue


@click.command("testnet")
@click.option("--validators", type=click.IntRange(1, 64), default=4, show_default=True, help="Validators.")
@click.option("--full-nodes", type=click.IntRange(0, 64), default=0, show_default=True, help="Full nodes.")
@click.option(
    "--accounts", type=click.IntRange(0, 10_000_000), default=0, help="Funded accounts beside the named ones."
)
@click.option(
    "--output",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where to put it all.",
)
@click.option("--seed", help="The same seed makes the same network [default: a random one].")
@click.option("--chain-id", default="qenex-test", show_default=True, help="The chain's name.")
@click.option("--base-port", type=click.IntRange(1, 65535), default=27100, show_default=True, help="The first port.")
@common_options
@click.pass_obj
def command(
    settings: Settings,
    validators: int,
    full_nodes: int,
    accounts: int,
    directory: Path,
    seed: str | None,
    chain_id: str,
    base_port: int,
) -> None:
    """Make the homes of a test network on this machine.

    Its keys are NOT ENCRYPTED, and follow from the seed. Start each node with `qenex start --home OUTPUT/NAME`.
    """
    from qenex_node.testnet import Plan, create_testnet, ports_from
    from state.address import to_text

    plan = Plan(validators=validators, full_nodes=full_nodes, accounts=accounts, seed=seed, chain_id=chain_id)
    made = create_testnet(directory, plan, ports_from(base_port, validators + full_nodes))
    document: dict[str, JsonValue] = {
        "directory": str(directory),
        "chain_id": made.chain_id,
        "genesis_hash": "0x" + made.genesis_hash.hex(),
        "seed": made.seed,
        "nodes": [
            {
                "name": node.name,
                "role": node.role,
                "home": str(node.home),
                "p2p": f"127.0.0.1:{node.ports.p2p}",
                "rpc": f"http://127.0.0.1:{node.ports.rpc}",
                "metrics": f"http://127.0.0.1:{node.ports.metrics}/metrics",
            }
            for node in made.nodes
        ],
        "accounts": [
            {"name": account.name, "address": to_text(account.address), "key_file": str(account.key_file)}
            for account in made.accounts
        ],
        "bulk_accounts": made.bulk_accounts,
    }
    shown = {name: value for name, value in document.items() if name not in ("nodes", "accounts")}
    output.answer(settings, document, output.fields(shown), "Keys are NOT ENCRYPTED: for tests only.")
    if not settings.json:
        output.table(
            "Nodes",
            ["name", "role", "rpc", "home"],
            [(n.name, n.role, f"http://127.0.0.1:{n.ports.rpc}", n.home) for n in made.nodes],
        )
        output.table("Accounts", ["name", "address"], [(a.name, to_text(a.address)) for a in made.accounts])
