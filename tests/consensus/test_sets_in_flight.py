"""Validators come and go while blocks are decided and views change: what of one set must not reach into another.

Every message is proved by the receiver under the set that it knows, as a node does it: of later sets it knows nothing.
"""

from __future__ import annotations

import random

import pytest
from cluster import Cluster, Node, block_on, must, needs
from test_paper_normal_case import sent
from variants import NoRepairAcrossSets, OneViewForAllSets, ViewSurvivesSet

from consensus import interface as io
from consensus.evidence import contradiction
from consensus.messages import Decided, Kind, Message, NewView, Status, ViewChange, Vote
from consensus.records import decode_records, recovery_records
from consensus.rules import Rules
from state.types import Height


def change_view(cluster: Cluster, names: str) -> None:
    for name in names:
        cluster[name].do(io.Complaint("left_out"))
    cluster.deliver()


def record_all(cluster: Cluster) -> list[Message]:
    said: list[Message] = []

    def passes(source: str, to: str, message: Message) -> bool:
        if message not in said[-64:]:
            said.append(message)
        return True

    cluster.passes = passes
    return said


def test_nothing_of_a_set_s_first_reign_counts_in_its_second() -> None:
    """A, then B, then A again: promises, a NEW-VIEW and certificates of view 1 of the first reign move nobody."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(rules=rules, sets={1: "abcd", 3: "abce", 4: "abcd"}, observers="e")
        said = record_all(cluster)
        cluster.submit(b"1")
        change_view(cluster, "abcd")
        cluster.submit(b"2")
        must(cluster["a"].chain[1][1].view == 1, "the first reign ends in view 1")
        cluster.submit(b"3")
        must(cluster.heights() == [3] * 5, "the second set decides")
        early = [message for message in said if not isinstance(message, Decided) and message.height < 3]
        early += [Decided(cluster["a"].chain[1][1])]
        assert {Kind.VIEW_CHANGE, Kind.NEW_VIEW, Kind.COMMIT} <= {message.kind for message in early}
        for message in early:
            for node in cluster:
                node.do(io.Received(message))
        cluster.deliver()
        must({node.state.view for node in cluster} == {0}, "the second reign is in its own view 0")
        must({node.state.promised for node in cluster} == {0}, "and nobody promised anything")
        cluster.submit(b"4")
        must([node.chain[3][1].view for node in cluster] == [0] * 5, "and decides in it")
        cluster.check_agreement()

    needs(scenario, OneViewForAllSets(), ViewSurvivesSet())


def test_records_of_a_first_reign_bind_nothing_in_the_second() -> None:
    """Restarted at any height, a validator stands in the view of the reign that it is in."""
    for stop in range(2, 7):
        cluster = Cluster(sets={1: "abcd", 3: "abce", 5: "abcd"})
        cluster.submit(b"1")
        change_view(cluster, "abcd")
        for number in range(2, 7):
            cluster.submit(b"%d" % number)
            if number == stop:
                for node in cluster:
                    node.crash()
                    node.restart()
                cluster.run(10)
        assert cluster.heights() == [6] * 5
        assert [certificate.view for _, certificate in cluster["a"].chain] == [0, 1, 0, 0, 0, 0]


def test_a_validator_leaves_follows_and_returns() -> None:
    cluster = Cluster(sets={1: "abcd", 3: "bcde", 6: "abcde"})
    node = cluster["a"]
    change_view(cluster, "abcd")
    for number in range(1, 9):
        cluster.submit(b"%d" % number)
        assert node.state.refusal == ("not_in_force" if 2 <= number <= 4 else None)
    assert cluster.heights() == [8] * 5
    assert sorted({vote.height for vote in sent(node, Kind.PREPARE)}) == [1, 2, 6, 7, 8]


@pytest.mark.parametrize("while_out", ["up", "restarted", "down"])
def test_whoever_returns_keeps_to_its_records_and_to_the_view_of_the_new_reign(while_out: str) -> None:
    cluster = Cluster(sets={1: "abcd", 2: "bcde", 4: "abcd"})
    change_view(cluster, "abcd")
    cluster.submit(b"1")
    node = cluster["a"]
    if while_out != "up":
        node.crash()
    if while_out == "restarted":
        node.restart()
    cluster.submit(b"2", "bcde")
    cluster.submit(b"3", "bcde")
    if while_out == "down":
        node.restart()
    cluster.run(3000)
    assert (node.state.height, node.state.view, node.state.promised, node.state.may_sign) == (4, 0, 0, True)
    cluster.submit(b"4")
    cluster.run(3000)
    assert min(cluster.heights()) == 4


def test_a_primary_that_is_removed_by_its_own_block_hands_over() -> None:
    """The primary of the old set proposes the block after which it is no member; the new set's view 0 is another's."""
    cluster = Cluster(sets={1: "abcd", 2: "bcde"})
    cluster.submit(b"1")
    assert cluster["b"].state.primary == 0
    assert cluster.set_at(Height(2)).validators[0].name == "b"
    cluster.submit(b"2")
    assert cluster.heights() == [2] * 5
    assert cluster["c"].chain[1][0].header.proposer == cluster.identities["b"].key


def test_a_validator_that_joins_says_nothing_before_its_height() -> None:
    cluster = Cluster(sets={1: "abcd", 4: "abcde"})
    for number in range(1, 4):
        cluster.submit(b"%d" % number)
        cluster.run(1500)
    said = cluster["e"].sent
    assert {message.kind for message in said} == {Kind.STATUS}
    assert {message.height for message in said} == {4}
    cluster.submit(b"4")
    assert [vote.height for vote in sent(cluster["e"], Kind.COMMIT)] == [4]


@pytest.mark.parametrize("next_set", ["bcde", "abcde", "abc", "efghi"])
def test_a_set_changes_amid_a_view_change_and_laggards_are_brought_along(next_set: str) -> None:
    """Some decide the last block of their set, others have promised the next view and miss the COMMITs."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(rules=rules, sets={1: "abcd", 2: next_set})
        cluster.hears_heights = False
        cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT or to not in "cd"
        cluster.submit(b"1")
        must(len(cluster["a"].chain) == 1 and len(cluster["d"].chain) == 0, "a is ahead of d")
        cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT or source not in "ab"
        change_view(cluster, "cd")
        cluster.passes = lambda *_: True
        cluster.run(1000)
        members = [cluster[name] for name in next_set]
        must({len(node.chain) for node in cluster} == {1}, "all come to the new set")
        must({node.state.view for node in members} == {0}, "in its view 0")
        cluster.submit(b"2")
        must(cluster.heights() == [2] * len(cluster.heights()), "and it decides")

    needs(scenario, NoRepairAcrossSets())


def test_a_prepared_block_of_the_old_set_is_not_demanded_of_the_new() -> None:
    """A certificate of PREPAREs is of its height, and a height is of one set: the new set chooses freely."""
    cluster = Cluster(sets={1: "abcd", 2: "bcde"}, byzantine="a")
    forger = cluster.forger("a")
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    for name in "bcde":
        cluster[name].bodies[block.header.hash] = block
    cluster.say("a", forger.propose(0, block))
    cluster.deliver()
    for vote in forger.votes(1, 0, block.header.hash):
        cluster.say("a", vote)
    cluster.deliver()
    assert cluster.heights() == [1] * 4
    change_view(cluster, "bcde")
    assert {(node.state.view, node.state.demanded, node.state.floor) for node in cluster} == {(1, None, 2)}


def test_evidence_of_an_earlier_set_accuses_who_had_the_index_then() -> None:
    """Index 0 was a's; in the set in force it is the primary's, who did nothing."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(rules=rules, sets={1: "abcd", 2: "bcde"}, byzantine="abcd")
        forger, node = cluster.forger("a"), cluster["e"]
        parent = cluster.genesis
        one, other = (
            block_on(parent, cluster.set_at(Height(1)), cluster.identities["a"].key, wire) for wire in (b"1", b"x")
        )
        node.committed(one, cluster.certificate(Kind.COMMIT, 1, 0, one.header.hash, "abc"))
        node.do(io.Received(contradiction(forger.propose(0, one), forger.propose(0, other))))
        must(len(node.replica.evidence) == 1, "it is kept")
        must((node.state.primary, node.state.index) == (0, 3), "the primary now has index 0")
        must(node.state.suspicion is None, "it is not suspected for what another did")

    needs(scenario, OneViewForAllSets())


def test_recovery_goes_on_across_a_change_of_the_set() -> None:
    """d lost its records at height 2, could have signed at 3; heights 4 and 5 are of a set that d is in as well."""
    cluster = Cluster(sets={1: "abcd", 4: "abcde", 7: "abcd"})
    for wire in (b"1", b"2"):
        cluster.submit(wire)
    node = cluster["d"]
    node.crash()
    node.records, node.stored = dict(recovery_records(Height(2), 0)), {}
    node.restart()
    node.sent.clear()
    for number in range(3, 9):
        cluster.submit(b"%d" % number)
        assert node.state.may_sign is (number >= 5)
    assert sorted({vote.height for vote in sent(node, Kind.PREPARE)}) == [6, 7, 8]


def test_recovery_ends_while_we_are_no_member() -> None:
    cluster = Cluster(sets={1: "abcd", 3: "abce", 7: "abcd"})
    for wire in (b"1", b"2"):
        cluster.submit(wire)
    node = cluster["d"]
    node.crash()
    node.records, node.stored = dict(recovery_records(Height(2), 0)), {}
    node.restart()
    for number in range(3, 9):
        cluster.submit(b"%d" % number)
    assert sorted({vote.height for vote in sent(node, Kind.PREPARE) if vote.height > 2}) == [7, 8]


def test_old_proofs_of_the_last_height_are_said_to_who_was_removed_and_not_every_time() -> None:
    cluster = Cluster(sets={1: "abcd", 2: "bcde"})
    cluster.hears_heights = False
    cluster.passes = lambda source, to, message: to != "a" or message.kind is not Kind.COMMIT
    cluster.submit(b"1")
    assert len(cluster["a"].chain) == 0
    cluster.passes = lambda *_: True
    b = cluster["b"]
    b.sent.clear()
    status = next(message for message in reversed(cluster["a"].sent) if isinstance(message, Status))
    for _ in range(5):
        b.do(io.Received(status))
    assert [type(message) for message in b.sent] == [Decided]
    cluster.deliver()
    assert len(cluster["a"].chain) == 1


SETS = ["abcd", "abcde", "bcdef", "abcdefg", "cdef", "abcf", "abcdfg", "defg"]


def history(rng: random.Random) -> dict[int, str]:
    sets, height = {1: rng.choice(SETS)}, 1
    while height < 12:
        height += rng.randrange(1, 4)
        sets[height] = rng.choice(SETS)
    return {first: members for first, members in sets.items() if first == 1 or members != before(sets, first)}


def before(sets: dict[int, str], height: int) -> str:
    return sets[max(first for first in sets if first < height)]


@pytest.mark.parametrize("seed", range(16))
def test_sets_that_change_at_any_height_under_loss_restarts_and_view_changes_agree_and_go_on(seed: int) -> None:
    rng = random.Random(seed)
    cluster = Cluster(sets=history(rng), progress_timeout_max_ms=2000)
    loss = {"rate": 0.0}
    cluster.passes = lambda source, to, message: rng.random() >= loss["rate"]
    for number in range(13):
        loss["rate"] = rng.choice([0.0, 0.0, 0.15, 0.35])
        cluster.submit(b"%d" % number)
        if rng.random() < 0.4:
            some = rng.choice(list(cluster))
            change_view(cluster, some.who.name)
        if rng.random() < 0.4:
            some = rng.choice(list(cluster))
            some.crash()
            some.restart()
        cluster.run(rng.choice([50, 400, 1500]))
        cluster.check_agreement()
    loss["rate"] = 0.0
    cluster.submit(b"last")
    cluster.run(15_000)
    cluster.check_agreement()
    heights = cluster.heights()
    assert len(set(heights)) == 1, heights
    assert len({wire for block, _ in next(iter(cluster)).chain for wire in block.wire_hashes}) == 14
    for node in cluster:
        held_votes_are_of_their_set(cluster, node)


def held_votes_are_of_their_set(cluster: Cluster, node: Node) -> None:
    """Nobody voted at a height whose set it is not in, and never in a view that its record does not explain."""
    for message in node.sent:
        if isinstance(message, Vote | ViewChange | NewView):
            members = cluster.sets[cluster.since(Height(message.height))]
            assert node.who.name in members, (node.who.name, message.height)
    assert decode_records(node.records).signing.from_height <= len(node.chain) + 1
