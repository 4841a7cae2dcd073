"""One machine: a process around a consensus core, which performs its effects by the contract, and can die anywhere.

The rules of the contract that are kept here: inputs come one by one, the time before all else; a Persist binds every
later send and commit, so these stand in one queue; a write takes time, and power may go between any two effects. The
disk outlives the process, everything else is made anew at a start.
"""

from __future__ import annotations

import random
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from consensus.interface import (
    AskProposal,
    AskValidation,
    Broadcast,
    Commit,
    Config,
    Effect,
    Input,
    OwnVoteShown,
    Persist,
    PushTransactions,
    Received,
    Report,
    RequestBody,
    RequestSync,
    Restored,
    Send,
    SetTimer,
    Tick,
)
from consensus.messages import Decided, Evidence, Message, decode_message
from consensus.replica import Replica
from devnet.simulation.checks import Violation
from devnet.simulation.conducts import Conduct
from devnet.simulation.disk import Disk, RecordWrite
from devnet.simulation.fetching import Fetching
from devnet.simulation.operators import recover
from devnet.simulation.parcels import (
    At,
    BlocksSent,
    BodySent,
    Garbled,
    Hello,
    Parcel,
    Shown,
    Spoken,
    Transactions,
    WantBlocks,
    WantBody,
    WantTransactions,
)
from devnet.simulation.pool import Pool
from devnet.simulation.schedule import MS
from devnet.simulation.settings import Timing
from devnet.simulation.work import Work
from devnet.simulation.world import START_MS
from state.errors import DecodeError, InvariantError
from state.transaction import Transaction

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster

PUSHED_MAX: Final = 8
TELL_US: Final = 400 * MS
LATE_SYNC_US: Final = 30 * MS


class Machine:
    """Machine `number`, which has the key of identity `who`, if that has one."""

    def __init__(self, cluster: Cluster, number: int, who: int, rng: random.Random) -> None:
        self.cluster = cluster
        self.number = number
        self.who = who
        self.rng = rng
        self.key = cluster.key_of(who)
        self.disk = Disk(cluster.world, votes=self.key is not None)
        self.conduct = cluster.conduct_of(who, rng)
        self.timing: Timing = cluster.settings.timing
        self.slowness = 1
        self.skew_ms = 0
        self.life = 0
        self.up = False
        self.held = False
        self._faulty = not cluster.is_correct(who)
        self._asked: Message | None = None
        self._answer = False
        self._plain = type(self.conduct) is Conduct
        self._traced = cluster.traced
        self._others = tuple(other for other, one in enumerate(cluster.settings.machines()) if one != who)
        self._paused_until_us = 0
        self._dies_in: tuple[int, int] | None = None

    @property
    def index(self) -> int | None:
        """The index in the validator set of the next height; None for whoever is not in it."""
        return None if self.key is None else self.disk.chain.validators.index_of(self.key)

    @property
    def member(self) -> int:
        """The index in the validator set of the next height, which it is known to be in."""
        index = self.index
        if index is None:
            raise InvariantError(f"machine {self.number} is no validator at the next height")
        return index

    def own(self, message: Message) -> bool:
        """Whether a message is said in this machine's own name; the last answer is kept, as each law asks."""
        if self._asked is not message:
            self._asked, self._answer = message, self._is_own(message)
        return self._answer

    def _is_own(self, message: Message) -> bool:
        if isinstance(message, Decided | Evidence) or self.key is None:
            return False
        validators = self.cluster.set_at(message.height).validators
        return message.sender < len(validators) and validators[message.sender].key == self.key

    # ---- life and death ----

    def start(self) -> None:
        """Begins a process from what the disk holds."""
        cluster = self.cluster
        self.life += 1
        self.up = True
        self._outbox: deque[RecordWrite | Broadcast | Commit | PushTransactions | tuple[int, Message]] = deque()
        self._writing = False
        self._timer_ms: int | None = None
        # A monotonic clock begins anywhere, and nothing of it survives a restart.
        self._clock_us = self.rng.randrange(1_000_000) * MS - cluster.schedule.now_us
        self._ticked_ms = -1
        self._guarded(self._begin)

    @property
    def sign(self) -> Callable[[bytes], bytes] | None:
        """Signs as this machine's validator; None where it has no key."""
        return None if self.key is None else partial(self.cluster.scheme.sign, self.key)

    def restored(self) -> Restored:
        """Returns where a process finds itself when it begins; raises Damaged."""
        chain = self.disk.chain
        self.disk.open()
        return Restored(
            head=chain.head,
            certificate=chain.certificate,
            validators=chain.validators,
            validators_since=chain.validators_since,
            records=self.disk.votes.all() if self.disk.votes.exist else None,
            load_block=self.disk.known_block,
        )

    def _begin(self) -> None:
        cluster = self.cluster
        restored = self.restored()
        self.pool = Pool(cluster.clients.sequences(self.disk.chain))
        self.fetching = Fetching(self)
        self.work = Work(self)
        self.core: Replica = cluster.variant.replica(self.config(), restored, self.sign, self._faulty)
        self._tick()
        cluster.started(self)
        self._tell_height()
        if self.key is not None:
            self._send_all(Hello())
            if restored.records is None:
                cluster.operators.cannot_sign(self, chain_intact=True)

    def config(self) -> Config:
        """Returns what its core is told once."""
        genesis, timing = self.cluster.world.genesis, self.timing
        return Config(
            chain_id=genesis.chain_id,
            genesis_hash=genesis.hash,
            key=self.key,
            leader_term=genesis.parameters.leader_term,
            drift_ms=genesis.parameters.drift_ms,
            progress_timeout_ms=timing.progress_timeout_ms,
            progress_timeout_max_ms=timing.progress_timeout_max_ms,
            status_interval_ms=timing.status_interval_ms,
            status_busy_ms=timing.status_busy_ms,
            silence_heights=timing.silence_heights,
            silence_quiet_ms=timing.silence_quiet_ms,
        )

    def lose_power(self, down_us: int) -> None:
        """Ends the process at once; it starts again after `down_us`."""
        if self.up:
            self.cluster.trace(self.number, "loses power for {} ms", down_us // MS)
            self.stop()
            self.start_after(down_us)

    def stop(self) -> None:
        """Ends the process, if one runs, for good."""
        if self.up:
            self.up = False
            self.life += 1
            self._dies_in = None
            self._paused_until_us = 0
            self.disk.lose_power(self.rng)

    def start_after(self, down_us: int) -> None:
        """Begins a process after a while, unless one runs by then or the operator holds it back."""
        self.cluster.schedule.after(down_us, self._power_returns)

    def _power_returns(self) -> None:
        if not self.up and not self.held:
            self.cluster.trace(self.number, "starts at height {}", self.disk.chain.head.height)
            self.start()

    def lose_records(self, down_us: int, *, recovered: bool) -> None:
        """Loses power and all vote records; the operator runs `recover` before the start, or only when that tells."""
        if self.up:
            self.lose_power(down_us)
            self.disk.lose_records()
            if recovered:
                recover(self.disk, chain_intact=True, now_ms=self.wall_ms())

    def lose_disk(self, down_us: int) -> None:
        """Loses power and everything; the operator begins with an empty home, and recovers it."""
        if self.up:
            self.lose_power(down_us)
            self.disk.wipe()
            self.cluster.forgets(self)
            recover(self.disk, chain_intact=False, now_ms=self.wall_ms())

    def damage(self, down_us: int, *, chain: bool) -> None:
        """Something on the disk is not what was written: read while it runs, or at the next start."""
        if chain:
            self.disk.harmed = self.disk.chain.damaged = True
        elif self.up:
            self.lose_power(down_us)
            self.disk.damage(self.rng)

    def restore(self, backup: Disk, down_us: int) -> None:
        """Loses power, and what it held for what a backup holds."""
        if self.up:
            self.lose_power(down_us)
            self.disk.restore(backup)
            self.cluster.forgets(self)

    def die_after(self, effects: int, down_us: int) -> None:
        """Takes the power after so many effects."""
        self._dies_in = (effects, down_us)

    def pause(self, until_us: int) -> None:
        """Stands still until a time."""
        self._paused_until_us = until_us

    def later(self, delay_us: int, action: Callable[[], None]) -> None:
        """Lets the process do something after a while, unless it ends before; a paused one does it when it goes on."""
        self.cluster.schedule.after(delay_us, partial(self._act, self.life, action))

    def _act(self, life: int, action: Callable[[], None]) -> None:
        if life != self.life:
            return
        wait_us = self._paused_until_us - self.cluster.schedule.now_us
        if wait_us > 0:
            self.cluster.schedule.after(wait_us, partial(self._act, life, action))
        else:
            self._guarded(action)

    def _guarded(self, action: Callable[[], None]) -> None:
        """A broken invariant halts a node; the checks decide whether that may happen. Nothing else may be raised."""
        try:
            action()
        except InvariantError as error:
            self.up = False
            self.life += 1
            self.disk.lose_power(self.rng)
            self.cluster.halted(self, error)
        except Violation:
            raise
        except Exception as error:
            self.cluster.trace(self.number, "{}", traceback.format_exc())
            raise Violation("exception", f"machine {self.number} raises {error!r}") from error

    # ---- clocks ----

    def now_ms(self) -> int:
        """Returns the process's monotonic clock."""
        return (self.cluster.schedule.now_us + self._clock_us) // MS

    def wall_ms(self) -> int:
        """Returns the machine's wall clock."""
        return START_MS + self.cluster.schedule.now_us // MS + self.skew_ms

    # ---- inputs ----

    def step(self, value: Input) -> None:
        """Gives the core an input, and the time before it if that has moved."""
        life = self.life
        self._tick()
        if life == self.life:
            if self._traced:
                self.cluster.trace_core(self.number, value)
            self._perform(self.core.step(value))

    def _tick(self) -> None:
        now_ms = self.now_ms()
        if now_ms != self._ticked_ms:
            self._ticked_ms = now_ms
            self._perform(self.core.step(Tick(now_ms)))

    def arrived(self, source: int, parcel: Parcel) -> None:
        """Takes what another machine sent."""
        if not self.up:
            return
        if self._paused_until_us > self.cluster.schedule.now_us:
            self.later(0, lambda: self._open(source, parcel))
        else:
            self._guarded(partial(self._open, source, parcel))

    def _open(self, source: int, parcel: Parcel) -> None:
        match parcel:
            case Spoken(message):
                if self.cluster.proved(self, message):
                    self._hear(message)
            case Garbled(data):
                self._read(data)
            case Transactions(transactions):
                self.take(transactions)
                self.fetching.transactions_came(transactions)
            case WantTransactions():
                self.fetching.serve_transactions(source, parcel)
            case WantBody():
                self.fetching.serve_body(source, parcel)
            case BodySent(body):
                self.fetching.body_came(body)
            case WantBlocks():
                self.fetching.serve_blocks(source, parcel)
            case BlocksSent():
                self.fetching.blocks_came(parcel)
            case Hello():
                self._show_latest(source)
            case At(height):
                self.fetching.claimed(source, height)
            case Shown(message):
                if self.own(message) and self.cluster.proved(self, message) and not self._faulty:
                    self.step(OwnVoteShown(message))

    def _read(self, data: bytes) -> None:
        """Makes of bytes what a node makes of a frame."""
        try:
            message = decode_message(data)
        except DecodeError as error:
            self.cluster.trace(self.number, "cannot read what came: {}", error)
            return
        if self.cluster.proved(self, message):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        if not self._plain and self.index is not None:
            for to, said in self.conduct.hear(self, message):
                self._transmit(to, said)
        # Who has a twin knows of it, and does not stop signing because of what that says.
        if not (self._faulty and self.own(message)):
            self.step(Received(message))
            self.cluster.heard(self, message)

    def _tell_height(self) -> None:
        """Tells all our height again and again, as nodes do to whom they are joined with.

        Where the set never changed this says no more than STATUS does, and is left out.
        """
        if self.cluster.sets_changed:
            self._send_all(At(self.disk.chain.head.height))
        self.later(TELL_US, self._tell_height)

    def _show_latest(self, source: int) -> None:
        """Shows a process that has just begun the latest vote that was seen of its validator."""
        key = self.cluster.machines[source].key
        index = None if key is None else self.disk.chain.validators.index_of(key)
        latest = None if index is None else self.core.latest_vote(index)
        if latest is not None:
            self.send_machine(source, Shown(latest))

    def submitted(self, tx: Transaction) -> None:
        """Takes a transaction from a client and passes it on to all."""
        if self.up:
            self.later(0, lambda: self._submit(tx))

    def _submit(self, tx: Transaction) -> None:
        self.take((tx,))
        self._send_all(Transactions((tx,)))

    def take(self, transactions: tuple[Transaction, ...]) -> None:
        """Adds transactions to the pool."""
        now_ms = self.wall_ms()
        if sum(self.pool.add(tx, now_ms) for tx in transactions):
            self.work.work_changed()

    def candidates(self) -> list[Transaction]:
        """Returns what this machine would put into a block, as primary."""
        return self.conduct.choose(self.pool.candidates(self.wall_ms()))[: self.cluster.settings.block_transactions_max]

    # ---- effects ----

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        if not effects:
            return
        for effect in effects:
            if self._traced:
                self.cluster.trace_core(self.number, effect)
            match effect:
                case Send(to, message):
                    # The index is one of the set in force now, and of no other by the time that it leaves.
                    self._outbox.append((self.whose(to), message))
                case Persist():
                    # Looked up now: by the time that it is written, a commit may have let go of the candidates.
                    self._outbox.append(self._record_write(effect))
                case Broadcast() | Commit() | PushTransactions():
                    self._outbox.append(effect)
                case SetTimer(at_ms):
                    self._set_timer(at_ms)
                case AskProposal():
                    self.work.propose(effect)
                case AskValidation():
                    self.work.validate(effect)
                case RequestSync():
                    self.fetching.sync(effect)
                case RequestBody():
                    self.fetching.want_body(effect)
                case Report():
                    self.cluster.reported(self, effect)
        self._pump()

    def _set_timer(self, at_ms: int) -> None:
        if at_ms == self._timer_ms:
            return
        self._timer_ms = at_ms

        def fire() -> None:
            if self._timer_ms == at_ms:
                self._timer_ms = None
                self._tick()

        self.later(max(1, at_ms - self.now_ms()) * MS, fire)

    def _pump(self) -> None:
        """Performs what stands in the queue up to the next write."""
        while self._outbox and not self._writing and self.up:
            effect = self._outbox.popleft()
            match effect:
                case RecordWrite():
                    self._persist(effect)
                case (who, message):
                    self._say(who, message)
                case Broadcast(message) if self._plain and self._dies_in is None:
                    self._broadcast(message)
                case Broadcast(message):
                    for who in self.cluster.identities:
                        if who != self.who:
                            self._say(who, message)
                case Commit():
                    self._count_effect()
                    if self.up:
                        self.work.commit(effect)
                case PushTransactions():
                    self._send_all(Transactions(self.pool.oldest(PUSHED_MAX)))

    def _record_write(self, effect: Persist) -> RecordWrite:
        bodies = [self.fetching.body(block_hash) for block_hash in effect.bodies]
        stored = tuple(body for body in bodies if body is not None)
        if len(stored) < len(bodies):
            raise InvariantError("a Persist asks for a body that is not at hand")
        return RecordWrite(effect.puts, effect.deletes, stored, effect.bodies_dropped)

    def _persist(self, write: RecordWrite) -> None:
        self._count_effect()
        if not self.up:
            return
        self.disk.issue(write)
        if self.cluster.variant.persists_first:
            self._writing = True
            self.later(self.timing.write_us * self.slowness, self._persisted)
        else:
            self.later(LATE_SYNC_US, self.disk.sync)

    def _persisted(self) -> None:
        self._count_effect()
        if self.up:
            self.disk.sync()
            self._writing = False
            self._pump()

    def _broadcast(self, message: Message) -> None:
        """What `_say` to each comes to for a machine that says what its core says and is not about to die."""
        self.cluster.left(self, message)
        send, parcel, kind = self.cluster.network.send, Spoken(message), message.kind
        for number in self._others:
            send(self.number, number, parcel, kind)

    def _say(self, to: int, message: Message) -> None:
        self._count_effect()
        if self.up:
            for target, said in self.conduct.say(self, to, message) if self.index is not None else ((to, message),):
                self._transmit(target, said)

    def _transmit(self, to: int, message: Message) -> None:
        self.cluster.left(self, message)
        self.send(to, Spoken(message))

    def _count_effect(self) -> None:
        if self._dies_in is not None:
            effects, down_us = self._dies_in
            self._dies_in = (effects - 1, down_us)
            if effects <= 0:
                self.lose_power(down_us)

    # ---- sending ----

    def send(self, to: int, parcel: Parcel) -> None:
        """Sends to an identity: to all its machines, if it has twins."""
        for number in self.cluster.machines_of[to]:
            if number != self.number:
                self.send_machine(number, parcel)

    def send_machine(self, number: int, parcel: Parcel) -> None:
        """Sends to one machine."""
        kind = parcel.message.kind if isinstance(parcel, Spoken) else None
        if kind is None and not self.conduct.gives(parcel):
            return
        self.cluster.network.send(self.number, number, parcel, kind)

    def _send_all(self, parcel: Parcel) -> None:
        for who in self.cluster.identities:
            if who != self.who:
                self.send(who, parcel)

    def whose(self, index: int) -> int:
        """Returns the identity of a validator of the next height."""
        return self.cluster.who_of(self.disk.chain.validators.validators[index].key)

    def someone(self, among: tuple[int, ...] = ()) -> int:
        """Returns another identity: one of the validators with these indexes, where that names any."""
        others = [who for who in map(self.whose, among) if who != self.who]
        return self.rng.choice(others or [who for who in self.cluster.identities if who != self.who])
