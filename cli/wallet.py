"""What `qenex tx` and `qenex query` know before they ask a node: names, keys, the node's address, and what is trusted.

A name is that of a key of the home (cli/keyring.py) or of an account of the network that runs in ./.devnet. Where both
have it and mean different accounts it is refused: money must not go to whichever was looked up first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli import keyring
from cli.settings import Settings
from state.errors import Rejected

if TYPE_CHECKING:
    from qenex_node.client.blocking import Client
    from qenex_node.client.verify import TrustedChain
    from state.keys import SigningKey
    from state.types import Address

GENESIS_FILE: Final = "genesis.json"
ASSET_DEFAULT: Final = "QNX"


def network_accounts(settings: Settings) -> dict[str, tuple[str, Path]]:
    """Returns the (address, key file) of the test network's accounts by name; empty where there is no network."""
    network = settings.network
    if network is None:
        return {}
    try:
        return {entry["name"]: (entry["address"], Path(entry["key_file"])) for entry in network["accounts"]}
    except (KeyError, TypeError) as error:
        raise Rejected(
            "devnet_invalid", f"the devnet.json in {settings.network_home} lacks {error}: start the network again"
        ) from None


class Names:
    """The accounts that have names here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._network = network_accounts(settings)

    def address(self, text: str) -> Address:
        """Returns the account meant by an address or a name; raises Rejected("name_unknown")."""
        from state.address import from_text

        if text.lower().startswith("qx1"):
            return from_text(text)
        return from_text(self._named(text)[0])

    def key(self, text: str, passphrase: Callable[[], bytes]) -> SigningKey:
        """Returns the private key meant by a name, an address or a file; asks for the passphrase if it has one."""
        from qenex_node.keystore import read_key

        path = Path(text).expanduser()
        if path.suffix == ".json" and path.is_file():
            return read_key(path, passphrase)
        return read_key(self._named(text)[1], passphrase)

    def key_file(self, text: str) -> Path:
        """Returns the key file of the account meant by a name or an address."""
        return self._named(text)[1]

    def has_key(self, text: str) -> bool:
        """Returns whether there is a key of this name or address."""
        return any(text in (name, entry[0]) for name, entry in self._all())

    def label(self, address: str) -> str:
        """Returns an address with its name here, if it has one."""
        for name, (known, _) in self._all():
            if known == address:
                return f"{address} ({name})"
        return address

    def _named(self, text: str) -> tuple[str, Path]:
        found = {entry for name, entry in self._all() if text in (name, entry[0])}
        addresses = {address for address, _ in found}
        if len(addresses) > 1:
            raise Rejected(
                "name_ambiguous", f"{text!r} is a key of yours and another account of the network: use the address"
            )
        if not found:
            names = ", ".join(sorted({name for name, _ in self._all()})) or "none"
            raise Rejected("name_unknown", f"there is no key {text!r}; known: {names}. `qenex keys new NAME` makes one")
        return min(found, key=lambda entry: str(entry[1]))

    def _all(self) -> Iterator[tuple[str, tuple[str, Path]]]:
        for info in keyring.all_keys(self._settings):
            yield info.path.stem, (keyring.address_of(info), info.path)
        yield from self._network.items()


def trusted_chain(settings: Settings, genesis_file: Path | None) -> TrustedChain:
    """Returns the chain of a genesis file: given, else that of the network on this machine or of the home."""
    from qenex_node.client.verify import TrustedChain
    from qenex_node.homes import read_genesis

    path = genesis_file or (settings.network_home or settings.home) / GENESIS_FILE
    if not path.is_file():
        raise Rejected("trust_missing", f"there is no {path}: give the chain's genesis document with --genesis FILE")
    return TrustedChain(read_genesis(path))


@contextmanager
def client_of(settings: Settings, trusted: TrustedChain | None = None, **session: Any) -> Iterator[Client]:
    """Opens the blocking client for the node that is meant, or for the network's nodes in turn."""
    from qenex_node.client.blocking import Client
    from qenex_node.client.session import Session

    with Client(*settings.rpcs, session=Session(trusted, **session)) as client:
        yield client


class Decimals:
    """The decimal places of assets, asked once each: only the command line shows and takes decimal points."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, int] = {}

    def of(self, asset: str) -> int:
        """Returns the decimal places of an asset; raises NotFound if there is no such asset."""
        if asset not in self._known:
            self._known[asset] = self._client.asset(asset).asset.decimals
        return self._known[asset]

    def show(self, amount: int | str, asset: str) -> str:
        """Returns an amount as people read it, with the asset's code."""
        from cli.amounts import show_amount

        return f"{show_amount(int(amount), self.of(asset))} {asset}"

    def parse(self, text: str, asset: str) -> int:
        """Returns the base units of an amount as people write it."""
        from cli.amounts import parse_amount

        return parse_amount(text, self.of(asset))


def genesis_option(command: Any) -> Any:
    """Adds --genesis to a command that verifies."""
    return click.option(
        "--genesis",
        "genesis_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The genesis document to trust [default: that of ./.devnet or of the home].",
    )(command)
