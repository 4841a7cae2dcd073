"""The account keys of a home: one key file a name, in its folder `accounts`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cli.settings import Settings
from qenex_node.keystore import KeyInfo, inspect_key, read_key
from state.address import to_text
from state.errors import Rejected
from state.keys import Policy, SigningKey

FOLDER: Final = "accounts"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


def path_of(settings: Settings, name: str) -> Path:
    """Returns where the key of this name lies or would lie; raises Rejected("key_name_invalid")."""
    if not _NAME.match(name):
        raise Rejected("key_name_invalid", f"key name {name!r}: use a-z, 0-9, '.', '_' and '-', at most 64")
    return settings.home / FOLDER / f"{name}.json"


def find(settings: Settings, reference: str) -> Path:
    """Returns the key file meant by a name, an address, or a path; raises Rejected("keystore_missing")."""
    given = Path(reference).expanduser()
    if given.suffix == ".json" and given.is_file():
        return given
    if _NAME.match(reference) and path_of(settings, reference).is_file():
        return path_of(settings, reference)
    for info in all_keys(settings):
        if address_of(info) == reference:
            return info.path
    raise Rejected(
        "keystore_missing",
        f"no key {reference!r} in {settings.home / FOLDER}: `qenex keys list` shows them, `qenex keys new` makes one",
    )


def load(settings: Settings, reference: str, passphrase: Callable[[], bytes]) -> SigningKey:
    """Returns the private key meant by a name, an address or a path; asks for the passphrase if it is encrypted."""
    return read_key(find(settings, reference), passphrase)


def all_keys(settings: Settings) -> Iterator[KeyInfo]:
    """Yields what the key files of the home say, in order of name."""
    folder = settings.home / FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        yield inspect_key(path)


def address_of(info: KeyInfo) -> str:
    """Returns the address of the account that this one key controls."""
    return to_text(Policy.single(info.public).address)
