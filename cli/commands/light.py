"""`qenex light`: checks what a node answers as a light client does, trusting only the genesis document.

Ends with PROOF_INVALID where the node lies, and FORK_PROVED where it shows a second certified block of a height.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli import output
from cli.settings import Settings, common_options, rpc_option
from cli.wallet import GENESIS_FILE, Names, genesis_option
from state.errors import Rejected

if TYPE_CHECKING:
    from qenex_node.client.blocking import Client
    from qenex_node.client.crosscheck import Subjects
    from qenex_node.client.light import LightClient
    from state.genesis import Genesis

TRUST_FILE: Final = "light.json"
POLL_SECONDS: Final = 1.0
DAY_MS: Final = 24 * 3600 * 1000


@click.command("light")
@click.option(
    "--trust",
    metavar="HEIGHT:HASH",
    help="A block that is trusted too, as its hash comes from a trusted source.",
)
@click.option(
    "--trust-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the newest proved header is kept [default: {TRUST_FILE} in the home or in ./.devnet].",
)
@click.option(
    "--trusted-within",
    type=click.IntRange(1),
    metavar="DAYS",
    help="Do not go on from a trusted block that is older than this.",
)
@click.option("--account", "accounts", multiple=True, metavar="ACCOUNT", help="Check this account; may be repeated.")
@click.option("--asset", "assets", multiple=True, metavar="CODE", help="Check this asset; may be repeated.")
@click.option(
    "--balance", "balances", multiple=True, metavar="ACCOUNT:CODE", help="Check this balance; may be repeated."
)
@click.option(
    "--receipt", "receipts", multiple=True, metavar="ID", help="Check this transaction's receipt; may be repeated."
)
@click.option("--follow", is_flag=True, help="Go on with each new block until interrupted.")
@click.option("--for", "seconds", type=click.IntRange(1), metavar="SECONDS", help="With --follow: end after this time.")
@genesis_option
@rpc_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    /,
    trust: str | None,
    trust_file: Path | None,
    trusted_within: int | None,
    follow: bool,
    seconds: int | None,
    genesis_file: Path | None,
    **asked: tuple[str, ...],
) -> None:
    """Check what a node answers, trusting only the genesis document.

    Proves the node's newest block from genesis through every change of the validator set, then that its answers are
    those of that block's state: the native asset, the newest block with its receipts, the validators, and what is
    named. Where several nodes run in ./.devnet, all are checked, and must be on one chain.
    """
    from qenex_node.client import crosscheck, reads
    from qenex_node.client.light import LightClient, TrustPeriod
    from qenex_node.client.session import wall_clock_ms
    from qenex_node.client.trustfile import load_trust
    from qenex_node.homes import read_genesis

    home = settings.network_home or settings.home
    path = genesis_file or home / GENESIS_FILE
    if not path.is_file():
        raise Rejected("trust_missing", f"there is no {path}: give the chain's genesis document with --genesis FILE")
    genesis = read_genesis(path)
    period = None if trusted_within is None else TrustPeriod(trusted_within * DAY_MS, wall_clock_ms)
    kept = trust_file or home / TRUST_FILE
    light = LightClient(genesis, period)
    load_trust(kept, light)
    trusted_block = None if trust is None else _trusted_block(trust)
    subjects = _subjects(settings, genesis, **asked)
    with ExitStack() as stack:
        nodes = {url: stack.enter_context(_client(url, genesis, light)) for url in settings.rpcs}
        if trusted_block is not None:
            first = next(iter(nodes.values()))
            first.run(reads.trust_block(first.session, *trusted_block))
        if follow:
            _follow(settings, nodes, kept, None if seconds is None else time.monotonic() + seconds)
            return
        found = [
            (_prove_head(url, node, kept), node.run(crosscheck.answers(node.session, subjects)))
            for url, node in nodes.items()
        ]
    documents = [{**head, "checked": [asdict(entry) for entry in checked]} for head, checked in found]
    lines = [_told(head) for head, _ in found]
    for n, (_, checked) in enumerate(found):
        held = (f"  {entry.what} {entry.of} is as proved at height {entry.height}" for entry in checked)
        lines[n] = "\n".join((lines[n], *held))
    output.answer(settings, {"ok": True, "trust_file": str(kept), "nodes": documents}, *lines)


def _trusted_block(text: str) -> tuple[int, bytes]:
    """Returns height and hash of --trust; raises Rejected("trust_invalid")."""
    from qenex_node.client.forms import hash_of

    height, _, digest = text.partition(":")
    try:
        if not (height.isascii() and height.isdecimal() and int(height) >= 1):
            raise ValueError
        return int(height), hash_of(digest)
    except ValueError:
        raise Rejected(
            "trust_invalid", f"{text!r}: a trusted block is given as HEIGHT:0xHASH, from height 1 on"
        ) from None


def _subjects(
    settings: Settings,
    genesis: Genesis,
    accounts: tuple[str, ...],
    assets: tuple[str, ...],
    balances: tuple[str, ...],
    receipts: tuple[str, ...],
) -> Subjects:
    """Returns what is to be examined: the native asset, and what was named."""
    from cli.commands.query import tx_id_of
    from qenex_node.client.crosscheck import Subjects

    names = Names(settings)
    native = genesis.parameters.native_asset
    pairs = [text.rpartition(":") for text in balances]
    if not all(who for who, _, _ in pairs):
        raise Rejected("balance_invalid", "a balance is given as ACCOUNT:CODE")
    return Subjects(
        tuple(names.address(text) for text in accounts),
        tuple(dict.fromkeys((native, *assets))),
        tuple((names.address(who), code) for who, _, code in pairs),
        tuple(tx_id_of(text) for text in receipts),
    )


def _client(url: str, genesis: Genesis, light: LightClient) -> Client:
    """Returns a client of one node. All share what is trusted of the chain; each node has a newest block of its own."""
    from qenex_node.client.blocking import Client
    from qenex_node.client.session import Session
    from qenex_node.client.verify import TrustedChain

    trusted = TrustedChain(genesis, light=light)
    trusted.height = light.highest.height
    return Client(url, session=Session(trusted))


def _prove_head(url: str, node: Client, kept: Path) -> dict[str, Any]:
    """Proves a node's newest block and keeps it if no newer one is known; returns what to tell of it."""
    from qenex_node.client import crosscheck
    from qenex_node.client.trustfile import save_trust

    status, block = node.run(crosscheck.head(node.session))
    raw: Any = status.raw
    trusted = node.session.trusted
    if block is not None and trusted is not None and trusted.light.highest.hash == block.header.hash:
        save_trust(kept, trusted.light, block)
    return {
        "rpc": url,
        "height": status.height,
        "hash": raw["head"]["hash"],
        "time_ms": status.time_ms,
        "validators": None if block is None else block.validators.n,
        "signed_by": None if block is None else len(block.certificate.signatures),
    }


def _told(head: dict[str, Any]) -> str:
    if head["signed_by"] is None:
        return f"{head['rpc']}: at genesis, {head['hash']}"
    by = f"signed by {head['signed_by']} of {head['validators']} validators"
    return f"{head['rpc']}: block {head['height']} is final, {by}, {head['hash']}"


def _follow(settings: Settings, nodes: dict[str, Client], kept: Path, end: float | None) -> None:
    """Proves each new head of each node; a node that does not answer is asked again, one that lies ends it."""
    from qenex_node.client.errors import TransportError

    told: dict[str, str] = {}
    while True:
        for url, node in nodes.items():
            try:
                head = _prove_head(url, node, kept)
                line = json.dumps(head) if settings.json else _told(head)
            except TransportError as error:
                line = json.dumps({"rpc": url, "unreachable": str(error)}) if settings.json else str(error)
            if told.get(url) != line:
                told[url] = line
                click.echo(line)
        if end is not None and time.monotonic() >= end:
            return
        time.sleep(POLL_SECONDS)
