"""State sync: a node that is new or far behind takes the state from a snapshot of its peers instead of all blocks.

Theory of operation. Block sync is held while this tries; what it cannot do, block sync does after all.

1. *Offers.* All peers are asked which snapshots they have. The highest is chosen, one that several offer before one
   that a single peer does, and one whose fetching was broken off before any other.
2. *Proof.* Its manifest proves itself against its header (state/store/snapshots/manifest.py), the header is proved from
   our own head, or genesis, through all changes of the validator set (qenex_node/client/light.py).
3. *Chunks* come from all who offer the very same snapshot, a few at a time from each. Each is proved as it comes and
   kept on the disk, so that a crash costs only those under way. A peer that says nothing, or has the snapshot no more,
   is passed over; one that sends what does not fit is banned: an honest node checks its disk before it sends.
4. *Restoring.* The new database is made beside ours. Then the node ends its work, carries its votes over, lets the new
   database take the place of the old one, and begins anew with it: that is node.py's, as only the whole node can.

Everything that a peer can make us hold is bounded: chunks under way, one manifest, one list of offers a peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from p2p.limits import SCORE_BAN
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import LIGHT_BLOCK_BYTES_MAX, LightBlock, TrustedHeader, check_own, prove_header
from qenex_node.logs import Log
from qenex_node.pace import drive, drive_work
from qenex_node.snapshots import Snapshots
from qenex_node.sync import BlockSync
from state.codec import decode
from state.errors import Rejected
from state.genesis import Genesis
from state.store import Store, StoreOptions, free_bytes
from state.store.snapshots import (
    Draft,
    Manifest,
    Snapshot,
    check_certificate,
    newest_fetched,
    prove_chunk,
    remove,
    write_database,
)
from state.store.snapshots.directory import manifest_of
from state.store.snapshots.manifest import CHUNK_BYTES_MAX
from state.types import Certificate, Hash, Height

log = Log("qenex.statesync")

LOOK_SECONDS: Final = 0.5
OFFERS_SECONDS_MAX: Final = 2.0
ANSWER_SECONDS_MAX: Final = 30.0
HEDGE_SECONDS: Final = 3.0
"""A chunk that is under way for longer is asked of another peer too, if there is nothing else to ask for."""
RETRY_SECONDS: Final = 30.0
SOURCELESS_SECONDS_MAX: Final = 15.0
PACE_SECONDS: Final = 60.0
PACE_CHUNKS_MIN: Final = 6
"""Fewer chunks in so long are no better than none: those who are the only ones to have a snapshot must not hold us."""
SHUN_SECONDS: Final = 10.0
CANDIDATES_MAX: Final = 8
LIGHT_TRIES: Final = 2
"""Where sets changed often, one peer is asked for more than its budget takes at once: it drops what is too much, and
answers again after a while."""
CHUNKS_PER_PEER_MAX: Final = 2
CHUNKS_UNDER_WAY_MAX: Final = 8
_SPACE_FACTOR: Final = 4
"""The snapshot itself, and the database that is made of it."""


@dataclass(frozen=True, slots=True)
class StateSyncOptions:
    """gap_heights: how far behind a node must be, 0 for never; min_free_bytes: what must stay free on the disk."""

    gap_heights: int
    min_free_bytes: int


@dataclass(slots=True, eq=False)
class _Wait:
    """A question to one peer that is not answered yet."""

    peer: Peer
    answered: trio.Event = field(default_factory=trio.Event)
    answer: Any = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A snapshot that is offered."""

    height: int
    hash: Hash
    peers: tuple[Peer, ...]


class StateSync:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        store: Store,
        genesis: Genesis,
        sync: BlockSync,
        snapshots: Snapshots,
        store_options: StoreOptions,
        options: StateSyncOptions,
    ) -> None:
        """Takes the node's parts; `network` and `on_restored` are set before `run`."""
        self.network: Network
        self.on_restored: Callable[[], None]
        self.active = False
        self.chunks_present = 0
        self.chunks_in_all = 0
        self._store = store
        self._genesis = genesis
        self._sync = sync
        self._snapshots = snapshots
        self._root: Path = snapshots.root
        self._store_options = store_options
        self._options = options
        self._offers: dict[str, frozenset[tuple[int, Hash]]] = {}
        self._waits: dict[tuple[str, Hashable], _Wait] = {}
        self._shunned: dict[str, float] = {}

    # What peers bring

    def on_snapshots(self, peer: Peer, items: Sequence[tuple[int, bytes]]) -> None:
        """Takes what a peer offers."""
        self._settle(peer, Kind.SNAPSHOTS, tuple((height, Hash(digest)) for height, digest in items))

    def on_manifest(self, peer: Peer, manifest_hash: bytes, manifest: bytes, certificate: bytes) -> None:
        """Takes a manifest that was asked for."""
        self._settle(peer, (Kind.MANIFEST, manifest_hash), (manifest, certificate))

    def on_chunk(self, peer: Peer, manifest_hash: bytes, number: int, data: bytes) -> None:
        """Takes a chunk that was asked for."""
        self._settle(peer, (Kind.CHUNK, manifest_hash, number), data)

    def on_light(self, peer: Peer, height: int, data: bytes) -> None:
        """Takes a light block that was asked for."""
        self._settle(peer, (Kind.LIGHT, height), data)

    def on_disconnected(self, peer: Peer) -> None:
        """Lets those who wait for a peer that is gone turn to others."""
        self._offers.pop(peer.id, None)
        for wait in list(self._waits.values()):
            if wait.peer is peer:
                wait.answered.set()

    def _settle(self, peer: Peer, subject: Hashable, answer: Any) -> None:
        """Gives an answer to whoever waits for it; one that nobody waits for is dropped."""
        wait = self._waits.get((peer.id, subject))
        if wait is not None and not wait.answered.is_set():
            wait.answer = answer
            wait.answered.set()

    async def _ask(self, peer: Peer, kind: Kind, body: Any, subject: Hashable, seconds: float) -> Any:
        """Asks a peer and returns its answer, None if none comes in time."""
        key = (peer.id, subject)
        wait = self._waits[key] = _Wait(peer)
        try:
            if peer.send(kind, body):
                with trio.move_on_after(seconds):
                    await wait.answered.wait()
            return wait.answer
        finally:
            if self._waits.get(key) is wait:
                del self._waits[key]

    # Running

    async def run(self) -> None:
        """Restores a snapshot whenever the chain is far ahead and one is to be had; until cancelled."""
        if not self._options.gap_heights:
            return
        while True:
            await trio.sleep(LOOK_SECONDS)
            if not self._far_behind():
                continue
            self.active = self._sync.held = True
            try:
                restored = await self._attempt()
            except Rejected as error:
                log.warning("state sync did not succeed", code=error.code, why=error.message)
                restored = False
            finally:
                self.active = False
            if restored:
                # Block sync stays held: this database is about to give way.
                self.on_restored()
                return
            self._sync.release()
            await trio.sleep(RETRY_SECONDS)

    def _far_behind(self) -> bool:
        return self._sync.target_height - self._store.head.height >= self._options.gap_heights

    def _least_height(self) -> int:
        """A snapshot below this would not save much of the way."""
        return self._store.head.height + max(1, self._options.gap_heights // 2)

    async def _attempt(self) -> bool:
        """Finds, proves, fetches and restores a snapshot; returns whether it did. Raises Rejected."""
        snapshot = await self._snapshot_at_hand()
        if snapshot is None:
            snapshot = await self._fetch_any()
        if snapshot is None:
            return False
        await self._restore(snapshot)
        return True

    async def _snapshot_at_hand(self) -> Snapshot | None:
        """Returns a whole snapshot that lies here already, as after a crash in the last step."""
        for snapshot in self._snapshots.held:
            if snapshot.height >= self._least_height():
                await self.prove(snapshot.manifest, snapshot.certificate)
                return snapshot
        return None

    async def _fetch_any(self) -> Snapshot | None:
        """Fetches the best snapshot that is offered; None if there is none that holds. Raises Rejected.

        Block sync is held meanwhile, so it ends after some that came to nothing, whoever offers ever new ones.
        """
        given_up: set[Hash] = set()
        for _ in range(CANDIDATES_MAX):
            begun = await trio.to_thread.run_sync(newest_fetched, self._root)
            candidate = await self._choose(None if begun is None else begun[0].hash, given_up)
            if candidate is None:
                return None
            proved = await self._get_manifest(candidate)
            if proved is None:
                # Whoever offered it is passed over by now.
                continue
            manifest, certificate = proved
            try:
                await self.prove(manifest, certificate)
            except Rejected as error:
                for peer in candidate.peers:
                    self.shun(peer, error.message)
                continue
            self._check_space(manifest)
            draft = await trio.to_thread.run_sync(Draft.to_fetch, self._root, manifest, certificate)
            fetch = _Fetch(self, manifest, draft)
            log.info("fetching a snapshot", height=candidate.height, peers=len(candidate.peers), chunks=fetch.count)
            if not await fetch.run():
                log.warning("this snapshot is not to be had", height=candidate.height, why=fetch.why)
                given_up.add(candidate.hash)
                continue
            path = await trio.to_thread.run_sync(draft.finish, candidate.height)
            return await trio.to_thread.run_sync(Snapshot.open, path)
        return None

    async def _choose(self, begun: Hash | None, given_up: Container[Hash]) -> _Candidate | None:
        """Asks all peers what they offer and returns the best; None if there is nothing of use."""
        await self._ask_for_offers()
        found = {offer for offers in self._offers.values() for offer in offers if offer[0] >= self._least_height()}
        candidates = [_Candidate(height, digest, self.peers_with(height, digest)) for height, digest in found]
        ranked = sorted(
            (c for c in candidates if c.peers and c.hash not in given_up),
            key=lambda c: (c.hash == begun, min(len(c.peers), 2), c.height, c.hash),
        )
        return ranked[-1] if ranked else None

    async def _ask_for_offers(self) -> None:
        async def ask(peer: Peer) -> None:
            offered = await self._ask(
                peer, Kind.SNAPSHOTS_REQUEST, self._least_height(), Kind.SNAPSHOTS, OFFERS_SECONDS_MAX
            )
            self._offers[peer.id] = frozenset(offered or ())

        self._offers.clear()
        async with trio.open_nursery() as nursery:
            for peer in self._usable():
                nursery.start_soon(ask, peer)

    def _usable(self) -> list[Peer]:
        now = trio.current_time()
        self._shunned = {peer_id: until for peer_id, until in self._shunned.items() if until > now}
        return [peer for peer in self.network.connected() if peer.id not in self._shunned]

    def peers_with(self, height: int, digest: Hash) -> tuple[Peer, ...]:
        """Returns the peers that offer a snapshot and are not passed over."""
        return tuple(p for p in self._usable() if (height, digest) in self._offers.get(p.id, ()))

    def shun(self, peer: Peer, why: str) -> None:
        """Passes over a peer for a while: what it does may be an accident."""
        log.warning("peer passed over for state sync", peer=peer.name, why=why)
        self._shunned[peer.id] = trio.current_time() + SHUN_SECONDS

    def ban(self, peer: Peer, error: Rejected) -> None:
        """Bans a peer for what only a liar sends."""
        self._offers.pop(peer.id, None)
        self.shun(peer, f"it lied: {error.message}")
        self.network.report(peer, SCORE_BAN, f"snapshot: {error.code}")

    # The manifest and its header

    async def _get_manifest(self, candidate: _Candidate) -> tuple[Manifest, Certificate] | None:
        """Returns the manifest, which a quorum of its own set certified; None if no peer gives one that holds."""
        for peer in candidate.peers:
            subject = (Kind.MANIFEST, candidate.hash)
            answer = await self._ask(peer, Kind.MANIFEST_REQUEST, candidate.hash, subject, ANSWER_SECONDS_MAX)
            if answer is None or not answer[0]:
                self.shun(peer, "it did not send the manifest that it offered")
                continue
            try:
                manifest = await trio.to_thread.run_sync(manifest_of, answer[0], candidate.hash)
                certificate = Certificate.decode(answer[1])
                check_certificate(manifest, certificate, self._genesis)
                if manifest.header.height != candidate.height:
                    raise Rejected("snapshot_invalid", "the manifest is of another height than was offered")
            except Rejected as error:
                self.ban(peer, error)
                continue
            return manifest, certificate
        return None

    async def prove(self, manifest: Manifest, certificate: Certificate) -> None:
        """Proves a manifest's header from what this node knows for certain; raises Rejected("header_unproved").

        One peer at a time is asked for all headers between: whoever makes up validators gives headers that hold in
        themselves, and one such among the true ones of others would spoil every proof.
        """
        block = LightBlock(manifest.header, certificate, manifest.validators)
        contradicted: list[tuple[Peer, VerificationFailed]] = []
        for peer in (None, *self._usable()):
            try:
                await self._prove_by(peer, block)
            except VerificationFailed as error:
                if peer is None:
                    raise Rejected("header_unproved", f"the snapshot's header does not follow: {error}") from error
                contradicted.append((peer, error))
            except Rejected:
                continue
            else:
                for liar, lie in contradicted:
                    self.ban(liar, Rejected("light_block_invalid", str(lie)))
                return
        reasons = "; ".join(str(lie) for _, lie in contradicted) or "nobody gave the headers between"
        raise Rejected("header_unproved", f"the snapshot's header does not follow from ours: {reasons}")

    async def _prove_by(self, peer: Peer | None, block: LightBlock) -> None:
        """Proves a header by those that one peer gives, None if none are needed.

        Raises VerificationFailed where what it gave, or the header, is false; Rejected where it gave too little.
        """
        wanted = prove_header(self._genesis.context, self._trusted(), block.header.height)
        try:
            next(wanted)
            while True:
                height = wanted.send(block)
                block = await self._light_block(peer, height)
        except StopIteration:
            return

    def _trusted(self) -> TrustedHeader:
        head = self._store.head
        if head.height == 0:
            return TrustedHeader.of_genesis(self._genesis)
        validators = self._store.validators_at(head.height)
        return TrustedHeader(head.height, head.hash, head.time_ms, validators, head.next_validators_hash)

    async def _light_block(self, peer: Peer | None, height: Height) -> LightBlock:
        """Returns a peer's light block, whole in itself; raises Rejected("header_unproved") if it gives none."""
        if peer is not None:
            data = None
            for _ in range(LIGHT_TRIES):
                data = await self._ask(peer, Kind.LIGHT_REQUEST, height, (Kind.LIGHT, height), OFFERS_SECONDS_MAX)
                if data is not None:
                    break
            if data:
                try:
                    block = LightBlock.from_value(decode(data, bytes_max=LIGHT_BLOCK_BYTES_MAX))
                    check_own(self._genesis.context, block)
                    if block.header.height == height:
                        return block
                    self.ban(peer, Rejected("light_block_invalid", "it is of another height"))
                except Rejected as error:
                    self.ban(peer, error)
                except VerificationFailed as error:
                    self.ban(peer, Rejected("light_block_invalid", str(error)))
        raise Rejected("header_unproved", f"the header of height {height} was not given")

    def _check_space(self, manifest: Manifest) -> None:
        needed = self._options.min_free_bytes + _SPACE_FACTOR * len(manifest.chunks) * CHUNK_BYTES_MAX
        free = free_bytes(self._store.database.path)
        if free < needed:
            raise Rejected("disk_low", f"{free} bytes of disk are free, the snapshot may need {needed}")

    # Restoring

    async def _restore(self, snapshot: Snapshot) -> None:
        """Makes the new database beside ours; a snapshot that is damaged is let go of. Raises Rejected."""
        began = trio.current_time()
        work = write_database(
            self._store.database.path,
            self._genesis,
            snapshot.manifest,
            snapshot.certificate,
            snapshot,
            self._store_options,
        )
        try:
            await drive_work(work)
        except Rejected:
            await trio.to_thread.run_sync(remove, self._root, snapshot.path)
            raise
        seconds = round(trio.current_time() - began, 1)
        log.info("a database was made of the snapshot", height=snapshot.height, seconds=seconds)

    async def keep_chunk(self, manifest: Manifest, draft: Draft, number: int, data: bytes) -> None:
        """Proves a chunk and keeps it; raises Rejected("chunk_invalid")."""
        await drive(prove_chunk(manifest.chunks[number], data))
        await trio.to_thread.run_sync(draft.put_chunk, number, data)

    async def ask_chunk(self, peer: Peer, manifest_hash: Hash, number: int) -> bytes | None:
        """Returns a chunk that a peer sends, b"" if it has it no more, None if it says nothing."""
        subject = (Kind.CHUNK, manifest_hash, number)
        answer: bytes | None = await self._ask(
            peer, Kind.CHUNK_REQUEST, (manifest_hash, number), subject, ANSWER_SECONDS_MAX
        )
        return answer

    def withdraw(self, peer: Peer) -> None:
        """Notes that a peer has not what it offered."""
        self._offers.pop(peer.id, None)

    async def renew_offers(self) -> None:
        """Asks all peers again what they offer."""
        await self._ask_for_offers()


class _Fetch:
    """The chunks of one snapshot on their way: which are wanted, who is asked for which."""

    def __init__(self, owner: StateSync, manifest: Manifest, draft: Draft) -> None:
        self.count = len(manifest.chunks)
        self._owner = owner
        self._manifest = manifest
        self._draft = draft
        present = draft.present()
        self._wanted = deque(number for number in range(self.count) if number not in present)
        self._done = present
        self._asked: dict[int, dict[str, float]] = {}
        self._changed = trio.Event()
        self._pace_until, self._pace_done = trio.current_time() + PACE_SECONDS, len(present)
        self.why = ""
        self._tell()

    def _tell(self) -> None:
        self._owner.chunks_in_all, self._owner.chunks_present = self.count, len(self._done)

    async def run(self) -> bool:
        """Fetches all that is wanted; returns False, and says `why`, if nobody offers it or it comes too slowly."""
        sourced_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            while len(self._done) < self.count:
                peers = self._owner.peers_with(self._manifest.header.height, self._manifest.hash)
                if peers:
                    sourced_at = trio.current_time()
                elif trio.current_time() - sourced_at > SOURCELESS_SECONDS_MAX:
                    self.why = "nobody has it any more"
                elif not self._asked:
                    await self._owner.renew_offers()
                if self.why or self._too_slow():
                    nursery.cancel_scope.cancel()
                    return False
                for peer in peers:
                    self._give_work(peer, nursery)
                self._changed = trio.Event()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._changed.wait()
            # Whoever was asked for a chunk that another sent meanwhile is not waited for.
            nursery.cancel_scope.cancel()
        return True

    def _too_slow(self) -> bool:
        """Whether the time of one stretch has passed with too few chunks; begins the next."""
        if trio.current_time() < self._pace_until:
            return False
        came, self._pace_done = len(self._done) - self._pace_done, len(self._done)
        self._pace_until = trio.current_time() + PACE_SECONDS
        if came >= PACE_CHUNKS_MIN:
            return False
        self.why = f"{came} chunks came in {PACE_SECONDS:g} s"
        return True

    def _give_work(self, peer: Peer, nursery: trio.Nursery) -> None:
        while True:
            under_way = sum(peer.id in asked for asked in self._asked.values())
            everywhere = sum(map(len, self._asked.values()))
            if under_way >= CHUNKS_PER_PEER_MAX or everywhere >= CHUNKS_UNDER_WAY_MAX:
                return
            number = self._next_for(peer)
            if number is None:
                return
            self._asked.setdefault(number, {})[peer.id] = trio.current_time()
            nursery.start_soon(self._fetch, peer, number)

    def _next_for(self, peer: Peer) -> int | None:
        """Returns a chunk to ask a peer for: one that nobody was asked for, else one that is long under way."""
        if self._wanted:
            return self._wanted.popleft()
        since = trio.current_time() - HEDGE_SECONDS
        for number, asked in self._asked.items():
            if peer.id not in asked and max(asked.values()) < since:
                return number
        return None

    async def _fetch(self, peer: Peer, number: int) -> None:
        data = await self._owner.ask_chunk(peer, self._manifest.hash, number)
        if number not in self._done:
            await self._take(peer, number, data)
        asked = self._asked[number]
        del asked[peer.id]
        if not asked:
            del self._asked[number]
            if number not in self._done:
                self._wanted.appendleft(number)
        self._changed.set()

    async def _take(self, peer: Peer, number: int, data: bytes | None) -> None:
        if data is None:
            self._owner.shun(peer, "it did not send a chunk")
            return
        if not data:
            self._owner.withdraw(peer)
            return
        try:
            await self._owner.keep_chunk(self._manifest, self._draft, number, data)
        except Rejected as error:
            self._owner.ban(peer, error)
            return
        self._done.add(number)
        self._tell()
