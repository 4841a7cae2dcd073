"""`qenex query`: read accounts, assets, transactions and blocks of a node, and prove what it says.

With --prove (and always for `proof`) nothing that the node says is believed: it is checked against the validators of a
genesis document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.settings import Settings, common_options, rpc_option
from cli.wallet import ASSET_DEFAULT, Decimals, Names, client_of, genesis_option, trusted_chain
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from qenex_node.client.blocking import Client
    from state.types import Header, TxId


@dataclass(slots=True)
class Asked:
    """What a query is asked with."""

    settings: Settings
    client: Client
    names: Names
    decimals: Decimals

    def proof_line(self, height: int) -> str:
        """Says what was checked."""
        trusted = self.client.session.trusted
        if trusted is None:
            return f"as the node says, at height {height}; --prove checks it"
        validators = trusted.validators_at(height)
        return f"proved at height {height}, by {validators.quorum} or more of {validators.n} validators"


def trust_options(command: Any) -> Any:
    """Adds --prove, --genesis and what bounds the age of an answer."""
    command = click.option("--prove", is_flag=True, help="Check the answer instead of believing the node.")(command)
    return proof_options(command)


def proof_options(command: Any) -> Any:
    """Adds the options of a query that always proves."""
    command = click.option("--min-height", type=click.IntRange(0), default=0, help="Refuse older answers.")(command)
    command = click.option(
        "--max-age", type=click.IntRange(1), metavar="SECONDS", help="Refuse an answer whose newest block is older."
    )(command)
    return genesis_option(command)


@contextmanager
def asking(
    settings: Settings,
    prove: bool = False,
    genesis_file: Path | None = None,
    min_height: int = 0,
    max_age: int | None = None,
) -> Iterator[Asked]:
    """Opens a client that proves if it is to, or if a genesis document was given."""
    trusted = trusted_chain(settings, genesis_file) if prove or genesis_file is not None else None
    if trusted is not None:
        trusted.height = min_height
    elif min_height or max_age:
        raise Rejected("trust_missing", "--min-height and --max-age bound what is proved: add --prove")
    with client_of(settings, trusted, age_ms_max=None if max_age is None else max_age * 1000) as client:
        yield Asked(settings, client, Names(settings), Decimals(client))


def query_command(name: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes a function a command of the group, with the options of every query that can be proved."""

    def wrap(function: Any) -> Any:
        made = click.pass_obj(function)
        for option in (common_options, rpc_option, trust_options, *reversed(options)):
            made = option(made)
        return command.command(name)(made)

    return wrap


@click.group("query")
def command() -> None:
    """Read accounts, assets, blocks and proofs.

    An ACCOUNT is an address, a key of yours, or an account of the network in ./.devnet.
    """


height_option = click.option("--height", type=click.IntRange(0), help="At this height [default: the newest].")


@query_command("account", click.argument("account"), height_option)
def account(settings: Settings, account: str, height: int | None, **trust: Any) -> None:
    """Show an ACCOUNT: balances, sequence numbers, keys."""
    from state.address import to_text
    from state.ledger.fields import POLICY

    with asking(settings, **trust) as asked:
        address = asked.names.address(account)
        found = asked.client.account(address, height)
        record = found.account
        held = {} if record is None else record.balances
        balances: JsonValue = None
        if held is not None:
            balances = {code: {"available": str(a), "held": str(h)} for code, (a, h) in sorted(held.items())}
        policy = None if record is None or record.policy is None else record.policy
        document: dict[str, JsonValue] = {
            "address": to_text(address),
            "exists": record is not None,
            "height": found.height,
            "proved": found.proved,
            "lanes": [] if record is None else list(record.lanes),
            "policy": None if policy is None else POLICY.to_json(policy),
            "balances": balances,
        }
        shown: dict[str, object] = {"account": asked.names.label(to_text(address))}
        for code, (available, set_aside) in sorted((held or {}).items()):
            aside = f"  (and {asked.decimals.show(set_aside, code)} held)" if set_aside else ""
            shown[f"balance {code}"] = asked.decimals.show(available, code) + aside
        if held is None:
            shown["balances"] = "more than fit into its record: `qenex query balance` shows each"
        elif not held:
            shown["balances"] = "none"
        shown["sent"] = 0 if record is None else sum(record.lanes)
        if policy is not None:
            shown["keys"] = f"{policy.threshold} of {len(policy.keys)}"
        output.answer(settings, document, output.fields(shown), asked.proof_line(found.height))


@query_command("balance", click.argument("account"), click.argument("asset", default=ASSET_DEFAULT), height_option)
def balance(settings: Settings, account: str, asset: str, height: int | None, **trust: Any) -> None:
    """Show what an ACCOUNT has of an ASSET."""
    from state.address import to_text

    with asking(settings, **trust) as asked:
        address = asked.names.address(account)
        found = asked.client.balance(address, asset, height)
        document = {
            "address": to_text(address),
            "asset": asset,
            "available": str(found.available),
            "held": str(found.held),
            "height": found.height,
            "proved": found.proved,
        }
        if settings.json:
            output.answer(settings, document)
            return
        click.echo(asked.decimals.show(found.available, asset))
        if found.held:
            click.echo(f"and {asked.decimals.show(found.held, asset)} held")
        click.echo(asked.proof_line(found.height))


@query_command("asset", click.argument("code"), height_option)
def asset(settings: Settings, code: str, height: int | None, **trust: Any) -> None:
    """Show an asset by its CODE."""
    from cli.amounts import show_amount
    from state.address import to_text

    with asking(settings, **trust) as asked:
        found = asked.client.asset(code, height)
        record = found.asset
        document: dict[str, JsonValue] = {
            "code": record.code,
            "decimals": record.decimals,
            "issuer": to_text(record.issuer),
            "flags": record.flags,
            "supply": str(record.supply),
            "height": found.height,
            "proved": found.proved,
        }
        shown = {
            "asset": record.code,
            "supply": show_amount(record.supply, record.decimals),
            "decimals": record.decimals,
            "issuer": asked.names.label(to_text(record.issuer)),
            "holders may burn": "yes" if record.flags & 1 else "no",
            "supply is fixed": "yes" if record.flags & 2 else "no",
        }
        output.answer(settings, document, output.fields(shown), asked.proof_line(found.height))


def tx_id_of(text: str) -> TxId:
    """Returns a transaction id from 0x-hex; raises Rejected("id_invalid")."""
    from qenex_node.client.forms import id_of

    try:
        return id_of(text)
    except (ValueError, TypeError):
        raise Rejected("id_invalid", f"{text!r} is not a transaction's id: 0x and 64 hex digits") from None


@query_command("tx", click.argument("tx_id", metavar="ID"))
def tx(settings: Settings, tx_id: str, **trust: Any) -> None:
    """Show a transaction by its ID and what became of it."""
    from cli.commands.tx import describe, shown_of

    with asking(settings, **trust) as asked:
        found = asked.client.transaction(tx_id_of(tx_id))
        described = None
        if found.transaction is not None:
            described = describe(asked.client.session.operations, found.transaction)
        document: dict[str, Any] = {
            "id": tx_id,
            "status": found.status,
            "height": found.height,
            "index": found.index,
            "waiting": found.waiting,
            "proved": found.proved,
            "transaction": described,
        }
        shown: dict[str, object] = {"transaction": tx_id, "status": found.status}
        if found.height is not None:
            shown["place"] = f"height {found.height}, index {found.index}"
        if isinstance(found.waiting, dict):
            shown["waits"] = found.waiting.get("message")
        if described is not None:
            shown |= shown_of(described) | {"sender": asked.names.label(str(described["sender"]))}
        last = [asked.proof_line(found.height)] if found.height is not None else []
        output.answer(settings, document, output.fields(shown), *last)


@query_command("receipt", click.argument("tx_id", metavar="ID"))
def receipt(settings: Settings, tx_id: str, **trust: Any) -> None:
    """Show what the transaction with this ID did."""
    with asking(settings, **trust) as asked:
        found = asked.client.receipt(tx_id_of(tx_id))
        ledger = asked.client.session.operations.ledger
        told = None if found.receipt is None else ledger.receipt_to_json(found.receipt)
        document = {
            "id": tx_id,
            "status": found.status,
            "height": found.height,
            "index": found.index,
            "proved": found.proved,
            "receipt": told,
        }
        shown: dict[str, object] = {"transaction": tx_id, "status": found.status}
        lines = []
        if found.receipt is not None and found.height is not None and told is not None:
            shown |= {"outcome": found.receipt.code, "place": f"height {found.height}, index {found.index}"}
            events: Any = told["events"]
            lines = [event_line(asked, event) for event in events] + [asked.proof_line(found.height)]
        output.answer(settings, document, output.fields(shown), *lines)


def event_line(asked: Asked, event: dict[str, Any]) -> str:
    """Returns an event for people."""
    fields = dict(event["fields"])
    if "asset" in fields and "amount" in fields:
        fields["amount"] = asked.decimals.show(fields["amount"], fields.pop("asset"))
    said = ", ".join(f"{name} {asked.names.label(str(value))}" for name, value in fields.items())
    return f"  {event['kind']}: {said}"


def _header_document(header: Header) -> dict[str, JsonValue]:
    document: dict[str, JsonValue] = {}
    for name in header.__dataclass_fields__:
        value = getattr(header, name)
        document[name] = "0x" + value.hex() if isinstance(value, bytes) else value
    return {"hash": "0x" + header.hash.hex(), **document}


@query_command("block", click.argument("reference", metavar="[HEIGHT|HASH]", required=False))
def block(settings: Settings, reference: str | None, **trust: Any) -> None:
    """Show a block with its transactions, the newest if none is named."""
    with asking(settings, **trust) as asked:
        found = asked.client.block(_block_reference(reference))
        header = found.block.header
        ledger = asked.client.session.operations.ledger
        certificate = found.certificate
        document: dict[str, Any] = {
            "header": _header_document(header),
            "view": None if certificate is None else certificate.view,
            "signers": [] if certificate is None else [index for index, _ in certificate.signatures],
            "proved": found.proved,
            "receipts": [ledger.receipt_to_json(receipt) for receipt in found.receipts],
        }
        shown = {
            "block": header.height,
            "hash": "0x" + header.hash.hex(),
            "time": _time(header.time_ms),
            "transactions": len(found.receipts),
            "state root": "0x" + header.state_root.hex(),
            "certificate": "none"
            if certificate is None
            else f"view {certificate.view}, {len(certificate.signatures)} signatures",
        }
        lines = [f"  0x{receipt.id.hex()}  {receipt.code}" for receipt in found.receipts]
        output.answer(settings, document, output.fields(shown), *lines, asked.proof_line(header.height))


def _block_reference(text: str | None) -> int | bytes | None:
    if text is None or text == "latest":
        return None
    if text.isdecimal() and text.isascii():
        return int(text)
    return tx_id_of(text)


def _time(time_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@query_command(
    "blocks",
    click.option("--from", "start", type=click.IntRange(0), help="The first height [default: the newest blocks]."),
    click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many."),
)
def blocks(settings: Settings, start: int | None, limit: int, **trust: Any) -> None:
    """List blocks in order of height."""
    with asking(settings, **trust) as asked:
        found = asked.client.headers(start, limit)
        if settings.json:
            output.answer(settings, [_header_document(header) for header in found])
            return
        rows = [(h.height, _time(h.time_ms), h.units_used, "0x" + h.hash.hex()) for h in found]
        output.table("Blocks", ["height", "time", "units", "hash"], rows)
        if found:
            click.echo(asked.proof_line(found[-1].height))


@query_command("validators", height_option)
def validators(settings: Settings, height: int | None, **trust: Any) -> None:
    """List the validators in force."""
    with asking(settings, **trust) as asked:
        found = asked.client.validators(height)
        members: list[JsonValue] = [{"name": v.name, "key": "0x" + v.key.hex()} for v in found.validators]
        document = {"hash": "0x" + found.hash.hex(), "quorum": found.quorum, "f": found.f, "validators": members}
        if settings.json:
            output.answer(settings, document)
            return
        rows = [(index, v.name, "0x" + v.key.hex()) for index, v in enumerate(found.validators)]
        output.table(f"{found.n} validators, {found.quorum} make a quorum", ["index", "name", "key"], rows)
        proved = asked.client.session.trusted is not None
        click.echo("proved from the trusted genesis document" if proved else "as the node says; --prove checks it")


@query_command("status")
def status(settings: Settings, **trust: Any) -> None:
    """Show the newest block of the node; with --prove, that it is final."""
    with asking(settings, **trust) as asked:
        found = asked.client.status()
        shown = {
            "chain": found.chain_id,
            "height": found.height,
            "time": _time(found.time_ms),
            "view": found.raw["view"],
            "primary": found.raw["primary"],
        }
        document = {**found.raw, "proved": asked.client.session.trusted is not None}
        output.answer(settings, document, output.fields(shown), asked.proof_line(found.height))


@query_command(
    "history",
    click.argument("account"),
    click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many."),
)
def history(settings: Settings, account: str, limit: int, **trust: Any) -> None:
    """List an ACCOUNT's transactions, newest first, as the node tells them (never proved: prove each by `tx`)."""
    with asking(settings, **trust) as asked:
        entries = asked.client.history(asked.names.address(account), None, limit)
        if settings.json:
            output.answer(settings, [dict(entry) for entry in entries])
            return
        rows = [(entry["height"], entry["index"], entry["id"], entry["code"]) for entry in entries]
        output.table(f"Transactions of {account}", ["height", "index", "id", "outcome"], rows)
        click.echo("as the node says; `qenex query tx ID --prove` checks each")


@command.command("proposals")
@click.option("--closed", is_flag=True, help="List the newest closed ones, too.")
@rpc_option
@common_options
@click.pass_obj
def proposals(settings: Settings, closed: bool) -> None:
    """List what validators have proposed, as the node tells it."""
    with client_of(settings) as client:
        found: Any = client.call("ledger_governance_proposals", closed=closed)
        if settings.json:
            output.answer(settings, found)
            return
        rows = [
            (
                told["proposal"],
                told["status"] + (f" ({told['reason']})" if told["reason"] else ""),
                f"{told['change']} {told['validator']}",
                told["by"],
                f"{len(told['approvals'])} of {told['quorum']}",
                len(told["rejections"]),
                told["height"] or told["from_height"] or "next",
                _time(told["expires_ms"]),
            )
            for told in found["proposals"]
        ]
        columns = ["number", "status", "change", "by", "approvals", "rejections", "height", "votes until"]
        output.table("Proposals", columns, rows)


@command.command("proposal")
@click.argument("number", type=click.IntRange(1))
@rpc_option
@common_options
@click.pass_obj
def proposal(settings: Settings, number: int) -> None:
    """Show the proposal with this NUMBER, as the node tells it."""
    with client_of(settings) as client:
        found: Any = client.call("ledger_governance_proposal", proposal=number)
        output.answer(settings, found, output.fields(found))


@command.command("validator")
@click.argument("name")
@rpc_option
@common_options
@click.pass_obj
def validator(settings: Settings, name: str) -> None:
    """Show the record of the validator NAME, present or former: keys, operator, evidence against it."""
    with client_of(settings) as client:
        found: Any = client.call("ledger_governance_validator", name=name)
        offences = [f"{o['kind']} at height {o['height']}, view {o['view']}" for o in found["offences"]]
        operator = Names(settings).label(found["operator"])
        shown = {**found, "until": found["until"] or None, "offences": offences, "operator": operator}
        output.answer(settings, found, output.fields(shown))


@command.command("proof")
@click.argument("key", nargs=-1, required=True)
@height_option
@proof_options
@rpc_option
@common_options
@click.pass_obj
def proof(settings: Settings, /, key: Sequence[str], height: int | None, **trust: Any) -> None:
    """Prove what the state holds under a KEY.

    A KEY is `account NAME`, `balance NAME ASSET`, `asset CODE`, `parameter NAME`, `validators`, or any other state key.
    """
    with asking(settings, prove=True, **trust) as asked:
        parts = _key_parts(asked.names, key)
        from qenex_node.client.forms import state_key

        encoded = state_key(parts)
        value, header = asked.client.prove(encoded, height)
        document: dict[str, JsonValue] = {
            "key": "0x" + encoded.hex(),
            "value": None if value is None else "0x" + value.hex(),
            "proved": True,
            "height": header.height,
            "block_hash": "0x" + header.hash.hex(),
            "state_root": "0x" + header.state_root.hex(),
        }
        shown = {
            "key": " ".join(key),
            "value": "absent" if value is None else "0x" + value.hex(),
            "state root": "0x" + header.state_root.hex(),
            "block": "0x" + header.hash.hex(),
        }
        output.answer(settings, document, output.fields(shown), asked.proof_line(header.height))


def _key_parts(names: Names, key: Sequence[str]) -> tuple[Any, ...]:
    """The second part of an account's or a balance's key is an account; other parts are text, numbers or 0x-hex."""
    parts: list[Any] = [key[0]]
    for place, part in enumerate(key[1:], 1):
        if (place == 1 and key[0] in ("account", "balance", "issuer")) or part.startswith("qx1"):
            parts.append(names.address(part))
        elif part.startswith("0x"):
            from state.ledger.fields import bytes_from_hex

            parts.append(bytes_from_hex(part, "a part of the key"))
        else:
            parts.append(int(part) if part.isdecimal() and part.isascii() else part)
    return tuple(parts)
