"""Runs many seeds in worker processes, for as long as told, and adds up what came of them in a file.

Results belong to the sources that gave them: whatever changes in the state, the core or the simulator begins a new
count. A campaign may end at any moment, by Ctrl-C too: each finished seed is counted, and the next run goes on with
those that are not.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from devnet.simulation.cluster import Result, run
from devnet.simulation.plan import PLANS
from state.errors import Rejected

FORMAT: Final = 1
CHUNK: Final = 10
SAVE_SECONDS: Final = 5.0
FAILURES_KEPT_MAX: Final = 1_000
_SOURCES: Final = ("consensus", "state", "devnet/simulation")


@dataclass(slots=True)
class Tally:
    """What many seeds of one plan came to. `done` are ranges of seeds, both ends included; `faults` counts by kind."""

    done: list[list[int]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0
    simulated_us: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    heights: int = 0
    heights_least: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """How many seeds were run."""
        return sum(last - first + 1 for first, last in self.done)

    def take(self, result: Result, plan: str) -> None:
        """Adds a run."""
        settings, violation = result.settings, result.violation
        self.simulated_us += result.time_us
        self.heights += result.height
        if violation is None:
            least = self.heights_least
            self.heights_least = result.height if least is None else min(least, result.height)
        else:
            self.failed += 1
            self.failures.append(
                {
                    "seed": settings.seed,
                    "law": violation.check,
                    "what": violation.what,
                    "replay": replay(plan, settings.seed),
                }
            )
        _add(self.sizes, {str(settings.n): 1})
        kinds = Counter(type(fault).__name__ for fault in settings.faults)
        kinds.update(f"{conduct} validator" for conduct in settings.conducts if conduct != "correct")
        kinds.update(type(scheme).__name__ for scheme in settings.schemes)
        kinds["Reform"] += len(settings.reforms)
        _add(self.faults, kinds)
        _add(self.events, result.counts)

    def merge(self, other: Tally) -> None:
        """Adds another tally, of other seeds."""
        self.done = _joined([*self.done, *other.done])
        self.failures = sorted([*self.failures, *other.failures], key=lambda item: int(item["seed"]))[
            :FAILURES_KEPT_MAX
        ]
        self.failed += other.failed
        self.simulated_us += other.simulated_us
        self.cpu_seconds += other.cpu_seconds
        self.heights += other.heights
        least = [value for value in (self.heights_least, other.heights_least) if value is not None]
        self.heights_least = min(least, default=None)
        for mine, theirs in ((self.sizes, other.sizes), (self.faults, other.faults), (self.events, other.events)):
            _add(mine, theirs)

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yields the ranges of [first, last] that were not run."""
        for begin, end in self.done:
            if begin > first:
                yield first, min(begin - 1, last)
            first = max(first, end + 1)
            if first > last:
                return
        yield first, last


def replay(plan: str, seed: int) -> str:
    """Returns the command that shows a seed again, line by line."""
    return f"qenex devnet simulate --plan {plan} --replay {seed}"


def sources_tag() -> str:
    """Returns a short name for the sources whose behaviour is simulated."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class Results:
    """The file in which campaigns add up: by sources, then by plan."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; raises Rejected("results_unreadable")."""
        self.path = path
        self._all: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                document = json.loads(path.read_text())
                if document["format"] != FORMAT:
                    raise ValueError(f"its format is {document['format']!r}")
                self._all = document["results"]
            except (ValueError, KeyError, TypeError) as error:
                raise Rejected("results_unreadable", f"{path} holds no results of simulations: {error}") from error

    def tally(self, tag: str, plan: str) -> Tally:
        """Returns what these sources and this plan came to so far."""
        return Tally(**self._all.get(tag, {}).get(plan, {}))

    def save(self, tag: str, plan: str, tally: Tally) -> None:
        """Writes the file anew, whole or not at all."""
        self._all.setdefault(tag, {})[plan] = asdict(tally)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps({"format": FORMAT, "results": self._all}, indent=1, sort_keys=True) + "\n")
        temporary.replace(self.path)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is to be run: seeds of one plan, both ends included, by so many processes, for at most so long."""

    plan: str
    first: int
    last: int
    workers: int
    seconds: float | None = None


def run_campaign(
    campaign: Campaign, results: Results, tag: str, tell: Callable[[Tally, list[dict[str, Any]]], None]
) -> Tally:
    """Runs the seeds that these sources have not run yet; `tell` gets the sum so far and the failures that are new.

    Returns the sum. Ctrl-C ends it early: what is finished counts.
    """
    tally = results.tally(tag, campaign.plan)
    chunks = _chunks(list(tally.missing(campaign.first, campaign.last)))
    began = time.monotonic()
    saved = began - SAVE_SECONDS
    wall_before = tally.wall_seconds
    crew = _Crew(campaign)
    try:
        for done in crew.run(chunks, None if campaign.seconds is None else began + campaign.seconds):
            tally.merge(done)
            tally.wall_seconds = wall_before + time.monotonic() - began
            tell(tally, done.failures)
            if time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                results.save(tag, campaign.plan, tally)
    finally:
        crew.close()
        tally.wall_seconds = wall_before + time.monotonic() - began
        results.save(tag, campaign.plan, tally)
    return tally


class _Crew:
    """Worker processes, each with a pipe to this one."""

    def __init__(self, campaign: Campaign) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._busy: set[Connection] = set()
        for _ in range(campaign.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, campaign.plan), daemon=True)
            process.start()
            theirs.close()
            self._members[ours] = process

    def run(self, chunks: Iterator[tuple[int, int]], until: float | None) -> Iterator[Tally]:
        """Hands out chunks until they or the time are up, and yields what came of each."""
        interrupted = False
        for member in self._members:
            self._give(member, chunks)
        while self._busy:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                ready = wait(list(self._busy), None if interrupted else left)
                if not ready:
                    interrupted, until = True, None
                    self._stop()
                    continue
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted, until = True, None
                self._stop()
                continue
            for member in [member for member in self._members if member in ready]:
                self._busy.discard(member)
                done = self._receive(member)
                if not interrupted:
                    self._give(member, chunks)
                yield done

    def _receive(self, member: Connection) -> Tally:
        try:
            received: Tally = member.recv()
        except EOFError:
            raise Rejected("worker_ended", "a simulating process ended by itself: see above for why") from None
        return received

    def _give(self, member: Connection, chunks: Iterator[tuple[int, int]]) -> None:
        chunk = next(chunks, None)
        if chunk is not None:
            member.send(chunk)
            self._busy.add(member)

    def _stop(self) -> None:
        for member in self._busy:
            member.send(None)

    def close(self) -> None:
        """Ends the processes."""
        for member, process in self._members.items():
            member.close()
            process.terminate()
            process.join()


def _work(pipe: Connection, plan: str) -> None:
    """Runs chunks of seeds until told to stop; Ctrl-C is for the process that hands them out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A run leaves few cycles behind, and nothing while it goes on: collecting between runs is enough.
    gc.disable()
    try:
        while (chunk := pipe.recv()) is not None:
            first, last = chunk
            pipe.send(run_chunk(plan, first, last, pipe.poll))
            gc.collect()
    except (EOFError, BrokenPipeError):
        os._exit(0)


def run_chunk(plan: str, first: int, last: int, stopped: Callable[[], bool]) -> Tally:
    """Runs seeds one after the other, and returns what they came to; ends early when stopped."""
    tally, began = Tally(), time.process_time()
    for seed in range(first, last + 1):
        if stopped():
            break
        tally.take(run(PLANS[plan](seed)), plan)
        tally.done = [[first, seed]]
    tally.cpu_seconds = time.process_time() - began
    return tally


def _chunks(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for first, last in ranges:
        for begin in range(first, last + 1, CHUNK):
            yield begin, min(begin + CHUNK - 1, last)


def _joined(ranges: list[list[int]]) -> list[list[int]]:
    found: list[list[int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    return found


def _add(sums: dict[str, int], more: dict[str, int] | Counter[str]) -> None:
    for name, count in more.items():
        if count:
            sums[name] = sums.get(name, 0) + count
