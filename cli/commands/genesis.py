"""`qenex genesis`: the document that all institutions agree on, made of the cards that each of them made at home."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.amounts import parse_amount, show_amount
from cli.settings import Settings, common_options
from state.errors import JsonValue, Rejected

card_path = click.Path(exists=True, dir_okay=False, path_type=Path)
document_option = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="genesis.json",
    show_default=True,
    help="The genesis document.",
)


@click.group("genesis")
def command() -> None:
    """Make and check the genesis document.

    Each institution runs `qenex init` at home and gives its validator.card.json to the others. One of them runs
    `create`; whoever joins before the start is put in with `add`. At last all compare the hash that `verify` shows.
    """


@command.command("create")
@click.option("--chain-id", required=True, help="The chain's name: lower case letters, digits, '.' and '-'.")
@click.option("--card", "cards", multiple=True, required=True, type=card_path, help="A validator's card; repeated.")
@click.option(
    "--asset",
    "assets",
    multiple=True,
    required=True,
    metavar="CODE,DECIMALS,ISSUER",
    help="An asset that exists from the start; the native one (QNX) must be among them.",
)
@click.option(
    "--account", "accounts", multiple=True, metavar="ADDRESS,CODE=AMOUNT,...", help="An account that holds something."
)
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A chain parameter.")
@click.option("--time-ms", type=click.IntRange(0), help="The chain's birth, ms since 1970 UTC [default: now].")
@document_option
@common_options
@click.pass_obj
def create(
    settings: Settings,
    chain_id: str,
    cards: tuple[Path, ...],
    assets: tuple[str, ...],
    accounts: tuple[str, ...],
    parameters: tuple[str, ...],
    time_ms: int | None,
    path: Path,
) -> None:
    """Make a genesis document from validators' cards."""
    from qenex_node.founding import Founding
    from qenex_node.homes import read_card
    from state.genesis import Genesis
    from state.types import TimeMs, ValidatorSet

    if path.exists():
        raise Rejected("genesis_invalid", f"{path} exists already and is not overwritten")
    read = tuple(read_card(card) for card in cards)
    born_assets = tuple(_asset(text) for text in assets)
    decimals = {asset.code: asset.decimals for asset in born_assets}
    genesis = Genesis(
        chain_id=chain_id,
        time_ms=TimeMs(time.time_ns() // 1_000_000 if time_ms is None else time_ms),
        validators=ValidatorSet.of(card.validator for card in read),
        parameters=_parameters(parameters),
        assets=tuple(sorted(born_assets, key=lambda asset: asset.code)),
        accounts=tuple(sorted((_account(text, decimals) for text in accounts), key=lambda account: account.address)),
    )
    founding = Founding.of(genesis, read)
    founding.write(path)
    _answer(settings, founding, path)


@command.command("add")
@click.argument("card", type=card_path)
@document_option
@common_options
@click.pass_obj
def add(settings: Settings, card: Path, path: Path) -> None:
    """Put one more validator's CARD into a genesis document; its hash changes."""
    from qenex_node.founding import Founding
    from qenex_node.homes import read_card

    founding = Founding.read(path).with_card(read_card(card))
    founding.write(path)
    _answer(settings, founding, path)


@command.command("verify")
@click.option("--state-file", type=card_path, help="The file of accounts that the document names by hash.")
@document_option
@common_options
@click.pass_obj
def verify(settings: Settings, path: Path, state_file: Path | None) -> None:
    """Check a genesis document, each validator's proof of its keys, and show the hash to compare."""
    from qenex_node.founding import Founding
    from qenex_node.homes import sha256_of_file

    founding = Founding.read(path)
    named = founding.genesis.state_file
    if state_file is not None and (named is None or sha256_of_file(state_file) != named.sha256):
        raise Rejected("state_file_wrong", f"{state_file} is not the state file that genesis names")
    _answer(settings, founding, path)


def _answer(settings: Settings, founding: Any, path: Path) -> None:
    genesis = founding.genesis
    validators = genesis.validators
    decimals = {asset.code: asset.decimals for asset in genesis.assets}
    addresses = {card.validator.name: card.p2p for card in founding.cards}
    supplies = genesis.supplies()
    document: dict[str, JsonValue] = {
        "file": str(path),
        "hash": "0x" + genesis.hash.hex(),
        "chain_id": genesis.chain_id,
        "time_ms": genesis.time_ms,
        "quorum": validators.quorum,
        "faults_tolerated": validators.f,
        "validators": [
            {"name": v.name, "key": "0x" + v.key.hex(), "node_key": "0x" + v.node_key.hex(), "p2p": addresses[v.name]}
            for v in validators.validators
        ],
        "accounts": len(genesis.accounts) + (genesis.state_file.accounts if genesis.state_file else 0),
        "supplies": {code: str(amount) for code, amount in supplies.items()},
    }
    shown = {name: value for name, value in document.items() if name not in ("validators", "supplies")}
    shown["supplies"] = ", ".join(f"{show_amount(a, decimals[code])} {code}" for code, a in supplies.items())
    output.answer(settings, document, output.fields(shown))
    if not settings.json:
        rows = [(v.name, "0x" + v.key.hex(), addresses[v.name]) for v in validators.validators]
        output.table("Validators, each proved by its card", ["name", "key", "p2p"], rows)


def _parameters(texts: tuple[str, ...]) -> Any:
    from state.genesis import ChainParameters

    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise Rejected("genesis_invalid", f"--parameter {text!r} is not NAME=VALUE")
        values[name] = int(value) if value.isdecimal() else value
    return ChainParameters.from_mapping(values)


def _asset(text: str) -> Any:
    from state.address import from_text
    from state.genesis import GenesisAsset, check_asset_code

    parts = text.split(",")
    if len(parts) != 3 or not parts[1].isdecimal():
        raise Rejected("genesis_invalid", f"--asset {text!r} is not CODE,DECIMALS,ISSUER")
    return GenesisAsset(check_asset_code(parts[0]), int(parts[1]), from_text(parts[2]))


def _account(text: str, decimals: dict[Any, int]) -> Any:
    from state.address import from_text
    from state.genesis import GenesisAccount, check_asset_code
    from state.types import Amount

    address, *held = text.split(",")
    balances = []
    for item in held:
        code, separator, amount = item.partition("=")
        if not separator or code not in decimals:
            raise Rejected("genesis_invalid", f"--account {text!r}: {item!r} is not CODE=AMOUNT of an asset given")
        balances.append((check_asset_code(code), Amount(parse_amount(amount, decimals[code]))))
    return GenesisAccount(from_text(address), tuple(sorted(balances)))
