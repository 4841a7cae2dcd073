"""What the integration tests share: a load in a process of its own, and payments by one client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devnet.network import Devnet
from qenex_node.client import Client, Session, Terms, TrustedChain
from state.keys import SigningKey
from state.types import AssetCode

QNX = AssetCode("QNX")


class Load:
    """`qenex devnet load` under way; `result` waits for its end and returns what it printed."""

    def __init__(self, home: Path, *options: str) -> None:
        command = [sys.executable, "-P", "-m", "cli.main", "devnet", "load", "--home", str(home), "--json", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self, timeout_s: float = 120) -> dict[str, Any]:
        out, err = self._process.communicate(timeout=timeout_s)
        assert out, f"the load printed nothing, exit code {self._process.returncode}: {err[-2000:]}"
        result: dict[str, Any] = json.loads(out)
        assert "verified" in result, result
        return result

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        if self.running:
            self._process.kill()
            self._process.communicate()


@contextmanager
def load(net: Devnet, *options: str) -> Iterator[Load]:
    """Runs a load beside the test and ends it whatever happens."""
    under_way = Load(net.home, *options)
    try:
        yield under_way
    finally:
        under_way.end()


def trusting_client(net: Devnet, *names: str) -> Client:
    """Returns a client that proves every answer against the genesis validators."""
    return net.client(*names, session=Session(trusted=TrustedChain(net.genesis)))


def pay(client: Client, key: SigningKey, to: bytes, amount: int = 1, *, lane: int = 0, wait_ms: int = 20_000) -> int:
    """Pays and waits until it is final; returns the height."""
    committed = client.transfer(key, to, amount, QNX, Terms(lane=lane), wait_ms=wait_ms)
    return int(committed.height)


def assert_nothing_lost(result: dict[str, Any]) -> None:
    """The load's own audit, over all nodes, found every transaction once, and balances and supply add up."""
    assert result["verified"], result["problems"]
    assert result["lost"] == 0
    assert result["doubled"] == 0
    assert result["unsettled"] == 0
    assert result["committed"] > 0


def same_chain(net: Devnet, names: Sequence[str]) -> dict[str, Any]:
    """Waits until the nodes have one head and checks that they mean the same state by it."""
    head = net.wait_same_head(names)
    for name in names:
        block = net.call(name, "qenex_getBlock", head["height"])
        assert block["header"]["state_root"] == head["state_root"]
    return head
