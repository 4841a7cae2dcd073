"""A network that can be broken, between nodes on one machine: every connection of a link goes through one process.

    with Relay([Link("validator-02", "validator-01", "127.0.0.1", 12000)]) as relay:
        relay.port("validator-02", "validator-01")          # what validator-02 dials instead
        relay.set_all(Conduct(delay_ms=50))
        relay.cut(("validator-01", "validator-02"))         # one way
        relay.heal()

Here is what a test holds; the process stands in process.py, what happens to bytes in schedule.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devnet.relay.schedule import PASSING, Conduct
from devnet.ways import Way, between
from state.errors import Rejected

__all__ = ["PASSING", "Conduct", "Link", "Relay", "RelayUse"]

CLOSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Link:
    """Who dials whom, and where the target really listens."""

    dialer: str
    target: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class RelayUse:
    """What the process has taken and carried so far: (pieces, bytes) for each way."""

    cpu_s: float
    connections: int
    carried: dict[Way, tuple[int, int]]

    @property
    def bytes(self) -> int:
        """All bytes that were read."""
        return sum(size for _, size in self.carried.values())

    @property
    def pieces(self) -> int:
        """In how many pieces they were read."""
        return sum(pieces for pieces, _ in self.carried.values())


class Relay:
    """The links of one network, in one process; leaving the `with` block ends it, as does the death of its user."""

    def __init__(self, links: Sequence[Link]) -> None:
        """Takes all links; nothing runs yet."""
        self._links = list(links)
        self._ports: dict[Way, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Relay:
        links = json.dumps([[link.dialer, link.target, link.host, link.port] for link in self._links])
        self._process = subprocess.Popen(
            (sys.executable, "-P", "-m", "devnet.relay.process", links),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        ports = self._answer()
        self._ports = {(link.dialer, link.target): port for link, port in zip(self._links, ports, strict=True)}
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def pid(self) -> int:
        """The process's id; raises Rejected("relay_down")."""
        return self._running().pid

    def port(self, dialer: str, target: str) -> int:
        """Returns the loopback port that `dialer` is to dial to reach `target`."""
        return self._ports[dialer, target]

    @property
    def ways(self) -> list[Way]:
        """Every (from, to) that a link carries, both directions of each."""
        return [way for link in self._links for way in ((link.dialer, link.target), (link.target, link.dialer))]

    def set(self, ways: Iterable[Way], conduct: Conduct) -> None:
        """Puts a conduct in force for these ways; one that was cut is made anew when it no longer is."""
        self._order({"do": "set", "ways": [list(way) for way in ways], "conduct": conduct.to_json()})

    def set_all(self, conduct: Conduct) -> None:
        """Puts a conduct in force everywhere."""
        self.set(self.ways, conduct)

    def heal(self) -> None:
        """Lets everything pass at once, everywhere."""
        self.set_all(PASSING)

    def cut(self, *ways: Way, conduct: Conduct | None = None) -> None:
        """Lets all bytes of these ways vanish; `conduct` is another fault than that."""
        self.set(ways, conduct or Conduct(cut=True))

    def part(self, *groups: Collection[str], conduct: Conduct | None = None) -> None:
        """Cuts everything between groups of nodes (or gives it another conduct); within each all passes."""
        self.set(between(self.ways, groups), conduct or Conduct(cut=True))

    def close(self, ways: Iterable[Way]) -> int:
        """Ends the connections that stand; new ones are taken. Returns how many there were."""
        return int(self._order({"do": "close", "ways": [list(way) for way in ways]}))

    def use(self) -> RelayUse:
        """Returns what the process has taken and carried."""
        told = self._order({"do": "use"})
        carried = {(source, sink): (pieces, size) for source, sink, pieces, size in told["carried"]}
        return RelayUse(told["cpu_s"], told["connections"], carried)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise Rejected("relay_down", "the relay runs within its `with` block only")
        return self._process

    def _order(self, order: dict[str, Any]) -> Any:
        stdin = self._running().stdin
        if stdin is not None:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        stdout = self._running().stdout
        line = b"" if stdout is None else stdout.readline()
        if not line:
            raise Rejected("relay_down", f"the relay process ended with code {self._running().poll()}")
        return json.loads(line)
