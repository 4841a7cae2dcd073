"""Two processes with one key: what makes a validator stop for good, what must not, and what silence at the start does.

d lives twice: as a node of the cluster, and as `second`, a process on another machine that began from a copy of its
home. a, b and c answer both.
"""

from __future__ import annotations

import pytest
from cluster import Cluster, Node, block_on
from test_paper_normal_case import sent
from variants import OwnVotesIgnored

from consensus import interface as io
from consensus.messages import Decided, Kind, Message, PrePrepare, Vote, certificate_of
from consensus.records import SigningState, decode_records
from consensus.rules import Rules
from state.types import Height


def signing(node: Node) -> SigningState:
    return decode_records(node.records).signing.state


def second_process(cluster: Cluster, rules: Rules | None = None) -> Node:
    """A second process with d's key, from a copy of its home, that hears what the cluster's d hears."""
    node = cluster["d"]
    twin = Node(cluster, node.who, rules or Rules())
    twin.records, twin.stored, twin.chain = dict(node.records), dict(node.stored), list(node.chain)
    twin.restart()
    return twin


def test_a_vote_of_ours_that_our_records_lack_stops_us_for_good() -> None:
    for kind in (Kind.PREPARE, Kind.COMMIT):
        cluster = Cluster(4)
        cluster.submit(b"1")
        node = cluster["d"]
        node.do(io.Received(cluster.forger("d").vote(kind, 2, 0, bytes(32))))
        assert (node.state.refusal, signing(node)) == ("records_lost", SigningState.BARRED)
        node.sent.clear()
        node.crash()
        node.restart()
        cluster.submit(b"2")
        cluster.run(3000)
        assert (node.sent, len(node.chain)) == ([], 2)


def test_a_proposal_or_promise_or_new_view_of_ours_stops_us_too() -> None:
    cluster = Cluster(4, byzantine="c")
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["b"].key, b"X")
    b = cluster.forger("b")
    changes = [cluster.forger(name).view_change(1, 1) for name in "acd"]
    messages = {
        "proposal": b.propose(1, block),
        "promise": b.view_change(1, 1),
        "NEW-VIEW": b.new_view(1, *changes),
        "inside": cluster.forger("c").new_view(2, *[cluster.forger(name).view_change(1, 2) for name in "abc"]),
    }
    for what, message in messages.items():
        cluster = Cluster(4, byzantine="c")
        cluster["b"].do(io.Received(message))
        assert cluster["b"].state.refusal == "records_lost", what


def test_our_commit_in_a_certificate_that_our_records_lack_stops_us() -> None:
    """Nobody need show the vote itself: what is committed holds it."""
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    node.committed(block, cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abd"))
    assert (len(node.chain), node.state.refusal) == (1, "records_lost")


def test_echoes_of_all_that_we_ever_said_are_no_alarm() -> None:
    """In any order, at once, later, and after a restart: views change, heights go by, and records of them go."""
    cluster = Cluster(4, leader_term=2, progress_timeout_max_ms=2000)
    said: dict[str, list[Message]] = {name: [] for name in "abcd"}
    for number in range(12):
        hushed = (Kind.COMMIT, Kind.PREPARE, Kind.PRE_PREPARE, Kind.NEW_VIEW)[number % 4]
        cluster.passes = lambda source, to, message, hushed=hushed: message.kind is not hushed
        cluster.submit(b"%d" % number)
        cluster.run(4000)
        cluster.passes = lambda *_: True
        cluster.run(3000)
        for node in cluster:
            said[node.who.name] += node.sent
            node.sent.clear()
            if number % 3 == 0:
                node.crash()
                node.restart()
            for message in [*said[node.who.name], *reversed(said[node.who.name])]:
                node.do(io.Received(message))
                node.do(io.OwnVoteShown(message))
            assert node.state.may_sign, node.state.refusal
    assert min(cluster.heights()) >= 6
    kinds = {message.kind for message in said["b"]}
    assert {Kind.PREPARE, Kind.COMMIT, Kind.PRE_PREPARE, Kind.VIEW_CHANGE, Kind.NEW_VIEW} <= kinds


def test_votes_of_more_views_than_are_kept_are_no_alarm() -> None:
    """The rounds of one height are bounded: what was dropped for room is not taken for another's."""
    cluster = Cluster(4, progress_timeout_max_ms=1000)
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"1")
    cluster.run(40_000)
    node = cluster["c"]
    votes = [message for message in node.sent if isinstance(message, Vote | PrePrepare)]
    assert len({vote.view for vote in votes}) > 10
    for message in votes:
        node.do(io.Received(message))
    assert node.state.may_sign
    proposal = next(message for message in cluster["a"].sent if isinstance(message, PrePrepare))
    commits = [next(vote for vote in cluster[name].sent if vote.kind is Kind.COMMIT) for name in "abc"]
    assert {vote.view for vote in commits} == {0}
    node.do(io.Received(Decided(certificate_of(commits))))
    cluster.passes = lambda *_: True
    cluster.deliver()
    assert node.chain[0][0].header == proposal.header
    assert node.state.may_sign


def test_what_a_chain_replaced_by_an_older_one_knows_nothing_of_is_not_signed_again() -> None:
    """Blocks are lost or rolled back, the vote records stay: nothing is signed up to where they were written last."""
    cluster = Cluster(4)
    for wire in (b"1", b"2", b"3"):
        cluster.submit(wire)
    node = cluster["d"]
    old = [message for message in node.sent if isinstance(message, Vote)]
    node.do(io.Complaint("left_out"))
    for name in "ab":
        cluster.say(name, cluster.forger(name).suspect(4, 0), "d")
    assert node.state.promised == 1
    assert [key for key in node.records if b"round" in key] == []
    node.crash()
    del node.chain[1:]
    node.restart()
    node.sent.clear()
    assert (node.state.height, node.state.refusal) == (2, "behind")
    for message in old:
        node.do(io.Received(message))
    cluster.run(3000)
    assert (len(node.chain), node.state.may_sign) == (3, True)
    assert [vote for vote in node.sent if isinstance(vote, Vote) and vote.height < 4] == []


def two_processes(silence_heights: int, rules: Rules | None = None) -> tuple[Cluster, Node, set[bytes]]:
    """The second process of d begins while the chain runs, and what either says reaches the other, late.

    Returns the blocks that d's key voted for at height 4, where the primary tells each another block.
    """
    cluster = Cluster(4, byzantine="a")
    twin_config = {**cluster.config, "silence_heights": silence_heights}
    a = cluster.forger("a")
    parent = cluster.genesis
    voted: set[bytes] = set()
    twin: Node | None = None
    for height in range(1, 6):
        block = block_on(parent, cluster.set_at(Height(1)), cluster.identities["a"].key, b"%d" % height)
        other = block_on(parent, cluster.set_at(Height(1)), cluster.identities["a"].key, b"other %d" % height)
        if height == 2:
            cluster.config = twin_config
            twin = second_process(cluster, rules)
        for name in "bcd":
            cluster[name].bodies[block.header.hash] = block
        cluster.say("a", a.propose(0, block), "bcd")
        for vote in a.votes(height, 0, block.header.hash):
            cluster.say("a", vote, "bcd")
        if twin is not None:
            twin.bodies[other.header.hash] = other
            twin.do(io.Received(a.propose(0, other if height == 4 else block)))
            twin.bodies[block.header.hash] = block
        said = list(cluster.queue)
        cluster.deliver()
        while cluster.later:
            node, effect = cluster.later.pop(0)
            node.answer(effect)
        if twin is not None:
            for source, to, message in said:
                if to == "d" or source == "d":
                    twin.do(io.Received(message))
            for name in "bcd":
                for message in cluster[name].sent:
                    twin.do(io.Received(message))
            for message in twin.sent:
                cluster["d"].do(io.Received(message))
            if len(twin.chain) < height <= len(cluster["b"].chain):
                twin.committed(*cluster["b"].chain[height - 1])
            voted |= {m.block_hash for m in sent(twin, Kind.PREPARE) if m.height == 4}
        voted |= {m.block_hash for m in sent(cluster["d"], Kind.PREPARE) if m.height == 4}
        parent = block.header
    assert twin is not None
    return cluster, twin, voted


def test_a_second_process_that_begins_in_silence_stops_before_it_ever_votes() -> None:
    cluster, twin, voted = two_processes(silence_heights=3)
    assert (twin.sent, twin.state.refusal) == ([], "records_lost")
    assert (len(voted), cluster["d"].state.may_sign) == (1, True)
    assert cluster.heights() == [5, 5, 5]


def test_without_silence_both_may_vote_before_either_sees_the_other() -> None:
    """That is what silence is for: this second process votes for another block than the first, and stops too late."""
    _, twin, voted = two_processes(silence_heights=0, rules=OwnVotesIgnored())
    assert len(voted) == 2
    assert twin.state.may_sign


def test_silence_ends_after_so_many_heights_that_were_decided_before_our_eyes() -> None:
    cluster = Cluster(4, silence_heights=3)
    assert {node.state.refusal for node in cluster} == {"silent"}
    cluster.run(10_000)
    for node in cluster:
        assert node.state.may_sign
    node = cluster["d"]
    node.crash()
    node.restart()
    node.sent.clear()
    for number in range(1, 6):
        assert node.state.refusal == ("silent" if number <= 3 else None)
        cluster.submit(b"%d" % number)
    assert [vote.height for vote in sent(node, Kind.PREPARE)] == [4, 5]


def test_blocks_that_are_fetched_do_not_end_silence() -> None:
    """They tell little of who signs now."""
    cluster = Cluster(4)
    cluster["d"].crash()
    for number in range(6):
        cluster.submit(b"%d" % number, "abc")
    cluster.config["silence_heights"] = 3
    cluster["d"].restart()
    cluster.submit(b"more", "abc")
    cluster.run(3000)
    assert (len(cluster["d"].chain), cluster["d"].state.refusal) == (7, "silent")
    for number in range(3):
        cluster.submit(b"later %d" % number, "abc")
    assert cluster["d"].state.may_sign


def test_blocks_that_are_fetched_before_anybody_spoke_do_not_end_silence() -> None:
    """Block sync is often quicker than the first STATUS: what others claim cannot tell yet that we are behind."""
    cluster = Cluster(4)
    cluster["d"].crash()
    for number in range(6):
        cluster.submit(b"%d" % number, "abc")
    cluster.config["silence_heights"] = 3
    cluster["d"].restart()
    for block, certificate in cluster["a"].chain:
        cluster["d"].committed(block, certificate)
    assert (len(cluster["d"].chain), cluster["d"].state.refusal) == (6, "silent")


@pytest.mark.parametrize("silence_heights", [3, 0])
def test_a_vote_of_ours_for_a_height_decided_in_our_silence_stops_us(silence_heights: int) -> None:
    """A peer shows in its greeting what it saw last of us, and on a quick chain that height is decided by then.

    A voting replica must let it pass: its own records of decided heights are gone.
    """
    cluster = Cluster(4)
    cluster.submit(b"1")
    cluster["d"].crash()
    cluster.config["silence_heights"] = silence_heights
    for number in range(3):
        cluster.submit(b"more %d" % number, "abc")
    cluster["d"].restart()
    for block, certificate in cluster["a"].chain[1:]:
        cluster["d"].committed(block, certificate)
    (vote,) = cluster.forger("d").votes(3, 0, cluster["a"].chain[2][0].header.hash)[:1]
    cluster["d"].do(io.OwnVoteShown(vote))
    assert (cluster["d"].state.refusal == "records_lost") == (silence_heights > 0)


def test_what_we_signed_before_our_silence_is_no_alarm() -> None:
    cluster = Cluster(4)
    for number in range(3):
        cluster.submit(b"%d" % number)
    old = [message for message in cluster["d"].sent if isinstance(message, Vote)]
    cluster["d"].crash()
    cluster.config["silence_heights"] = 3
    cluster["d"].restart()
    cluster.submit(b"more", "abc")
    for vote in old:
        cluster["d"].do(io.OwnVoteShown(vote))
    assert cluster["d"].state.refusal == "silent"


def test_a_network_that_restarts_as_a_whole_in_silence_goes_on_after_the_quiet_time() -> None:
    cluster = Cluster(4, silence_heights=5, silence_quiet_ms=3000)
    cluster.submit(b"1")
    cluster.run(2900)
    assert cluster.heights() == [0] * 4
    cluster.run(1500)
    assert cluster.heights() == [1] * 4


def test_after_silence_our_votes_from_before_are_said_again() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"1")
    cluster.config.update(silence_heights=2, silence_quiet_ms=500)
    for node in cluster:
        node.crash()
    cluster.queue.clear()
    cluster.passes = lambda *_: True
    for node in cluster:
        node.restart()
        node.sent.clear()
    cluster.run(400)
    assert [node.sent for node in cluster] == [[]] * 4
    cluster.run(200)
    assert cluster.heights() == [1] * 4


def test_an_observer_has_no_silence() -> None:
    cluster = Cluster(4, observers="z", silence_heights=2, silence_quiet_ms=100)
    assert cluster["z"].state.refusal == "not_in_force"
    cluster.run(200)
    cluster.submit(b"1")
    assert len(cluster["z"].chain) == 1


@pytest.mark.parametrize("bad", [{"silence_heights": -1}, {"silence_quiet_ms": 0}])
def test_silence_has_bounds(bad: dict[str, int]) -> None:
    with pytest.raises(Exception, match="silence"):
        Cluster(4, **bad)
