"""Laws that hold whatever comes in: nothing raises, nothing that was promised is broken, state stays bounded."""

from __future__ import annotations

from cluster import Cluster, Forger, Node, block_on
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import interface as io
from consensus.messages import Decided, Evidence, Kind, Message, Status
from consensus.records import decode_records
from state.evidence import Offence, SignedHash
from state.hashing import ZERO_HASH
from state.types import Height, View

HEIGHTS = st.integers(1, 4)
VIEWS = st.integers(0, 6)


class Soup:
    """Messages of up to f faulty validators, and of correct ones what they might say, in any mixture."""

    def __init__(self, cluster: Cluster, draw) -> None:
        self.cluster, self.draw = cluster, draw
        chain = [cluster.genesis]
        self.blocks: dict[int, list[io.KnownBlock]] = {}
        for height in (1, 2, 3, 4):
            proposer = cluster.identities["a"].key
            pair = [
                block_on(chain[-1], cluster.set_at(Height(1)), proposer, b"%d" % height, wire) for wire in (b"x", b"y")
            ]
            self.blocks[height] = pair
            chain.append(pair[0].header)
        for node in cluster:
            node.bodies.update({block.header.hash: block for pair in self.blocks.values() for block in pair})

    def block(self, height: int) -> io.KnownBlock:
        return self.blocks[height][self.draw(st.integers(0, 1))]

    def certificate(self, kind: Kind, height: int, view: int):
        """One block a height only is ever certified: more would need more than f faulty validators."""
        return self.cluster.certificate(kind, height, view, self.blocks[height][0].header.hash, "bcd")

    def message(self) -> Message:
        draw = self.draw
        forger: Forger = self.cluster.forger(draw(st.sampled_from("bcd")))
        height, view = draw(HEIGHTS), draw(VIEWS)
        match draw(st.sampled_from(list(Kind))):
            case Kind.PREPARE | Kind.COMMIT as kind:
                # Only d is faulty: the others vote for one block a height.
                block = self.block(height) if forger.who.name == "d" else self.blocks[height][0]
                return forger.vote(kind, height, view, block.header.hash)
            case Kind.PRE_PREPARE:
                proof = self.certificate(Kind.PREPARE, height, view - 1) if view and draw(st.booleans()) else None
                return forger.propose(view, self.block(height), proof)
            case Kind.SUSPECT:
                return forger.suspect(height, view)
            case Kind.VIEW_CHANGE:
                return self.view_change(forger, height, view + 1)
            case Kind.NEW_VIEW:
                names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4))
                changes = [
                    self.view_change(self.cluster.forger(name), draw(st.integers(max(1, height - 2), height)), view + 1)
                    for name in names
                ]
                return forger.new_view(view + 1, *changes)
            case Kind.STATUS:
                claim = draw(st.sampled_from([None, ZERO_HASH, self.blocks[1][0].header.hash]))
                bits = draw(st.integers(0, 15))
                return forger.signed(Status(Height(height), View(view), View(view), claim, bits, bits, forger.index))
            case Kind.DECIDED:
                return Decided(self.certificate(Kind.COMMIT, height, view))
        first, second = sorted(block.header.hash for block in self.blocks[height])
        signed = [SignedHash(block_hash, ZERO_HASH, bytes(64)) for block_hash in (first, second)]
        return Evidence(Offence.COMMIT, Height(height), View(view), forger.index, *signed)

    def view_change(self, forger: Forger, height: int, view: int):
        below = self.certificate(Kind.COMMIT, height - 1, 0) if height > 1 else None
        held = self.certificate(Kind.PREPARE, height, view - 1) if self.draw(st.booleans()) else None
        return forger.view_change(height, view, below, held)


def check_laws(node: Node, own: dict) -> None:
    """What must hold after every step."""
    state, core = node.state, node.replica._core
    assert state.promised >= state.view
    assert state.height == len(node.chain) + 1
    assert len(core.suspects) <= 4
    assert len(core.view_changes) <= 4
    assert len(core.tallies) <= 2
    assert len(core.blocks) <= 16
    assert all(len(buffer) <= 4 for buffer in core.proposals.values())
    assert node.timer > node.cluster.now
    for message in node.sent:
        if message.kind in (Kind.PREPARE, Kind.COMMIT, Kind.PRE_PREPARE):
            place = (message.kind, message.height, message.view)
            assert own.setdefault(place, message.block_hash) == message.block_hash, "two votes for one place"
    decode_records(node.records)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_message_soup_never_raises_and_breaks_no_law(data) -> None:
    cluster = Cluster(4, byzantine="bcd")
    node = cluster["a"]
    soup = Soup(cluster, data.draw)
    own: dict = {}
    views, promised = [0], [0]
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.integers(0, 9)):
            case 0:
                cluster.run(data.draw(st.sampled_from([1, 300, 1100, 5000])))
            case 1:
                node.learn(b"work")
            case 2:
                node.do(io.Complaint(data.draw(st.sampled_from(["left_out", None]))))
            case 3:
                node.crash()
                node.restart()
            case _:
                node.do(io.Received(soup.message()))
        if data.draw(st.booleans()):
            cluster.deliver()
        cluster.queue.clear()
        check_laws(node, own)
        views.append(node.state.view)
        promised.append(node.state.promised)
    assert views == sorted(views)
    assert promised == sorted(promised)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_loss_order_and_crashes_end_in_agreement_and_progress(data) -> None:
    """A whole network, messages lost and out of order, nodes that come and go: one chain, and work is done after."""
    cluster = Cluster(4, progress_timeout_max_ms=4000, leader_term=data.draw(st.sampled_from([0, 1, 3])))
    lost = data.draw(st.integers(0, 60))
    noise = data.draw(st.randoms(use_true_random=False))
    cluster.passes = lambda source, to, message: noise.randrange(100) >= lost
    for number in range(data.draw(st.integers(1, 12))):
        name = data.draw(st.sampled_from("abcd"))
        match data.draw(st.integers(0, 3)):
            case 0 if cluster[name].up:
                cluster[name].crash()
            case 0 | 1 if not cluster[name].up:
                cluster[name].restart()
            case 2:
                noise.shuffle(cluster.queue)
            case _:
                cluster.submit(b"%d" % number, name)
        cluster.run(data.draw(st.sampled_from([5, 300, 1500, 4000])))
        cluster.check_agreement()
    cluster.passes = lambda *_: True
    for node in cluster:
        if not node.up:
            node.restart()
    before = max(cluster.heights())
    cluster.submit(b"last")
    cluster.run(30_000)
    cluster.check_agreement()
    assert min(cluster.heights()) > before
