"""Durable before it leaves: what is written when, what a restart makes of it, and that nothing is read unchecked."""

from __future__ import annotations

import contextlib

import pytest
from cluster import Cluster, Node, block_on
from hypothesis import given, settings
from hypothesis import strategies as st
from test_paper_normal_case import proposal, sent

from consensus import interface as io
from consensus.messages import Kind, NewView, ViewChange, Vote
from consensus.records import ENTRY_KEY, PROMISE_KEY, decode_records, recovery_records, round_key
from state.codec import decode, encode
from state.errors import Rejected
from state.types import Height, View

BOUND = (Kind.PRE_PREPARE, Kind.PREPARE, Kind.COMMIT, Kind.VIEW_CHANGE, Kind.NEW_VIEW)


class Disk:
    """Watches the effects of one node: what was durable when each message left."""

    def __init__(self, node: Node) -> None:
        self.node, self.left = node, []
        handle, node.handle = node.handle, self.watch
        self.go_on = handle

    def watch(self, effects: tuple[io.Effect, ...]) -> None:
        for effect in effects:
            self.go_on((effect,))
            if isinstance(effect, io.Broadcast | io.Send):
                self.left.append((effect.message, dict(self.node.records), set(self.node.stored)))


def durable_for(message, records: dict[bytes, bytes], bodies: set[bytes]) -> bool:
    """The table of the design, read off the disk at the moment when `message` left."""
    memory = decode_records(records)
    match message.kind:
        case Kind.VIEW_CHANGE:
            return memory.promise is not None and memory.promise[1] == message
        case Kind.NEW_VIEW:
            return memory.entry is not None and memory.entry[1] == message
    item = memory.rounds.get((message.height, message.view))
    if item is None or message.block_hash not in bodies or item.proposal.block_hash != message.block_hash:
        return False
    if message.view and (memory.entry is None or memory.entry[1].view != message.view):
        return False
    match message.kind:
        case Kind.PRE_PREPARE:
            return item.proposal.signature == message.signature
        case Kind.PREPARE:
            return item.prepare == message
    return item.commit == message and item.prepared is not None and item.prepared.block_hash == message.block_hash


def test_everything_that_binds_is_durable_before_it_leaves() -> None:
    cluster = Cluster(4)
    disks = [Disk(node) for node in cluster]
    cluster.submit(b"A")
    cluster["a"].crash()
    cluster.passes = lambda source, to, message: (
        to in "bc" if isinstance(message, Vote) and message.kind is Kind.PREPARE else message.kind is not Kind.COMMIT
    )
    cluster.submit(b"B", "bcd")
    cluster.run(3000)
    cluster.passes = lambda *_: True
    for name in "cd":
        cluster[name].do(io.Complaint("left_out"))
    cluster.run(3000)
    assert cluster.heights()[1:] == [2, 2, 2]
    kinds = set()
    for disk in disks:
        for message, records, bodies in disk.left:
            if message.kind in BOUND and message.sender == disk.node.state.index:
                kinds.add(message.kind)
                assert durable_for(message, records, bodies), message
    assert kinds == set(BOUND)


def test_suspect_and_status_need_nothing_durable() -> None:
    cluster = Cluster(4)
    cluster["d"].do(io.Complaint("left_out"))
    cluster.run(3000)
    assert len(sent(cluster["d"], Kind.SUSPECT)) >= 3
    assert [node.writes for node in cluster] == [0, 0, 0, 0]


def test_the_normal_case_costs_two_writes_of_votes() -> None:
    """PREPARE with its proposal, COMMIT with its certificate; the third is the commit batch."""
    cluster = Cluster(4)
    cluster.submit(b"A")
    cluster.submit(b"B")
    assert [node.writes for node in cluster] == [4, 4, 4, 4]


def test_records_of_decided_heights_do_not_stay() -> None:
    """What is obsolete goes with the next write: the disk holds one height's votes, whatever the height."""
    cluster = Cluster(4)
    for number in range(20):
        cluster.submit(b"%d" % number)
    assert all(len(node.records) <= 2 and len(node.stored) <= 2 for node in cluster)


def test_rounds_of_one_height_are_bounded() -> None:
    """A height that takes very many views keeps the newest rounds, and the one whose certificate is the highest."""
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    first, _ = proposal(cluster)
    for view in range(40):
        name = "abcd"[view % 4]
        names = "abc"
        changes = [cluster.forger(other).view_change(1, view, None, None) for other in names] if view else []
        if name == "d" and view:
            continue
        if view:
            cluster.say(name, cluster.forger(name).new_view(view, *changes), "d")
        proposer = cluster.identities[name].key
        block = first if view == 0 else block_on(cluster.genesis, cluster.set_at(Height(1)), proposer, b"%d" % view)
        node.bodies[block.header.hash] = block
        cluster.say(name, cluster.forger(name).propose(view, block), "d")
        if view == 0:
            for voter in "abc":
                cluster.say(voter, cluster.forger(voter).vote(Kind.PREPARE, 1, 0, block.header.hash), "d")
        cluster.queue.clear()
        cluster.deliver()
    rounds = decode_records(node.records).rounds
    assert len(rounds) <= 9
    assert (Height(1), View(0)) in rounds
    assert max(rounds)[1] == 38
    assert len(node.stored) <= 9


def test_repeats_after_a_restart_are_the_same_bytes() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"A")
    for node in cluster:
        before = {message for message in node.sent if message.kind in BOUND}
        node.sent.clear()
        node.crash()
        node.restart()
        assert {message for message in node.sent if message.kind in BOUND} == before


def test_a_restart_stands_where_the_records_say() -> None:
    """Entered view, floor, promise, proposal, own votes and the prepared certificate all come back."""
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    changes = [cluster.forger(name).view_change(1, 1) for name in "abc"]
    cluster.say("b", cluster.forger("b").new_view(1, *changes), "d")
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["b"].key, b"A")
    node.bodies[block.header.hash] = block
    cluster.say("b", cluster.forger("b").propose(1, block), "d")
    cluster.deliver()
    for name in "bc":
        cluster.say(name, cluster.forger(name).vote(Kind.PREPARE, 1, 1, block.header.hash), "d")
    before = node.state
    assert (before.view, before.floor, before.phase) == (1, 1, io.Phase.COMMITTING)
    node.crash()
    node.restart()
    after = node.state
    for field in ("height", "view", "promised", "floor", "demanded", "proposal"):
        assert getattr(after, field) == getattr(before, field)
    assert (after.commits, after.phase) == ((3,), io.Phase.COMMITTING)
    for name in "ac":
        cluster.say(name, cluster.forger(name).suspect(1, 1), "d")
    change = sent(node, Kind.VIEW_CHANGE)[-1]
    assert (change.view, change.prepared.block_hash) == (2, block.header.hash)
    node.crash()
    node.restart()
    assert (node.state.view, node.state.promised) == (1, 2)


def test_own_votes_never_contradict_after_a_restart_in_the_same_view() -> None:
    cluster = Cluster(4, byzantine="a")
    node = cluster["b"]
    _, first = proposal(cluster, b"A")
    other, second = proposal(cluster, b"B")
    cluster.say("a", first, "b")
    cluster.deliver()
    node.crash()
    node.restart()
    node.bodies[other.header.hash] = other
    cluster.say("a", second, "b")
    cluster.deliver()
    assert {vote.block_hash for vote in sent(node, Kind.PREPARE)} == {first.block_hash}


def test_a_rolled_back_chain_signs_nothing_below_its_records() -> None:
    """`rollback` takes blocks away and leaves promises: until it is back, this validator only follows."""
    cluster = Cluster(4)
    for wire in (b"A", b"B", b"C"):
        cluster.submit(wire)
    node = cluster["d"]
    before = {message for message in node.sent if message.kind in BOUND}
    node.crash()
    del node.chain[1:]
    node.restart()
    node.sent.clear()
    assert (node.state.height, node.state.may_sign) == (2, False)
    cluster.submit(b"D", "abc")
    cluster.run(5000)
    assert len(node.chain) == 4
    assert all(message.height >= 3 for message in node.sent)
    assert {message for message in node.sent if message.kind in BOUND and message.height == 3} <= before


def test_a_validator_without_records_signs_nothing() -> None:
    cluster = Cluster(4)
    node = cluster["d"]
    node.crash()
    node.records = None
    node.restart()
    node.sent.clear()
    cluster.submit(b"A")
    cluster.run(2000)
    assert (len(node.chain), node.sent, node.state.may_sign) == (1, [], False)


def some_records() -> dict[bytes, bytes]:
    cluster = Cluster(4, byzantine="c")
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"A")
    node = cluster["b"]
    for name in "cd":
        cluster.say("c", cluster.forger(name).suspect(1, 0), "b")
    cluster.say("c", cluster.forger("c").propose(2, cluster["a"].bodies[cluster["a"].bodies_hash()]), "b")
    votes = [cluster.forger("c").vote(Kind.PREPARE, 1, 9, bytes([number]) * 32) for number in (1, 2)]
    for vote in votes:
        cluster.say("c", vote, "b")
    for name in "abd":
        cluster.say("c", cluster.forger("c").view_change(1, 1), name)
    changes = [sent(node, Kind.VIEW_CHANGE)[0], *(cluster.forger(name).view_change(1, 1) for name in "ac")]
    for change in changes:
        cluster.say("c", change, "b")
    return {**node.records, **dict(recovery_records(Height(0), 5))}


def test_records_of_every_kind_decode() -> None:
    records = some_records()
    names = {decode(key, bytes_max=200)[0] for key in records}
    assert names == {"round", "entry", "promise", "signing", "evidence"}
    memory = decode_records(records)
    assert isinstance(memory.entry[1], NewView)
    assert isinstance(memory.promise[1], ViewChange)
    assert memory.height_max == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_records_are_named(data) -> None:
    """Whatever byte of a record's form is changed: it is refused, or reads as another well-formed record."""
    records = some_records_once()
    key = data.draw(st.sampled_from(sorted(records)))
    damaged = bytearray(records[key])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Rejected):
        decode_records({**records, key: bytes(damaged)})
    with pytest.raises(Rejected, match=f"vote_records_damaged: vote record {key.hex()}"):
        decode_records({**records, key: records[key][:-1]})


_CACHE: dict[bytes, bytes] = {}


def some_records_once() -> dict[bytes, bytes]:
    if not _CACHE:
        _CACHE.update(some_records())
    return _CACHE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (ENTRY_KEY, encode((2, (1, True, ())))),
        (PROMISE_KEY, b""),
        (encode(("unknown",)), encode((1, ()))),
        (encode(7), encode((1, ()))),
        (round_key(Height(1), View(0)), encode((1, ()))),
        (b"\xff", b"\xff"),
    ],
)
def test_records_of_another_format_are_refused_by_name(key: bytes, value: bytes) -> None:
    with pytest.raises(Rejected, match="vote_records_damaged"):
        decode_records({key: value})


def test_a_vote_whose_block_is_missing_stops_the_node() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda *_: False
    cluster.submit(b"A", "a")
    node = cluster["a"]
    node.crash()
    node.stored.clear()
    with pytest.raises(Rejected, match="vote_records_damaged"):
        node.restart()
