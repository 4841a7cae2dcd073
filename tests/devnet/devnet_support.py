"""Networks of fake nodes, and bounded waits, for the tests of the launcher."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devnet.fleet import Fleet
from devnet.ports import free_ports
from qenex_node.testnet import Network, NetworkNode
from state.errors import JsonValue

FAKE_NODE = Path(__file__).with_name("fake_node.py")


def fake_network(home: Path, count: int = 2) -> Network:
    """A network whose homes are empty folders."""
    nodes = []
    for number, ports in enumerate(free_ports(count), start=1):
        name = f"validator-{number:02}"
        (home / name).mkdir(parents=True, exist_ok=True)
        nodes.append(NetworkNode(name, "validator", home / name, ports))
    return Network(home, "test-chain", bytes(32), "seed", tuple(nodes), (), 0)


def fake_fleet(home: Path, count: int = 2, **manners: str) -> Fleet:
    """A fleet of fake nodes; `manners` gives some of them, by number ("n1"), another conduct."""

    def command(node: NetworkNode, _: bool) -> tuple[str, ...]:
        extra = manners.get(f"n{int(node.name[-2:])}")
        ports = (str(node.ports.rpc), str(node.ports.metrics))
        return (sys.executable, str(FAKE_NODE), node.name, *ports, *([extra] if extra else []))

    return Fleet(fake_network(home, count), command=command)


class Recorder:
    """A Show that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, event: str, text: str, **data: Any) -> None:
        self.events.append((event, {"text": text, **data}))

    def status(self, samples: Any) -> None:
        self.events.append(("status", {"samples": list(samples)}))

    def close(self) -> None:
        pass

    def names(self) -> list[str]:
        return [name for name, _ in self.events if name != "status"]

    def data(self, event: str) -> dict[str, JsonValue]:
        return next(data for name, data in self.events if name == event)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Waits for a condition, at most so long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    from devnet import procfs

    return procfs.state(pid) not in (None, "Z", "X")
