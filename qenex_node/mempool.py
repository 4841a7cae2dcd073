"""The mempool: transactions that are accepted and wait for a block, by account and lane, within bounds.

Theory of operation. Each (sender, lane) has slots by sequence. Those without a gap from the state's next sequence on
are *ready*; the ready ones of all lanes stand in one queue in the order in which they became so. That order is arrival
order unless a gap was closed, keeps each lane's own order, and lets a gap in one lane stall nobody else. A block's
proposal is read from that queue.

Time passes in two ways. By our own clock (`advance`) a transaction becomes *overdue*: no new block can hold it, so it
leaves its slot, which may be taken anew, and no longer counts as work. It is *expired*, and gone, only when a committed
block's time is past its deadline (`committed`): until then an earlier proposal may still be committed.

A pure machine: it decides, and reads neither clock nor network nor disk. It does not check signatures or balances:
whoever adds has done that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeAlias

from state.errors import InvariantError, JsonValue, Rejected
from state.limits import BLOCK_TRANSACTIONS_MAX, TRANSACTION_BYTES_MAX
from state.transaction import Transaction
from state.types import Address, TxId, WireHash

DEADLINE_BUCKET_MS: Final = 100
PLACE_MAX: Final = 10_000

NextSequence: TypeAlias = Callable[[Address, int], int]


@dataclass(frozen=True, slots=True)
class MempoolLimits:
    """The bounds: of the whole, of one account (as sender), and of how far past a gap a lane may run.

    Bytes are of the wire form. `sequence_ahead_max` is counted from the first sequence that the lane lacks.
    `gone_max` bounds the memory of what left without being committed.
    """

    count_max: int = 20_000
    bytes_max: int = 64 * 1024 * 1024
    account_count_max: int = 4_000
    account_bytes_max: int = 8 * 1024 * 1024
    sequence_ahead_max: int = 1_024
    gone_max: int = 32_768

    def __post_init__(self) -> None:
        if min(self.bytes_max, self.account_bytes_max) < TRANSACTION_BYTES_MAX:
            raise Rejected("config_invalid", f"the mempool must hold one transaction of {TRANSACTION_BYTES_MAX} bytes")
        if min(self.count_max, self.account_count_max, self.sequence_ahead_max, self.gone_max) < 1:
            raise Rejected("config_invalid", "the mempool's bounds are at least 1")


@dataclass(slots=True, eq=False)
class Entry:
    """A waiting transaction. `arrived_ms` is when it was added, `ready_ms` when it last became ready (None: it is not).

    `number` counts arrivals. `overdue` says that its deadline has passed by our clock.
    """

    tx: Transaction
    number: int
    arrived_ms: int
    ready_ms: int | None = None
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """It was new and now waits; `ready` says whether the next block may hold it."""

    entry: Entry
    ready: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A transaction of this id waits already; nothing was changed."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Removed:
    """What a committed block took out: those that it holds, those whose sequence it used up, those that expired."""

    committed: tuple[Entry, ...] = ()
    stale: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a transaction waits: a stable code, a sentence, and details for machines."""

    code: str
    message: str
    data: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gone:
    """Why a transaction left the mempool without being committed, and the deadline that it had."""

    code: str
    message: str
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class MempoolStats:
    """Counts and bytes; `oldest_arrived_ms` is of the oldest transaction that waits, None when none does."""

    count: int
    bytes: int
    ready: int
    gap: int
    overdue: int
    accounts: int
    oldest_arrived_ms: int | None


@dataclass(slots=True, eq=False)
class _Lane:
    """One lane's slots: [next, end) are ready, those above `end` wait for it."""

    next: int
    end: int
    slots: dict[int, Entry] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Use:
    """What one account takes of its bounds."""

    count: int = 0
    bytes: int = 0


class Mempool:
    """See the module's theory of operation."""

    def __init__(self, limits: MempoolLimits, next_sequence: NextSequence) -> None:
        """Takes the bounds and how to read a lane's next sequence from the committed state."""
        self.limits = limits
        self._next_sequence = next_sequence
        self._by_wire: dict[WireHash, Entry] = {}
        self._by_id: dict[TxId, Entry] = {}
        self._lanes: dict[tuple[Address, int], _Lane] = {}
        self._uses: dict[Address, _Use] = {}
        self._ready: dict[WireHash, Entry] = {}
        # Taken from the front one by one, which a plain dict does ever more slowly.
        self._overdue: OrderedDict[WireHash, Entry] = OrderedDict()
        self._gone: OrderedDict[TxId, Gone] = OrderedDict()
        self._deadlines: dict[int, dict[WireHash, Entry]] = {}
        self._bytes = 0
        self._arrivals = 0
        self._clock_ms = 0

    def __len__(self) -> int:
        return len(self._by_wire)

    def add(self, tx: Transaction, now_ms: int) -> Added | Known:
        """Takes a transaction whose form, signatures and admission are checked.

        Raises Rejected: "expired", "sequence_used", "sequence_taken" (another transaction holds that sequence),
        "sequence_too_far", "account_limit", "mempool_full". What was accepted is never put out for something newer.
        """
        known = self._by_id.get(tx.id)
        if known is not None:
            return Known(known)
        if tx.not_after_ms < now_ms or tx.not_after_ms < self._clock_ms:
            raise Rejected(
                "expired",
                "the deadline has passed: sign the transaction anew with a later one",
                {"not_after_ms": tx.not_after_ms, "now_ms": max(now_ms, self._clock_ms)},
            )
        place = (tx.sender, tx.lane)
        lane = self._lanes.get(place)
        if lane is None:
            following = self._next_sequence(tx.sender, tx.lane)
            lane = _Lane(following, following)
        self._check_sequence(tx, lane)
        self._make_room(tx)
        self._lanes[place] = lane
        self._arrivals += 1
        entry = Entry(tx, self._arrivals, now_ms)
        self._by_wire[tx.wire_hash] = entry
        self._by_id[tx.id] = entry
        self._bytes += len(tx.wire)
        self._count(tx)
        self._deadlines.setdefault(tx.not_after_ms // DEADLINE_BUCKET_MS, {})[tx.wire_hash] = entry
        self._gone.pop(tx.id, None)
        lane.slots[tx.sequence] = entry
        self._extend(lane, now_ms)
        return Added(entry, entry.ready_ms is not None)

    def advance(self, now_ms: int) -> int:
        """Lets our clock pass: moves out of the way what no new block can hold, and returns how many that were.

        To be called at each tick and before `candidates`; an earlier time than before changes nothing.
        """
        if now_ms <= self._clock_ms:
            return 0
        first, last = self._clock_ms // DEADLINE_BUCKET_MS, now_ms // DEADLINE_BUCKET_MS
        self._clock_ms = now_ms
        if last - first < len(self._deadlines):
            buckets: Iterable[int] = range(first, last + 1)
        else:
            buckets = sorted(bucket for bucket in self._deadlines if bucket <= last)
        moved = 0
        for bucket in buckets:
            for entry in list(self._deadlines.get(bucket, {}).values()):
                if entry.tx.not_after_ms < now_ms:
                    self._make_overdue(entry)
                    moved += 1
        return moved

    def committed(self, transactions: Sequence[Transaction], block_time_ms: int) -> Removed:
        """Takes out what a committed block settles; `next_sequence` must already tell the state after that block."""
        committed: list[Entry] = []
        stale: list[Entry] = []
        for tx in transactions:
            entry = self._by_id.get(tx.id)
            if entry is not None and entry.overdue:
                self._forget(entry)
                committed.append(entry)
            lane = self._lanes.get((tx.sender, tx.lane))
            if lane is None or tx.sequence < lane.next:
                continue
            for settled in self._settle(lane, tx.sequence):
                (committed if settled.tx.id == tx.id else stale).append(settled)
            if lane.slots:
                self._extend(lane, block_time_ms)
            else:
                del self._lanes[tx.sender, tx.lane]
        for entry in stale:
            self._remember(entry, "sequence_used", "another transaction with its sequence was committed")
        self.advance(block_time_ms)
        expired = [entry for entry in self._overdue.values() if entry.tx.not_after_ms < block_time_ms]
        for entry in expired:
            self._forget(entry)
            self._remember(entry, "expired", "a block later than its deadline was committed")
        return Removed(tuple(committed), tuple(stale), tuple(expired))

    def drop(self, tx_id: TxId, code: str, message: str) -> Entry | None:
        """Takes out one that can never enter a block any more (its key was rotated away); returns it if it waited."""
        entry = self._by_id.get(tx_id)
        if entry is None:
            return None
        if not entry.overdue:
            self._vacate(entry)
        self._forget(entry)
        self._remember(entry, code, message)
        return entry

    def candidates(self, limit: int = BLOCK_TRANSACTIONS_MAX) -> Iterator[Transaction]:
        """Returns the ready transactions, longest ready first; later changes of the mempool do not disturb it."""
        return iter([entry.tx for entry in islice(self._ready.values(), limit)])

    def get(self, wire_hash: WireHash) -> Transaction | None:
        """Returns the waiting transaction with this wire hash, ready or not."""
        entry = self._by_wire.get(wire_hash)
        return None if entry is None else entry.tx

    def by_id(self, tx_id: TxId) -> Entry | None:
        """Returns the entry of the waiting transaction with this id."""
        return self._by_id.get(tx_id)

    def gone(self, tx_id: TxId) -> Gone | None:
        """Returns why a transaction left uncommitted, while that is remembered (`gone_max` of them)."""
        return self._gone.get(tx_id)

    def oldest(self) -> Entry | None:
        """Returns the entry that has been ready longest: what a primary left out first."""
        return next(iter(self._ready.values()), None)

    def has_work(self) -> bool:
        """Returns whether a transaction waits that could stand in the next block by itself."""
        return bool(self._ready)

    def next_free(self, sender: Address, lane: int) -> int:
        """Returns the lowest sequence of a lane that neither the state nor a waiting transaction has used."""
        queue = self._lanes.get((sender, lane))
        return self._next_sequence(sender, lane) if queue is None else queue.end

    def waiting_reason(self, tx_id: TxId) -> Waiting | None:
        """Returns why a transaction waits, None when it does not wait here."""
        entry = self._by_id.get(tx_id)
        if entry is None:
            return None
        if entry.overdue:
            return Waiting(
                "deadline_passed",
                "its deadline has passed; it is expired once a block later than that is committed",
                {"not_after_ms": entry.tx.not_after_ms},
            )
        if entry.ready_ms is not None:
            return Waiting("next_block", "it can be in the next block")
        missing = self._lanes[entry.tx.sender, entry.tx.lane].end
        return Waiting(
            "sequence_gap",
            f"it waits for the transaction with sequence {missing} of its lane",
            {"missing": missing, "lane": entry.tx.lane, "sequence": entry.tx.sequence},
        )

    def place(self, tx_id: TxId) -> int | None:
        """Returns how many ready transactions stand before it; None if it is not ready or beyond PLACE_MAX."""
        entry = self._by_id.get(tx_id)
        if entry is None or entry.ready_ms is None:
            return None
        for place, wire_hash in enumerate(islice(self._ready, PLACE_MAX)):
            if wire_hash == entry.tx.wire_hash:
                return place
        return None

    def stats(self) -> MempoolStats:
        """Returns counts and bytes."""
        oldest = next(iter(self._by_wire.values()), None)
        return MempoolStats(
            count=len(self._by_wire),
            bytes=self._bytes,
            ready=len(self._ready),
            gap=len(self._by_wire) - len(self._ready) - len(self._overdue),
            overdue=len(self._overdue),
            accounts=len(self._uses),
            oldest_arrived_ms=None if oldest is None else oldest.arrived_ms,
        )

    def _check_sequence(self, tx: Transaction, lane: _Lane) -> None:
        if tx.sequence < lane.next:
            raise Rejected(
                "sequence_used",
                f"sequence {tx.sequence} of lane {tx.lane} is used; the next is {lane.end}",
                {"next": lane.end, "lane": tx.lane},
            )
        holder = lane.slots.get(tx.sequence)
        if holder is not None:
            raise Rejected(
                "sequence_taken",
                f"another transaction with sequence {tx.sequence} of lane {tx.lane} waits; the next free is {lane.end}",
                {"id": "0x" + holder.tx.id.hex(), "next": lane.end, "lane": tx.lane},
            )
        if tx.sequence - lane.end > self.limits.sequence_ahead_max:
            raise Rejected(
                "sequence_too_far",
                f"sequence {tx.sequence} is more than {self.limits.sequence_ahead_max} beyond {lane.end}, the next",
                {"next": lane.end, "lane": tx.lane, "ahead_max": self.limits.sequence_ahead_max},
            )

    def _make_room(self, tx: Transaction) -> None:
        """Raises Rejected if a bound is reached; only what is overdue gives way, for else an idle chain stays full."""
        size = len(tx.wire)
        limits = self.limits
        use = self._uses.get(tx.sender)
        if use is not None and (use.count >= limits.account_count_max or use.bytes + size > limits.account_bytes_max):
            raise Rejected(
                "account_limit",
                "this account has too much waiting already: send more once some is committed",
                {"count": use.count, "bytes": use.bytes},
            )
        while len(self._by_wire) >= limits.count_max or self._bytes + size > limits.bytes_max:
            overdue = next(iter(self._overdue.values()), None)
            if overdue is None:
                raise Rejected(
                    "mempool_full",
                    "the node holds as many waiting transactions as it may: try again later or another node",
                    {"count": len(self._by_wire), "bytes": self._bytes},
                )
            self._forget(overdue)
            self._remember(overdue, "deadline_passed", "its deadline passed and its room was needed")

    def _extend(self, lane: _Lane, now_ms: int) -> None:
        """Makes ready what has no gap before it any more."""
        slots = lane.slots
        entry = slots.get(lane.end)
        while entry is not None:
            entry.ready_ms = now_ms
            self._ready[entry.tx.wire_hash] = entry
            lane.end += 1
            entry = slots.get(lane.end)

    def _settle(self, lane: _Lane, sequence: int) -> list[Entry]:
        """Moves a lane's next sequence past `sequence` and returns, forgotten, the entries that this settles."""
        if sequence - lane.next < len(lane.slots):
            numbers = [number for number in range(lane.next, sequence + 1) if number in lane.slots]
        else:
            numbers = sorted(number for number in lane.slots if number <= sequence)
        settled = [lane.slots.pop(number) for number in numbers]
        for entry in settled:
            self._uncount(entry.tx)
            self._forget(entry)
        lane.next = sequence + 1
        lane.end = max(lane.end, lane.next)
        return settled

    def _vacate(self, entry: Entry) -> None:
        """Takes an entry out of its slot; those after it in the lane are no longer ready."""
        tx = entry.tx
        lane = self._lanes[tx.sender, tx.lane]
        del lane.slots[tx.sequence]
        self._uncount(tx)
        if entry.ready_ms is not None:
            for number in range(tx.sequence + 1, lane.end):
                follower = lane.slots[number]
                follower.ready_ms = None
                del self._ready[follower.tx.wire_hash]
            del self._ready[tx.wire_hash]
            entry.ready_ms = None
            lane.end = tx.sequence
        if not lane.slots:
            del self._lanes[tx.sender, tx.lane]

    def _make_overdue(self, entry: Entry) -> None:
        self._vacate(entry)
        self._take_from_deadlines(entry.tx)
        entry.overdue = True
        self._overdue[entry.tx.wire_hash] = entry

    def _forget(self, entry: Entry) -> None:
        """Takes an entry that is out of its slot out of everything else."""
        tx = entry.tx
        del self._by_wire[tx.wire_hash]
        del self._by_id[tx.id]
        self._bytes -= len(tx.wire)
        if entry.overdue:
            del self._overdue[tx.wire_hash]
            return
        self._take_from_deadlines(tx)
        self._ready.pop(tx.wire_hash, None)

    def _take_from_deadlines(self, tx: Transaction) -> None:
        number = tx.not_after_ms // DEADLINE_BUCKET_MS
        bucket = self._deadlines[number]
        del bucket[tx.wire_hash]
        if not bucket:
            del self._deadlines[number]

    def _count(self, tx: Transaction) -> None:
        use = self._uses.get(tx.sender)
        if use is None:
            use = self._uses[tx.sender] = _Use()
        use.count += 1
        use.bytes += len(tx.wire)

    def _uncount(self, tx: Transaction) -> None:
        use = self._uses[tx.sender]
        use.count -= 1
        use.bytes -= len(tx.wire)
        if use.count == 0:
            del self._uses[tx.sender]

    def _remember(self, entry: Entry, code: str, message: str) -> None:
        self._gone[entry.tx.id] = Gone(code, message, entry.tx.not_after_ms)
        if len(self._gone) > self.limits.gone_max:
            self._gone.popitem(last=False)


class Acknowledgements:
    """Counts which validators said that they hold a transaction submitted here; `accepted` waits for f of them.

    Bounded: at most `count_max` ids are followed, the oldest is dropped first; an acknowledgement of an id that is not
    followed is ignored, so that peers cannot fill it.
    """

    def __init__(self, count_max: int) -> None:
        """Takes how many ids are followed at most."""
        if count_max < 1:
            raise InvariantError("at least one id must be followed")
        self._count_max = count_max
        self._holders: OrderedDict[TxId, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def follow(self, tx_id: TxId) -> None:
        """Begins to count for a transaction; does nothing if it is followed already."""
        if tx_id in self._holders:
            return
        if len(self._holders) >= self._count_max:
            self._holders.popitem(last=False)
        self._holders[tx_id] = 0

    def acknowledged(self, tx_id: TxId, validator: int) -> int:
        """Notes that the validator with this index holds it; returns how many distinct ones do (0: not followed)."""
        held = self._holders.get(tx_id)
        if held is None:
            return 0
        held |= 1 << validator
        self._holders[tx_id] = held
        return held.bit_count()

    def renumber(self, places: Mapping[int, int]) -> None:
        """Takes another validator set: `places` gives each former index its new one; who has none counts no more."""
        for tx_id, held in self._holders.items():
            self._holders[tx_id] = sum(1 << new for old, new in places.items() if held >> old & 1)

    def count(self, tx_id: TxId) -> int:
        """Returns how many distinct validators hold it, as far as is known."""
        return self._holders.get(tx_id, 0).bit_count()

    def forget(self, tx_ids: Iterable[TxId]) -> None:
        """Ends counting for these."""
        for tx_id in tx_ids:
            self._holders.pop(tx_id, None)
