"""What every command knows: the home directory, whether to answer in JSON, and which node to talk to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from state.errors import Rejected

HOME_DEFAULT: Final = "~/.qenex"
NETWORK_HOME: Final = Path(".devnet")
NETWORK_FILE: Final = "devnet.json"
RPC_DEFAULT: Final = "http://127.0.0.1:27101"
_NETWORK_BYTES_MAX: Final = 1024 * 1024

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The options that stand before or after any command; a command's own win."""

    home_given: Path | None = None
    json: bool = False
    rpc_given: str | None = None

    @property
    def home(self) -> Path:
        """The home directory: given, or ~/.qenex."""
        return self.home_given or Path(HOME_DEFAULT).expanduser()

    @property
    def network_home(self) -> Path | None:
        """The directory of the test network that is meant: the home given, else ./.devnet; None if there is none."""
        home = self.home_given or NETWORK_HOME
        return home if (home / NETWORK_FILE).is_file() else None

    @property
    def network(self) -> dict[str, Any] | None:
        """What that network's launcher wrote; raises Rejected("devnet_invalid")."""
        home = self.network_home
        if home is None:
            return None
        from qenex_node.jsonfiles import read_json

        document = read_json(home / NETWORK_FILE, _NETWORK_BYTES_MAX, "devnet_invalid")
        nodes = document.get("nodes") if isinstance(document, dict) else None
        if not isinstance(nodes, list) or not nodes or not all(isinstance(n, dict) and "rpc" in n for n in nodes):
            raise Rejected("devnet_invalid", f"{home / NETWORK_FILE} names no nodes: start the network again")
        return dict(document)

    @property
    def rpcs(self) -> tuple[str, ...]:
        """The URLs of the nodes to talk to, in turn if one fails.

        That is the one given, else the running nodes of the test network, else what the home says, else the default.
        """
        if self.rpc_given:
            return (self.rpc_given,)
        network = self.network
        if network is not None:
            running = [node for node in network["nodes"] if node.get("pid") is not None]
            return tuple(str(node["rpc"]) for node in running or network["nodes"][:1])
        config_file = self.home / "config.toml"
        if not config_file.is_file():
            return (RPC_DEFAULT,)
        from qenex_node.config import load

        section = load(config_file).rpc
        host = f"[{section.host}]" if ":" in section.host else section.host
        return (f"http://{host}:{section.port}",)


def _set_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Settings).home_given = value.expanduser()


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Settings).json = True


def _set_rpc(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Settings).rpc_given = value


def common_options(command: F) -> F:
    """Adds --home and --json to a command."""
    command = click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="QENEX_HOME",
        expose_value=False,
        callback=_set_home,
        help=f"The node's home directory [default: {HOME_DEFAULT}].",
    )(command)
    return click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json, help="Answer in JSON."
    )(command)


def rpc_option(command: F) -> F:
    """Adds --rpc to a command that talks to a node."""
    return click.option(
        "--rpc",
        metavar="URL",
        envvar="QENEX_RPC",
        expose_value=False,
        callback=_set_rpc,
        help=f"The node to talk to [default: one of ./.devnet, else the home's, else {RPC_DEFAULT}].",
    )(command)


def passphrase_options(command: F) -> F:
    """Adds --passphrase-file and --passphrase-fd; the command takes both and gives them to `passphrase_of`."""
    command = click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="QENEX_PASSPHRASE_FILE",
        help="A file that holds the keys' passphrase.",
    )(command)
    return click.option(
        "--passphrase-fd", type=click.IntRange(0), help="An open descriptor that the passphrase is read from."
    )(command)


def passphrase_of(file: Path | None, descriptor: int | None, *, new: bool = False) -> Callable[[], bytes]:
    """Returns what asks for a passphrase, once: from file or descriptor, else from the terminal (`new`: twice).

    Without any of them it raises Rejected("passphrase_needed") when it is asked.
    """
    known: list[bytes] = []

    def ask() -> bytes:
        if not known:
            known.append(_read_passphrase(file, descriptor, new))
        return known[0]

    return ask


def _read_passphrase(file: Path | None, descriptor: int | None, new: bool) -> bytes:
    from qenex_node.keystore import passphrase_from

    if file is not None or descriptor is not None:
        return passphrase_from(file=file, descriptor=descriptor)
    if not sys.stdin.isatty():
        raise Rejected("passphrase_needed", "give --passphrase-file or --passphrase-fd, or run it at a terminal")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)).encode()
