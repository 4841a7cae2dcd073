"""A node behind a real port for tests of `qenex tx` and `qenex query`, with the files that a devnet leaves near it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from qenex_node.keystore import write_key
from qenex_node.rpc.methods import registry
from qenex_node.rpc.server import RpcServer, open_listeners
from state.address import to_text
from tests.qenex_node.client.client_support import ANN, BOB, HonestNode
from tests.state.ledger import world


class Network:
    """One node that commits at once, and its files in FOLDER/.devnet."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        # The command line signs by the machine's clock, so the chain must be as old as that.
        monkeypatch.setattr(world, "START_MS", time.time_ns() // 1_000_000)
        self.node = HonestNode()
        self.folder = folder
        self.rpc = ""

    def write_files(self) -> None:
        home = self.folder / ".devnet"
        (home / "accounts").mkdir(parents=True)
        accounts = []
        for name, key in (("ann", ANN), ("bob", BOB)):
            path = home / "accounts" / f"{name}.json"
            write_key(path, key, name=name, purpose="account", passphrase=None)
            accounts.append({"name": name, "address": to_text(key.address), "key_file": str(path)})
        nodes = [{"name": "v0", "pid": None, "rpc": "http://127.0.0.1:1"}, {"name": "v1", "pid": 7, "rpc": self.rpc}]
        document = {"chain_id": "test-1", "nodes": nodes, "accounts": accounts}
        (home / "devnet.json").write_text(json.dumps(document))
        (home / "genesis.json").write_text(json.dumps(self.node.world.genesis.to_json()))

    def available(self, address, asset="QNX"):
        return self.node.world.available(address, asset)


@contextmanager
def network(folder: Path, monkeypatch) -> Iterator[Network]:
    """Serves a node from a thread, in a folder that becomes the working directory and HOME."""
    made = Network(folder, monkeypatch)
    ready, ended = threading.Event(), []

    async def serve():
        server = RpcServer(made.node, registry(made.node.ledger, "0.1.0"))
        listeners = await open_listeners("127.0.0.1", 0)
        made.rpc = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listeners)
            token = trio.lowlevel.current_trio_token()
            ended.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    try:
        made.write_files()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(folder))
        yield made
    finally:
        ended[0]()
        thread.join(10)
        assert not thread.is_alive()
