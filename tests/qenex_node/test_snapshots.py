"""The node makes snapshots at the heights that all make them at, keeps the newest, and serves within its budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from p2p.wire import Kind
from qenex_node import snapshots as snapshots_module
from qenex_node.metrics import Metrics
from qenex_node.pace import SLICE_SECONDS, drive_work
from qenex_node.snapshots import REQUESTS_PER_PEER_MAX, SnapshotOptions, Snapshots
from state.codec import decode
from state.hashing import ZERO_HASH
from state.store.snapshots import Snapshot, Work, manifest
from tests.qenex_node.node_parts import Parts, run, settle
from tests.state.store.store_support import certify


class Listener:
    """A peer that writes down what it is sent."""

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.closing = False
        self.got: list[tuple[Kind, Any]] = []

    def send(self, kind: Kind, body: Any) -> bool:
        self.got.append((kind, body))
        return True


def made_by(parts: Parts, path: Path, interval: int = 2, keep: int = 2) -> Snapshots:
    snapshots = Snapshots(path / "snapshots", parts.store, Metrics("test"), SnapshotOptions(interval, keep, 1))
    parts.commits.on_head = snapshots.on_committed
    return snapshots


async def commit(parts: Parts, snapshots: Snapshots | None = None) -> None:
    """Commits a block, and waits for the snapshot that it may have caused."""
    executed = parts.proposed_by_another(parts.chain.pay(0, 1))
    await parts.commits.certified(executed.block, certify(parts.chain.genesis, executed.block.header), "sync")
    while snapshots is not None and snapshots.making:
        await trio.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what threads bring about."""
    with trio.fail_after(600):
        while not condition():
            await trio.sleep(0.01)


def test_snapshots_are_made_at_the_heights_that_the_interval_divides_and_the_newest_are_kept(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        heights = []
        for _ in range(7):
            await commit(parts, snapshots)
            heights.append([held.height for held in snapshots.held])
        assert heights == [[], [2], [2], [4, 2], [4, 2], [6, 4], [6, 4]]
        assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["000000000004", "000000000006"]
        newest = Snapshot.open(tmp_path / "snapshots" / "000000000006")
        assert newest.manifest.header == parts.store.header_at(6)
        # A node that starts again serves what it has.
        again = made_by(parts, tmp_path)
        nursery.start_soon(again.run)
        await until(lambda: len(again.held) == 2)
        assert [held.manifest.hash for held in again.held] == [held.manifest.hash for held in snapshots.held]

    run(test)


@pytest.mark.parametrize("reason", ["off", "catching up", "disk low", "one under way"])
def test_none_is_made_where_it_would_do_harm(tmp_path: Path, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path, interval=0 if reason == "off" else 1)
        snapshots.catching_up = lambda: reason == "catching up"
        if reason == "disk low":
            monkeypatch.setattr(snapshots_module, "free_bytes", lambda path: 0)
        if reason == "one under way":
            await commit(parts)
        await commit(parts)
        nursery.start_soon(snapshots.run)
        await until(lambda: not snapshots.making)
        assert [held.height for held in snapshots.held] == ([1] if reason == "one under way" else [])

    run(test)


def test_blocks_go_on_while_a_snapshot_is_made_which_is_of_the_height_it_began_at(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path, interval=3)
        for _ in range(3):
            await commit(parts)
        await commit(parts)
        await commit(parts)
        nursery.start_soon(snapshots.run)
        await until(lambda: not snapshots.making)
        (held,) = snapshots.held
        assert held.manifest.header == parts.store.header_at(3)
        assert parts.store.head.height == 5

    run(test)


def test_peers_are_told_what_is_here_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        for _ in range(4):
            await commit(parts, snapshots)
        newest, older = snapshots.held
        peer: Any = Listener()
        for least in (0, 3, 5):
            snapshots.on_snapshots_request(peer, least)
        offers = [(held.height, held.manifest.hash) for held in (newest, older)]
        assert [body for _, body in peer.got] == [tuple(offers), tuple(offers[:1]), ()]
        peer.got.clear()
        wanted = newest.manifest.hash
        snapshots.on_manifest_request(peer, wanted)
        snapshots.on_manifest_request(peer, ZERO_HASH)
        snapshots.on_chunk_request(peer, wanted, len(newest.manifest.chunks))
        snapshots.on_chunk_request(peer, ZERO_HASH, 0)
        for height in (2, 0, 99):
            snapshots.on_light_request(peer, height)
        light = peer.got[4][1][1]
        assert peer.got == [
            (Kind.MANIFEST, (wanted, newest.manifest.encoded, newest.certificate.encode())),
            (Kind.MANIFEST, (ZERO_HASH, b"", b"")),
            (Kind.CHUNK, (wanted, len(newest.manifest.chunks), b"")),
            (Kind.CHUNK, (ZERO_HASH, 0, b"")),
            (Kind.LIGHT, (2, light)),
            (Kind.LIGHT, (0, b"")),
            (Kind.LIGHT, (99, b"")),
        ]
        assert decode(light, bytes_max=100_000)[0] == parts.store.header_at(2).to_value()  # type: ignore[union-attr]
        peer.got.clear()
        for number in (1, 2):
            snapshots.on_chunk_request(peer, wanted, number)
        await until(lambda: len(peer.got) == 2)
        assert peer.got == [(Kind.CHUNK, (wanted, number, newest.read_chunk(number))) for number in (1, 2)]

    run(test)


def test_whoever_asks_for_more_than_its_share_is_refused_at_once_and_whoever_reads_nothing_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        await commit(parts, snapshots)
        await commit(parts, snapshots)
        wanted = snapshots.held[0].manifest.hash
        greedy: Any = Listener()
        modest: Any = Listener()
        for number in range(len(snapshots.held[0].manifest.chunks)):
            snapshots.on_chunk_request(greedy, wanted, number)
        snapshots.on_chunk_request(modest, wanted, 0)
        count = len(snapshots.held[0].manifest.chunks)
        refused = [(Kind.CHUNK, (wanted, number, b"")) for number in range(REQUESTS_PER_PEER_MAX, count)]
        assert refused
        assert greedy.got == refused
        await until(lambda: len(greedy.got) == count)
        assert all(body[2] for _, body in greedy.got[len(refused) :])
        assert len(modest.got) == 1
        greedy.queued_bytes = 1 << 30
        snapshots.on_chunk_request(greedy, wanted, 0)
        snapshots.on_manifest_request(greedy, wanted)
        snapshots.on_chunk_request(modest, wanted, 1)
        await until(lambda: len(modest.got) == 2)
        assert len(greedy.got) == count

    run(test)


def test_peers_take_turns_however_many_chunks_one_of_them_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        await commit(parts, snapshots)
        await commit(parts, snapshots)
        order: list[str] = []

        class Named(Listener):
            def __init__(self, name: str) -> None:
                super().__init__()
                self.name = name

            def send(self, kind: Kind, body: Any) -> bool:
                order.append(self.name)
                return super().send(kind, body)

        first, second, third = (Named(name) for name in "abc")
        wanted = snapshots.held[0].manifest.hash
        for number in range(REQUESTS_PER_PEER_MAX):
            snapshots.on_chunk_request(first, wanted, number)  # type: ignore[arg-type]
        for number in range(2):
            snapshots.on_chunk_request(second, wanted, number)  # type: ignore[arg-type]
        snapshots.on_chunk_request(third, wanted, 0)  # type: ignore[arg-type]
        await until(lambda: len(order) == REQUESTS_PER_PEER_MAX + 3)
        assert "".join(order) == "abcaba" + "a" * (REQUESTS_PER_PEER_MAX - 3)

    run(test)


def test_chunks_are_sent_no_faster_than_the_budget_of_all_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)
    monkeypatch.setattr(snapshots_module, "SERVED_BYTES_PER_SECOND", 100)
    monkeypatch.setattr(snapshots_module, "SERVED_BYTES_BURST", 600)

    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        await commit(parts, snapshots)
        await commit(parts, snapshots)
        began = trio.current_time()
        peers: list[Any] = [Listener() for _ in range(3)]
        for peer in peers:
            for number in range(3):
                snapshots.on_chunk_request(peer, snapshots.held[0].manifest.hash, number)
        while any(len(peer.got) < 3 for peer in peers):
            await trio.sleep(0.1)
        sent = sum(len(body[2]) for peer in peers for _, body in peer.got)
        assert trio.current_time() - began >= (sent - 600) / 100

    run(test)


def test_a_chunk_that_the_disk_damaged_is_not_passed_on(tmp_path: Path) -> None:
    async def test(nursery: trio.Nursery) -> None:
        parts = Parts(tmp_path)
        snapshots = made_by(parts, tmp_path)
        nursery.start_soon(snapshots.run)
        await settle()
        await commit(parts, snapshots)
        await commit(parts, snapshots)
        (held,) = snapshots.held
        file = held.path / "chunks" / "000000"
        file.write_bytes(file.read_bytes()[:-9] + bytes(9))
        peer: Any = Listener()
        snapshots.on_chunk_request(peer, held.manifest.hash, 0)
        await until(lambda: bool(peer.got))
        assert peer.got == [(Kind.CHUNK, (held.manifest.hash, 0, b""))]
        assert not snapshots.held

    run(test)


def test_work_with_a_share_of_the_loop_rests_in_proportion_and_waits_for_the_disk_elsewhere() -> None:
    async def test(nursery: trio.Nursery) -> None:
        called: list[int] = []
        slices = 4

        def work() -> Work[str]:
            for number in range(slices):
                until = time.perf_counter() + 1.2 * SLICE_SECONDS
                while time.perf_counter() < until:
                    pass
                yield None
                yield lambda number=number: called.append(number)  # type: ignore[misc]
            try:
                yield lambda: 1 // 0  # type: ignore[arg-type]
            except ZeroDivisionError:
                return "caught"
            return "not raised"

        began = trio.current_time()
        assert await drive_work(work(), 0.25) == "caught"
        assert called == list(range(slices))
        assert trio.current_time() - began >= slices * SLICE_SECONDS * 3

    run(test)
