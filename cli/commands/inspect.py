"""`qenex inspect`: serves read-only RPC from a stopped node's data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from cli.settings import Settings, common_options
from state.errors import Rejected

if TYPE_CHECKING:
    from qenex_node.inspection import Inspection

PORT_MAX: Final = 65_535


@click.command("inspect")
@click.option(
    "--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one [default: rpc of config]."
)
@common_options
@click.pass_obj
def command(settings: Settings, listen: str | None) -> None:
    """Serve read-only RPC from a stopped node's data.

    All that a node answers about the chain and its states is answered, proofs included; transactions are refused. No
    private key is read, no peer is talked to. Runs until SIGTERM or Ctrl-C; the node cannot be started meanwhile.
    """
    import trio

    from qenex_node.homes import open_home
    from qenex_node.inspection import serve_inspection

    node_home = open_home(settings.home)
    section = node_home.config.rpc
    host, port = (section.host, section.port) if listen is None else _address(listen)

    def started(inspection: Inspection, url: str) -> None:
        head = inspection.store.head
        if settings.json:
            click.echo(json.dumps({"rpc": url, "head": head.height, "hash": "0x" + head.hash.hex()}))
        else:
            click.echo(f"{url} serves {node_home.home.path} up to height {head.height}, for reading only")

    trio.run(serve_inspection, node_home, host, port, started)


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise Rejected("listen_invalid", f"{text!r}: --listen takes HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
