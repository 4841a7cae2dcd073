"""Claims of the PBFT paper on view changes, sections 4.4 and 4.5.2, as this chain has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster import Cluster, Node, block_on, must, needs
from test_paper_normal_case import sent
from variants import EachForItself, FreeNewView, InnerCertificatesIgnored, NoPromise, OneIsEnough, SuspectsNeverVoid

from consensus import interface as io
from consensus.messages import Decided, Kind, NewView, ViewChange, Vote
from consensus.new_view import check_new_view
from consensus.rules import Rules
from state.errors import Rejected
from state.types import Height, View


def changes_of(cluster: Cluster, height: int, view: int, names: str, committed=None, prepared=None) -> list[ViewChange]:
    return [cluster.forger(name).view_change(height, view, committed, prepared) for name in names]


def test_4_4_one_suspicion_moves_nobody() -> None:
    """A replica whose link is bad suspects alone, votes on, and so never takes itself out of the quorum."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        cluster["d"].do(io.Complaint("left_out"))
        cluster.deliver()
        must({node.state.promised for node in cluster} == {0}, "nobody leaves the view")
        cluster.submit(b"A")
        must(len(sent(cluster["d"], Kind.COMMIT)) == 1, "it goes on voting")

    needs(scenario, OneIsEnough())


def test_4_4_f_plus_1_suspicions_change_the_view() -> None:
    cluster = Cluster(4)
    for name in "cd":
        cluster[name].do(io.Complaint("left_out"))
    cluster.deliver()
    assert {node.state.view for node in cluster} == {1}
    assert {node.state.suspicion for node in cluster} == {None}


def test_4_4_suspicion_is_void_once_its_height_is_committed() -> None:
    """SUSPECTs that lag behind the chain move nobody."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="cd", rules=rules)
        for wire in (b"A", b"B"):
            cluster.submit(wire, "a")
            for name in "cd":
                height = cluster["a"].state.height
                for vote in cluster.forger(name).votes(height, 0, cluster["a"].bodies_hash()):
                    cluster.say(name, vote)
            cluster.deliver()
        for name in "cd":
            cluster.say(name, cluster.forger(name).suspect(1, 0))
        cluster.deliver()
        must(cluster["a"].state.promised == 0, "old suspicions are void")

    needs(scenario, SuspectsNeverVoid())


def test_4_4_a_promise_ends_voting_in_lower_views() -> None:
    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="ab", rules=rules)
        block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
        node = cluster["d"]
        node.bodies[block.header.hash] = block
        for name in "ab":
            cluster.say(name, cluster.forger(name).suspect(1, 0), "d")
        cluster.say("a", cluster.forger("a").propose(0, block), "d")
        cluster.deliver()
        must(len(sent(node, Kind.VIEW_CHANGE)) == 1 and sent(node, Kind.PREPARE) == [], "no vote after the promise")

    needs(scenario, NoPromise())


def test_4_4_a_view_change_carries_the_prepared_certificate() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: not (isinstance(message, Vote) and message.kind is Kind.COMMIT)
    cluster.submit(b"A")
    cluster.passes = lambda *_: False
    for name in "bcd":
        cluster[name].do(io.Received(cluster.forger("a").suspect(1, 0)))
        cluster[name].do(io.Complaint("left_out"))
    changes = [sent(cluster[name], Kind.VIEW_CHANGE)[0] for name in "bcd"]
    assert [change.prepared.block_hash for change in changes] == [cluster["a"].bodies_hash()] * 3
    assert [(change.prepared.view, change.committed) for change in changes] == [(0, None)] * 3


def test_4_4_the_prepared_block_of_the_highest_view_is_proposed_again_unchanged() -> None:
    """Of two prepared certificates the later one binds; free choice would fork what may be committed."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="c", rules=rules)
        old, new = (
            block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities[name].key, name.encode())
            for name in "ab"
        )
        forger = cluster.forger("c")
        for node in cluster:
            node.bodies.update({old.header.hash: old, new.header.hash: new})
        changes = [
            cluster.forger("a").view_change(
                1, 2, None, cluster.certificate(Kind.PREPARE, 1, 0, old.header.hash, "abc")
            ),
            cluster.forger("b").view_change(
                1, 2, None, cluster.certificate(Kind.PREPARE, 1, 1, new.header.hash, "bcd")
            ),
            forger.view_change(1, 2),
        ]
        cluster.say("c", forger.new_view(2, *changes))
        must({node.state.demanded for node in cluster} == {new.header.hash}, "the later one is demanded")
        free = block_on(cluster.genesis, cluster.set_at(Height(1)), forger.who.key, b"free")
        for node in cluster:
            node.bodies[free.header.hash] = free
        cluster.say("c", forger.propose(2, free), "a")
        cluster.deliver()
        must(cluster["a"].state.suspicion == "invalid_proposal", "another block is refused, and its primary suspected")
        again = forger.propose(2, new, changes[1].prepared)
        cluster.say("c", again, "bd")
        cluster.deliver()
        must({node.state.proposal for node in cluster if node.who.name != "a"} == {new.header.hash}, "the block is")

    needs(scenario, FreeNewView())


def test_4_4_an_honest_new_primary_proposes_what_is_demanded() -> None:
    """Prepared at c alone, and a gone: b fetches the block by its hash, proposes it again, and it is committed."""
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: (
        to == "c" if isinstance(message, Vote) else to in "cd" and source in "acd"
    )
    cluster.submit(b"A", "acd")
    block_hash = cluster["c"].state.proposal
    cluster["a"].crash()
    cluster.passes = lambda *_: True
    cluster.submit(b"B", "b")
    for name in "bcd":
        cluster[name].do(io.Complaint("left_out"))
    cluster.deliver()
    assert cluster.committed_hashes(1) == {block_hash}
    assert [len(node.chain) for node in cluster] == [0, 2, 2, 2]
    assert all(certificate.view == 1 for _, certificate in cluster["d"].chain)


NEW_VIEWS = {
    "new_view_quorum": lambda c, good: replace(good, view_changes=good.view_changes[1:]),
    "new_view_senders": lambda c, good: replace(good, view_changes=good.view_changes[::-1]),
    "new_view_view": lambda c, good: replace(good, view=View(5)),
    "new_view_height": lambda c, good: replace(good, height=Height(2)),
    "new_view_primary": lambda c, good: replace(good, sender=2),
    "new_view_lagging": lambda c, good: c.forger("b").new_view(
        1, *good.view_changes[:2],
        c.forger("d").view_change(4, 1, c.certificate(Kind.COMMIT, 3, 0, c.genesis.hash, "abc")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", NEW_VIEWS)
def test_4_4_backups_check_the_new_view(code: str) -> None:
    """Every replica checks for itself; a wrong NEW-VIEW changes nothing and is named."""
    cluster = Cluster(4, byzantine="b")
    good = cluster.forger("b").new_view(1, *changes_of(cluster, 1, 1, "abc"))
    validators = cluster.set_at(Height(1))

    def primary(height: Height, view: View) -> int:
        return validators.primary(height, view, 0)

    check_new_view(good, validators, Height(1), primary, Rules())
    bad = NEW_VIEWS[code](cluster, good)
    with pytest.raises(Rejected, match=code):
        check_new_view(bad, validators, Height(1), primary, Rules())
    node = cluster["d"]
    before = node.state
    node.do(io.Received(bad))
    assert (node.reports[-1].code, node.state) == (code, before)
    node.do(io.Received(good))
    assert node.state.view == 1


def test_4_4_the_new_view_proves_heights_and_brings_laggards_forward() -> None:
    """h* is the highest height proved; who is behind learns it from the certificate inside, and is not voted for."""
    cluster = Cluster(4, byzantine="b")
    cluster.passes = lambda source, to, message: to in "ac" and source in "ac"
    cluster.submit(b"A", "a")
    for vote in cluster.forger("b").votes(1, 0, cluster["a"].bodies_hash()):
        cluster.say("b", vote, "ac")
    cluster.deliver()
    assert cluster.heights() == [1, 1, 0]
    certificate = cluster["a"].chain[0][1]
    changes = [*changes_of(cluster, 2, 1, "ac", certificate), cluster.forger("b").view_change(1, 1)]
    cluster.passes = lambda *_: True
    cluster.say("b", cluster.forger("b").new_view(1, *changes))
    cluster.deliver()
    assert cluster.heights() == [1, 1, 1]
    assert {(node.state.view, node.state.floor) for node in cluster} == {(1, 2)}


def test_4_4_two_primaries_at_the_border_of_a_term() -> None:
    """With turns of two heights, h* decides who opens the view; a second NEW-VIEW for it is ignored."""
    cluster = Cluster(4, byzantine="bc", leader_term=2)
    low = cluster.forger("b").new_view(1, *changes_of(cluster, 1, 1, "abc"))
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
    high = cluster.forger("c").new_view(
        1, *changes_of(cluster, 2, 1, "bc", certificate), cluster.forger("d").view_change(1, 1)
    )
    for node, first, second in ((cluster["a"], low, high), (cluster["d"], high, low)):
        node.do(io.Received(first))
        floor = node.state.floor
        node.do(io.Received(second))
        assert (node.state.view, node.state.floor) == (1, floor)
    assert (cluster["a"].state.floor, cluster["d"].state.floor) == (1, 2)


def entered(node: Node) -> list[str]:
    return [report.code for report in node.reports if report.kind is io.ReportKind.VIEW_ENTERED]


def test_4_5_2_f_plus_1_greater_promises_are_joined() -> None:
    """f + 1 VIEW-CHANGEs for greater views take a replica to the greatest that f + 1 have reached, timer or not."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(7, byzantine="cde", rules=rules)
        node = cluster["g"]
        for name, view in (("c", 9), ("d", 5)):
            cluster.say(name, cluster.forger(name).view_change(1, view), "g")
        must(node.state.promised == 0, "two of seven may both be faulty")
        cluster.say("e", cluster.forger("e").view_change(1, 7), "g")
        must(node.state.promised == 5, "three have reached 5")
        must(len(sent(node, Kind.VIEW_CHANGE)) == 1, "in one step")

    needs(scenario, EachForItself())


def test_4_5_2_timeouts_double_per_failed_view_and_halve_per_commit() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: message.kind is not Kind.PRE_PREPARE
    cluster.submit(b"A")
    cluster.run(8000)
    assert (cluster["b"].state.view, cluster["b"].state.timeout_ms) == (3, 8000)
    cluster.passes = lambda *_: True
    cluster.run(1000)
    timeouts = [cluster["b"].state.timeout_ms]
    for number in range(4):
        cluster.submit(b"more %d" % number)
        timeouts.append(cluster["b"].state.timeout_ms)
    assert timeouts == [4000, 2000, 1000, 1000, 1000]


def test_4_5_2_an_unanswered_promise_waits_for_a_quorum() -> None:
    """Alone in its promise a replica does not move on; with a quorum it suspects the silent primary of the view."""
    cluster = Cluster(4, byzantine="bcd")
    node = cluster["a"]
    for name in "cd":
        cluster.say(name, cluster.forger(name).suspect(1, 0), "a")
    cluster.run(60_000)
    assert (node.state.promised, node.state.suspicion) == (1, None)
    for name in "cd":
        cluster.say(name, cluster.forger(name).view_change(1, 1), "a")
    cluster.run(2100)
    assert node.state.suspicion == "view_change_unanswered"
    cluster.say("d", cluster.forger("d").suspect(1, 1), "a")
    assert node.state.promised == 2


def test_a_promise_is_repeated_until_the_view_is_entered_and_renewed_at_each_height() -> None:
    cluster = Cluster(4, byzantine="bcd")
    node = cluster["a"]
    for name in "cd":
        cluster.say(name, cluster.forger(name).suspect(1, 0), "a")
    cluster.run(3500)
    repeats = sent(node, Kind.VIEW_CHANGE)
    assert len(repeats) >= 4
    assert len(set(repeats)) == 1
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    node.committed(block, cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "bcd"))
    renewed = sent(node, Kind.VIEW_CHANGE)[-1]
    assert (renewed.height, renewed.view, renewed.committed.height) == (2, 1, 1)
    changes = changes_of(cluster, 2, 1, "bcd", renewed.committed)
    cluster.say("b", cluster.forger("b").new_view(1, *changes), "a")
    node.sent.clear()
    cluster.run(3000)
    assert sent(node, Kind.VIEW_CHANGE) == []
    assert entered(node) == ["new_view"]


def test_a_view_change_with_a_prepared_block_counts_once_the_block_is_held() -> None:
    """The new primary asks for the body by its hash, from those who voted, and opens the view when it has it."""
    cluster = Cluster(4, byzantine="acd")
    node = cluster["b"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    prepared = cluster.certificate(Kind.PREPARE, 1, 0, block.header.hash, "acd")
    for name in "cd":
        cluster.say(name, cluster.forger(name).view_change(1, 1, None, prepared), "b")
    assert [effect for _, effect in cluster.later] == [io.RequestBody(block.header.hash, (0, 2, 3))]
    cluster.deliver()
    assert node.state.view == 0
    node.bodies[block.header.hash] = block
    node.retry()
    assert (node.state.view, node.state.proposal) == (1, block.header.hash)
    assert isinstance(sent(node, Kind.NEW_VIEW)[0], NewView)
    assert block.header.hash in node.stored


def test_a_commit_certificate_inside_a_view_change_counts_as_if_alone() -> None:
    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="abc", rules=rules)
        block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
        cluster["d"].bodies[block.header.hash] = block
        certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
        cluster.say("a", cluster.forger("a").view_change(2, 1, certificate), "d")
        cluster.deliver()
        must(cluster.heights() == [1], "height 1 is decided by it")

    needs(scenario, InnerCertificatesIgnored())


def test_below_an_own_promise_a_certificate_decides_and_no_view_is_entered() -> None:
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    for name in "abc":
        cluster.say(name, cluster.forger(name).view_change(1, 5), "d")
    assert node.state.promised == 5
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    node.bodies[block.header.hash] = block
    cluster.say("a", Decided(cluster.certificate(Kind.COMMIT, 1, 3, block.header.hash, "abc")), "d")
    cluster.deliver()
    assert (len(node.chain), node.state.view, node.state.promised) == (1, 0, 5)
    node.crash()
    node.restart()
    assert (node.state.view, node.state.promised) == (0, 5)


def test_the_head_s_certificate_is_an_entry_into_its_view() -> None:
    """It stands on the disk with the block, so a restart between the commit and the record loses nothing."""
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    certificate = cluster.certificate(Kind.COMMIT, 1, 3, block.header.hash, "abc")
    node.chain.append((block, certificate))
    node.crash()
    node.restart()
    assert (node.state.height, node.state.view, node.state.floor) == (2, 3, 2)
