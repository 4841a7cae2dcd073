"""State sync: a snapshot is found, proved, fetched from several peers and restored, whatever some of them do."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from p2p.limits import SCORE_BAN
from p2p.wire import Kind, encode_frame
from qenex_node.client.light import LightBlock
from qenex_node.metrics import Metrics
from qenex_node.snapshots import SnapshotOptions, Snapshots
from qenex_node.statesync import CHUNKS_PER_PEER_MAX, StateSync, StateSyncOptions
from qenex_node.sync import BlockSync
from state.block import vote_preimage
from state.codec import encode
from state.errors import Rejected
from state.store import Store, StoreOptions, VoteBatch
from state.store.snapshots import Draft, Manifest, Snapshot, carry_votes, manifest, run, snapshot_head
from state.types import VOTE_COMMIT, Certificate, Validator, ValidatorSet, View
from tests.qenex_node.client.light_support import Heights
from tests.state.store.store_support import LEDGER, VALIDATORS, Chain, person

GAP = 4
HEIGHT = 6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A chain of six blocks with a snapshot of its head."""
    made = Chain(tmp_path / "chain")
    for target in range(HEIGHT):
        made.block(made.pay(0, 10 + target), made.pay(2, 3))
    run(snapshot_head(made.store, tmp_path / "snapshots"))
    yield made
    made.store.close()


@pytest.fixture
def snapshot(chain: Chain) -> Snapshot:
    return Snapshot.open(chain.path.parent / "snapshots" / f"{HEIGHT:012}")


class Line:
    """One end of a connection: what is sent comes to the other side as frames would bring it."""

    def __init__(self, name: str, height: int = 0) -> None:
        self.id = self.name = name
        self.height = height
        self.validator_key = name.encode()
        self.queued_bytes = 0
        self.closing = False
        self.pings = SimpleNamespace(latency_ms=1.0)
        self.sent: Counter[Kind] = Counter()
        self.deliver: Callable[[Kind, Any], None]

    def note_height(self, height: int) -> None:
        self.height = height

    def send(self, kind: Kind, body: Any) -> bool:
        encode_frame(kind, body)
        self.sent[kind] += 1
        if not self.closing:
            self.deliver(kind, body)
        return not self.closing


Answer = Callable[[Kind, Any], Any]


def honestly(kind: Kind, body: Any) -> Any:
    return body


class Peer:
    """A node with snapshots, as the syncing node sees it; `conduct` changes or swallows (None) what it answers."""

    def __init__(self, name: str, chain: Chain, conduct: Answer = honestly, root: Path | None = None) -> None:
        options = SnapshotOptions(0, 2, 0)
        self.snapshots = Snapshots(root or chain.path.parent / "snapshots", chain.store, Metrics("test"), options)
        self.line = Line(name, HEIGHT)
        self.back = Line(name)
        self.conduct = conduct
        self.line.deliver = self._take

    def _take(self, kind: Kind, body: Any) -> None:
        match kind:
            case Kind.SNAPSHOTS_REQUEST:
                self.snapshots.on_snapshots_request(self.back, body)  # type: ignore[arg-type]
            case Kind.MANIFEST_REQUEST:
                self.snapshots.on_manifest_request(self.back, body)  # type: ignore[arg-type]
            case Kind.CHUNK_REQUEST:
                self.snapshots.on_chunk_request(self.back, *body)  # type: ignore[arg-type]
            case Kind.LIGHT_REQUEST:
                self.snapshots.on_light_request(self.back, body)  # type: ignore[arg-type]
            case _:
                assert kind in (Kind.STATUS, Kind.BLOCK_REQUEST)


class Node:
    """A node at height 0, with a vote, that is joined with some peers."""

    def __init__(self, path: Path, chain: Chain, peers: list[Peer], gap: int = GAP) -> None:
        self.path = path
        if not (path / "data").exists():
            new = Chain(path / "data")
            new.store.create_votes(b"key")
            new.store.write_votes(VoteBatch(puts=((b"voted", b"once"),)))
            new.store.close()
        self.options = chain.options
        self.genesis = chain.genesis
        self.store = Store.open(path / "data", chain.genesis, LEDGER, chain.options)
        self.reports: list[tuple[str, float, str]] = []
        self.peers = peers
        self.restored = trio.Event()
        self.blocks = BlockSync(self.store, chain.genesis.hash, self._commit)
        self.blocks.network = self  # type: ignore[assignment]
        self.snapshots = Snapshots(path / "snapshots", self.store, Metrics("test"), SnapshotOptions(0, 2, 0))
        self.sync = StateSync(
            store=self.store,
            genesis=chain.genesis,
            sync=self.blocks,
            snapshots=self.snapshots,
            store_options=chain.options,
            options=StateSyncOptions(gap, 0),
        )
        self.sync.network = self  # type: ignore[assignment]
        self.sync.on_restored = self.restored.set
        for peer in peers:
            self._join(peer)

    def _join(self, peer: Peer) -> None:
        handlers = {
            Kind.SNAPSHOTS: lambda body: self.sync.on_snapshots(peer.line, body),  # type: ignore[arg-type]
            Kind.MANIFEST: lambda body: self.sync.on_manifest(peer.line, *body),  # type: ignore[arg-type]
            Kind.CHUNK: lambda body: self.sync.on_chunk(peer.line, *body),  # type: ignore[arg-type]
            Kind.LIGHT: lambda body: self.sync.on_light(peer.line, *body),  # type: ignore[arg-type]
        }

        def deliver(kind: Kind, body: Any) -> None:
            told = peer.conduct(kind, body)
            if told is not None:
                handlers[kind](told)

        peer.back.deliver = deliver

    async def _commit(self, block: Any, certificate: Any) -> None:
        raise AssertionError("block sync is held")

    def connected(self) -> list[Line]:
        return [peer.line for peer in self.peers if not peer.line.closing]

    def report(self, peer: Line, points: float, reason: str) -> None:
        self.reports.append((peer.name, points, reason))
        if points >= SCORE_BAN:
            self.part_with(next(other for other in self.peers if other.line is peer))

    def part_with(self, peer: Peer) -> None:
        peer.line.closing = True
        self.sync.on_disconnected(peer.line)  # type: ignore[arg-type]

    def take_over(self) -> Store:
        """What the whole node does once state sync is done."""
        carry_votes(self.store.database)
        self.store.give_way()
        return Store.open(self.path / "data", self.genesis, LEDGER, self.options)


async def sync_until(node: Node, *, seconds: float = 300, beside: Callable[[], Any] | None = None) -> bool:
    """Runs a node and its peers until it is restored; returns whether it was."""
    async with trio.open_nursery() as nursery:
        for peer in node.peers:
            nursery.start_soon(peer.snapshots.run)
        nursery.start_soon(node.snapshots.run)
        await trio.testing.wait_all_tasks_blocked()
        while any(not peer.snapshots.held for peer in node.peers):
            await trio.sleep(0.01)
        nursery.start_soon(node.sync.run)
        if beside is not None:
            nursery.start_soon(beside)
        with trio.move_on_after(seconds):
            await node.restored.wait()
        nursery.cancel_scope.cancel()
    return node.restored.is_set()


def simulate(main: Callable[[], Any]) -> None:
    """Runs a test on a clock that moves on only when every task waits and no thread works."""
    clock = trio.testing.MockClock()

    async def move_on() -> None:
        threads = trio.to_thread.current_default_thread_limiter()
        while True:
            await trio.testing.wait_all_tasks_blocked(0.001)
            if threads.borrowed_tokens:
                await trio.to_thread.run_sync(time.sleep, 0.001)
            else:
                clock.jump(0.25)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move_on)
            await main()
            nursery.cancel_scope.cancel()

    trio.run(both, clock=clock)


def assert_restored(node: Node, chain: Chain) -> None:
    store = node.take_over()
    assert store.head.hash == chain.store.head.hash
    assert store.base_height == HEIGHT
    assert store.votes() == {b"voted": b"once"}
    store.close()


def test_a_new_node_takes_a_snapshot_from_several_peers_and_begins_with_it(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        peers = [Peer(name, chain) for name in ("a", "b", "c")]
        node = Node(tmp_path / "node", chain, peers)
        assert await sync_until(node)
        assert node.reports == []
        asked = [peer.line.sent[Kind.CHUNK_REQUEST] for peer in peers]
        assert sum(asked) == len(snapshot.manifest.chunks)
        assert min(asked) > 0
        assert node.blocks.held
        assert_restored(node, chain)

    simulate(main)


def test_a_node_that_is_not_far_behind_or_forbidden_to_asks_for_nothing(chain: Chain, tmp_path: Path) -> None:
    async def main() -> None:
        for gap in (HEIGHT + 1, 0):
            peer = Peer("a", chain)
            node = Node(tmp_path / str(gap), chain, [peer], gap)
            assert not await sync_until(node, seconds=20)
            assert not peer.line.sent
            assert not node.blocks.held
            node.store.close()

    simulate(main)


def test_block_sync_goes_on_where_nobody_has_a_snapshot(chain: Chain, tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer("a", chain, lambda kind, body: () if kind is Kind.SNAPSHOTS else body)
        node = Node(tmp_path / "node", chain, [peer])
        assert not await sync_until(node, seconds=20)
        assert not node.blocks.held
        assert peer.line.sent[Kind.SNAPSHOTS_REQUEST] == 1
        node.store.close()

    simulate(main)


def changed_chunk(kind: Kind, body: Any) -> Any:
    if kind is not Kind.CHUNK:
        return body
    data = bytearray(body[2])
    data[-1] ^= 1
    return (*body[:2], bytes(data))


def lies(chain: Chain, snapshot: Snapshot) -> dict[str, Answer]:
    whole, certificate = snapshot.manifest, snapshot.certificate
    few = replace(certificate, signatures=certificate.signatures[:2])
    other_parts = replace(whole, parts=(b"",))
    chunk = snapshot.read_chunk(0)

    def manifest_with(data: bytes, certified: Certificate) -> Answer:
        return lambda kind, body: (body[0], data, certified.encode()) if kind is Kind.MANIFEST else body

    return {
        "a chunk with a changed byte": changed_chunk,
        "another chunk": lambda kind, body: (*body[:2], chunk) if kind is Kind.CHUNK and body[1] else body,
        "a chunk that is no chunk": lambda kind, body: (*body[:2], b"\xc1") if kind is Kind.CHUNK else body,
        "an empty chunk": lambda kind, body: (*body[:2], encode(())) if kind is Kind.CHUNK else body,
        "a certificate with too few signatures": manifest_with(whole.encoded, few),
        "a manifest that does not fold": manifest_with(other_parts.encoded, certificate),
        "a manifest that is none": manifest_with(b"\xc0", certificate),
        "another manifest": manifest_with(
            Manifest(whole.header, VALIDATORS, VALIDATORS, (whole.header.state_root,)).encoded, certificate
        ),
        "a height that is not the manifest's": lambda kind, body: (
            tuple((height + 1, digest) for height, digest in body) if kind is Kind.SNAPSHOTS else body
        ),
    }


def test_whoever_lies_is_banned_and_the_truth_is_got_from_others(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    async def lied(name: str, conduct: Answer) -> None:
        liars = [Peer("liar", chain, conduct), Peer("a", chain), Peer("b", chain)]
        node = Node(tmp_path / name, chain, liars)
        assert await sync_until(node), name
        assert {report[:2] for report in node.reports} <= {("liar", SCORE_BAN)}, name
        # A manifest is asked of one peer, not necessarily of the liar; what it alone offers is not asked for at all.
        if "chunk" in name:
            assert node.reports, name
        assert_restored(node, chain)

    for name, conduct in lies(chain, snapshot).items():
        simulate(lambda name=name, conduct=conduct: lied(name, conduct))  # type: ignore[misc]


def test_a_liar_alone_gets_nothing_restored(chain: Chain, snapshot: Snapshot, tmp_path: Path) -> None:
    async def lied(name: str, conduct: Answer) -> None:
        node = Node(tmp_path / name, chain, [Peer("liar", chain, conduct)])
        assert not await sync_until(node, seconds=25), name
        assert [report[:2] for report in node.reports] == [("liar", SCORE_BAN)] * len(node.reports), name
        assert node.reports, name
        assert not node.blocks.held
        node.store.close()

    for name, conduct in lies(chain, snapshot).items():
        simulate(lambda name=name, conduct=conduct: lied(name, conduct))  # type: ignore[misc]


def test_peers_that_say_nothing_or_have_it_no_more_or_vanish_are_done_without(chain: Chain, tmp_path: Path) -> None:
    def mute(kind: Kind, body: Any) -> Any:
        return None if kind is Kind.CHUNK else body

    def gone(kind: Kind, body: Any) -> Any:
        return (*body[:2], b"") if kind is Kind.CHUNK else body

    async def main() -> None:
        leaving = Peer("leaving", chain)
        peers = [Peer("mute", chain, mute), Peer("gone", chain, gone), leaving, Peer("a", chain)]
        node = Node(tmp_path / "node", chain, peers)

        def leave_amid(kind: Kind, body: Any) -> Any:
            if kind is Kind.CHUNK and body[1] > 2:
                node.part_with(leaving)
                return None
            return body

        leaving.conduct = leave_amid
        assert await sync_until(node)
        assert node.reports == []
        assert peers[0].line.sent[Kind.CHUNK_REQUEST] <= CHUNKS_PER_PEER_MAX + 1
        assert peers[1].line.sent[Kind.CHUNK_REQUEST] <= CHUNKS_PER_PEER_MAX
        assert_restored(node, chain)

    simulate(main)


def test_when_all_have_let_go_of_a_snapshot_the_next_one_is_taken(chain: Chain, tmp_path: Path) -> None:
    async def main() -> None:
        peers = [Peer(name, chain) for name in ("a", "b")]
        node = Node(tmp_path / "node", chain, peers)
        first = Snapshot.open(tmp_path / "snapshots" / f"{HEIGHT:012}").manifest.hash

        def rotating(kind: Kind, body: Any) -> Any:
            if kind is Kind.SNAPSHOTS and any(peer.line.sent[Kind.CHUNK_REQUEST] > 3 for peer in peers):
                return tuple(offer for offer in body if offer[1] != first)
            if kind is Kind.CHUNK and body[0] == first and body[1] > 3:
                return (*body[:2], b"")
            return body

        for peer in peers:
            peer.conduct = rotating

        async def make_another() -> None:
            while not any(peer.line.sent[Kind.CHUNK_REQUEST] > 3 for peer in peers):
                await trio.sleep(0.05)
            chain.block(chain.pay(5, 6))
            path = run(snapshot_head(chain.store, tmp_path / "snapshots"))
            for peer in peers:
                await peer.snapshots.take_in(path)

        assert await sync_until(node, beside=make_another)
        store = node.take_over()
        assert store.base_height == HEIGHT + 1
        store.close()

    simulate(main)


def test_chunks_that_came_before_a_crash_are_not_fetched_again(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        draft = Draft.to_fetch(tmp_path / "node" / "snapshots", snapshot.manifest, snapshot.certificate)
        count = len(snapshot.manifest.chunks)
        kept = random.Random(4).sample(range(count), count // 2)
        for number in kept:
            draft.put_chunk(number, snapshot.read_chunk(number))
        peer = Peer("a", chain)
        node = Node(tmp_path / "node", chain, [peer])
        assert await sync_until(node)
        assert peer.line.sent[Kind.CHUNK_REQUEST] == count - len(kept)
        assert_restored(node, chain)

    simulate(main)


def test_a_chunk_that_the_own_disk_changed_is_found_and_the_next_attempt_succeeds(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        draft = Draft.to_fetch(tmp_path / "node" / "snapshots", snapshot.manifest, snapshot.certificate)
        draft.put_chunk(1, snapshot.read_chunk(2))
        node = Node(tmp_path / "node", chain, [Peer("a", chain)])
        assert await sync_until(node)
        assert node.reports == []
        assert_restored(node, chain)

    simulate(main)


def test_a_whole_snapshot_that_lies_there_already_is_restored_without_asking(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    async def main() -> None:
        root = tmp_path / "node" / "snapshots"
        draft = Draft.to_fetch(root, snapshot.manifest, snapshot.certificate)
        for chunk in snapshot.manifest.chunks:
            draft.put_chunk(chunk.number, snapshot.read_chunk(chunk.number))
        draft.finish(HEIGHT)
        peer = Peer("a", chain)
        node = Node(tmp_path / "node", chain, [peer])
        assert await sync_until(node)
        assert not peer.line.sent
        assert_restored(node, chain)

    simulate(main)


def forged_snapshot(chain: Chain, snapshot: Snapshot, root: Path) -> Snapshot:
    """The state of a chain under a header of validators that nobody elected, with all of their signatures."""
    keys = [person(7000 + number) for number in range(4)]
    members = ValidatorSet.of(
        Validator(f"f{number}", key.public.data, person(7500 + number).public.data) for number, key in enumerate(keys)
    )
    true = snapshot.manifest
    header = replace(true.header, validators_hash=members.hash, next_validators_hash=members.hash)
    preimage = vote_preimage(chain.genesis.hash, members.hash, VOTE_COMMIT, HEIGHT, 0, header.hash)
    signatures = tuple((index, key.sign(preimage)) for index, key in enumerate(keys))
    certificate = Certificate(VOTE_COMMIT, header.height, View(0), header.hash, signatures)
    forged = Manifest.of(header, members, members, true.parts)
    draft = Draft.to_fetch(root, forged, certificate)
    for chunk in forged.chunks:
        draft.put_chunk(chunk.number, snapshot.read_chunk(chunk.number))
    return Snapshot.open(draft.finish(HEIGHT))


def test_a_header_of_another_set_is_not_believed_however_its_own_members_signed_it(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    """Anyone can make up four validators, a header for any state, and all their signatures: only light verification,
    which asks for the headers between, tells it from the truth."""

    async def main() -> None:
        forged = forged_snapshot(chain, snapshot, tmp_path / "forged")
        peer = Peer("liar", chain, root=forged.path.parent)
        node = Node(tmp_path / "node", chain, [peer])
        assert not await sync_until(node, seconds=25)
        assert peer.line.sent[Kind.LIGHT_REQUEST] > 0
        assert peer.line.sent[Kind.CHUNK_REQUEST] == 0
        assert not node.blocks.held
        node.store.close()

    simulate(main)


def test_those_who_offer_the_newest_snapshot_and_do_not_send_it_give_way_to_an_older_one(tmp_path: Path) -> None:
    """Anybody can make a snapshot of a height of which others have none, and so be the only source of the best one."""

    async def main() -> None:
        made = Chain(tmp_path / "chain")
        for target in range(HEIGHT - 1):
            made.block(made.pay(0, 10 + target))
        run(snapshot_head(made.store, tmp_path / "older"))
        made.block(made.pay(0, 9))
        run(snapshot_head(made.store, tmp_path / "newest"))

        def keep_chunks(kind: Kind, body: Any) -> Any:
            return None if kind is Kind.CHUNK else body

        holders = [Peer(name, made, keep_chunks, tmp_path / "newest") for name in ("a", "b")]
        node = Node(tmp_path / "node", made, [*holders, Peer("honest", made, root=tmp_path / "older")])
        assert await sync_until(node, seconds=200)
        store = node.take_over()
        assert store.base_height == HEIGHT - 1
        store.close()
        made.store.close()

    simulate(main)


def test_an_offer_under_a_set_that_nobody_elected_gives_way_to_a_true_one(
    chain: Chain, snapshot: Snapshot, tmp_path: Path
) -> None:
    """Two who offer it come before a single honest peer, and nobody can tell it from the truth but by proving it."""

    async def main() -> None:
        forged = forged_snapshot(chain, snapshot, tmp_path / "forged")
        liars = [Peer(name, chain, root=forged.path.parent) for name in ("liar", "friend")]
        node = Node(tmp_path / "node", chain, [*liars, Peer("honest", chain)])
        assert await sync_until(node, seconds=25)
        assert_restored(node, chain)

    simulate(main)


@pytest.mark.parametrize("lying", ["", "cut short", "made up", "over budget"])
def test_a_header_is_proved_through_changes_of_the_set_by_asking_peers_for_those_between(
    tmp_path: Path, lying: str
) -> None:
    """All four validators are replaced, one at a time; nobody of the last set is in the first. A peer that answers with
    what does not hold in itself, or with headers of a set of its own that do, is banned, and keeps nobody from the
    proof though it is always asked first; one that drops what is over a budget is asked again."""
    dropping = lying == "over budget"
    members = [frozenset(range(start, start + 4)) for start in range(9)]
    heights = Heights([one for one in members for _ in range(3)])
    last = heights.at(len(heights.sets))
    asked: list[int] = []

    class Teller(Line):
        def __init__(self, name: str, block: Callable[[int], LightBlock]) -> None:
            super().__init__(name, last.header.height)
            self.block = block
            self.sync: StateSync

        def deliver(self, kind: Kind, body: Any) -> None:  # type: ignore[override]
            assert kind is Kind.LIGHT_REQUEST
            asked.append(body)
            if dropping and len(asked) % 3 == 0:
                return
            self.sync.on_light(self, body, encode(self.block(body).to_value()))  # type: ignore[arg-type]

    def cut_short(height: int) -> LightBlock:
        true = heights.at(height)
        return replace(true, certificate=replace(true.certificate, signatures=true.certificate.signatures[:2]))

    def made_up(height: int) -> LightBlock:
        return heights.forged(height, range(60, 64), range(60, 64))

    async def main() -> None:
        tales = {"": heights.at, "over budget": heights.at, "cut short": cut_short, "made up": made_up}
        tellers = [Teller("a", tales[lying]), Teller("b", heights.at)]
        banned: list[str] = []
        network = SimpleNamespace(
            connected=lambda: [teller for teller in tellers if teller.name not in banned],
            report=lambda peer, points, reason: banned.append(peer.name),
        )
        store = SimpleNamespace(head=SimpleNamespace(height=0))
        shelf = SimpleNamespace(root=tmp_path)
        sync = StateSync(
            store=store,  # type: ignore[arg-type]
            genesis=heights.genesis,
            sync=SimpleNamespace(),  # type: ignore[arg-type]
            snapshots=shelf,  # type: ignore[arg-type]
            store_options=StoreOptions(),
            options=StateSyncOptions(1, 0),
        )
        sync.network = network  # type: ignore[assignment]
        for teller in tellers:
            teller.sync = sync
        await sync.prove(SimpleNamespace(header=last.header, validators=last.validators), last.certificate)  # type: ignore[arg-type]
        assert 1 < len(asked) < 2 * len(heights.sets)
        assert banned == (["a"] if lying in ("cut short", "made up") else [])
        forged = heights.forged(last.header.height, range(50, 54), range(50, 54))
        fake: Any = SimpleNamespace(header=forged.header, validators=forged.validators)
        with pytest.raises(Rejected, match="header_unproved"):
            await sync.prove(fake, forged.certificate)

    simulate(main)
