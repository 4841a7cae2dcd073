"""How transactions come in and get around: admission, passing on, acknowledgements, and fetching what is missing.

Theory of operation. Everything that arrives, from clients and from peers, goes through one queue that one task empties
in slices: hash, look whether it is known, decode, ask the ledger whether it can ever enter, prove the signatures, put
it into the mempool. So each signature is proved once, off the path of consensus messages, and a flood waits in a
bounded queue. A new transaction is pushed at once to the direct peers that its sender does not serve itself; what
arrives while a batch is admitted leaves with the next. Validators acknowledge what they hold, by which `accepted` is
answered. What has waited for long is announced by hash, ever more rarely, so that what a crash or a full queue
swallowed still gets around.

A proposal may name transactions that are not here: they are fetched past the mempool's bounds, for that block alone,
and admitted before all that waits in the queue, so that a flood does not keep a block from being judged.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from p2p.flood import relay_targets
from p2p.hello import Role
from p2p.limits import POINTS_REJECTED
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind, batches
from qenex_node import metrics as m
from qenex_node.fates import Fates
from qenex_node.logs import Log
from qenex_node.mempool import Acknowledgements, Added, Mempool
from qenex_node.metrics import Reading
from qenex_node.pace import Pace
from qenex_node.wanted import Wanted
from state.codec import encode, expect_array, expect_blob, expect_bytes, expect_tuple
from state.errors import InvariantError, Rejected
from state.hashing import TAG_POSSESSION
from state.keys import verify_ed25519
from state.ledger import Ledger
from state.ledger.overlay import StateReader
from state.limits import BLOCK_BYTES_MAX
from state.transaction import Transaction, decode_transaction, verify_signatures, wire_hash_of
from state.types import ChainContext, TxId, ValidatorSet, WireHash

log = Log("qenex.gossip")

KNOWN_MAX: Final = 131_072
HELD_IDS_MAX: Final = 8_000
ANNOUNCE_FIRST_MS: Final = 500
ANNOUNCE_GROWTH: Final = 4
ANNOUNCE_TICK_SECONDS: Final = 0.5
ANNOUNCE_COUNT_MAX: Final = 2_000
FETCH_RETRY_SECONDS: Final = 0.2
FETCH_RETRY_SECONDS_MAX: Final = 2.0
ARRIVAL_OVERHEAD_BYTES: Final = 256
"""What a queued transaction counts for beside its own bytes: empty ones must not fill the memory for nothing."""
POINTS_BAD_SIGNATURE: Final = 50.0
_BAD_FORM: Final = frozenset({"malformed", "wrong_chain", "scheme_unknown", "transaction_too_large", "version_unknown"})
_OF_CLOCKS: Final = frozenset({"expired", "deadline_too_far"})
_FINAL_REFUSALS: Final = frozenset(
    {
        "asset_code_invalid",
        "expired",
        "operation_unknown",
        "policy_invalid",
        "sequence_used",
        "transaction_too_heavy",
    }
)
"""Refusals that stand for good. After any other (no room, a gap too wide) the transaction is taken when it comes again:
whoever holds it may count on us to propose it."""

Outcome = Transaction | Rejected
_SETTLED: Final = Rejected("known", "this transaction is settled already")


@dataclass(slots=True, eq=False)
class Submission:
    """A client's batch on its way through the queue; `done` is set when each has its outcome, in order."""

    outcomes: list[Outcome | None]
    missing: int
    done: trio.Event = field(default_factory=trio.Event)

    def settle(self, place: int, outcome: Outcome) -> None:
        """Notes one outcome."""
        self.outcomes[place] = outcome
        self.missing -= 1
        if self.missing == 0:
            self.done.set()


@dataclass(slots=True, eq=False)
class _Arrival:
    wire: bytes
    wire_hash: WireHash
    peer: Peer | None = None
    submission: Submission | None = None
    place: int = 0

    @property
    def size(self) -> int:
        """What it counts for against the queue's bound."""
        return len(self.wire) + ARRIVAL_OVERHEAD_BYTES


@dataclass(slots=True)
class _Batch:
    """What one round of admission brought, by where it came from, to be passed on in few frames."""

    ours: list[Transaction] = field(default_factory=list)
    relayed: dict[str, tuple[Peer, list[Transaction]]] = field(default_factory=dict)
    held: dict[str, tuple[Peer, list[TxId]]] = field(default_factory=dict)


class Gossip:
    """See the module's theory of operation."""

    def __init__(
        self,
        *,
        context: ChainContext,
        ledger: Ledger,
        reader: Callable[[], StateReader],
        mempool: Mempool,
        fates: Fates,
        validators: Callable[[], ValidatorSet],
        validator_key: bytes | None,
        sign: Callable[[bytes], bytes],
        now_ms: Callable[[], int],
        on_work: Callable[[], None],
        is_committed: Callable[[TxId], bool],
        queue_bytes_max: int,
    ) -> None:
        """Takes the node's parts; `network` is set before `run`. `on_work` is told when new work may have come.

        `queue_bytes_max` bounds what waits for admission.
        """
        self.network: Network
        self._context = context
        self._ledger = ledger
        self._reader = reader
        self._mempool = mempool
        self._fates = fates
        self._validators = validators
        self._validator_key = validator_key
        self._sign = sign
        self._now_ms = now_ms
        self._on_work = on_work
        self._is_committed = is_committed
        self._queue_bytes_max = queue_bytes_max
        self._arrivals: deque[_Arrival] = deque()
        self._urgent: deque[_Arrival] = deque()
        self._arrivals_bytes = 0
        self._arrived = trio.Event()
        self._known: OrderedDict[WireHash, None] = OrderedDict()
        self._announced: dict[WireHash, int] = {}
        self._wanted = Wanted()
        self.acknowledgements = Acknowledgements(KNOWN_MAX)
        self.admitted = {"client": 0, "peer": 0}
        self.known = 0
        self.dropped = 0
        self.rejections: dict[str, int] = {}

    @property
    def queued_bytes(self) -> int:
        """The bytes that wait for admission."""
        return self._arrivals_bytes

    def validators_changed(self, before: ValidatorSet) -> None:
        """Counts by the set that is in force now; what waits here may be accepted by it at once."""
        now = self._validators()
        places = {old: now.index_of(v.key) for old, v in enumerate(before.validators)}
        self.acknowledgements.renumber({old: new for old, new in places.items() if new is not None})
        needed = self.acknowledgements_needed()
        for tx in self._mempool.candidates():
            if self.acknowledgements.count(tx.id) >= needed:
                self._fates.accepted(tx.id)

    @property
    def _in_force(self) -> bool:
        """Whether this node is one of the validators in force, whose word on what it holds counts."""
        return self._validator_key is not None and self._validators().index_of(self._validator_key) is not None

    def acknowledgements_needed(self) -> int:
        """Returns how many other validators must hold a transaction before it counts as accepted."""
        f = self._validators().f
        return f if self._in_force else f + 1

    async def submit(self, wires: Sequence[bytes]) -> list[Outcome]:
        """Admits a client's transactions as one batch and passes them on; returns an outcome for each, in order."""
        if not wires:
            return []
        submission = Submission([None] * len(wires), len(wires))
        arrivals = [
            _Arrival(wire, wire_hash_of(wire), submission=submission, place=place) for place, wire in enumerate(wires)
        ]
        size = sum(arrival.size for arrival in arrivals)
        if self._arrivals and self._arrivals_bytes + size > self._queue_bytes_max:
            busy = Rejected("busy", "more transactions arrive than can be admitted: send again in a moment")
            return [busy] * len(wires)
        self._arrivals.extend(arrivals)
        self._arrivals_bytes += size
        self._arrived.set()
        await submission.done.wait()
        return [outcome for outcome in submission.outcomes if outcome is not None]

    def on_transactions(self, peer: Peer, wires: Sequence[bytes]) -> None:
        """Takes a peer's transactions; what the queue cannot hold is dropped, as it will be announced again."""
        for wire in wires:
            arrival = _Arrival(wire, wire_hash_of(wire), peer)
            wanted = arrival.wire_hash in self._wanted
            settled = arrival.wire_hash in self._known and self._mempool.get(arrival.wire_hash) is None
            if settled and not wanted:
                self.known += 1
                continue
            room = self._queue_bytes_max + (BLOCK_BYTES_MAX if wanted else 0)
            if self._arrivals_bytes + arrival.size > room:
                self._note_refusal("busy")
                continue
            if not wanted:
                self._arrivals.append(arrival)
            elif self._wanted.enqueue(arrival.wire_hash):
                self._urgent.append(arrival)
            else:
                continue
            self._arrivals_bytes += arrival.size
        self._arrived.set()

    def on_announce(self, peer: Peer, hashes: Sequence[bytes]) -> None:
        """Asks for the announced transactions that are not known here."""
        missing = [wire_hash for wire_hash in hashes if wire_hash not in self._known]
        for batch in batches(missing, kind=Kind.TX_REQUEST):
            peer.send(Kind.TX_REQUEST, batch)

    def on_request(self, peer: Peer, hashes: Sequence[bytes], body: Callable[[bytes], bytes | None]) -> None:
        """Sends the transactions asked for that are here: waiting, or (by `body`) in a block under discussion.

        Each once, and no more than a block holds: a correct asker asks again for what is still missing.
        """
        if peer.queued_bytes > BLOCK_BYTES_MAX:
            # It asks for more than it reads.
            return
        found: list[bytes] = []
        size = 0
        for wire_hash in dict.fromkeys(hashes):
            tx = self._mempool.get(WireHash(wire_hash))
            wire = tx.wire if tx is not None else body(wire_hash)
            if wire is None:
                continue
            size += len(wire)
            if size > BLOCK_BYTES_MAX:
                break
            found.append(wire)
        for batch in batches(found, kind=Kind.TRANSACTIONS):
            peer.send(Kind.TRANSACTIONS, batch)

    def on_held(self, peer: Peer, body: Any, raw: bytes) -> None:
        """Counts an acknowledgement: [ids, nil, nil] for the direct peer itself, or signed, for any validator."""
        ids_value, key, signature = expect_tuple(body, 3, "TX_HELD")
        ids = expect_array(ids_value, HELD_IDS_MAX, "ids")
        for tx_id in ids:
            expect_bytes(tx_id, 32, "id")
        relayed = key is not None
        if relayed:
            expect_bytes(key, 32, "validator key")
            expect_blob(signature, 64, "signature")
        else:
            key = peer.validator_key
        index = None if key is None else self._validators().index_of(key)
        if index is None:
            # Nobody's word, or that of a validator which is not in force here: it goes no further.
            return
        if relayed:
            if not verify_ed25519(key, self._held_preimage(ids), signature):
                raise Rejected("bad_signature", "an acknowledgement's signature does not match")
            self.network.relay(Kind.TX_HELD, raw, peer)
        needed = self.acknowledgements_needed()
        for tx_id in ids:
            if self.acknowledgements.acknowledged(tx_id, index) >= needed:
                self._fates.accepted(tx_id)

    def on_connected(self, peer: Peer) -> None:
        """Tells a new peer what waits here, so that both come to hold the same."""
        hashes = [tx.wire_hash for tx in self._mempool.candidates()]
        for batch in batches(hashes, kind=Kind.TX_ANNOUNCE):
            peer.send(Kind.TX_ANNOUNCE, batch)

    def push_oldest(self, limit: int = 256) -> None:
        """Sends the longest waiting transactions to all peers, whatever they have seen: the primary is suspected."""
        wires = [tx.wire for tx in self._mempool.candidates(limit)]
        for batch in batches(wires, kind=Kind.TRANSACTIONS):
            for peer in self.network.connected():
                peer.send(Kind.TRANSACTIONS, batch)

    def settled(self, wire_hashes: Iterable[WireHash]) -> None:
        """Forgets what is committed or gone, and keeps its hash as known, so that it is not fetched again."""
        for wire_hash in wire_hashes:
            self._announced.pop(wire_hash, None)
            self._know(wire_hash)

    async def fetch(
        self, hashes: Sequence[WireHash], ask: Callable[[Sequence[bytes]], None]
    ) -> dict[WireHash, Transaction]:
        """Gets transactions that a proposal names and the mempool lacks; `ask` is called for what is missing.

        Waits until all are there: bounded by the caller, who cancels it when the proposal is of no use any more.
        Raises Rejected("block_invalid") if one of them can be in no valid block, or all together are too large.
        """
        fetch = self._wanted.begin(hashes)
        try:
            pause = FETCH_RETRY_SECONDS
            while not fetch.ended.is_set():
                ask(self._wanted.to_ask_for(fetch))
                with trio.move_on_after(pause):
                    await fetch.ended.wait()
                pause = min(pause * 2, FETCH_RETRY_SECONDS_MAX)
            if fetch.refused is not None:
                raise fetch.refused
            return fetch.found
        finally:
            self._wanted.end(fetch)

    async def run(self) -> None:
        """Admits and announces until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_announcing)
            while True:
                await self._arrived.wait()
                self._arrived = trio.Event()
                await self._admit_all()

    async def _admit_all(self) -> None:
        pace = Pace()
        batch = _Batch()
        while self._urgent or self._arrivals:
            arrival = (self._urgent or self._arrivals).popleft()
            self._arrivals_bytes -= arrival.size
            outcome = self._admit(arrival, batch)
            if arrival.submission is not None:
                arrival.submission.settle(arrival.place, outcome)
            if pace.tired:
                self._pass_on(batch)
                batch = _Batch()
                self._on_work()
                await pace.rest()
        self._pass_on(batch)
        self._on_work()

    def _admit(self, arrival: _Arrival, batch: _Batch) -> Outcome:
        """Judges one transaction; nothing that a client or peer sends may end the task that does it for all."""
        try:
            return self._judge(arrival, batch)
        except InvariantError:
            raise
        except Exception as error:
            log.exception("a transaction met an unforeseen error", error, wire_hash=arrival.wire_hash)
            refusal = Rejected("internal_error", "this node failed on the transaction; its log says how")
            self._wanted.bad(arrival.wire_hash, refusal)
            self._note_refusal(refusal.code)
            return refusal

    def _judge(self, arrival: _Arrival, batch: _Batch) -> Outcome:
        wire_hash = arrival.wire_hash
        waiting = self._mempool.get(wire_hash)
        if waiting is not None:
            self.known += 1
            self._wanted.came(waiting)
            self._acknowledge(arrival, waiting, batch)
            if arrival.peer is None and self.acknowledgements.count(waiting.id) < self.acknowledgements_needed():
                # Others told whoever sent it to them that they hold it; asked again, they tell us.
                batch.ours.append(waiting)
            return waiting
        wanted = wire_hash in self._wanted
        if arrival.submission is None and wire_hash in self._known and not wanted:
            # It was committed or refused while it waited here; nobody asks for its outcome.
            self.known += 1
            return _SETTLED
        tx: Transaction | None = None
        try:
            tx = decode_transaction(arrival.wire, self._context)
            if not wanted:
                self._ledger.admission(self._reader(), tx, self._now_ms())
            verify_signatures(tx)
            if wanted:
                # A block may hold what our own state and bounds refuse here: that is for its execution to tell.
                self._wanted.came(tx)
                wanted = False
                self._ledger.admission(self._reader(), tx, self._now_ms())
            added = self._mempool.add(tx, self._now_ms())
        except Rejected as error:
            if wanted:
                self._wanted.bad(wire_hash, error)
            if tx is not None and self._is_committed(tx.id):
                self._know(wire_hash)
                return tx
            self._note_rejection(arrival, error)
            return error
        self._know(wire_hash)
        if isinstance(added, Added):
            self._note_new(arrival, tx, batch)
        self._acknowledge(arrival, added.entry.tx, batch)
        return added.entry.tx

    def _note_new(self, arrival: _Arrival, tx: Transaction, batch: _Batch) -> None:
        self.acknowledgements.follow(tx.id)
        if arrival.peer is None:
            self.admitted["client"] += 1
            batch.ours.append(tx)
        else:
            self.admitted["peer"] += 1
            batch.relayed.setdefault(arrival.peer.id, (arrival.peer, []))[1].append(tx)

    def _acknowledge(self, arrival: _Arrival, tx: Transaction, batch: _Batch) -> None:
        if arrival.peer is not None and self._in_force:
            batch.held.setdefault(arrival.peer.id, (arrival.peer, []))[1].append(tx.id)

    def _note_rejection(self, arrival: _Arrival, error: Rejected) -> None:
        self._note_refusal(error.code)
        if arrival.peer is None:
            return
        # A correct peer proves form and signatures before it passes anything on; what the state says may differ.
        if error.code in _BAD_FORM:
            self.network.report(arrival.peer, POINTS_REJECTED, f"transaction {error.code}")
        elif error.code == "bad_signature":
            self.network.report(arrival.peer, POINTS_BAD_SIGNATURE, "transaction with a bad signature")
        elif error.code in _FINAL_REFUSALS:
            self._know(arrival.wire_hash)

    def _note_refusal(self, code: str) -> None:
        self.rejections[code] = self.rejections.get(code, 0) + 1

    def readings(self) -> Iterator[Reading]:
        """Returns what is counted here, for the metrics."""
        for origin, count in self.admitted.items():
            yield m.MEMPOOL_ADMITTED, (origin,), count
        yield m.MEMPOOL_KNOWN, (), self.known
        for code, count in self.rejections.items():
            yield m.MEMPOOL_REJECTED, (code,), count
        yield m.MEMPOOL_REMOVED, ("dropped",), self.dropped

    def drop_if_hopeless(self, tx: Transaction) -> bool:
        """Lets go of a waiting transaction that by the committed state can never enter a block any more (its key may
        have been rotated away), and wakes those who wait for it; returns whether it did."""
        try:
            self._ledger.admission(self._reader(), tx, self._now_ms())
        except Rejected as error:
            # A deadline passes only with a block that is later: an earlier proposal may still be committed.
            if error.code in _OF_CLOCKS or self._mempool.drop(tx.id, error.code, error.message) is None:
                return False
            self.dropped += 1
            self.settled([tx.wire_hash])
            self.acknowledgements.forget([tx.id])
            self._fates.settled([tx.id])
            return True
        return False

    def _know(self, wire_hash: WireHash) -> None:
        self._known[wire_hash] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _pass_on(self, batch: _Batch) -> None:
        network = self.network
        peers = network.connected()
        if batch.ours:
            self._push(peers, batch.ours)
        for source, transactions in batch.relayed.values():
            self._push(list(relay_targets(peers, source)), transactions)
        if not batch.held:
            return
        meshed = self._joined_with_all(peers)
        for source, ids in batch.held.values():
            for start in range(0, len(ids), HELD_IDS_MAX):
                part = tuple(ids[start : start + HELD_IDS_MAX])
                if meshed:
                    source.send(Kind.TX_HELD, (part, None, None))
                else:
                    signature = self._sign(self._held_preimage(part))
                    network.flood(Kind.TX_HELD, (part, self._validator_key, signature))

    def _push(self, peers: Sequence[Peer], transactions: Sequence[Transaction]) -> None:
        if not peers:
            return
        for wires in batches([tx.wire for tx in transactions], kind=Kind.TRANSACTIONS):
            for peer in peers:
                peer.send(Kind.TRANSACTIONS, wires)

    def _joined_with_all(self, peers: Sequence[Peer]) -> bool:
        joined = {peer.validator_key for peer in peers if peer.role is Role.VALIDATOR}
        return all(v.key in joined or v.key == self._validator_key for v in self._validators().validators)

    def _held_preimage(self, ids: Sequence[bytes]) -> bytes:
        return TAG_POSSESSION + encode((self._context.genesis_hash, tuple(ids)))

    async def _keep_announcing(self) -> None:
        while True:
            await trio.sleep(ANNOUNCE_TICK_SECONDS)
            self.announce_waiting()

    def announce_waiting(self) -> None:
        """Announces by hash what has waited for long, each transaction ever more rarely."""
        now_ms = self._now_ms()
        if len(self._announced) > KNOWN_MAX:
            # Those that made room for others left no word.
            self._announced = {h: at for h, at in self._announced.items() if self._mempool.get(h) is not None}
        due: list[WireHash] = []
        for tx in self._mempool.candidates(ANNOUNCE_COUNT_MAX):
            entry = self._mempool.by_id(tx.id)
            if entry is None:
                continue
            waited_ms = now_ms - entry.arrived_ms
            if waited_ms < ANNOUNCE_FIRST_MS:
                continue
            if waited_ms >= self._announced.get(tx.wire_hash, 0):
                self._announced[tx.wire_hash] = waited_ms * ANNOUNCE_GROWTH
                due.append(tx.wire_hash)
        for batch in batches(due, kind=Kind.TX_ANNOUNCE):
            for peer in self.network.connected():
                peer.send(Kind.TX_ANNOUNCE, batch)
