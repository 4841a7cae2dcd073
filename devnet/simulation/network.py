"""Links between machines: they delay, reorder, lose, duplicate, and are cut, wholly or for some kinds of message.

A link has no order and no connections: this is a harsher network than the TLS streams of a node give.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from consensus.messages import Kind
from devnet.simulation.faults import Link
from devnet.simulation.schedule import MS, Schedule
from devnet.simulation.settings import Links

WIDE_MS: Final = (
    (1, 8, 40, 75, 110),
    (8, 1, 35, 80, 120),
    (40, 35, 1, 70, 90),
    (75, 80, 70, 1, 35),
    (110, 120, 90, 35, 1),
)
"""One way between two regions, in ms: two in Europe, one in North America, two in Asia."""


class Gate(Protocol):
    """Somebody who sees every message before the links do, and may keep it."""

    def takes(self, source: int, target: int, message: Any, kind: Kind | None) -> bool:
        """Returns whether it keeps the message, to drop it or to have it carried later."""


class Network:
    """All links of a cluster. `gate`, if there is one, stands before them all."""

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        links: Links,
        regions: Sequence[int] = (),
    ) -> None:
        """Takes where each machine stands."""
        self.links = links
        self.sent = 0
        self.gate: Gate | None = None
        self._schedule = schedule
        self._rng = rng
        self._ends: tuple[Callable[[int, Any], None], ...] = ()
        self._regions = tuple(regions)
        self._cuts: dict[Link, int] = {}
        self._hushed: dict[tuple[Link, Kind], int] = {}

    def join(self, ends: Iterable[Callable[[int, Any], None]]) -> None:
        """Takes what gets a message that arrives, by machine: end(from, message)."""
        self._ends = tuple(ends)

    def cut(self, links: Iterable[Link], by: int) -> None:
        """Cuts each link once more (+1), or once less (-1): cuts may overlap."""
        for link in links:
            self._cuts[link] = self._cuts.get(link, 0) + by

    def hush(self, links: Iterable[Link], kinds: Iterable[Kind], by: int) -> None:
        """Lets each link drop these kinds of consensus message, once more (+1) or once less (-1)."""
        for place in [(link, kind) for link in links for kind in kinds]:
            self._hushed[place] = self._hushed.get(place, 0) + by

    def send(self, source: int, target: int, message: Any, kind: Kind | None) -> None:
        """Sends a message on its way. A cut takes what is sent while it lasts, and what would arrive then.

        `kind` is that of a consensus message, None for anything else.
        """
        rng, links = self._rng, self.links
        self.sent += 1
        if self.gate is not None and self.gate.takes(source, target, message, kind):
            return
        if self._cuts.get((source, target)) or (links.loss and rng.random() < links.loss):
            return
        if kind is not None and self._hushed.get(((source, target), kind)):
            return
        copies = 2 if links.duplication and rng.random() < links.duplication else 1
        for _ in range(copies):
            delay = links.delay_us + int(links.jitter_us * rng.random())
            if self._regions:
                delay += self._between(source, target)
            if links.straying and rng.random() < links.straying:
                delay += int(links.stray_us * rng.random())
            self._schedule.after(delay, partial(self._arrive, source, target, message))

    def carry(self, source: int, target: int, message: Any, delay_us: int) -> None:
        """Brings a message to its target after a time, past the gate and the links' own chances; cuts hold."""
        self._schedule.after(delay_us, partial(self._arrive, source, target, message))

    def _between(self, source: int, target: int) -> int:
        """How much longer a message travels between regions: the distance, and now and then a crowded way."""
        regions = self._regions
        base = WIDE_MS[regions[source % len(regions)]][regions[target % len(regions)]] * MS
        crowded = self._rng.random()
        return base + int(base * 0.1 / (1.0 - crowded * 0.98))

    def _arrive(self, source: int, target: int, message: Any) -> None:
        if not self._cuts.get((source, target)):
            self._ends[target](source, message)
