"""Drives the consensus core: brings it messages, time and answers, and carries out what it asks for.

The core decides everything about votes and views and does no I/O; this edge does I/O and decides nothing. Inputs go in
one at a time. Effects are carried out in their order: what the core wants durable goes through the outbox, and every
later send or commit waits for it there. Slow answers (building, validating, fetching) are tasks of their own. An error
in the core, or in carrying out its effects, halts the node: with half a step done it must not go on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from consensus.interface import (
    AskProposal,
    AskValidation,
    BodyAvailable,
    Broadcast,
    Commit,
    Committed,
    Complaint,
    Effect,
    Input,
    KnownBlock,
    NothingToPropose,
    Outcome,
    OwnVoteShown,
    Persist,
    Proposed,
    PushTransactions,
    Received,
    Report,
    ReportKind,
    RequestBody,
    RequestSync,
    Send,
    SetTimer,
    Snapshot,
    Tick,
    Validated,
    WorkChanged,
)
from consensus.messages import (
    Evidence,
    PrePrepare,
    ViewChange,
    Vote,
    encode_message,
)
from consensus.replica import Replica
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node import metrics as m
from qenex_node.bodies import Bodies
from qenex_node.budget import phases_ms
from qenex_node.commits import Commits
from qenex_node.evidence import EvidencePool
from qenex_node.gossip import Gossip
from qenex_node.inbox import Inbox
from qenex_node.journal import Journal
from qenex_node.leftout import LeftOut
from qenex_node.logs import Log
from qenex_node.mempool import Mempool
from qenex_node.metrics import Metrics
from qenex_node.outbox import Outbox
from qenex_node.proposals import Proposals, Verdict
from qenex_node.reach import LOST_SECONDS, Reach
from qenex_node.rpc.feed import Feed
from qenex_node.suspicions import Suspicions
from qenex_node.sync import BlockSync
from state.block import Block
from state.errors import InvariantError, Rejected
from state.evidence import decode_evidence
from state.execution import ExecutedBlock
from state.store import Store, VoteBatch
from state.types import Certificate, ChainContext, Hash, ValidatorSet

log = Log("qenex.consensus")


def monotonic_ms() -> int:
    """Returns the event loop's clock in ms, which the core's timers run on."""
    return round(trio.current_time() * 1000)


@dataclass(frozen=True, slots=True)
class _Durable:
    """What a Persist asks for, with the bodies that it names."""

    effect: Persist
    bodies: tuple[Block, ...]


_TOLD_AGAIN: Final = (WorkChanged, Complaint, Tick)
"""Inputs that are not kept while the driver is paused: their newest word is given when it goes on."""


@dataclass(slots=True, eq=False)
class _OwnProposal:
    block_hash: Hash
    began: float


class Driver:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        context: ChainContext,
        replica: Replica,
        key: bytes | None,
        store: Store,
        mempool: Mempool,
        gossip: Gossip,
        commits: Commits,
        proposals: Proposals,
        sync: BlockSync,
        feed: Feed,
        journal: Journal,
        left_out: LeftOut,
        evidence: EvidencePool,
        metrics: Metrics,
    ) -> None:
        """Takes the core and the node's parts; `network` and `nursery` are set before the first input.

        `on_committed` gets each block when the core knows it to be committed.
        """
        self.network: Network
        self.nursery: trio.Nursery
        self.paused = False
        self._replica = replica
        self._key = key
        self._store = store
        self._mempool = mempool
        self._gossip = gossip
        self._commits = commits
        self._proposals = proposals
        self._sync = sync
        self._feed = feed
        self._journal = journal
        self._left_out = left_out
        self._evidence = evidence
        self._metrics = metrics
        self._inputs: deque[Input] = deque()
        self._stepping = False
        self._now_ms = -1
        self._timer_at_ms: int | None = None
        self._timer_changed = trio.Event()
        self._outbox: Outbox[_Durable] = Outbox(self._write)
        self._validating: set[tuple[Hash, bool]] = set()
        self._own: _OwnProposal | None = None
        self._accepted_at: float | None = None
        self._barred = trio.Event()
        self._reach = Reach()
        self.on_committed: Callable[[ExecutedBlock], None] = lambda executed: None
        self.inbox = Inbox(
            genesis_hash=context.genesis_hash,
            store=store,
            network=lambda: self.network,
            reach=self._reach,
            metrics=metrics,
            note_height=sync.note_height,
        )
        self._suspicions = Suspicions(
            reach=self._reach,
            primary=lambda: self.primary_key,
            works=self._owes_progress,
            tell=lambda reason: self.feed_input(Complaint(reason)),
        )
        self.bodies = Bodies(
            store=store,
            commits=commits,
            proposals=proposals,
            peers=lambda: self.network.connected(),
            spawn=lambda work, *args: self.nursery.start_soon(work, *args),
            available=self._body_available,
        )
        proposals.bodies = self.bodies
        commits.on_committed = self._committed
        journal.view = replica.snapshot().view
        for item in evidence.restore(item.encode() for item in replica.evidence):
            journal.take_evidence(decode_evidence(item), self.inbox.validators_at)

    # What others see

    @property
    def snapshot(self) -> Snapshot:
        """The core as it stands."""
        return self._replica.snapshot()

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at the height being decided."""
        return self._store.validators

    def latest_vote_seen(self, validator_key: bytes) -> bytes | None:
        """Returns the newest vote or promise of a validator that this node has seen, for its greeting."""
        index = self._store.validators.index_of(validator_key)
        message = None if index is None else self._replica.latest_vote(index)
        return None if message is None else encode_message(message)

    @property
    def primary_key(self) -> bytes | None:
        """The consensus key of the primary of the height being decided, in the view that this node is in."""
        return self._key_of(self._replica.snapshot().primary)

    def validators_reachable(self) -> int:
        """Returns how many validators in force were heard of lately, this node included if it is one of them."""
        return self._reach.count(self.validators, self._key, trio.current_time())

    # Running

    async def run(self) -> None:
        """Writes what the core wants durable and tells it the time, until cancelled; raises what halts the node."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._end_if_barred)

    async def _end_if_barred(self) -> None:
        """Ends the node when a vote of its key was seen that it did not make: two processes must not go on with it."""
        await self._barred.wait()
        raise Rejected(
            "own_vote_seen",
            "a vote of this validator's key was seen that its records do not hold: another process signs with the key, "
            "or this home is from a backup. From now on it signs nothing until `qenex recover`",
        )

    def feed_input(self, given: Input) -> None:
        """Gives the core one input and carries out what it asks; inputs that arise meanwhile follow in order.

        Raises InvariantError, also for any other error in there: it would leave the core with half a step done.
        """
        if self.paused and isinstance(given, _TOLD_AGAIN):
            return
        self._inputs.append(given)
        if self._stepping or self.paused:
            return
        self._stepping = True
        try:
            while self._inputs:
                now_ms = monotonic_ms()
                if now_ms > self._now_ms:
                    self._now_ms = now_ms
                    self._perform_all(self._replica.step(Tick(now_ms)))
                item = self._inputs.popleft()
                effects = self._replica.step(item)
                if isinstance(item, Received):
                    self._count_received(effects)
                self._perform_all(effects)
        except InvariantError:
            raise
        except Exception as error:
            raise InvariantError(f"the consensus core could not be driven on: {error!r}") from error
        finally:
            self._stepping = False

    def _count_received(self, effects: Sequence[Effect]) -> None:
        refused = any(isinstance(effect, Report) and effect.kind is ReportKind.REJECTED for effect in effects)
        self._metrics.add(m.CONSENSUS_MESSAGES, 1, "rejected" if refused else "taken")

    def pause(self) -> None:
        """Stops voting and fetching blocks, so that nothing is written but what is under way.

        Messages are proved and passed on all the same, since others may be joined through this node; what they say to
        the core is lost, and sent again later.
        """
        self.paused = True
        self._sync.pause()

    def resume(self) -> None:
        """Goes on after `pause`."""
        self.paused = False
        self._sync.resume()
        self.work_changed()

    async def _keep_time(self) -> None:
        while True:
            changed, at_ms = self._timer_changed, self._timer_at_ms
            seconds = 1.0 if at_ms is None else max(0.0, (at_ms - monotonic_ms()) / 1000)
            with trio.move_on_after(seconds):
                await changed.wait()
                continue
            if at_ms is not None and self._timer_at_ms == at_ms:
                self._timer_at_ms = None
            if not self.paused:
                self.tick()

    def tick(self) -> None:
        """Tells the core the time."""
        self._now_ms = max(self._now_ms, monotonic_ms())
        self.feed_input(Tick(self._now_ms))

    # What comes from peers

    def on_connected(self, peer: Peer) -> None:
        """Tells a new peer what evidence waits, and looks at the vote of ours that it shows: one that is unknown here
        means that records are lost.
        """
        if peer.validator_key is not None:
            self._reach.joined(peer.validator_key)
            self._suspicions.judge()
        for item in self._evidence.waiting:
            peer.send(Kind.CONSENSUS, item)
        if peer.vote_seen is None:
            return
        try:
            message = self.inbox.prove(peer.vote_seen)
        except Rejected:
            return
        if isinstance(message, Vote | ViewChange | PrePrepare) and self._is_ours(message):
            self.feed_input(OwnVoteShown(message))

    def on_disconnected(self, peer: Peer) -> None:
        """Counts a peer's validator as out of reach until it is heard of again, directly or through others."""
        if peer.validator_key is not None:
            self._reach.lost(peer.validator_key, trio.current_time())
            self.nursery.start_soon(self._judge_after_grace)

    async def _judge_after_grace(self) -> None:
        await trio.sleep(LOST_SECONDS)
        self._suspicions.judge()

    def _is_ours(self, message: Vote | ViewChange | PrePrepare) -> bool:
        validators = self.inbox.validators_at(message.height)
        return validators is not None and validators.validators[message.sender].key == self._key

    def on_consensus(self, peer: Peer, body: bytes, raw: bytes) -> None:
        """Takes a consensus message: proves it, passes it on, gives it to the core. Raises Rejected for a bad one."""
        message = self.inbox.take(peer, body, raw)
        if message is not None and not self.paused:
            self.feed_input(Received(message))

    # What the node's own parts tell

    def _has_work(self) -> bool:
        return self._mempool.has_work() or len(self._evidence) > 0

    def work_changed(self) -> None:
        """Tells the core whether transactions or evidence wait."""
        self.feed_input(WorkChanged(self._has_work()))
        self._suspicions.judge()

    def complain(self, reason: str | None) -> None:
        """Takes a reason to suspect the primary that the mempool gives, or that there is none any more."""
        self._suspicions.complain(reason)

    def _primary_changed(self) -> None:
        """What the last primary left out is no reason to suspect the next one, who may still be out of reach."""
        self._left_out.primary_changed()
        self._suspicions.complain(None)

    def _owes_progress(self) -> bool:
        return self._has_work() or self._replica.snapshot().proposal is not None

    def _committed(self, executed: ExecutedBlock, certificate: Certificate) -> None:
        header = executed.block.header
        self._proposals.height_committed()
        self.bodies.height_committed()
        self._validating.clear()
        now = time.perf_counter()
        if self._own is not None and self._own.block_hash == header.hash:
            elapsed_ms = round((now - self._own.began) * 1000)
            self._proposals.budget.committed(header.units_used, elapsed_ms, self._travel_ms())
        self._own = None
        self._evidence.committed(executed.block)
        if self._accepted_at is not None:
            self._metrics.observe(m.DECIDE_SECONDS, now - self._accepted_at)
            self._accepted_at = None
        self.feed_input(WorkChanged(self._has_work()))
        self.feed_input(Committed(header, certificate, executed.validators_next, executed.block.evidence))
        if header.next_validators_hash != header.validators_hash:
            self._validators_changed()
        self.on_committed(executed)
        self._suspicions.judge()

    def _validators_changed(self) -> None:
        self._reach.keep(self._store.validators)
        self._primary_changed()
        self._journal.validators_changed(self._replica.snapshot().view)
        self._feed.changed()

    def _travel_ms(self) -> int:
        """Returns how long a block's three phases travel between us and the nearest who make a quorum with us."""
        peers = [peer for peer in self.network.connected() if peer.validator_key is not None]
        return phases_ms((peer.pings.latency_ms for peer in peers), self.validators.quorum - 1)

    # Carrying out effects

    def _perform_all(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._performers[type(effect)](self, effect)

    def _persist(self, effect: Persist) -> None:
        # The bodies are taken now: until the write begins, block sync may have moved past their height.
        bodies = tuple(block for block_hash in effect.bodies if (block := self._body_to_store(block_hash)) is not None)
        self._outbox.persist([_Durable(effect, bodies)])

    def _body_to_store(self, block_hash: Hash) -> Block | None:
        """Returns a body that is to become durable, None if it is already."""
        block = self.bodies.at_hand(block_hash)
        if block is not None or block_hash in self._store.uncommitted_bodies():
            return block
        if self._replica.snapshot().height > self._store.head.height:
            raise InvariantError(f"the body of block {block_hash.hex()} is to be durable and is not here")
        # The height is committed, which the core is about to be told: a block that lost has been let go of.
        return None

    async def _write(self, batches: Sequence[_Durable]) -> None:
        """Writes several Persist effects as one synced batch; a later one's word on a key is the last.

        Bodies that the core needs no more go with the commit of their height, in its batch: taken away here, one might
        be missing to a commit by block sync that is under way.
        """
        records: dict[bytes, bytes | None] = {}
        bodies: dict[Hash, Block] = {}
        for durable in batches:
            for key in durable.effect.deletes:
                records[key] = None
            records.update(durable.effect.puts)
            for block in durable.bodies:
                bodies[block.header.hash] = block
        batch = VoteBatch(
            puts=tuple((key, value) for key, value in records.items() if value is not None),
            deletes=tuple(key for key, value in records.items() if value is None),
            bodies=tuple(bodies.values()),
        )
        began = time.perf_counter()
        await trio.to_thread.run_sync(self._store.write_votes, batch)
        self._metrics.observe(m.PERSIST_SECONDS, time.perf_counter() - began)

    def _send(self, effect: Send) -> None:
        data = encode_message(effect.message)
        # An index is one of the set in force now; until the message may leave, another may have come into force.
        key = self._key_of(effect.to)
        self._outbox.send(lambda: self._send_to(key, data))

    def _send_to(self, key: bytes | None, data: bytes) -> None:
        for peer in self.network.connected():
            if key is not None and peer.validator_key == key:
                peer.send(Kind.CONSENSUS, data)
                return
        # Not joined directly: a flood reaches it through others, who take it as a repeat.
        self.network.flood(Kind.CONSENSUS, data)

    def _key_of(self, index: int | None) -> bytes | None:
        validators = self._store.validators.validators
        return validators[index].key if index is not None and index < len(validators) else None

    def _broadcast(self, effect: Broadcast) -> None:
        data = encode_message(effect.message)
        proposal = isinstance(effect.message, PrePrepare)
        self._outbox.send(lambda: self._flood(data, proposal))

    def _flood(self, data: bytes, proposal: bool) -> None:
        self.network.flood(Kind.CONSENSUS, data, after_transactions=proposal)

    def _ask_proposal(self, effect: AskProposal) -> None:
        self.nursery.start_soon(self._propose, effect)

    async def _propose(self, effect: AskProposal) -> None:
        began = time.perf_counter()
        executed = await self._proposals.build()
        if executed is None or executed.block.header.height != effect.height:
            self.feed_input(NothingToPropose(effect.height, effect.view))
            return
        block = executed.block
        self._own = _OwnProposal(block.header.hash, began)
        self.feed_input(Proposed(effect.height, effect.view, block.header, block.wire_hashes))

    def _ask_validation(self, effect: AskValidation) -> None:
        work = (effect.block_hash, effect.first)
        if work not in self._validating:
            self._validating.add(work)
            self._accepted_at = time.perf_counter()
            self.nursery.start_soon(self._validate, effect, self._key_of(effect.proposer))

    async def _validate(self, effect: AskValidation, source: bytes | None) -> None:
        verdict, reason = await self._proposals.validate(
            effect.header, effect.wire_hashes, first=effect.first, source=source
        )
        self._validating.discard((effect.block_hash, effect.first))
        if verdict is not Verdict.DROPPED:
            self.feed_input(Validated(effect.block_hash, effect.first, Outcome(verdict.value), reason))

    def _commit(self, effect: Commit) -> None:
        self._outbox.send(lambda: self.nursery.start_soon(self._commit_block, effect))

    async def _commit_block(self, effect: Commit) -> None:
        header = effect.header
        block = self.bodies.at_hand(header.hash)
        if block is None:
            block = await self._proposals.gather_while_open(header, effect.wire_hashes)
            if block is None:
                # A commit by block sync meanwhile makes this of no interest.
                return
        await self._commits.certified(block, effect.certificate, "consensus")

    def _set_timer(self, effect: SetTimer) -> None:
        self._timer_at_ms = effect.at_ms
        self._timer_changed.set()
        self._timer_changed = trio.Event()

    def _request_sync(self, effect: RequestSync) -> None:
        if effect.proven:
            self._sync.hurry(effect.height - 1)
            return
        key = self._key_of(effect.sender)
        for peer in self.network.connected():
            if key is not None and peer.validator_key == key:
                self._sync.note_height(peer, effect.height - 1)

    def _request_body(self, effect: RequestBody) -> None:
        keys = (self._key_of(index) for index in effect.holders)
        self.bodies.want(effect.block_hash, frozenset(key for key in keys if key is not None))

    def _body_available(self, block: Block) -> None:
        self.feed_input(BodyAvailable(block.header.hash, KnownBlock(block.header, block.wire_hashes)))

    def _push_transactions(self, effect: PushTransactions) -> None:
        self._gossip.push_oldest()
        for item in self._evidence.waiting:
            self.network.flood(Kind.CONSENSUS, item)

    def _report(self, effect: Report) -> None:
        if effect.kind is ReportKind.VIEW_CHANGE and self._own is not None:
            self._own = None
            self._proposals.budget.failed()
        if effect.kind is ReportKind.SIGNING and effect.code == "records_lost":
            # That it may not sign is durable first: it must hold after the restart, whoever does that.
            self._outbox.send(self._barred.set)
        if isinstance(effect.message, Evidence) and effect.kind is ReportKind.EVIDENCE:
            self._evidence.take(effect.message.encode())
            self.work_changed()
        self._journal.note(effect, self._replica.snapshot, self.inbox.validators_at)
        if effect.kind is ReportKind.VIEW_ENTERED:
            self._primary_changed()
        if effect.kind in (ReportKind.EVIDENCE, ReportKind.VIEW_ENTERED, ReportKind.SIGNING):
            self._feed.changed()

    _performers: Final[dict[type, Callable[..., None]]] = {
        Persist: _persist,
        Send: _send,
        Broadcast: _broadcast,
        AskProposal: _ask_proposal,
        AskValidation: _ask_validation,
        Commit: _commit,
        SetTimer: _set_timer,
        RequestSync: _request_sync,
        RequestBody: _request_body,
        PushTransactions: _push_transactions,
        Report: _report,
    }
