"""Repair: lost messages delay and never block; who sends what to whom again; who counts as behind."""

from __future__ import annotations

import pytest
from cluster import Cluster, block_on
from test_paper_normal_case import proposal, sent

from consensus import interface as io
from consensus.messages import Decided, Kind, NewView, PrePrepare, Status, Vote
from state.types import Height, View


@pytest.mark.parametrize("kind", [Kind.PRE_PREPARE, Kind.PREPARE, Kind.COMMIT])
def test_a_lost_message_of_the_normal_case_delays_and_costs_no_view(kind: Kind) -> None:
    """Every message of one kind is lost once; STATUS brings it back before anybody suspects."""
    cluster = Cluster(4)
    lost = set()

    def passes(source: str, to: str, message) -> bool:
        if message.kind is kind and (source, to) not in lost:
            lost.add((source, to))
            return False
        return True

    cluster.passes = passes
    cluster.submit(b"A")
    cluster.run(900)
    assert cluster.heights() == [1, 1, 1, 1]
    assert lost
    assert {node.state.view for node in cluster} == {0}


@pytest.mark.parametrize("kind", [Kind.VIEW_CHANGE, Kind.NEW_VIEW, Kind.SUSPECT])
def test_a_lost_message_of_a_view_change_delays(kind: Kind) -> None:
    cluster = Cluster(4)
    cluster["a"].crash()
    lost = set()

    def passes(source: str, to: str, message) -> bool:
        if message.kind is kind and (source, to) not in lost:
            lost.add((source, to))
            return False
        return True

    cluster.passes = passes
    cluster.submit(b"A")
    cluster.run(5000)
    assert cluster.heights() == [0, 1, 1, 1]
    assert lost


def test_half_of_all_messages_lost() -> None:
    cluster = Cluster(4, real=True)
    count = iter(range(10**9))
    cluster.passes = lambda source, to, message: next(count) * 7919 % 101 < 50
    for number in range(5):
        cluster.submit(b"%d" % number)
        cluster.run(5000)
    cluster.passes = lambda *_: True
    cluster.run(5000)
    assert len(set(cluster.heights())) == 1
    assert not any(node.mempool for node in cluster)
    cluster.check_agreement()


def answers(cluster: Cluster, name: str, status: Status) -> list:
    """What one node sends back, to the sender alone, for a STATUS."""
    cluster.queue.clear()
    cluster[name].do(io.Received(status))
    return [message for source, _, message in cluster.queue if source == name]


def status_of(cluster: Cluster, name: str, height: int, view: int, **claims) -> Status:
    forger = cluster.forger(name)
    full = {"promised": View(view), "proposal": None, "prepares": 0, "commits": 0, **claims}
    return forger.signed(Status(Height(height), View(view), sender=forger.index, **full))


def test_status_is_answered_with_what_its_sender_lacks() -> None:
    cluster = Cluster(4, byzantine="d")
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"A")
    block_hash = cluster["a"].bodies_hash()
    kinds = [type(message) for message in answers(cluster, "a", status_of(cluster, "d", 1, 0))]
    assert kinds == [PrePrepare, Vote, Vote]
    claims = {"proposal": block_hash, "prepares": 0b0111}
    again = answers(cluster, "b", status_of(cluster, "d", 1, 0, **claims))
    assert [message.kind for message in again] == [Kind.COMMIT]
    assert again[0] == sent(cluster["b"], Kind.COMMIT)[0]
    assert answers(cluster, "b", status_of(cluster, "d", 1, 0, **claims, commits=0b0111)) == []


def test_a_peer_in_an_earlier_view_gets_the_new_view() -> None:
    cluster = Cluster(4, byzantine="d")
    for name in "abc":
        cluster[name].do(io.Complaint("left_out"))
    cluster.deliver()
    assert {node.state.view for node in cluster} == {1}
    for name in "abc":
        assert isinstance(answers(cluster, name, status_of(cluster, "d", 1, 0))[0], NewView)


def test_a_peer_at_an_earlier_height_gets_the_certificate_that_proves_it() -> None:
    cluster = Cluster(4, byzantine="d")
    for number in range(3):
        cluster.submit(b"%d" % number)
        for vote in cluster.forger("d").votes(number + 1, 0, cluster["a"].bodies_hash()):
            cluster.say("d", vote)
        cluster.deliver()
    assert answers(cluster, "a", status_of(cluster, "d", 2, 0)) == [Decided(cluster["a"].chain[2][1])]


def test_only_a_certificate_proves_that_we_are_behind() -> None:
    """A certificate is asked after at once, again each second; a claim only while we stand still, in turn."""
    cluster = Cluster(4, byzantine="bcd")
    node = cluster["a"]
    asked = []
    node._sync = lambda height, sender: asked.append((height, sender))
    for name, height in (("c", 50), ("d", 60)):
        cluster.say(name, status_of(cluster, name, height, 0), "a")
    cluster.deliver()
    assert asked == []
    cluster.run(4500)
    assert set(asked) == {(50, 2), (60, 3)}
    assert len(asked) == 4
    asked.clear()
    certificate = cluster.certificate(Kind.COMMIT, 8, 0, cluster.genesis.hash, "bcd")
    cluster.say("b", Decided(certificate), "a")
    cluster.deliver()
    assert asked == [(9, None)]
    cluster.run(2000)
    assert asked == [(9, None)] * 3


def test_a_decided_block_whose_proposal_is_unknown_is_fetched_by_its_hash() -> None:
    cluster = Cluster(4, byzantine="abc")
    block, _ = proposal(cluster)
    node = cluster["d"]
    body = node.bodies.pop(block.header.hash)
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
    cluster.say("a", Decided(certificate), "d")
    assert [effect for _, effect in cluster.later] == [io.RequestBody(block.header.hash, (0, 1, 2))]
    cluster.deliver()
    asked = []
    answer, node.answer = node.answer, lambda effect: (asked.append(effect), answer(effect))
    cluster.run(2000)
    assert asked == [io.RequestBody(block.header.hash, (0, 1, 2))] * 2
    node.bodies[block.header.hash] = body
    node.retry()
    cluster.deliver()
    assert len(node.chain) == 1


def test_a_decision_is_passed_on_before_it_is_written() -> None:
    cluster = Cluster(4, byzantine="abc")
    block, _ = proposal(cluster)
    node = cluster["d"]
    node.committed = lambda *_: None
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
    cluster.say("a", Decided(certificate), "d")
    assert answers(cluster, "d", status_of(cluster, "b", 1, 0)) == [Decided(certificate)]


def test_large_answers_are_not_sent_by_everybody_at_once() -> None:
    """With seven validators a lost proposal is sent by its primary, and by one more in turn; not by six."""
    cluster = Cluster(7, byzantine="g")
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"A")
    senders = [
        name
        for name in "abcdef"
        if any(isinstance(message, PrePrepare) for message in answers(cluster, name, status_of(cluster, "g", 1, 0)))
    ]
    assert "a" in senders
    assert len(senders) <= 2


def test_a_primary_that_shows_two_blocks_is_found_out_through_status() -> None:
    """A peer that claims another proposal is sent ours: both are signed by the primary, so it has evidence."""
    cluster = Cluster(4, byzantine="a")
    first, one = proposal(cluster, b"A")
    second, two = proposal(cluster, b"B")
    cluster.say("a", one, "b")
    cluster.say("a", two, "cd")
    cluster.run(500)
    assert first.header.hash != second.header.hash
    assert all(node.replica.evidence for node in cluster)
    assert {node.state.view for node in cluster} == {1}


def test_status_comes_sooner_while_a_height_with_work_does_not_move() -> None:
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: message.kind is Kind.STATUS
    cluster.submit(b"A")
    cluster["b"].sent.clear()
    cluster.run(900)
    assert len(sent(cluster["b"], Kind.STATUS)) == 3


def test_evidence_is_kept_in_bounded_number_reported_once_and_survives_restarts() -> None:
    cluster = Cluster(4, byzantine="cd")
    node = cluster["b"]
    for view in range(40):
        for name in "cd":
            for number in (1, 2, 3):
                cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 1, view, bytes([number]) * 32), "b")
    reported = [report for report in node.reports if report.kind is io.ReportKind.EVIDENCE]
    assert len(node.replica.evidence) == len(reported) == 16
    cluster.deliver()
    assert len(cluster["a"].replica.evidence) == 16
    before = node.replica.evidence
    node.crash()
    node.restart()
    assert set(node.replica.evidence) == set(before)


def test_proposals_that_differ_in_certificates_alone_are_no_evidence() -> None:
    cluster = Cluster(4, byzantine="abc")
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    for names in ("abc", "bcd"):
        certificate = cluster.certificate(Kind.PREPARE, 1, 0, block.header.hash, names)
        cluster.say("b", cluster.forger("b").propose(1, block, certificate), "d")
    assert cluster["d"].replica.evidence == ()
