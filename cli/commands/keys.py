"""`qenex keys`: make account keys, list and show them, bring them in and take them out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import keyring, output
from cli.settings import Settings, common_options, passphrase_of, passphrase_options
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from qenex_node.keystore import KeyInfo
    from state.keys import SigningKey

SCHEMES = ("ed25519", "ml-dsa-65", "ml-dsa-87")

scheme_option = click.option(
    "--scheme", type=click.Choice(SCHEMES), default="ed25519", show_default=True, help="The signature scheme."
)
plain_option = click.option("--plain", is_flag=True, help="Do not encrypt the file: for test networks only.")


@click.group("keys")
def command() -> None:
    """Make and keep account keys, in the folder `accounts` of the home."""


def _document(info: KeyInfo) -> dict[str, JsonValue]:
    return {
        "name": info.name,
        "address": keyring.address_of(info),
        "scheme": info.scheme,
        "public_key": "0x" + info.public.data.hex(),
        "encrypted": info.encrypted,
        "key_file": str(info.path),
    }


def _answer(settings: Settings, info: KeyInfo) -> None:
    document = _document(info)
    shown = {name: value for name, value in document.items() if name != "public_key" or info.scheme == "ed25519"}
    output.answer(settings, document, output.fields(shown))


def _store(
    settings: Settings, name: str, key: SigningKey, plain: bool, file: Path | None, descriptor: int | None
) -> KeyInfo:
    from qenex_node.keystore import PLAIN_WARNING, write_key

    path = keyring.path_of(settings, name)
    if path.exists():
        raise Rejected("file_exists", f"{path} exists already and is not overwritten")
    passphrase = None if plain else passphrase_of(file, descriptor, new=True)()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if plain:
        click.echo(f"{path}: {PLAIN_WARNING}", err=True)
    return write_key(path, key, name=name, purpose="account", passphrase=passphrase)


@command.command("new")
@click.argument("name")
@scheme_option
@plain_option
@passphrase_options
@common_options
@click.pass_obj
def new(
    settings: Settings, name: str, scheme: str, plain: bool, passphrase_file: Path | None, passphrase_fd: int | None
) -> None:
    """Make a key called NAME."""
    from state.keys import SigningKey, scheme_named

    key = SigningKey.generate(scheme_named(scheme).number)
    _answer(settings, _store(settings, name, key, plain, passphrase_file, passphrase_fd))


@command.command("list")
@common_options
@click.pass_obj
def list_keys(settings: Settings) -> None:
    """List the keys of the home."""
    found = [_document(info) for info in keyring.all_keys(settings)]
    if settings.json:
        output.answer(settings, found)
        return
    rows = [(key["name"], key["address"], key["scheme"], "yes" if key["encrypted"] else "NO") for key in found]
    output.table(f"Keys in {settings.home / keyring.FOLDER}", ["name", "address", "scheme", "encrypted"], rows)


@command.command("show")
@click.argument("key")
@common_options
@click.pass_obj
def show(settings: Settings, key: str) -> None:
    """Show a KEY by its name, address or file: never its private part."""
    from qenex_node.keystore import inspect_key

    _answer(settings, inspect_key(keyring.find(settings, key)))


@command.command("import")
@click.argument("name")
@click.option(
    "--seed-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the seed as hex [default: standard input].",
)
@scheme_option
@plain_option
@passphrase_options
@common_options
@click.pass_obj
def import_key(
    settings: Settings,
    name: str,
    seed_file: Path | None,
    scheme: str,
    plain: bool,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Make a key called NAME from its 32-byte seed."""
    from state.keys import SigningKey, scheme_named

    text = (seed_file.read_text(encoding="utf-8") if seed_file else sys.stdin.readline()).strip()
    try:
        seed = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Rejected("seed_invalid", "a seed is 64 hex digits") from None
    key = SigningKey(scheme_named(scheme).number, seed)
    _answer(settings, _store(settings, name, key, plain, passphrase_file, passphrase_fd))


@command.command("export")
@click.argument("key")
@click.option("--show-private-key", is_flag=True, required=True, help="Say that you mean it.")
@passphrase_options
@common_options
@click.pass_obj
def export(
    settings: Settings, key: str, show_private_key: bool, passphrase_file: Path | None, passphrase_fd: int | None
) -> None:
    """Print the private seed of a KEY: whoever sees it owns the account."""
    from state.keys import SCHEMES as ALL

    private = keyring.load(settings, key, passphrase_of(passphrase_file, passphrase_fd))
    document: dict[str, JsonValue] = {"scheme": ALL[private.scheme].name, "seed": "0x" + private.seed.hex()}
    output.answer(settings, document, "0x" + private.seed.hex())
