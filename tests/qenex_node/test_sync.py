"""Block sync: what verifies is committed in order, and who lies or says nothing is passed over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from p2p.wire import Kind
from qenex_node.sync import BlockSync
from state.block import Block, evidence_hash, tx_root, vote_preimage
from state.hashing import Hash, sha256
from state.keys import SigningKey
from state.types import (
    HEADER_VERSION,
    VOTE_COMMIT,
    VOTE_PREPARE,
    ZERO_HASH,
    Certificate,
    Header,
    Height,
    TimeMs,
    Validator,
    ValidatorSet,
    View,
)

GENESIS = sha256(b"genesis")
KEYS = [SigningKey(1, bytes([i]) * 32) for i in range(1, 5)]
VALIDATORS = ValidatorSet.of(Validator(f"v{i}", key.public.data, bytes([i]) * 32) for i, key in enumerate(KEYS))


def header_of(height: int, parent: Hash, wires: tuple[bytes, ...]) -> Header:
    block = Block(None, wires)  # type: ignore[arg-type]
    return Header(
        HEADER_VERSION,
        "test",
        Height(height),
        TimeMs(1000 + height),
        parent,
        tx_root(block.wire_hashes),
        ZERO_HASH,
        ZERO_HASH,
        VALIDATORS.hash,
        VALIDATORS.hash,
        bytes(32),
        evidence_hash(()),
        1,
    )


def certify(header: Header, *, kind: int = VOTE_COMMIT, count: int = 3, genesis: Hash = GENESIS) -> Certificate:
    preimage = vote_preimage(genesis, VALIDATORS.hash, kind, header.height, 0, header.hash)
    return Certificate(
        kind,
        header.height,
        View(0),
        header.hash,
        tuple((index, KEYS[index].sign(preimage)) for index in range(count)),
    )


def chain_of(length: int) -> list[tuple[Block, Certificate]]:
    blocks: list[tuple[Block, Certificate]] = []
    parent = header_of(0, GENESIS, ()).hash
    for height in range(1, length + 1):
        wires = (b"transaction %d" % height,)
        block = Block(header_of(height, parent, wires), wires)
        blocks.append((block, certify(block.header)))
        parent = block.header.hash
    return blocks


class FakePeer:
    """A peer that answers block requests from `blocks`, as the test made them."""

    def __init__(self, name: str, height: int, answer: Any) -> None:
        self.id = self.name = name
        self.height = height
        self.validator_key = name.encode()
        self.queued_bytes = 0
        self.pings = SimpleNamespace(latency_ms=1.0)
        self.answer = answer
        self.requests: list[tuple[int, int]] = []
        self.told: list[int] = []
        self.sync: BlockSync

    def note_height(self, height: int) -> None:
        self.height = height

    def send(self, kind: Kind, body: Any) -> bool:
        if kind is Kind.STATUS:
            self.told.append(body)
            return True
        assert kind is Kind.BLOCK_REQUEST
        self.requests.append(body)
        items = self.answer(*body)
        if items is not None:
            self.sync.on_blocks(self, items)  # type: ignore[arg-type]
        return True


def serving(blocks: list[tuple[Block, Certificate]]) -> Any:
    def answer(start: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((b.encoded, c.encode()) for b, c in blocks[start - 1 : start - 1 + count])

    return answer


class Node:
    """The chain of a node that is behind."""

    def __init__(self, peers: list[FakePeer]) -> None:
        self.head = header_of(0, GENESIS, ())
        self.validators = VALIDATORS
        self.base_height = 0
        self.reports: list[tuple[str, float, str]] = []
        self.peers = peers
        self.sync = BlockSync(self, GENESIS, self.commit)  # type: ignore[arg-type]
        self.sync.network = self  # type: ignore[assignment]
        for peer in peers:
            peer.sync = self.sync

    async def commit(self, block: Block, certificate: Certificate) -> None:
        await trio.lowlevel.checkpoint()
        assert block.header.height == self.head.height + 1
        self.head = block.header

    def connected(self) -> list[FakePeer]:
        return self.peers

    def report(self, peer: FakePeer, points: float, reason: str) -> None:
        self.reports.append((peer.name, points, reason))


def catch_up(peers: list[FakePeer], *, seconds: float = 60) -> Node:
    async def main() -> Node:
        node = Node(peers)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.sync.run)
                for peer in peers:
                    node.sync.note_height(peer, peer.height)  # type: ignore[arg-type]
        return node

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_node_that_is_behind_fetches_ranges_from_several_peers() -> None:
    blocks = chain_of(150)
    peers = [FakePeer(name, 150, serving(blocks)) for name in ("a", "b", "c")]
    node = catch_up(peers)
    assert node.head.height == 150
    assert all(peer.requests for peer in peers)
    assert node.reports == []


def test_a_claim_of_an_absurd_height_costs_nothing_but_a_question() -> None:
    liar = FakePeer("liar", 10**9, lambda start, count: ())
    honest = FakePeer("honest", 20, serving(chain_of(20)))
    node = catch_up([liar, honest])
    assert node.head.height == 20
    assert len(liar.requests) < 10


def test_a_silent_peer_is_passed_over() -> None:
    silent = FakePeer("silent", 5, lambda start, count: None)
    honest = FakePeer("honest", 5, serving(chain_of(5)))
    assert catch_up([silent, honest]).head.height == 5


def lies(blocks: list[tuple[Block, Certificate]]) -> dict[str, tuple[Block, Certificate]]:
    block, certificate = blocks[2]
    other = chain_of(4)[3]
    changed = Block(header_of(3, blocks[1][0].header.hash, (b"forged",)), (b"forged",))
    return {
        "too few signatures": (block, certify(block.header, count=2)),
        "prepares, not commits": (block, certify(block.header, kind=VOTE_PREPARE)),
        "another chain's votes": (block, certify(block.header, genesis=sha256(b"other"))),
        "another block's certificate": (changed, certificate),
        "a block that skips a height": other,
        "content that is not the header's": (Block(block.header, (b"forged",)), certificate),
    }


def test_whatever_does_not_verify_is_refused_and_counted_against_its_sender() -> None:
    blocks = chain_of(4)
    for name, lie in lies(blocks).items():
        lying = [*blocks[:2], lie, *blocks[3:]]
        node = catch_up([FakePeer("liar", 4, serving(lying))], seconds=5)
        assert node.head.height == 2, name
        assert [report[0] for report in node.reports] == ["liar"], name


def test_a_liar_does_not_keep_the_node_from_the_truth() -> None:
    blocks = chain_of(4)
    lying = [*blocks[:2], lies(blocks)["too few signatures"], *blocks[3:]]
    node = catch_up([FakePeer("liar", 4, serving(lying)), FakePeer("honest", 4, serving(blocks))])
    assert node.head.height == 4


def test_a_lone_claim_of_a_great_height_makes_nobody_look_behind() -> None:
    honest = [FakePeer(f"p{i}", 7, serving([])) for i in range(2)]
    liar = FakePeer("liar", 10**9, lambda start, count: ())
    assert Node([liar, *honest]).sync.target_height == 7
    assert Node([liar]).sync.target_height == 10**9


def test_each_node_tells_its_peers_its_height_once_a_second_when_it_rose() -> None:
    """A full node says nothing in consensus: without this, who is joined with it alone would never know to ask it."""
    peer = FakePeer("a", 20, serving(chain_of(20)))
    catch_up([peer])
    assert peer.told == [20]


def test_a_paused_node_fetches_nothing_until_it_goes_on() -> None:
    async def main() -> None:
        peer = FakePeer("a", 20, serving(chain_of(20)))
        node = Node([peer])
        node.sync.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.sync.run)
            node.sync.note_height(peer, 20)  # type: ignore[arg-type]
            await trio.sleep(10)
            assert peer.requests == []
            node.sync.resume()
            await trio.sleep(10)
            assert node.head.height == 20
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_blocks_too_large_for_a_whole_range_are_not_fetched_twice() -> None:
    blocks = chain_of(60)
    served: list[int] = []

    def two_at_a_time(start: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
        answer = serving(blocks)(start, min(count, 2))
        served.append(len(answer))
        return answer

    node = catch_up([FakePeer(name, 60, two_at_a_time) for name in ("a", "b", "c")])
    assert node.head.height == 60
    assert sum(served) <= 60 * 3 // 2


def test_the_range_grows_again_when_blocks_are_small_again() -> None:
    blocks = chain_of(300)
    asked: list[int] = []

    def small_after_ten(start: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
        asked.append(count)
        return serving(blocks)(start, count if start > 10 else min(count, 2))

    assert catch_up([FakePeer("a", 300, small_after_ten)]).head.height == 300
    assert asked[0] == max(asked)
    assert 2 in asked
    assert max(asked[asked.index(2) :]) > 32
