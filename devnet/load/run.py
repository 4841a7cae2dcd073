"""One load from start to end: prepare, offer, wait for what is under way, audit, and tell the result."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from devnet import procfs
from devnet.files import read_network
from devnet.load.audit import Audit, Findings, Holding, read_holdings
from devnet.load.book import Book, Fate
from devnet.load.finality import Finality
from devnet.load.latency import percentiles
from devnet.load.signing import Place, Signed, Signer, Terms, sign_ahead
from devnet.load.target import Target
from devnet.load.traffic import COMMITTED_RATE_MAX, IN_FLIGHT_DEFAULT, Group, Traffic, places
from qenex_node.client.errors import TransportError
from qenex_node.testnet import NATIVE, Network, read_testnet
from state.address import to_text
from state.errors import Rejected
from state.types import ChainContext, Hash

AHEAD_PER_SECOND: Final = 2_500
AHEAD_MAX: Final = 300_000
VALID_SECONDS: Final = 60
IDLE_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05
NUDGE_LANE: Final = 15
NUDGE_SECONDS: Final = 1.0
NUDGES_MAX: Final = 60
NUDGE_VALID_MS: Final = 3_600_000

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is asked for. `rate` in transactions a second (None: as fast as they are taken, `in_flight` under way).

    `wait` is what each request waits for, "accepted" or "committed" (None: committed where the rate is low).
    """

    rate: float | None = None
    seconds: float = 10.0
    accounts: int = 1_000
    transfers: int = 1
    in_flight: int = IN_FLIGHT_DEFAULT
    wait: str | None = None

    def check(self, network: Network) -> None:
        """Raises Rejected("load_invalid") for what cannot be."""
        if self.accounts > network.bulk_accounts:
            raise Rejected(
                "load_invalid",
                f"the network has {network.bulk_accounts} accounts for load, not {self.accounts}: "
                "`qenex devnet up --fresh --accounts N` makes more",
            )
        if self.accounts < 2:
            raise Rejected("load_invalid", "a load needs at least 2 accounts")

    @property
    def waits_for_commit(self) -> bool:
        """Whether each request waits until its transactions are final."""
        if self.wait is not None:
            return self.wait == "committed"
        return self.rate is not None and self.rate <= COMMITTED_RATE_MAX


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What a node took during the load: CPU seconds since the load or, started later, its process began; and memory."""

    name: str
    pid: int | None
    cpu_s: float | None
    usage: procfs.Usage | None

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Returns CPU seconds and share of one core, memory in bytes; None for a node that did not run at the end."""
        cpu_s, usage = self.cpu_s, self.usage
        return {
            "name": self.name,
            "pid": self.pid,
            "cpu_s": None if cpu_s is None else round(cpu_s, 2),
            "cpu_share": None if cpu_s is None or not seconds else round(cpu_s / seconds, 3),
            "rss": None if usage is None else usage.rss,
            "rss_anon": None if usage is None else usage.rss_anon,
        }


@dataclass(slots=True)
class Result:
    """The outcome of a load; `to_json` is its whole form."""

    plan: LoadPlan
    book: Book
    findings: Findings
    began: float
    offered_s: float
    nodes: list[NodeUse]
    client_cpu_s: float
    unsettled: int
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that must not be."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Returns the result; times in s or ms as named, memory in bytes, CPU in seconds and shares of one core."""
        book, totals, findings = self.book, self.book.totals, self.findings
        within = sum(at <= self.began + self.offered_s for at in book.commit_times)
        return {
            "tps": round(within / self.offered_s, 1) if self.offered_s else 0.0,
            "sent": totals.sent,
            "accepted": totals.accepted,
            "committed": findings.committed,
            "failed": findings.failed,
            "expired": totals.expired,
            "rejected": totals.rejected,
            "unsettled": self.unsettled,
            "lost": len(findings.lost),
            "doubled": len(findings.doubled),
            "reopened": totals.reopened,
            "resubmitted_accepted": totals.resubmitted_accepted,
            "refusals": book.reasons,
            "latency_ms": percentiles(book.latencies).to_json(),
            "seconds": round(self.offered_s, 2),
            "blocks": findings.blocks,
            "head": {"height": findings.height, "hash": findings.head, "state_root": findings.state_root},
            "nodes": [use.to_json(self.offered_s) for use in self.nodes],
            "client_cpu_s": round(self.client_cpu_s, 2),
            "verified": self.ok,
            "problems": self.problems,
        }


@dataclass(slots=True)
class _Begin:
    """Where the chain and the accounts stand before the load."""

    height: int
    context: ChainContext
    holdings: list[Holding]
    addresses: list[str]
    supply: str
    now_ms: int


class Load:
    """One load against the network in a home."""

    def __init__(self, home: Path, plan: LoadPlan, tell: Tell) -> None:
        """Takes what is asked for, and whom to tell how it goes; raises Rejected."""
        self._home = home
        self._plan = plan
        self._tell = tell
        self._network = read_testnet(home)
        plan.check(self._network)
        nodes = read_network(home)["nodes"]
        self._validators = [node for node in nodes if node["role"] == "validator"]
        if not any(node["pid"] for node in self._validators):
            raise Rejected("devnet_down", f"no node runs in {home}: start the network with `qenex devnet up`")

    def run(self) -> Result:
        """Carries it out; raises Rejected or TransportError if the network cannot be loaded at all."""
        begin = trio.run(self._begin)
        terms, groups = self._sign_ahead(begin)
        return trio.run(self._load, begin, terms, groups)

    async def _begin(self) -> _Begin:
        """Reads where all stands, once nothing of an earlier load is under way."""
        count = self._plan.accounts
        probe = Terms(self._network.seed, ChainContext("", Hash(self._network.genesis_hash)), count, 1, 0)
        signer = Signer(probe)
        addresses = [to_text(signer.address(account)) for account in range(count)]
        target = await self._first_up()
        deadline = trio.current_time() + IDLE_SECONDS
        while True:
            status, mempool = await target.read([("qenex_status", []), ("mempool_status", [])])
            if mempool["count"] == 0:
                break
            if trio.current_time() > deadline:
                raise Rejected("load_busy", f"{mempool['count']} transactions wait already: load an idle network")
            await trio.sleep(POLL_SECONDS)
        height = status["head"]["height"]
        holdings = await read_holdings(target, addresses, height)
        (asset,) = await target.read([("qenex_getAsset", [NATIVE, height])])
        target.close()
        context = ChainContext(status["chain_id"], Hash(bytes.fromhex(status["genesis_hash"][2:])))
        now_ms = max(status["head"]["time_ms"], time.time_ns() // 1_000_000)
        return _Begin(height, context, holdings, addresses, asset["supply"], now_ms)

    async def _first_up(self) -> Target:
        for node in self._validators:
            target = Target(node["name"], node["rpc"])
            with suppress(TransportError):
                if node["pid"]:
                    await target.read([("qenex_status", [])], 5.0)
                    return target
        raise Rejected("node_unreachable", "no validator answers")

    def _sign_ahead(self, begin: _Begin) -> tuple[Terms, list[Group]]:
        plan = self._plan
        wanted = round((plan.rate or AHEAD_PER_SECOND) * plan.seconds)
        count = min(wanted, AHEAD_MAX)
        # Signing takes some 20 us each, on as many cores as there are.
        not_after_ms = begin.now_ms + round(1000 * (plan.seconds + VALID_SECONDS)) + count // 20
        terms = Terms(self._network.seed, begin.context, plan.accounts, plan.transfers, not_after_ms)
        width = len(self._validators)
        groups = [
            Group(
                number,
                accounts := list(range(number, plan.accounts, width)),
                deque(),
                {account: begin.holdings[account].lanes[0] for account in accounts},
            )
            for number in range(width)
        ]
        groups = [group for group in groups if group.accounts]
        self._tell(f"signing {count} transactions ahead")
        wished = [places(group.accounts, group.sequences, count // len(groups) + 1) for group in groups]
        flat: list[Place] = [place for own in wished for place in own]
        signed: list[Signed] = sign_ahead(terms, flat)
        for group, own in zip(groups, wished, strict=True):
            group.ready.extend(signed[: len(own)])
            del signed[: len(own)]
        return terms, groups

    async def _load(self, begin: _Begin, terms: Terms, groups: list[Group]) -> Result:
        plan = self._plan
        book, signer = Book(len(groups)), Signer(terms)
        targets = [Target(node["name"], node["rpc"]) for node in self._validators]
        traffic = Traffic(targets, groups, book, signer)
        finality = Finality(targets, book, begin.height + 1)
        cpu_of_pid = {use.pid: use.cpu_s for use in self._uses({})}
        cpu_before = _own_cpu_s()
        async with trio.open_nursery() as nursery:
            if plan.waits_for_commit:
                traffic.await_commits()
            else:
                nursery.start_soon(finality.run)
            nursery.start_soon(traffic.send_open_again, nursery)
            self._tell(f"offering load for {plan.seconds:g} s")
            began = trio.current_time()
            if plan.rate is None:
                await traffic.as_taken(plan.seconds, plan.in_flight, nursery)
            else:
                await traffic.at_rate(plan.rate, plan.seconds, nursery)
            offered_s = trio.current_time() - began
            nodes = self._uses(cpu_of_pid)
            client_cpu_s = _own_cpu_s() - cpu_before
            self._tell("waiting for what is under way")
            unsettled = await self._drain(book, terms, traffic, begin)
            nursery.cancel_scope.cancel()
        self._tell("checking every transaction and account on all nodes")
        running = self._running_targets()
        audit = Audit(running, book, terms, begin.addresses, begin.holdings, begin.height, begin.supply)
        findings = await audit.run()
        result = Result(plan, book, findings, began, offered_s, nodes, client_cpu_s, unsettled)
        result.problems += findings.problems
        if unsettled:
            result.problems.append(f"{unsettled} transactions are neither committed nor reported expired")
        for target in (*targets, *running):
            target.close()
        return result

    async def _drain(self, book: Book, terms: Terms, traffic: Traffic, begin: _Begin) -> int:
        """Waits until everything is settled; returns how many transactions never were.

        Once the deadline has passed, nothing can be committed any more, but only a later block makes that a fact: an
        otherwise idle network is given transactions until it has made one.
        """
        nudge = begin.holdings[0].lanes[NUDGE_LANE]
        late = Signer(replace(terms, not_after_ms=terms.not_after_ms + NUDGE_VALID_MS))
        for _ in range(NUDGES_MAX):
            while not book.all_settled() and time.time_ns() // 1_000_000 <= terms.not_after_ms:
                await trio.sleep(POLL_SECONDS)
            if book.all_settled():
                return 0
            traffic.sends_again = False
            await traffic.send_one(late.sign(0, NUDGE_LANE, nudge))
            nudge += 1
            await trio.sleep(NUDGE_SECONDS)
            await self._ask_fates(book, terms.not_after_ms)
        return sum(map(len, book.unsettled))

    async def _ask_fates(self, book: Book, not_after_ms: int) -> None:
        """Asks every running node what became of what is not settled.

        A node whose newest block is later than the deadline, and in whose chain a transaction is not, proves that the
        transaction never will be in it: so it need not remember having known the transaction.
        """
        for target in self._running_targets():
            entries = [entry for group in book.unsettled for entry in group.values()]
            with suppress(TransportError):
                (status,) = await target.read([("qenex_status", [])], 10.0)
                told = await target.read([("qenex_getTransaction", [entry.signed.id]) for entry in entries], 10.0)
                late = status["head"]["time_ms"] > not_after_ms
                for entry, answer in zip(entries, told, strict=True):
                    if answer["status"] == "committed":
                        book.committed([entry.signed.id], trio.current_time())
                    elif late and entry.signed.lane != NUDGE_LANE and entry.fate < Fate.COMMITTED:
                        book.settle(entry, Fate.EXPIRED)
            target.close()

    def _uses(self, cpu_before: Mapping[int | None, float | None]) -> list[NodeUse]:
        """Returns what the nodes take now, CPU seconds beyond those that their processes had taken before."""
        uses: list[NodeUse] = []
        for node in read_network(self._home)["nodes"]:
            usage = procfs.usage(node["pid"]) if node["pid"] else None
            cpu_s = None if usage is None else usage.cpu_s - (cpu_before.get(node["pid"]) or 0.0)
            uses.append(NodeUse(node["name"], node["pid"], cpu_s, usage))
        return uses

    def _running_targets(self) -> list[Target]:
        nodes: Sequence[Mapping[str, Any]] = read_network(self._home)["nodes"]
        return [Target(node["name"], node["rpc"]) for node in nodes if node["pid"]]


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system
