"""`qenex tx governance-...`: what a validator's operator does. The home's validator key signs, and cards hold new keys.

These stand in the place of the commands that would be generated from the fields of the operations: nobody types keys
and their proofs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli import output
from cli.operation_options import public_key_of
from cli.settings import Settings, common_options, passphrase_of, passphrase_options
from cli.wallet import Decimals, Names, client_of
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from qenex_node.client.blocking import Client
    from qenex_node.client.draft import Draft
    from state.transaction import Operation

CARD_FORMAT: Final = "qenex-governance-card"
CARD_VERSION: Final = 1
CARD_BYTES_MAX: Final = 64 * 1024
_HEX_FIELDS: Final = ("key", "node_key", "key_proof", "node_key_proof")

Given = dict[str, Any]
MakeDraft = Callable[["Client", Names, Decimals, Callable[[], bytes], Given, "Operation"], "Draft"]
Finish = Callable[[Settings, "Client", "Draft", Given], None]
card_path = click.Path(exists=True, dir_okay=False, path_type=Path)


def commands(transaction_options: Callable[[Any], Any], draft: MakeDraft, finish: Finish) -> tuple[click.Command, ...]:
    """Returns the commands for `qenex tx`, which hands in how a transaction is drafted, and signed and sent."""
    return _card(), _propose(transaction_options, draft, finish), _vote(transaction_options, draft, finish)


def _card() -> click.Command:
    @click.command("governance-card")
    @click.option("--name", help="The validator's name [default: the home's].")
    @click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
    @passphrase_options
    @common_options
    @click.pass_obj
    def card(
        settings: Settings,
        name: str | None,
        out: Path | None,
        passphrase_file: Path | None,
        passphrase_fd: int | None,
    ) -> None:
        """Write the card of a home's validator: its keys, and their proofs that they are its own on this chain.

        A validator puts it into a proposal: `qenex tx governance-propose --add FILE`, or --replace FILE for new keys.
        """
        from qenex_node.homes import open_home
        from qenex_node.jsonfiles import write_json
        from qenex_node.keystore import read_key
        from state.ledger.domains.governance.possession import prove_possession

        home = open_home(settings.home)
        if not home.is_validator:
            raise Rejected("not_a_validator", f"{settings.home} is of a full node: it has no validator key")
        passphrase = passphrase_of(passphrase_file, passphrase_fd)
        key = read_key(home.home.validator_key_file, passphrase)
        node_key = read_key(home.home.node_key_file, passphrase)
        name = name or home.config.node.name
        proofs = prove_possession(home.genesis.hash, name, key, node_key)
        document: dict[str, JsonValue] = {
            "format": CARD_FORMAT,
            "version": CARD_VERSION,
            "chain_id": home.genesis.chain_id,
            "genesis_hash": "0x" + home.genesis.hash.hex(),
            "name": name,
            "key": "0x" + key.public.data.hex(),
            "node_key": "0x" + node_key.public.data.hex(),
            "key_proof": "0x" + proofs[0].hex(),
            "node_key_proof": "0x" + proofs[1].hex(),
        }
        if out is not None:
            write_json(out, document)
        output.answer(settings, document, output.fields(document))

    return card


def _propose(transaction_options: Callable[[Any], Any], draft: MakeDraft, finish: Finish) -> click.Command:
    @click.command("governance-propose")
    @click.option("--add", "add_card", type=card_path, help="Add the validator of this card.")
    @click.option("--replace", "replace_card", type=card_path, help="Give a validator the keys of this card.")
    @click.option("--replace-operator", metavar="NAME", help="Give this validator another operator (--operator).")
    @click.option("--remove", metavar="NAME", help="Remove this validator.")
    @click.option("--operator", metavar="ACCOUNT", help="The account that acts for it [default: that of its key].")
    @click.option("--by", metavar="NAME", help="The validator who proposes [default: the home's name].")
    @click.option(
        "--from-height", type=click.IntRange(0), default=0, help="In force from here [default: at once, if accepted]."
    )
    @click.option(
        "--expires-in", type=click.IntRange(1), metavar="SECONDS", help="How long votes count [default: 7 d]."
    )
    @transaction_options
    @click.pass_obj
    def propose(settings: Settings, /, **given: Any) -> None:
        """Propose to add, remove or replace a validator; it counts as your approval.

        The operator's key is the home's validator key, unless --from and --key say otherwise.
        """
        with client_of(settings) as client:
            names = Names(settings)
            fields = _changed_fields(client, given)
            if given["operator"] is not None:
                fields["operator"] = names.address(given["operator"])
            fields["from_height"] = given["from_height"]
            fields["expires_ms"] = 0 if given["expires_in"] is None else _now_ms() + 1000 * given["expires_in"]
            _act(settings, client, names, "governance_propose", fields, given, draft, finish)

    return propose


def _vote(transaction_options: Callable[[Any], Any], draft: MakeDraft, finish: Finish) -> click.Command:
    @click.command("governance-vote")
    @click.argument("proposal", type=click.IntRange(1))
    @click.option("--approve/--reject", required=True, default=None, help="What you say to it.")
    @click.option("--by", metavar="NAME", help="The validator who votes [default: the home's name].")
    @transaction_options
    @click.pass_obj
    def vote(settings: Settings, /, **given: Any) -> None:
        """Approve or reject the PROPOSAL with this number. `qenex query proposals` lists them."""
        fields = {"proposal": given["proposal"], "approve": given["approve"]}
        with client_of(settings) as client:
            _act(settings, client, Names(settings), "governance_vote", fields, given, draft, finish)

    return vote


def _act(
    settings: Settings,
    client: Client,
    names: Names,
    kind: str,
    fields: Given,
    given: Given,
    draft: MakeDraft,
    finish: Finish,
) -> None:
    """Makes the operation of the acting validator, signs it with the keys at hand, and sends or writes it."""
    from qenex_node.client.operations import Operations

    by = given["by"] or _home_name(settings)
    hint = ""
    if given["sender"] is None:
        record: Any = client.call("ledger_governance_validator", name=by)
        given["sender"] = record["operator"]
        hint = f"; that is the operator of {by}: give its keys with --key, or let others sign with --draft"
    given["keys"] = (*given["keys"], *_home_keys(settings, client, names, given["sender"]))
    operation = Operations().build(kind, {"by": by, **fields})
    passphrase = passphrase_of(given.pop("passphrase_file"), given.pop("passphrase_fd"))
    try:
        finish(settings, client, draft(client, names, Decimals(client), passphrase, given, operation), given)
    except Rejected as error:
        if error.code != "signatures_missing":
            raise
        raise Rejected(error.code, error.message + hint, error.data) from None


def _changed_fields(client: Client, given: Given) -> Given:
    """Returns the fields of a proposal that say what is to change."""
    chosen = [name for name in ("add_card", "replace_card", "replace_operator", "remove") if given[name] is not None]
    if len(chosen) != 1:
        raise Rejected("options_uneven", "give one of --add, --replace, --replace-operator and --remove")
    if given["remove"] is not None:
        return {"change": "remove", "validator": given["remove"]}
    if given["replace_operator"] is not None:
        if given["operator"] is None:
            raise Rejected("options_uneven", "name the new operator with --operator")
        return {"change": "replace", "validator": given["replace_operator"]}
    card = read_governance_card(given[chosen[0]])
    if card["genesis_hash"] != "0x" + client.context().genesis_hash.hex():
        raise Rejected("card_invalid", f"the card of {card['name']} is for the chain {card['chain_id']}, not for this")
    fields: Given = {"validator": card["name"], **{name: card[name] for name in _HEX_FIELDS}}
    if given["add_card"] is not None:
        return {"change": "add", **fields}
    present = next((v for v in client.validators().validators if v.name == card["name"]), None)
    for name in ("key", "node_key"):
        # A key that stays is not named: only new ones are proposed.
        if present is not None and card[name] == "0x" + getattr(present, name).hex():
            fields[name] = fields[f"{name}_proof"] = None
    return {"change": "replace", **fields}


def read_governance_card(path: Path) -> dict[str, str]:
    """Returns the card of a file, its form checked and its proofs made again; raises Rejected("card_invalid")."""
    from qenex_node.jsonfiles import read_json
    from state.hashing import Hash
    from state.keys import verify_ed25519
    from state.ledger.domains.governance.possession import possession_preimage
    from state.ledger.fields import bytes_from_hex

    document = read_json(path, CARD_BYTES_MAX, "card_invalid")
    if not isinstance(document, dict) or document.get("format") != CARD_FORMAT:
        raise Rejected("card_invalid", f"{path} is no {CARD_FORMAT}: `qenex tx governance-card` writes one")
    if document.get("version") != CARD_VERSION:
        raise Rejected("version_unknown", f"card version {document.get('version')!r} is unknown; known: {CARD_VERSION}")
    wanted = ("chain_id", "genesis_hash", "name", *_HEX_FIELDS)
    if any(not isinstance(document.get(name), str) for name in wanted):
        raise Rejected("card_invalid", f"{path} lacks one of {', '.join(wanted)}")
    data = {name: bytes_from_hex(document[name], f"the card's {name}") for name in ("genesis_hash", *_HEX_FIELDS)}
    message = possession_preimage(Hash(data["genesis_hash"]), document["name"], data["key"], data["node_key"])
    for name in ("key", "node_key"):
        if not verify_ed25519(data[name], message, data[f"{name}_proof"]):
            raise Rejected("card_invalid", f"the card of {document['name']} is not signed by its {name}: ask again")
    return {name: document[name] for name in wanted}


def _home_name(settings: Settings) -> str:
    from qenex_node.config import load
    from qenex_node.homes import Home

    home = Home(settings.home)
    if not home.config_file.is_file():
        raise Rejected("name_needed", f"{settings.home} is no node's home: give --home, or the validator with --by")
    return load(home.config_file).node.name


def _home_keys(settings: Settings, client: Client, names: Names, sender: str) -> tuple[str, ...]:
    """Returns the file of the home's validator key if that key may act for the sender, else nothing."""
    from qenex_node.client.draft import Slot
    from qenex_node.homes import Home

    path = Home(settings.home).validator_key_file
    if not path.is_file():
        return ()
    address = names.address(sender)
    found = client.account(address).account
    slot = Slot(address, None if found is None else found.policy, stored=found is not None and found.policy is not None)
    return (str(path),) if slot.admits(public_key_of(names, str(path))) else ()


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
