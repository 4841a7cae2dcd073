"""What the nodes of a running network say and take, sampled once a second for the live table and the event stream.

Sampling must not be seen in measurements: one small request a second for each node, and its metrics only while it
makes blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from devnet.fleet import Fleet, Member, State
from devnet.http import HttpLink
from devnet.procfs import Usage
from qenex_node.client.errors import TransportError

ANSWER_SECONDS: Final = 0.8
METRICS_INTERVAL_S: Final = 2.0
CLOCK_OFF: Final = "clock_off"
_ASK: Final = json.dumps(
    [
        {"jsonrpc": "2.0", "id": 1, "method": "qenex_status"},
        {"jsonrpc": "2.0", "id": 2, "method": "net_peers"},
    ]
).encode()


@dataclass(frozen=True, slots=True)
class Sample:
    """One node at one moment; None where it does not answer, or nothing is known yet.

    `tx_per_s` and `finality_ms` (the mean, from arrival at this node to commit) are of the last seconds; `cpu` is in
    cores, `rss_anon` in bytes.
    """

    name: str
    role: str
    state: str
    pid: int | None = None
    height: int | None = None
    head: str | None = None
    view: int | None = None
    primary: str | None = None
    ready: bool = False
    reasons: tuple[str, ...] = ()
    peers: int | None = None
    tx_per_s: float = 0.0
    finality_ms: float | None = None
    cpu: float | None = None
    rss_anon: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the form of the event stream."""
        return {
            "name": self.name,
            "role": self.role,
            "state": self.state,
            "pid": self.pid,
            "height": self.height,
            "head": self.head,
            "view": self.view,
            "primary": self.primary,
            "ready": self.ready,
            "reasons": list(self.reasons),
            "peers": self.peers,
            "tx_per_s": round(self.tx_per_s, 1),
            "finality_ms": None if self.finality_ms is None else round(self.finality_ms, 2),
            "cpu": None if self.cpu is None else round(self.cpu, 3),
            "rss_anon": self.rss_anon,
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """What a node's metrics have counted since its start: transactions, and their waits for finality in seconds."""

    transactions: float = 0.0
    finality_sum_s: float = 0.0
    finality_count: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Counts:
        """Reads the three from a /metrics answer."""
        found = {"transactions": 0.0, "finality_sum_s": 0.0, "finality_count": 0.0}
        for line in text.splitlines():
            for prefix, name in (
                ("qenex_chain_transactions_total", "transactions"),
                ("qenex_chain_finality_seconds_sum", "finality_sum_s"),
                ("qenex_chain_finality_seconds_count", "finality_count"),
            ):
                if line.startswith(prefix):
                    found[name] += float(line.rpartition(" ")[2])
        return cls(**found)


class Watch:
    """The samples of one node over time."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.sample = Sample(member.node.name, member.node.role, member.state.value)
        self._rpc = HttpLink(member.node.ports.rpc)
        self._metrics = HttpLink(member.node.ports.metrics)
        self._counts: Counts | None = None
        self._counted_at = 0.0
        self._counted_height: int | None = None
        self._usage: Usage | None = None
        self._used_at = 0.0

    def close(self) -> None:
        """Ends its connections."""
        self._rpc.close()
        self._metrics.close()

    async def look(self, fleet: Fleet) -> Sample:
        """Takes a new sample."""
        member = self.member
        sample = Sample(member.node.name, member.node.role, member.state.value, pid=member.pid)
        sample = self._with_usage(sample, fleet)
        if member.state is State.RUNNING:
            with trio.move_on_after(ANSWER_SECONDS):
                try:
                    sample = await self._ask(sample)
                except (TransportError, ValueError, KeyError, TypeError):
                    # A node that is starting or dying: the sample says that it does not answer.
                    self._counts = None
        self.sample = sample
        return sample

    async def _ask(self, sample: Sample) -> Sample:
        _, body = await self._rpc.post(_ASK)
        status, peers = (answer["result"] for answer in json.loads(body))
        code, ready = await self._rpc.get("/ready")
        reasons = tuple(str(reason["code"]) for reason in json.loads(ready)["reasons"])
        sample = replace(
            sample,
            height=status["head"]["height"],
            head=status["head"]["hash"],
            view=status["view"],
            primary=status["primary"],
            ready=code == 200,
            reasons=reasons,
            peers=len(peers["peers"]),
        )
        return await self._with_counts(sample)

    async def _with_counts(self, sample: Sample) -> Sample:
        now = trio.current_time()
        before = self.sample
        if self._counts is not None and sample.height == self._counted_height:
            return sample if now - self._counted_at > METRICS_INTERVAL_S else _rates_of(before, sample)
        if self._counts is not None and now - self._counted_at < METRICS_INTERVAL_S:
            return _rates_of(before, sample)
        _, body = await self._metrics.get("/metrics")
        counts, last, seconds = Counts.parse(body.decode()), self._counts, now - self._counted_at
        self._counts, self._counted_at, self._counted_height = counts, now, sample.height
        if last is None or counts.transactions < last.transactions:
            return sample
        finished = counts.finality_count - last.finality_count
        finality_ms = 1000 * (counts.finality_sum_s - last.finality_sum_s) / finished if finished > 0 else None
        return replace(sample, tx_per_s=(counts.transactions - last.transactions) / seconds, finality_ms=finality_ms)

    def _with_usage(self, sample: Sample, fleet: Fleet) -> Sample:
        now, last = trio.current_time(), self._usage
        usage = fleet.usage(sample.name)
        seconds, self._usage, self._used_at = now - self._used_at, usage, now
        if usage is None:
            return sample
        cpu = None
        if last is not None and seconds > 0 and usage.cpu_s >= last.cpu_s:
            cpu = (usage.cpu_s - last.cpu_s) / seconds
        return replace(sample, cpu=cpu, rss_anon=usage.rss_anon)


def _rates_of(before: Sample, sample: Sample) -> Sample:
    return replace(sample, tx_per_s=before.tx_per_s, finality_ms=before.finality_ms)


async def look_at_all(watches: dict[str, Watch], fleet: Fleet) -> list[Sample]:
    """Takes a sample of every node at once, new ones included."""
    for name, member in fleet.members.items():
        if name not in watches:
            watches[name] = Watch(member)
    async with trio.open_nursery() as nursery:
        for watch in watches.values():
            nursery.start_soon(watch.look, fleet)
    return [watch.sample for watch in watches.values()]


def unready(watches: Iterable[Watch]) -> dict[str, Any]:
    """Returns, by node, why it is not ready; nothing when all are. A clock that was set apart is no reason."""
    found: dict[str, Any] = {}
    for watch in watches:
        sample = watch.sample
        reasons = [reason for reason in sample.reasons if not (reason == CLOCK_OFF and watch.member.own_clock)]
        if sample.height is None:
            found[sample.name] = ["does not answer"]
        elif reasons:
            found[sample.name] = reasons
    return found
