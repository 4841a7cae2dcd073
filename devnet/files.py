"""The files of a running network in its home: the lock, the control socket, and devnet.json for whoever uses it.

HOME/testnet.json    what the network is made of (qenex_node/testnet.py)
HOME/devnet.json     where its nodes answer and as which processes they run; there once all have answered
HOME/devnet.lock     held by the launcher as long as it lives
HOME/control.sock    where the launcher takes commands
HOME/<node>/node.log what a node says
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from qenex_node.jsonfiles import read_json, write_json
from qenex_node.testnet import Network, NetworkNode
from state.address import to_text
from state.errors import JsonValue, Rejected

NETWORK_FILE: Final = "devnet.json"
LOCK_FILE: Final = "devnet.lock"
SOCKET_FILE: Final = "control.sock"
LOG_FILE: Final = "node.log"
NETWORK_FILE_BYTES_MAX: Final = 1024 * 1024


def rpc_url(node: NetworkNode) -> str:
    """Returns where the node serves JSON-RPC."""
    return f"http://{node.host}:{node.ports.rpc}"


def network_document(network: Network, pids: Mapping[str, int | None]) -> dict[str, JsonValue]:
    """Returns devnet.json: `pids` has each node's process by name, None for a node that does not run."""
    return {
        "chain_id": network.chain_id,
        "nodes": [
            {
                "name": node.name,
                "role": node.role,
                "pid": pids.get(node.name),
                "rpc": rpc_url(node),
                "metrics": f"http://{node.host}:{node.ports.metrics}/metrics",
                "p2p": f"{node.host}:{node.ports.p2p}",
                "home": str(node.home.absolute()),
            }
            for node in network.nodes
        ],
        "accounts": [
            {
                "name": account.name,
                "address": to_text(account.address),
                "key_file": str(account.key_file.absolute()),
            }
            for account in network.accounts
        ],
    }


def write_network(network: Network, pids: Mapping[str, int | None]) -> None:
    """Writes devnet.json, whole or not at all."""
    write_json(network.directory / NETWORK_FILE, network_document(network, pids))


def read_network(home: Path) -> dict[str, Any]:
    """Returns devnet.json; raises Rejected("devnet_down") if the network is not up."""
    if not (home / NETWORK_FILE).is_file():
        raise Rejected("devnet_down", f"no network is up in {home}: start one with `qenex devnet up --home {home}`")
    document = read_json(home / NETWORK_FILE, NETWORK_FILE_BYTES_MAX, "devnet_down")
    if not isinstance(document, dict):
        raise Rejected("devnet_down", f"{home / NETWORK_FILE} is not a network's file")
    return document


@contextmanager
def held_lock(home: Path) -> Iterator[None]:
    """Holds the home for one launcher; raises Rejected("devnet_running") if another one has it.

    The kernel lets go of the lock when its holder dies in whatever way, so a stale file never stands in the way.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read(32).strip() or "unknown"
            raise Rejected(
                "devnet_running",
                f"a network runs in {home} already (process {holder}): stop it, or choose another --home",
            ) from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


def log_tail(node_home: Path, lines_max: int = 20) -> list[str]:
    """Returns the last lines that a node said."""
    try:
        with (node_home / LOG_FILE).open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 400 * lines_max))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines_max:]
