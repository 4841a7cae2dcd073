"""`qenex recover`: lets validators that lost their vote records sign again, safely and not at once.

Up to f validators do so each by itself. Where more than f lost them, all validators take part: each home makes a report
(--report), and each applies the statement that all reports make.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli import output
from cli.settings import Settings, common_options, passphrase_of, passphrase_options
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from qenex_node.homes import NodeHome
    from qenex_node.recovery import Stated

WARNING: Final = """\
This notes durably that this validator does not know what it has signed. It will then follow the chain and sign nothing
until the others have committed far enough without it. Use it after the database was lost, damaged or restored from a
backup. Make sure that no other machine runs with this validator's key."""

WARNING_REPORT: Final = """\
This makes the report of this validator's home and keeps the home from signing until the statement of all validators'
reports is applied. Make sure that no other machine runs with this validator's key."""

WARNING_STATEMENT: Final = """\
This binds this validator to the statement above. Ask all other operators first whether they see the same statement."""

REPORT_FORMAT: Final = "qenex-report"
REPORT_VERSION: Final = 1
REPORT_FILE_BYTES_MAX: Final = 64 * 1024


@click.command("recover")
@click.option(
    "--chain-intact",
    is_flag=True,
    help="Only the vote records are gone; the chain has every block that this validator ever held, none taken back.",
)
@click.option("--quorum-lost", is_flag=True, help="More than f validators lost their vote records; all take part.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --quorum-lost: make this home's report, and write it to this file.",
)
@click.option("--withdraw", is_flag=True, help="With --quorum-lost: take this home's report back.")
@click.option(
    "--statement", metavar="HASH", help="With --quorum-lost and all reports: apply only the statement with this hash."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("reports", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passphrase_options
@common_options
@click.pass_obj
def command(
    settings: Settings,
    chain_intact: bool,
    quorum_lost: bool,
    report_file: Path | None,
    withdraw: bool,
    statement: str | None,
    yes: bool,
    reports: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Let a validator sign again after its vote records were lost.

    Run it on the stopped node. At most f validators may recover at a time. If more than f lost their records, run it
    with --quorum-lost on all validators, also those that lost nothing: first each with --report FILE, then each with
    the REPORTS of all.
    """
    from qenex_node.homes import open_home

    asked = [report_file is not None, withdraw, bool(reports)]
    if (any(asked) or statement is not None) and not quorum_lost:
        raise Rejected("quorum_not_lost", "--report, --withdraw, --statement and reports belong to --quorum-lost")
    if quorum_lost and (sum(asked) != 1 or chain_intact or (statement is not None and not reports)):
        raise Rejected(
            "quorum_lost_how", "with --quorum-lost give either --report FILE, or the reports of all, or --withdraw"
        )
    node_home = open_home(settings.home)
    if reports:
        _apply(settings, node_home, reports, statement, yes)
    elif report_file is not None:
        _report(settings, node_home, report_file, yes, passphrase_of(passphrase_file, passphrase_fd))
    elif withdraw:
        _withdraw(settings, node_home)
    else:
        _recover(settings, node_home, chain_intact, yes)


def _meant(warning: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Rejected("confirmation_needed", "say with --yes that you mean it, or run it at a terminal")
    click.echo(warning, err=True)
    click.confirm("Go on?", abort=True, err=True)


def _recover(settings: Settings, node_home: NodeHome, chain_intact: bool, yes: bool) -> None:
    from qenex_node.recovery import begin_recovery

    _meant(WARNING, yes)
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


def _report(settings: Settings, node_home: NodeHome, target: Path, yes: bool, passphrase: Callable[[], bytes]) -> None:
    from qenex_node.homes import read_keys
    from qenex_node.jsonfiles import write_json
    from qenex_node.recovery import report_home

    if target.exists():
        raise Rejected("file_exists", f"{target} exists already: remove it, or give another name")
    key = read_keys(node_home, passphrase).validator
    if key is None:
        raise Rejected("not_a_validator", "only a validator signs votes: a full node reports nothing")
    _meant(WARNING_REPORT, yes)
    made = report_home(node_home, key)
    document: dict[str, JsonValue] = {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "chain_id": node_home.genesis.chain_id,
        "validator": made.name,
        "head": made.report.head_height,
        "head_hash": "0x" + made.report.head_hash.hex(),
        "promised_view": made.report.promised,
        "records_lost": made.report.lost,
        "report": "0x" + made.encoded.hex(),
    }
    write_json(target, document)
    shown = {name: value for name, value in document.items() if name not in ("format", "version", "report")}
    output.answer(
        settings,
        {**shown, "file": str(target)},
        output.fields(shown),
        f"This home signs nothing now. Send {target} to all operators; with the reports of all, each runs "
        "`qenex recover --quorum-lost REPORT...`.",
    )


def _withdraw(settings: Settings, node_home: NodeHome) -> None:
    from qenex_node.recovery import withdraw_report

    withdraw_report(node_home)
    document: dict[str, JsonValue] = {"home": str(node_home.home.path), "withdrawn": True}
    output.answer(settings, document, "The report is taken back: no statement that holds it counts for this home.")


def _apply(settings: Settings, node_home: NodeHome, files: tuple[Path, ...], wanted: str | None, yes: bool) -> None:
    from qenex_node.keystore import inspect_key
    from qenex_node.recovery import apply_statement, read_statement

    statement, stated = read_statement(node_home, [_report_of(file, node_home.genesis.chain_id) for file in files])
    digest = "0x" + stated.digest.hex()
    if wanted is not None and wanted != digest:
        raise Rejected(
            "statement_differs",
            f"these reports make the statement {digest}, not {wanted}: somebody has other reports; collect them anew",
            {"statement": digest},
        )
    if not yes:
        click.echo(output.fields(_document(node_home, stated)), err=True)
    _meant(WARNING_STATEMENT, yes)
    key = inspect_key(node_home.home.validator_key_file).public.data
    applied = apply_statement(node_home, key, statement, now_ms=time.time_ns() // 1_000_000)
    document = _document(node_home, applied)
    output.answer(
        settings,
        document,
        output.fields(document),
        f"Next, once all validators have applied this very statement: qenex start --home {node_home.home.path}",
    )


def _document(node_home: NodeHome, stated: Stated) -> dict[str, JsonValue]:
    return {
        "home": str(node_home.home.path),
        "statement": "0x" + stated.digest.hex(),
        "head": stated.head_height,
        "head_hash": "0x" + stated.head_hash.hex(),
        "view": stated.view,
        "kept": [*stated.kept],
        "wiped": [*stated.wiped],
        "applied_now": stated.applied,
    }


def _report_of(path: Path, chain_id: str) -> bytes:
    """Returns the encoded report of a file; raises Rejected("report_unreadable"), ("wrong_chain")."""
    from qenex_node.jsonfiles import read_json

    document: Any = read_json(path, REPORT_FILE_BYTES_MAX, "report_unreadable")
    try:
        if document["format"] != REPORT_FORMAT or document["version"] != REPORT_VERSION:
            raise ValueError("it is no report, or of another version")
        if document["chain_id"] != chain_id:
            raise Rejected("wrong_chain", f"{path} is a report of chain {document['chain_id']!r}, not of {chain_id!r}")
        text = document["report"]
        if type(text) is not str or not text.startswith("0x"):
            raise ValueError("the report is written as 0x-hex")
        return bytes.fromhex(text[2:])
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("report_unreadable", f"{path} cannot be read as a report: {error}") from None
