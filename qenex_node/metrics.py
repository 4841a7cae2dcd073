"""Every metric of the node, declared once, and the place where their values are kept until Prometheus asks.

Names follow the Prometheus conventions. Labels have declared values, so that every series stands at zero from the start
and none is made by what a peer or client sends; where a label has "other", an undeclared value counts as that. Values
are plain numbers: counting costs less than a microsecond. What other parts count for themselves is read when asked for
(`source`). docs/operations.md's table comes from here.
"""

from __future__ import annotations

import os
import resource
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from p2p.counters import CLOSE_REASONS
from p2p.wire import Kind
from state.errors import InvariantError

OTHER: Final = "other"
LABEL_VALUES_SHOWN: Final = 24
CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"

_FRAMES: Final = tuple(kind.name.lower() for kind in Kind)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """One metric: its full name, its type, what it tells, and each label with its values."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    doc: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()


DECLARED: Final[list[Declared]] = []


def _declare(metric: Declared) -> Declared:
    DECLARED.append(metric)
    return metric


def _counter(name: str, doc: str, **labels: tuple[str, ...]) -> Declared:
    return _declare(Declared(f"qenex_{name}_total", "counter", doc, labels))


def _gauge(name: str, doc: str, **labels: tuple[str, ...]) -> Declared:
    return _declare(Declared(f"qenex_{name}", "gauge", doc, labels))


def _histogram(name: str, doc: str, buckets: tuple[float, ...] = _SECONDS) -> Declared:
    return _declare(Declared(f"qenex_{name}", "histogram", doc, {}, buckets))


# The chain and its state.
CHAIN_HEIGHT: Final = _gauge("chain_height", "Height of the newest committed block.")
CHAIN_HEAD_TIME: Final = _gauge("chain_head_time_seconds", "Time of the newest committed block, since 1970 UTC.")
CHAIN_BLOCKS: Final = _counter("chain_blocks", "Blocks committed by this process.", way=("consensus", "sync"))
CHAIN_TRANSACTIONS: Final = _counter(
    "chain_transactions", "Transactions in those blocks, by their receipts.", outcome=("ok", "failed")
)
CHAIN_UNITS: Final = _counter("chain_units", "Units of work used by those blocks.")
CHAIN_BYTES: Final = _counter("chain_bytes", "Bytes of the transactions in those blocks.")
BLOCK_TRANSACTIONS: Final = _histogram("chain_block_transactions", "Transactions in a block.", _COUNTS)
EXECUTE_SECONDS: Final = _histogram("chain_execute_seconds", "Time to execute a block, building or validating it.")
COMMIT_SECONDS: Final = _histogram("chain_commit_seconds", "Time to write a block with its state, durably.")
FINALITY_SECONDS: Final = _histogram(
    "chain_finality_seconds", "Time from a transaction's arrival at this node to its commit."
)
STATE_OLDEST_HEIGHT: Final = _gauge("state_oldest_height", "The oldest height whose state can be proved.")
STATE_PRUNED: Final = _counter("state_pruned_nodes", "Tree nodes removed by pruning.")
SNAPSHOT_HEIGHT: Final = _gauge("snapshot_height", "Height of the newest snapshot that is kept here.")
SNAPSHOT_SECONDS: Final = _gauge("snapshot_seconds", "How long the newest one that was made here took.")
SNAPSHOT_SERVED: Final = _counter("snapshot_served_bytes", "Bytes of snapshots sent to peers.")
STORE_BYTES: Final = _gauge("store_bytes", "Size of the database's files.")
DISK_FREE_BYTES: Final = _gauge("disk_free_bytes", "Free space where the database lies.")

# Consensus.
CONSENSUS_HEIGHT: Final = _gauge("consensus_height", "The height being decided.")
CONSENSUS_VIEW: Final = _gauge("consensus_view", "The view that the node is in.")
CONSENSUS_PRIMARY: Final = _gauge("consensus_primary", "1 while this node is the primary.")
CONSENSUS_VOTING: Final = _gauge(
    "consensus_voting", "1 while this node votes; 0 on a full node, or when it must not: /ready says why."
)
CONSENSUS_VALIDATORS: Final = _gauge("consensus_validators", "Validators in force.")
CONSENSUS_QUORUM: Final = _gauge("consensus_quorum", "Votes that make a certificate.")
PROPOSALS: Final = _counter(
    "consensus_proposals", "Proposals, by what became of them here.", outcome=("made", "accepted", "invalid", "not_yet")
)
CONSENSUS_MESSAGES: Final = _counter(
    "consensus_messages",
    "Consensus messages from others.",
    outcome=("taken", "rejected", "malformed", "bad_signature", OTHER),
)
SUSPICIONS: Final = _counter(
    "consensus_suspicions",
    "Times that this node began to suspect a primary.",
    reason=(
        "no_progress",
        "view_change_unanswered",
        "equivocation",
        "invalid_proposal",
        "left_out",
        "primary_unreachable",
        OTHER,
    ),
)
VIEW_CHANGES: Final = _counter("consensus_view_changes", "Views entered after a view change.")
EVIDENCE: Final = _counter(
    "consensus_evidence", "Equivocations proved.", kind=("pre_prepare", "prepare", "commit", OTHER)
)
DECIDE_SECONDS: Final = _histogram("consensus_decide_seconds", "Time from a proposal's acceptance to its commit.")
PERSIST_SECONDS: Final = _histogram("consensus_persist_seconds", "Time to write vote records, durably.")

# The mempool.
MEMPOOL_TRANSACTIONS: Final = _gauge("mempool_transactions", "Waiting transactions.", state=("ready", "gap", "overdue"))
MEMPOOL_BYTES: Final = _gauge("mempool_bytes", "Their bytes.")
MEMPOOL_ACCOUNTS: Final = _gauge("mempool_accounts", "Accounts that have some.")
MEMPOOL_OLDEST: Final = _gauge("mempool_oldest_seconds", "How long the one that is ready longest has been ready.")
MEMPOOL_ADMITTED: Final = _counter("mempool_admitted", "Transactions taken in.", origin=("client", "peer"))
MEMPOOL_KNOWN: Final = _counter("mempool_known", "Transactions that came again.")
MEMPOOL_REJECTED: Final = _counter(
    "mempool_rejected",
    "Transactions refused, by the error's code.",
    code=(
        "account_limit",
        "bad_signature",
        "busy",
        "deadline_too_far",
        "expired",
        "fee_too_low",
        "fee_unaffordable",
        "internal_error",
        "malformed",
        "mempool_full",
        "not_authorised",
        "operation_unknown",
        "scheme_unknown",
        "sequence_taken",
        "sequence_too_far",
        "sequence_used",
        "transaction_too_heavy",
        "transaction_too_large",
        "version_unknown",
        "wrong_chain",
        OTHER,
    ),
)
MEMPOOL_REMOVED: Final = _counter(
    "mempool_removed", "Transactions that left.", reason=("committed", "stale", "expired", "dropped")
)
MEMPOOL_QUEUE_BYTES: Final = _gauge("mempool_queue_bytes", "Bytes that wait to be admitted.")

# Peers.
PEERS: Final = _gauge("p2p_peers", "Connected peers.", role=("validator", "full"), direction=("inbound", "outbound"))
QUORUM_REACHABLE: Final = _gauge(
    "p2p_quorum_reachable", "1 while enough validators are within reach, this node included, to make a quorum."
)
CLOCK_OFFSET: Final = _gauge(
    "p2p_clock_offset_seconds",
    "The peers' clocks minus ours: the median, and the one farthest off.",
    of=("median", "farthest"),
)
P2P_MESSAGES: Final = _counter("p2p_messages", "Frames.", direction=("in", "out"), kind=_FRAMES)
P2P_BYTES: Final = _counter("p2p_bytes", "Bytes of frames.", direction=("in", "out"), kind=_FRAMES)
P2P_OVER_BUDGET: Final = _counter("p2p_over_budget", "Frames beyond a peer's receive budget.", kind=_FRAMES)
P2P_CLOSED: Final = _counter("p2p_connections_closed", "Connections that ended.", reason=(*CLOSE_REASONS, OTHER))
P2P_FLOODS: Final = _counter(
    "p2p_floods", "Messages through the whole network.", event=("originated", "delivered", "duplicate", "relayed")
)
P2P_BANS: Final = _counter("p2p_bans", "Nodes banned for a time.")
P2P_DIALS: Final = _counter("p2p_dials", "Connections tried.")
SYNC_TARGET: Final = _gauge("sync_target_height", "The highest height that is proved to exist.")
SYNC_SYNCING: Final = _gauge("sync_syncing", "1 while the node fetches blocks that others have.")

# Clients.
RPC_REQUESTS: Final = _counter("rpc_requests", "Calls answered.", method=(OTHER,), outcome=("ok", "error"))
RPC_ERRORS: Final = _counter("rpc_errors", "Calls answered with an error.", error=(OTHER,))
RPC_REQUEST_SECONDS: Final = _counter("rpc_request_seconds", "Time spent on calls, waits included.", method=(OTHER,))
RPC_CONNECTIONS: Final = _gauge("rpc_connections", "Open connections.", transport=("http", "websocket"))
RPC_SUBSCRIPTIONS: Final = _gauge("rpc_subscriptions", "Open subscriptions.")
RPC_DROPPED: Final = _counter(
    "rpc_dropped",
    "Connections and subscriptions refused or ended by a limit.",
    reason=(
        "bodies_bytes_max",
        "body_bytes_max",
        "body_parts_max",
        "body_timeout_s",
        "connections_max",
        "connections_per_address_max",
        "header_bytes_max",
        "header_timeout_s",
        "host_not_allowed",
        "idle_evicted",
        "idle_timeout_s",
        "internal_error",
        "malformed_http",
        "origin_not_allowed",
        "ping_timeout",
        "slow_reader",
        "subscription_too_far_behind",
        "websocket_handshake",
        OTHER,
    ),
)

# The process.
BUILD: Final = _gauge("build_info", "Always 1; the version is the label.", version=())
PROCESS_CPU: Final = _counter("process_cpu_seconds", "Processor time used.", mode=("user", "system"))
PROCESS_MEMORY: Final = _gauge(
    "process_memory_bytes",
    "Memory in use: all that is resident, and the part that is no file's (RssAnon).",
    kind=("resident", "anonymous"),
)
PROCESS_THREADS: Final = _gauge("process_threads", "Threads.")
PROCESS_DESCRIPTORS: Final = _gauge("process_open_descriptors", "Open file descriptors.")
PROCESS_START: Final = _gauge("process_start_time_seconds", "When the node started, since 1970 UTC.")
LOOP_LAG_SECONDS: Final = _histogram("process_loop_lag_seconds", "How late the event loop ran a task that was due.")

Reading: TypeAlias = tuple[Declared, tuple[str, ...], float]
Source: TypeAlias = Callable[[], Iterable[Reading]]


@dataclass(slots=True, eq=False)
class _Histogram:
    counts: list[int]
    total: float = 0.0


class Metrics(Collector):
    """The values of one node's metrics, in a registry of its own."""

    def __init__(self, version: str, *, rpc_methods: Iterable[str] = (), rpc_errors: Iterable[str] = ()) -> None:
        """Takes what only the running node knows: its version, and the RPC's methods and error names as labels."""
        known = {
            (BUILD, "version"): (version,),
            (RPC_REQUESTS, "method"): (*sorted(rpc_methods), OTHER),
            (RPC_REQUEST_SECONDS, "method"): (*sorted(rpc_methods), OTHER),
            (RPC_ERRORS, "error"): (*sorted(rpc_errors), OTHER),
        }
        self._labels: dict[Declared, list[tuple[str, ...]]] = {}
        self._values: dict[Declared, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[Declared, _Histogram] = {}
        self._sources: list[Source] = []
        for metric in DECLARED:
            values = [known.get((metric, label), declared) for label, declared in metric.labels.items()]
            self._labels[metric] = values
            if metric.kind == "histogram":
                self._histograms[metric] = _Histogram([0] * (len(metric.buckets) + 1))
            else:
                self._values[metric] = dict.fromkeys(_combinations(values), 0)
        self.set(BUILD, 1, version)
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def add(self, metric: Declared, amount: float, *labels: str) -> None:
        """Adds to a counter or gauge; the labels' values are in the declared order."""
        values = self._values[metric]
        try:
            values[labels] += amount
        except KeyError:
            values[self._fallback(metric, labels)] += amount

    def set(self, metric: Declared, value: float, *labels: str) -> None:
        """Sets a gauge, or a counter that another part keeps."""
        values = self._values[metric]
        values[labels if labels in values else self._fallback(metric, labels)] = value

    def observe(self, metric: Declared, value: float) -> None:
        """Notes one observation in a histogram."""
        histogram = self._histograms[metric]
        histogram.counts[bisect_left(metric.buckets, value)] += 1
        histogram.total += value

    def value(self, metric: Declared, *labels: str) -> float:
        """Returns a counter's or gauge's value as it was last set here."""
        return self._values[metric][labels]

    def source(self, read: Source) -> None:
        """Registers what is read anew for each exposition: it gives (metric, label values, value)."""
        self._sources.append(read)

    def render(self) -> bytes:
        """Returns all metrics in the Prometheus text format, for CONTENT_TYPE."""
        return generate_latest(self.registry)

    def describe(self) -> Iterator[Metric]:
        """Returns nothing: names are unique by declaration, and registering must not read the sources."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Reads all sources and yields every metric."""
        for read in self._sources:
            for metric, labels, value in read():
                self.set(metric, value, *labels)
        for metric in DECLARED:
            yield self._family(metric)

    def _family(self, metric: Declared) -> Metric:
        if metric.kind == "histogram":
            histogram = self._histograms[metric]
            counts = _running_totals(histogram.counts)
            bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
            family = HistogramMetricFamily(metric.name, metric.doc)
            family.add_metric([], list(zip(bounds, counts, strict=True)), histogram.total)
            return family
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        scalar: Any = kind(metric.name, metric.doc, labels=list(metric.labels))
        for labels, value in self._values[metric].items():
            scalar.add_metric(labels, value)
        return scalar  # type: ignore[no-any-return]

    def _fallback(self, metric: Declared, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the labels with "other" for undeclared values where that is declared."""
        declared = self._labels[metric]
        if len(labels) == len(declared):
            mapped = tuple(value if value in known else OTHER for value, known in zip(labels, declared, strict=True))
            if mapped in self._values[metric]:
                return mapped
        raise InvariantError(f"{metric.name} has no series with the labels {labels}")


def _running_totals(counts: list[int]) -> list[float]:
    totals: list[float] = []
    total = 0
    for count in counts:
        total += count
        totals.append(total)
    return totals


def _combinations(values: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    combinations: list[tuple[str, ...]] = [()]
    for known in values:
        combinations = [(*start, value) for start in combinations for value in known]
    return combinations


class RpcCounters:
    """What the RPC server counts, in the node's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        """Takes the node's metrics."""
        self._metrics = metrics

    def answered(self, method: str, outcome: str, count: int, seconds: float) -> None:
        """`count` calls of `method` ended with "ok" or an error's name, in `seconds` together."""
        ok = outcome == "ok"
        self._metrics.add(RPC_REQUESTS, count, method, "ok" if ok else "error")
        self._metrics.add(RPC_REQUEST_SECONDS, seconds, method)
        if not ok:
            self._metrics.add(RPC_ERRORS, count, outcome)

    def connections(self, transport: str, change: int) -> None:
        """Connections rose or fell."""
        self._metrics.add(RPC_CONNECTIONS, change, transport)

    def subscriptions(self, change: int) -> None:
        """Subscriptions rose or fell."""
        self._metrics.add(RPC_SUBSCRIPTIONS, change)

    def dropped(self, reason: str) -> None:
        """Something was refused or ended by the limit of this name."""
        self._metrics.add(RPC_DROPPED, 1, reason)


def p2p_source(counters: Mapping[str, Mapping[str, int]]) -> Source:
    """Returns the source that reads what the peer layer counts (`p2p.counters.Counters.values`)."""

    def read() -> Iterator[Reading]:
        for direction in ("in", "out"):
            for kind in _FRAMES:
                yield P2P_MESSAGES, (direction, kind), counters[f"messages_{direction}"][kind]
                yield P2P_BYTES, (direction, kind), counters[f"bytes_{direction}"][kind]
        for kind in _FRAMES:
            yield P2P_OVER_BUDGET, (kind,), counters["over_budget"][kind]
        for reason, count in counters["connections_closed"].items():
            yield P2P_CLOSED, (reason,), count
        for event, count in counters["floods"].items():
            yield P2P_FLOODS, (event,), count
        yield P2P_BANS, (), counters["bans"]["total"]
        yield P2P_DIALS, (), counters["dials"]["total"]

    return read


def clock_offsets(offsets_ms: Iterable[float]) -> tuple[Reading, Reading]:
    """Returns the readings for the peers' clock offsets (theirs minus ours, in ms); zero without peers."""
    ordered = sorted(offsets_ms)
    median = ordered[len(ordered) // 2] if ordered else 0.0
    farthest = max(ordered, key=abs, default=0.0)
    return (CLOCK_OFFSET, ("median",), median / 1000), (CLOCK_OFFSET, ("farthest",), farthest / 1000)


def process_source() -> Iterator[Reading]:
    """Reads the process's own numbers; what this system does not tell stays at zero."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield PROCESS_CPU, ("user",), usage.ru_utime
    yield PROCESS_CPU, ("system",), usage.ru_stime
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    yield PROCESS_MEMORY, ("resident",), int(fields["VmRSS"].split()[0]) * 1024
    yield PROCESS_MEMORY, ("anonymous",), int(fields["RssAnon"].split()[0]) * 1024
    yield PROCESS_THREADS, (), int(fields["Threads"])
    yield PROCESS_DESCRIPTORS, (), descriptors


def _file_sizes(directory: Path) -> Iterator[int]:
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                # LevelDB removes files beside us.
                continue


def disk_source(path: Path) -> Source:
    """Returns the source that reads the free space and the size of the database's directory."""

    def read() -> Iterator[Reading]:
        space = os.statvfs(path)
        yield DISK_FREE_BYTES, (), space.f_bavail * space.f_frsize
        yield STORE_BYTES, (), sum(_file_sizes(path))

    return read


def _label(name: str, values: tuple[str, ...]) -> str:
    if not 1 < len(values) <= LABEL_VALUES_SHOWN:
        return f"`{name}`"
    return f"`{name}` ({', '.join(values)})"


def table() -> str:
    """Returns the Markdown table of all metrics for docs/operations.md."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in DECLARED:
        labels = ", ".join(_label(label, values) for label, values in metric.labels.items())
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.doc} |")
    return "\n".join(rows)
