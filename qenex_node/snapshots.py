"""Makes snapshots as the chain grows, keeps the newest, and serves them to peers, beside everything else.

A snapshot is begun at the very commit of a height that the interval divides, so that all nodes make those of the same
heights. It takes seconds of work, which go in slices with rests between them: the event loop is never held for more
than some milliseconds, and most of its time stays with the node's other work. What waits for the disk goes to a thread.

Serving has a budget for all peers together, and peers take turns at it, one chunk each. What is asked for beyond
a bound is refused at once, so that whoever asked can turn to another.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from p2p.conduct import Bucket
from p2p.limits import ANSWER_QUEUE_BYTES_MAX, SNAPSHOTS_PER_FRAME_MAX
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node import metrics as m
from qenex_node.client.light import LightBlock
from qenex_node.logs import Log
from qenex_node.metrics import Metrics
from qenex_node.pace import drive_work
from state.codec import encode
from state.errors import Rejected
from state.store import Damaged, Store, free_bytes
from state.store.keys import STATE, after
from state.store.snapshots import Snapshot, Work, remove, snapshot_head, snapshots_in, tidy
from state.types import Hash, Header

log = Log("qenex.snapshots")

WORK_SHARE: Final = 0.2
"""Of the event loop's time, while a snapshot is made."""

SERVED_BYTES_PER_SECOND: Final = 24 * 1024 * 1024
SERVED_BYTES_BURST: Final = 8 * 1024 * 1024
REQUESTS_PER_PEER_MAX: Final = 4
REQUESTS_MAX: Final = 64
_SPACE_FACTOR: Final = 3
"""A snapshot under way takes its own size, that of the files it is sorted in, and some."""


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """interval_heights: one at each height that it divides, 0 for none; keep: how many of the newest are kept;
    min_free_bytes: what must stay free on the disk."""

    interval_heights: int
    keep: int
    min_free_bytes: int


@dataclass(frozen=True, slots=True)
class _Request:
    peer: Peer
    snapshot: Snapshot
    number: int


class Snapshots:
    """See the module's docstring."""

    def __init__(self, root: Path, store: Store, metrics: Metrics, options: SnapshotOptions) -> None:
        """Takes where snapshots lie, the store, and what the operator chose."""
        self.root = root
        self._store = store
        self._metrics = metrics
        self._options = options
        self._held: dict[Hash, Snapshot] = {}
        self._begun: Work[Path] | None = None
        self._wake = trio.Event()
        self._lines: OrderedDict[Peer, deque[_Request]] = OrderedDict()
        self._asked = trio.Event()
        self._bucket = Bucket(SERVED_BYTES_PER_SECOND, SERVED_BYTES_BURST, trio.current_time())
        self.catching_up: Callable[[], bool] = lambda: False

    @property
    def held(self) -> Sequence[Snapshot]:
        """The snapshots that are here, the newest first."""
        return sorted(self._held.values(), key=lambda snapshot: -snapshot.height)

    @property
    def making(self) -> bool:
        """Whether one is under way."""
        return self._begun is not None

    def on_committed(self, header: Header) -> None:
        """Begins a snapshot if this height is to have one; called with the store's head at that height."""
        interval = self._options.interval_heights
        if not interval or header.height % interval or self.catching_up():
            return
        if self._begun is not None:
            log.warning("no snapshot: the one before is still being made", height=header.height)
            return
        needed = self._options.min_free_bytes + _SPACE_FACTOR * self._state_bytes()
        free = free_bytes(self._store.database.path)
        if free < needed:
            log.warning("no snapshot: disk space is low", height=header.height, free_bytes=free, needed_bytes=needed)
            return
        self._begun = snapshot_head(self._store, self.root)
        self._wake.set()

    def _state_bytes(self) -> int:
        return self._store.database.approximate_bytes(STATE, after(STATE))

    async def run(self) -> None:
        """Makes and serves until cancelled."""
        await trio.to_thread.run_sync(tidy, self.root)
        await self._load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_serving)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._begun is not None:
                    try:
                        await self._make(self._begun)
                    finally:
                        self._begun = None

    async def _make(self, work: Work[Path]) -> None:
        began = trio.current_time()
        try:
            path = await drive_work(work, WORK_SHARE)
        except OSError as error:
            log.error("no snapshot: the disk refused", why=str(error))
            return
        except Damaged as error:
            log.error("no snapshot: the state is damaged; run `qenex verify`", why=str(error))
            raise
        await self.take_in(path)
        seconds = trio.current_time() - began
        self._metrics.set(m.SNAPSHOT_SECONDS, seconds)
        log.info("snapshot made", height=self.held[0].height, seconds=round(seconds, 1))

    async def _load(self) -> None:
        for path in snapshots_in(self.root):
            await self._open(path)
        await self._rotate()

    async def take_in(self, path: Path) -> None:
        """Serves a snapshot that is whole on the disk, and lets go of those beyond the number that is kept."""
        await self._open(path)
        await self._rotate()

    async def _open(self, path: Path) -> None:
        try:
            snapshot = await trio.to_thread.run_sync(Snapshot.open, path)
        except Rejected as error:
            log.error("a snapshot cannot be used", path=str(path), code=error.code, why=error.message)
            return
        self._held[snapshot.manifest.hash] = snapshot
        self._metrics.set(m.SNAPSHOT_HEIGHT, max(held.height for held in self._held.values()))

    async def _rotate(self) -> None:
        for old in self.held[self._options.keep :]:
            del self._held[old.manifest.hash]
            await trio.to_thread.run_sync(remove, self.root, old.path)

    # Serving

    def on_snapshots_request(self, peer: Peer, least_height: int) -> None:
        """Tells which snapshots are here."""
        offered = [(s.height, s.manifest.hash) for s in self.held if s.height >= least_height]
        peer.send(Kind.SNAPSHOTS, tuple(offered[:SNAPSHOTS_PER_FRAME_MAX]))

    def on_manifest_request(self, peer: Peer, manifest_hash: bytes) -> None:
        """Sends a manifest with its certificate, or that it is not here."""
        if peer.queued_bytes > ANSWER_QUEUE_BYTES_MAX:
            # It asks for more than it reads.
            return
        snapshot = self._held.get(Hash(manifest_hash))
        manifest, certificate = (
            (b"", b"") if snapshot is None else (snapshot.manifest.encoded, snapshot.certificate.encode())
        )
        peer.send(Kind.MANIFEST, (manifest_hash, manifest, certificate))

    def on_light_request(self, peer: Peer, height: int) -> None:
        """Sends what proves the header of a height, or that it is not here."""
        peer.send(Kind.LIGHT, (height, self._light_block(height)))

    def _light_block(self, height: int) -> bytes:
        store = self._store
        try:
            header, certificate = store.header_at(height), store.certificate_at(height)
            if header is None or certificate is None:
                return b""
            return encode(LightBlock(header, certificate, store.validators_at(height)).to_value())
        except Rejected:
            return b""

    def on_chunk_request(self, peer: Peer, manifest_hash: bytes, number: int) -> None:
        """Puts a chunk in its peer's line; says that it is not to be had here if that is so, or if too many wait."""
        if peer.queued_bytes > ANSWER_QUEUE_BYTES_MAX:
            # It asks for more than it reads: nor would it read a refusal.
            return
        snapshot = self._held.get(Hash(manifest_hash))
        line = self._lines.get(peer, ())
        everywhere = sum(map(len, self._lines.values()))
        full = len(line) >= REQUESTS_PER_PEER_MAX or everywhere >= REQUESTS_MAX
        if snapshot is None or number >= len(snapshot.manifest.chunks) or full:
            peer.send(Kind.CHUNK, (manifest_hash, number, b""))
            return
        self._lines.setdefault(peer, deque()).append(_Request(peer, snapshot, number))
        self._asked.set()

    def _next_in_turn(self) -> _Request:
        """Takes the request that is due, and puts its peer behind all others that wait."""
        peer, line = self._lines.popitem(last=False)
        request = line.popleft()
        if line:
            self._lines[peer] = line
        return request

    async def _keep_serving(self) -> None:
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while self._lines:
                await self._serve(self._next_in_turn())

    async def _serve(self, request: _Request) -> None:
        peer, manifest_hash = request.peer, request.snapshot.manifest.hash
        if peer.closing or peer.queued_bytes > ANSWER_QUEUE_BYTES_MAX:
            return
        try:
            data = await trio.to_thread.run_sync(request.snapshot.read_chunk, request.number)
        except Rejected as error:
            # It may have been rotated away meanwhile; a damaged file is ours to see, not the peer's.
            if error.code == "snapshot_damaged":
                log.error("a snapshot is damaged", why=error.message)
                self._held.pop(manifest_hash, None)
            peer.send(Kind.CHUNK, (manifest_hash, request.number, b""))
            return
        while not self._bucket.take(len(data), trio.current_time()):
            await trio.sleep(len(data) / SERVED_BYTES_PER_SECOND)
        self._metrics.add(m.SNAPSHOT_SERVED, len(data))
        peer.send(Kind.CHUNK, (manifest_hash, request.number, data))
