"""How a launcher tells what goes on: a live table in a terminal, plain lines in a pipe, or JSON lines.

JSON lines: {"event": NAME, "time_ms": ..., "message": ..., ...}. Events are starting, ready, node_started, node_ended,
node_paused, node_resumed, node_added, clock_set, status (at most one a second, only if something changed), stopping,
stopped; and failed, the last one, when the network does not come up.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from devnet.watch import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

EVENTS_SHOWN: Final = 6
LINE_SECONDS: Final = 10.0


class Show(Protocol):
    """What the launcher tells."""

    def event(self, event: str, text: str, **data: Any) -> None:
        """Tells that something happened: for people by `text`, for programs by name and data."""

    def status(self, samples: Sequence[Sample]) -> None:
        """Tells where the nodes stand."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class JsonShow:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: list[dict[str, Any]] = []

    def event(self, event: str, text: str, **data: Any) -> None:
        """Writes an event; `text` stands in it as `message`."""
        line = {"event": event, "time_ms": time.time_ns() // 1_000_000, "message": text, **data}
        self._stream.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._stream.flush()

    def status(self, samples: Sequence[Sample]) -> None:
        """Writes a status event if the chain or a node's state moved."""
        nodes = [sample.to_json() for sample in samples]
        moved = [{name: node[name] for name in ("state", "head", "view", "ready", "reasons")} for node in nodes]
        if moved != self._told:
            self._told = moved
            self.event("status", "", nodes=list(nodes))

    def close(self) -> None:
        """Nothing to do."""


class LineShow:
    """Lines for people, where there is no terminal: events, and now and then where the chain stands."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_at = 0.0
        self._heights: list[int | None] = []

    def event(self, event: str, text: str, **data: Any) -> None:
        """Writes the event's text."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def status(self, samples: Sequence[Sample]) -> None:
        """Writes the heights, at most every few seconds and only if they moved."""
        heights = [sample.height for sample in samples]
        if heights == self._heights or time.monotonic() < self._next_at:
            return
        self._heights, self._next_at = heights, time.monotonic() + LINE_SECONDS
        shown = ", ".join(f"{s.name} {'-' if s.height is None else s.height}" for s in samples)
        rate = max((s.tx_per_s for s in samples), default=0.0)
        self._stream.write(f"heights: {shown}; {rate:.0f} tx/s\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to do."""


class LiveShow:
    """A table that is drawn again as it changes, with the last events below."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._samples: Sequence[Sample] = ()
        # Drawn from the launcher's loop alone: a drawing thread would race with what is written at the end.
        self._live = Live(self._draw(), auto_refresh=False, transient=False)
        self._live.start()

    def event(self, event: str, text: str, **data: Any) -> None:
        """Puts the event below the table."""
        self._events.append(f"{time.strftime('%H:%M:%S')}  {text}")
        self._live.update(self._draw(), refresh=True)

    def status(self, samples: Sequence[Sample]) -> None:
        """Draws the table."""
        self._samples = samples
        self._live.update(self._draw(), refresh=True)

    def close(self) -> None:
        """Leaves the last table standing."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        from rich.console import Console, Group
        from rich.text import Text

        drawn = table(self._title, self._samples, Console().width)
        return Group(drawn, *(Text(line) for line in self._events))


COLUMNS: Final = ("node", "state", "height", "view", "primary", "tx/s", "latency", "peers", "memory", "cpu")
LEFT: Final = ("node", "state", "primary")
# What a narrow terminal goes without, first things first: whole columns, as a table of cut words says nothing.
EXPENDABLE: Final = ("peers", "memory", "cpu", "view", "tx/s", "primary")
GAP: Final = 2


def table(title: str, samples: Sequence[Sample], width: int) -> RenderableType:
    """Returns the table of all nodes, with the columns that fit `width` characters."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = [row(sample) for sample in samples]
    shown = _fitting([COLUMNS, *rows], width)
    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for index in shown:
        drawn.add_column(COLUMNS[index], justify="left" if COLUMNS[index] in LEFT else "right", no_wrap=True)
    for cells in rows:
        drawn.add_row(*(cells[index] for index in shown))
    return drawn


def _fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Returns the columns that fit `width` in their order."""
    widest = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    shown = list(range(len(COLUMNS)))
    for name in EXPENDABLE:
        if sum(widest[index] for index in shown) + GAP * len(shown) <= width:
            break
        shown.remove(COLUMNS.index(name))
    return shown


def row(sample: Sample) -> tuple[str, ...]:
    """Returns a node's cells in the order of `COLUMNS`; what is unknown is a dash."""
    if sample.state == "running":
        state = "ready" if sample.ready else ", ".join(sample.reasons) or "starting"
    else:
        state = sample.state

    def shown(value: object | None, form: str = "{}") -> str:
        return "-" if value is None else form.format(value)

    answered = sample.height is not None
    return (
        sample.name,
        state,
        shown(sample.height),
        shown(sample.view),
        shown(sample.primary),
        shown(sample.tx_per_s if answered else None, "{:.0f}"),
        shown(sample.finality_ms, "{:.1f} ms" if (sample.finality_ms or 0) < 100 else "{:.0f} ms"),
        shown(sample.peers),
        shown(None if sample.rss_anon is None else sample.rss_anon / 2**20, "{:.0f} MiB"),
        shown(None if sample.cpu is None else 100 * sample.cpu, "{:.0f}%"),
    )


def make_show(title: str, as_json: bool) -> Show:
    """Returns what fits standard output."""
    if as_json:
        return JsonShow(sys.stdout)
    if sys.stdout.isatty():
        return LiveShow(title)
    return LineShow(sys.stdout)
