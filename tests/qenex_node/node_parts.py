"""A node's parts over a real store and ledger, with a core that the test scripts and peers that only take notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from consensus.interface import Effect, Input, Tick
from p2p.hello import Role
from p2p.wire import Kind
from qenex_node.commits import Commits
from qenex_node.driver import Driver
from qenex_node.evidence import EvidencePool
from qenex_node.fates import Fates
from qenex_node.gossip import Gossip
from qenex_node.housekeeping import Housekeeping
from qenex_node.journal import Journal
from qenex_node.leftout import LeftOut
from qenex_node.mempool import Mempool, MempoolLimits
from qenex_node.metrics import Metrics
from qenex_node.node import next_sequence
from qenex_node.proposals import Proposals
from qenex_node.rpc.feed import Feed
from qenex_node.sync import BlockSync
from state.execution import ExecutedBlock
from state.transaction import Transaction
from tests.state.store.store_support import LEDGER, VALIDATOR_KEYS, Chain

DRIFT_MS = 5_000


class FakePeer:
    """A direct peer that notes what is sent to it."""

    def __init__(self, name: str, validator_key: bytes | None) -> None:
        self.id = self.name = name
        self.validator_key = validator_key
        self.role = Role.FULL if validator_key is None else Role.VALIDATOR
        self.neighbours: frozenset[str] = frozenset()
        self.queued_bytes = 0
        self.height = 0
        self.vote_seen: bytes | None = None
        self.pings = SimpleNamespace(latency_ms=1.0)
        self.sent: list[tuple[Kind, Any]] = []

    def send(self, kind: Kind, body: Any) -> bool:
        self.sent.append((kind, body))
        return True

    def note_height(self, height: int) -> None:
        self.height = height

    def got(self, kind: Kind) -> list[Any]:
        return [body for sent, body in self.sent if sent is kind]


class FakeNetwork:
    """Peers v1 to v3 of the node v0; `on_flood` is told when something leaves for all."""

    def __init__(self) -> None:
        self.peers = [FakePeer(f"v{n}", VALIDATOR_KEYS[n].public.data) for n in (1, 2, 3)]
        self.floods: list[tuple[Kind, Any]] = []
        self.relays: list[bytes] = []
        self.reports: list[tuple[str, str]] = []
        self.on_flood: Callable[[], None] = lambda: None

    def connected(self) -> Sequence[FakePeer]:
        return self.peers

    def flood(self, kind: Kind, body: Any, *, after_transactions: bool = False) -> int:
        self.floods.append((kind, body))
        self.on_flood()
        return len(self.peers)

    def relay(self, kind: Kind, raw: bytes, peer: FakePeer, *, after_transactions: bool = False) -> int:
        self.relays.append(raw)
        return 1

    def report(self, peer: FakePeer, points: float, reason: str) -> None:
        self.reports.append((peer.name, reason))


class ScriptedCore:
    """A core that answers each kind of input with the effects that the test lists for it, once."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.answers: dict[type, list[Effect | Exception]] = {}
        self.evidence: tuple[Any, ...] = ()
        self.height = 1
        self.view = 0
        self.primary = 0
        self.proposal: Any = None

    def step(self, event: Input) -> tuple[Effect, ...]:
        if not isinstance(event, Tick):
            self.inputs.append(event)
        effects: list[Effect] = []
        for answer in self.answers.pop(type(event), []):
            if isinstance(answer, Exception):
                raise answer
            effects.append(answer)
        return tuple(effects)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.inputs if isinstance(event, kind)]

    def snapshot(self) -> Any:
        return SimpleNamespace(
            height=self.height,
            view=self.view,
            primary=self.primary,
            index=0,
            may_sign=True,
            refusal=None,
            proposal=self.proposal,
        )

    def latest_vote(self, index: int) -> None:
        return None


class Parts:
    """Everything of a node but its sockets; `votes` says whether it has vote records, as validators do."""

    def __init__(self, path: Path, *, votes: bool = True, **limits: int) -> None:
        self.chain = Chain(path / "data")
        self.store = self.chain.store
        if votes:
            self.store.create_votes(VALIDATOR_KEYS[0].public.data)
        self.core: Any = ScriptedCore()
        self.key = VALIDATOR_KEYS[0].public.data if votes else None
        self.now_ms = self.store.head.time_ms + 1_000
        self.metrics = Metrics("test")
        self.mempool = Mempool(
            MempoolLimits(**limits), lambda sender, lane: next_sequence(self.chain.executor, sender, lane)
        )
        self.fates, self.feed, self.left_out = Fates(), Feed(), LeftOut(1_000)
        self.network: Any = FakeNetwork()
        self._join()

    def _join(self) -> None:
        executor, store = self.chain.executor, self.store
        self.gossip = Gossip(
            context=executor.context,
            ledger=LEDGER,
            reader=lambda: executor.state,
            mempool=self.mempool,
            fates=self.fates,
            validators=lambda: store.validators,
            validator_key=self.key,
            sign=VALIDATOR_KEYS[0].sign,
            now_ms=lambda: self.now_ms,
            on_work=lambda: self.driver.work_changed(),
            is_committed=lambda tx_id: store.locate(tx_id) is not None,
            queue_bytes_max=1 << 20,
        )
        self.evidence = EvidencePool(store, executor)
        self.commits = Commits(
            store=store,
            executor=executor,
            mempool=self.mempool,
            gossip=self.gossip,
            fates=self.fates,
            feed=self.feed,
            left_out=self.left_out,
            metrics=self.metrics,
            now_ms=lambda: self.now_ms,
        )
        self.proposals = Proposals(
            store=store,
            executor=executor,
            mempool=self.mempool,
            gossip=self.gossip,
            commits=self.commits,
            evidence=self.evidence,
            metrics=self.metrics,
            key=VALIDATOR_KEYS[0].public.data,
            drift_ms=DRIFT_MS,
            target_ms=500,
            units_max=20_000,
            now_ms=lambda: self.now_ms,
        )
        self.sync = BlockSync(
            store, executor.context.genesis_hash, lambda block, cert: self.commits.certified(block, cert, "sync")
        )
        self.journal = Journal(self.metrics, lambda: self.now_ms, trio.current_time, self.evidence.recorded_at)
        self.driver = Driver(
            context=executor.context,
            replica=self.core,
            key=self.key,
            store=store,
            mempool=self.mempool,
            gossip=self.gossip,
            commits=self.commits,
            proposals=self.proposals,
            sync=self.sync,
            feed=self.feed,
            journal=self.journal,
            left_out=self.left_out,
            evidence=self.evidence,
            metrics=self.metrics,
        )
        self.housekeeping = Housekeeping(
            data=self.chain.path,
            store=store,
            mempool=self.mempool,
            gossip=self.gossip,
            driver=self.driver,
            left_out=self.left_out,
            metrics=self.metrics,
            now_ms=lambda: self.now_ms,
            min_free_bytes=1,
        )
        for part in (self.gossip, self.proposals, self.sync, self.driver):
            part.network = self.network

    def wait_for_block(self, *transactions: Transaction) -> None:
        """Puts transactions into the mempool."""
        for tx in transactions:
            self.mempool.add(tx, self.now_ms)

    def proposed_by_another(self, *transactions: Transaction) -> ExecutedBlock:
        """The next block as validator v1 would propose it, from an execution that leaves nothing here."""
        return self.chain.execute(*transactions, proposer=1)


def run(test: Callable[[trio.Nursery], Any]) -> None:
    """Runs a test with a nursery for what goes on beside it, on a clock that waits for nothing."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await test(nursery)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def settle() -> None:
    """Waits until every task waits and no thread works."""
    threads = trio.to_thread.current_default_thread_limiter()
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked()
        while threads.borrowed_tokens:
            await trio.sleep(0)
