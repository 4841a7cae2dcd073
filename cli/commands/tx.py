"""`qenex tx`: build, sign, send and watch transactions. One command for each operation that a plug-in declares.

A transaction with all its keys at hand is built, signed and sent by one command. One that several people must sign is
written to a file by --draft, goes through `tx sign` at each of them, without network, and is sent by `tx send`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli import output
from cli.commands import governance
from cli.operation_options import Reader, options_of, public_key_of
from cli.settings import Settings, common_options, passphrase_of, passphrase_options, rpc_option
from cli.wallet import Decimals, Names, client_of
from qenex_node.client.draft import Draft, Slot
from qenex_node.client.operations import Operations
from state.address import to_text
from state.errors import JsonValue, Rejected
from state.keys import Policy, SigningKey
from state.ledger.fields import POLICY
from state.transaction import Operation, Transaction

if TYPE_CHECKING:
    from qenex_node.client.blocking import Client
    from qenex_node.client.submit import Committed
    from state.types import Address, TxId

FILE_BYTES_MAX: Final = 1024 * 1024
VALID_S: Final = 60
VALID_DRAFT_S: Final = 12 * 3600
DEFAULT_OPERATIONS: Final = Operations()

Given = dict[str, Any]


@click.group("tx")
def command() -> None:
    """Build, sign and send transactions.

    An ACCOUNT or KEY is a name (a key of yours, or an account of the network in ./.devnet), an address or a key file.
    """


key_option = click.option(
    "--key",
    "--key-file",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Sign with this key, too. Needed where an account's key does not have the account's name; repeat for more.",
)
wait_option = click.option("--wait/--no-wait", default=False, help="Return once it is final.")
timeout_option = click.option(
    "--timeout", type=click.IntRange(1), default=60, show_default=True, metavar="SECONDS", help="How long to wait."
)


def transaction_options(made: Any) -> Any:
    """Adds what every transaction has beside its operation."""
    sender = click.option("--from", "sender", required=True, metavar="ACCOUNT", help="Whose transaction it is.")
    return sender(_further_options(made))


def governance_options(made: Any) -> Any:
    """The same for whoever acts for a validator: the sender is its operator unless another is named."""
    sender = click.option(
        "--from", "sender", metavar="ACCOUNT", help="The validator's operator [default: as the node says]."
    )
    return sender(_further_options(made))


def _further_options(made: Any) -> Any:
    for option in reversed(
        (
            key_option,
            click.option("--payer", metavar="ACCOUNT", help="Who pays the fee, if another."),
            click.option("--signer", "signers", multiple=True, metavar="ACCOUNT", help="A further account that signs."),
            click.option(
                "--policy",
                "policy_file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="The keys of the sender, if several: a file of `tx policy`.",
            ),
            click.option("--memo", default="", help="A text of at most 128 bytes that everyone can read."),
            click.option("--lane", type=click.IntRange(0, 15), default=0, show_default=True, help="Its lane."),
            click.option("--fee-max", default="0", show_default=True, metavar="AMOUNT", help="The most it may cost."),
            click.option(
                "--valid",
                type=click.IntRange(1, 86_400),
                metavar="SECONDS",
                help=f"How long it may wait for a block [default: {VALID_S}; with --draft {VALID_DRAFT_S}].",
            ),
            click.option(
                "--draft",
                "draft_file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Write it to this file for others to sign, and do not send it.",
            ),
            wait_option,
            timeout_option,
            passphrase_options,
            rpc_option,
            common_options,
        )
    ):
        made = option(made)
    return made


@dataclass(slots=True)
class Builder:
    """One transaction in the making at a command line."""

    client: Client
    names: Names
    decimals: Decimals
    passphrase: Callable[[], bytes]
    given: Given

    def draft(self, operation: Operation, authorisers: Iterable[Address]) -> Draft:
        """Returns the transaction, signed with every key that is at hand."""
        from qenex_node.client.submit import Terms, make_draft

        given = self.given
        sender = self.names.address(given["sender"])
        payer = None if given["payer"] is None else self.names.address(given["payer"])
        named = (self.names.address(signer) for signer in given["signers"])
        accounts = dict.fromkeys([*authorisers, *named, *([payer] if payer else [])])
        accounts.pop(sender, None)
        terms = Terms(
            lane=given["lane"],
            valid_ms=1000 * (given["valid"] or (VALID_S if given["draft_file"] is None else VALID_DRAFT_S)),
            fee_max=self._fee_max(given["fee_max"]),
            memo=given["memo"].encode(),
        )
        slots = [self._slot(account) for account in accounts]
        flow = make_draft(self.client.session, self._slot(sender), [operation], slots, terms, payer)
        return self._signed(self.client.run(flow))

    def _fee_max(self, text: str) -> int:
        from cli.wallet import ASSET_DEFAULT

        return 0 if text == "0" else self.decimals.parse(text, ASSET_DEFAULT)

    def _slot(self, account: Address) -> Slot:
        """Returns the account with the policy that counts: the chain's, else the one that was given, else one key."""
        found = self.client.account(account).account
        if found is not None and found.policy is not None:
            return Slot(account, found.policy, stored=True)
        given = self._policy()
        return Slot(account, given if given is not None and given.address == account else None)

    def _policy(self) -> Policy | None:
        path = self.given["policy_file"]
        return None if path is None else read_policy(path)

    def _signed(self, draft: Draft) -> Draft:
        for text in self.given["keys"]:
            draft = draft.signed_by(self.names.key(text, self.passphrase))
        for slot in draft.slots:
            key = self._own_key(slot) if slot.missing else None
            if key is not None:
                draft = draft.signed_by(key)
        return draft

    def _own_key(self, slot: Slot) -> SigningKey | None:
        """Returns the key that has the account's name here, if it may act for the account."""
        text = to_text(slot.address)
        if not self.names.has_key(text) or not slot.admits(public_key_of(self.names, text)):
            return None
        return self.names.key(text, self.passphrase)


def _operation_command(kind: str) -> click.Command:
    declared = DEFAULT_OPERATIONS.types[kind]

    @click.pass_obj
    def run(settings: Settings, /, **given: Any) -> None:
        with client_of(settings) as client:
            names, decimals = Names(settings), Decimals(client)
            reader = Reader(names, decimals, lambda text: public_key_of(names, text))
            fields = {name: value for name, value in given.items() if name.startswith("field_")}
            operation = DEFAULT_OPERATIONS.build(kind, reader.fields(declared, fields))
            rules = declared.versions[declared.newest]
            sender = names.address(given["sender"])
            authorisers = rules.authorisers(sender, rules.fields.decode(operation.fields, kind))
            passphrase = passphrase_of(given.pop("passphrase_file"), given.pop("passphrase_fd"))
            draft = Builder(client, names, decimals, passphrase, given).draft(operation, authorisers)
            _finish(settings, client, draft, given)

    made = transaction_options(run)
    for option in reversed(options_of(declared)):
        made = option(made)
    made.__doc__ = None
    name = kind.replace("_", "-")
    return click.command(name, help=declared.summary[:1].upper() + declared.summary[1:] + ".")(made)


def _governance_draft(
    client: Client,
    names: Names,
    decimals: Decimals,
    passphrase: Callable[[], bytes],
    given: Given,
    operation: Operation,
) -> Draft:
    return Builder(client, names, decimals, passphrase, given).draft(operation, ())


def _finish(settings: Settings, client: Client, draft: Draft, given: Given) -> None:
    """Writes the transaction to a file for others, or sends it."""
    if given["draft_file"] is not None:
        _write_draft(settings, draft, given["draft_file"])
    else:
        _send(settings, client, draft.wire(), draft.id, given["wait"], given["timeout"])


for _made in governance.commands(governance_options, _governance_draft, _finish):
    command.add_command(_made)
for _kind in DEFAULT_OPERATIONS.types:
    if _kind.replace("_", "-") not in command.commands:
        command.add_command(_operation_command(_kind))


# What becomes of a signed transaction


def _send(settings: Settings, client: Client, wire: bytes, tx_id: TxId, wait: bool, timeout_s: int) -> None:
    from qenex_node.client.submit import submit_wire, succeeded, wait_wire

    if wait:
        done = client.run(wait_wire(wire, tx_id, wait_ms=timeout_s * 1000))
        _show_committed(settings, client, succeeded(done))
        return
    accepted = client.run(submit_wire(wire, tx_id))
    document: dict[str, JsonValue] = {"id": "0x" + tx_id.hex(), "status": "accepted"}
    document["not_after_ms"] = accepted.not_after_ms
    shown = {"transaction": document["id"], "status": "accepted; `qenex tx wait ID` tells when it is final"}
    output.answer(settings, document, output.fields(shown))


def _show_committed(settings: Settings, client: Client, done: Committed) -> None:
    from cli.commands.query import Asked, event_line

    document: dict[str, Any] = {
        "id": "0x" + done.id.hex(),
        "status": "committed",
        "height": done.height,
        "index": done.index,
        "receipt": dict(done.receipt),
    }
    if settings.json:
        output.answer(settings, document)
        return
    shown = {"transaction": document["id"], "status": f"final at height {done.height}", "outcome": done.code}
    events: Any = done.receipt["events"]
    asked = Asked(settings, client, Names(settings), Decimals(client))
    output.answer(settings, document, output.fields(shown), *(event_line(asked, event) for event in events))


@command.command("wait")
@click.argument("tx_id", metavar="ID")
@timeout_option
@rpc_option
@common_options
@click.pass_obj
def wait(settings: Settings, tx_id: str, timeout: int) -> None:
    """Wait until the transaction with this ID is final."""
    from cli.commands.query import tx_id_of

    with client_of(settings) as client:
        _show_committed(settings, client, client.wait_id(tx_id_of(tx_id), wait_ms=timeout * 1000))


@command.command("send")
@click.argument("transaction", metavar="FILE|0xHEX")
@wait_option
@timeout_option
@rpc_option
@common_options
@click.pass_obj
def send(settings: Settings, transaction: str, wait: bool, timeout: int) -> None:
    """Send a signed transaction from a FILE, or as hex. Sending it again is harmless."""
    from state.ledger.fields import bytes_from_hex
    from state.transaction import decode_transaction

    with client_of(settings) as client:
        if transaction.startswith("0x"):
            wire = bytes_from_hex(transaction, "the transaction")
            tx_id = decode_transaction(wire, client.context()).id
        else:
            draft = read_draft(Path(transaction))
            wire, tx_id = draft.wire(), draft.id
        _send(settings, client, wire, tx_id, wait, timeout)


# Transactions in files


def read_draft(path: Path) -> Draft:
    """Returns the transaction of a file, its signatures proved; raises Rejected("draft_invalid")."""
    from qenex_node.jsonfiles import read_json

    return Draft.from_json(read_json(path, FILE_BYTES_MAX, "draft_invalid"))


def read_policy(path: Path) -> Policy:
    """Returns the policy of a file that `tx policy` wrote."""
    from qenex_node.jsonfiles import read_json

    document = read_json(path, FILE_BYTES_MAX, "policy_invalid")
    policy: Policy = POLICY.from_json(document.get("policy") if isinstance(document, dict) else None, "policy")
    return policy


def _write_draft(settings: Settings, draft: Draft, path: Path) -> None:
    from qenex_node.jsonfiles import write_json

    write_json(path, draft.to_json())
    document: dict[str, Any] = {"id": "0x" + draft.id.hex(), "file": str(path), "missing": _missing(draft)}
    shown = {"transaction": document["id"], "file": path, "signatures": _missing_line(draft)}
    output.answer(settings, document, output.fields(shown))


def _missing(draft: Draft) -> dict[str, int]:
    return {to_text(address): count for address, count in draft.missing}


def _missing_line(draft: Draft) -> str:
    lacking = [f"{count} of {address}" for address, count in _missing(draft).items()]
    return f"missing: {', '.join(lacking)}" if lacking else "complete: `qenex tx send` sends it"


@command.command("sign")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", "--key-file", "keys", multiple=True, required=True, metavar="KEY", help="Sign with this key.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file [default: the same file]."
)
@passphrase_options
@common_options
@click.pass_obj
def sign(
    settings: Settings,
    file: Path,
    keys: Sequence[str],
    out: Path | None,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Add signatures to the transaction in FILE; needs no network. `tx show` tells what you sign."""
    draft = read_draft(file)
    names, passphrase = Names(settings), passphrase_of(passphrase_file, passphrase_fd)
    for text in keys:
        draft = draft.signed_by(names.key(text, passphrase))
    _write_draft(settings, draft, out or file)


@command.command("combine")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@common_options
@click.pass_obj
def combine(settings: Settings, files: Sequence[Path], out: Path) -> None:
    """Put the signatures of several FILES of one transaction together."""
    draft = read_draft(files[0])
    for path in files[1:]:
        draft = draft.merged(read_draft(path))
    _write_draft(settings, draft, out)


@command.command("show")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common_options
@click.pass_obj
def show(settings: Settings, file: Path) -> None:
    """Show what the transaction in FILE does, and which signatures it lacks. Amounts are in base units."""
    draft = read_draft(file)
    described = describe_body(DEFAULT_OPERATIONS, draft.body)
    document: dict[str, Any] = {"id": "0x" + draft.id.hex(), **described, "missing": _missing(draft)}
    shown = {"transaction": document["id"], "chain": draft.context.chain_id, **shown_of(described)}
    output.answer(settings, document, output.fields({**shown, "signatures": _missing_line(draft)}))


@command.command("policy")
@click.option("--threshold", type=click.IntRange(1), required=True, help="How many keys must sign.")
@click.option("--key", "keys", multiple=True, required=True, metavar="KEY", help="A name, key file or scheme:0xHEX.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@common_options
@click.pass_obj
def policy(settings: Settings, threshold: int, keys: Sequence[str], out: Path | None) -> None:
    """Show the account that several keys own together: its address, and the policy that its transactions need."""
    from qenex_node.jsonfiles import write_json

    names = Names(settings)
    made = Policy.of(threshold, tuple(public_key_of(names, text) for text in keys))
    document: dict[str, JsonValue] = {"address": to_text(made.address), "policy": POLICY.to_json(made)}
    if out is not None:
        write_json(out, document)
    shown: Mapping[str, object] = {"address": document["address"], "keys": f"{threshold} of {len(made.keys)}"}
    output.answer(settings, document, output.fields(shown))


def describe(operations: Operations, tx: Transaction) -> dict[str, JsonValue]:
    """Returns what a transaction says, for people."""
    return {
        "sender": to_text(tx.sender),
        "lane": tx.lane,
        "sequence": tx.sequence,
        "not_after_ms": tx.not_after_ms,
        "memo": tx.memo.decode(errors="replace"),
        "operations": [operations.ledger.operation_to_json(operation) for operation in tx.operations],
    }


def shown_of(described: Mapping[str, JsonValue]) -> dict[str, object]:
    """Returns the lines that people read of what `describe` returned."""
    said = {name: value for name, value in described.items() if value != ""}
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in said.items()}


def describe_body(operations: Operations, body: tuple[Any, ...]) -> dict[str, JsonValue]:
    """Returns what the body of an unsigned transaction says; raises Rejected for what this program does not know."""
    try:
        _, _, sender, (lane, sequence), not_after_ms, _, _, items, memo = body
        told = [operations.ledger.operation_to_json(Operation(*item)) for item in items]
        return {
            "sender": to_text(sender),
            "lane": lane,
            "sequence": sequence,
            "not_after_ms": not_after_ms,
            "memo": memo.decode(errors="replace"),
            "operations": told,
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise Rejected("draft_invalid", f"the transaction in the file cannot be read: {error}") from None
