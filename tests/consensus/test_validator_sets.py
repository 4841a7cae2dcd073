"""Views, votes and promises belong to one validator set; the core is ready for sets that change by height."""

from __future__ import annotations

from cluster import Cluster, block_on
from test_paper_normal_case import sent

from consensus import interface as io
from consensus.messages import Kind
from consensus.records import decode_records
from state.types import Height


def view_one(cluster: Cluster) -> None:
    for node in cluster:
        node.do(io.Complaint("left_out"))
    cluster.deliver()


def test_a_new_set_goes_on_in_its_own_view_0_with_its_own_quorum() -> None:
    cluster = Cluster(sets={1: "abcd", 3: "cdefghi", 5: "abc"})
    cluster.submit(b"1")
    view_one(cluster)
    cluster.submit(b"2")
    assert {node.chain[1][1].view for node in cluster} == {1}
    assert {node.state.view for node in cluster} == {0}
    for number in range(3, 7):
        cluster.submit(b"%d" % number)
    assert set(cluster.heights()) == {6}
    certificates = [certificate for _, certificate in cluster["a"].chain]
    assert [len(certificate.signatures) for certificate in certificates] == [3, 3, 5, 5, 2, 2]
    assert [certificate.view for certificate in certificates] == [0, 1, 0, 0, 0, 0]


def test_who_left_follows_and_who_joined_votes() -> None:
    cluster = Cluster(sets={1: "abcd", 2: "bcde"})
    cluster.submit(b"1")
    for name in "ae":
        cluster[name].sent.clear()
    cluster.submit(b"2")
    assert (cluster["a"].state.index, sent(cluster["a"], Kind.PREPARE)) == (None, [])
    assert [vote.height for vote in sent(cluster["e"], Kind.COMMIT)] == [2]
    assert cluster.heights() == [2] * 5


def test_records_of_an_earlier_set_bind_no_view_of_the_next() -> None:
    """Entry and promise stand on the disk until the next write; a restart in between does not take them up."""
    cluster = Cluster(sets={1: "abcd", 2: "bcdefgh"})
    view_one(cluster)
    cluster.submit(b"1")
    node = cluster["b"]
    assert decode_records(node.records).entry[0] == 1
    node.crash()
    node.restart()
    assert (node.state.height, node.state.view, node.state.promised) == (2, 0, 0)
    cluster.submit(b"2")
    assert set(cluster.heights()) == {2}
    assert node.chain[1][1].view == 0
    assert decode_records(node.records).entry is None


def test_a_view_entered_in_a_set_holds_after_a_restart_within_it() -> None:
    cluster = Cluster(sets={1: "abcd", 2: "bcdefgh"})
    cluster.submit(b"1")
    view_one(cluster)
    cluster.submit(b"2")
    for node in cluster:
        node.crash()
        node.restart()
    members = [node for node in cluster if node.state.index is not None]
    assert {node.state.view for node in members} == {1}
    cluster.submit(b"3")
    assert set(cluster.heights()) == {3}


def test_a_laggard_comes_through_changes_of_the_set() -> None:
    """It knows neither the later sets nor how to check their certificates; a claim makes it ask."""
    cluster = Cluster(sets={1: "abcd", 2: "bcdefgh", 4: "abcd"}, real=True)
    cluster.passes = lambda source, to, message: "d" not in (source, to)
    for number in range(5):
        cluster.submit(b"%d" % number, "abcefgh")
    assert cluster["a"].state.height == 6
    cluster.passes = lambda source, to, message: to != "d" or message.kind in (Kind.STATUS, Kind.SUSPECT)
    cluster.run(4000)
    assert len(cluster["d"].chain) == 5
    cluster.passes = lambda *_: True
    cluster.submit(b"more")
    assert set(cluster.heights()) == {6}


def test_early_votes_of_the_next_height_are_dropped_with_the_set_they_were_checked_against() -> None:
    """They were proved under the old set's keys: the same indexes are other validators now."""
    cluster = Cluster(byzantine="abc", sets={1: "abcd", 2: "defg"})
    node = cluster["d"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    after = block_on(block.header, cluster.set_at(Height(2)), cluster.identities["d"].key, b"2")
    for name in "abc":
        cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 2, 0, after.header.hash), "d")
    node.committed(block, cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc"))
    cluster.deliver()
    assert (len(node.chain), node.state.commits) == (1, ())


def test_a_promise_of_a_later_set_outlives_a_rollback_below_it() -> None:
    """The chain is taken back below the set in which we promised: when it comes there again, the promise stands."""
    cluster = Cluster(byzantine="bc", sets={1: "abcd", 2: "bcde"})
    node = cluster["d"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
    node.committed(block, certificate)
    for name in "bc":
        cluster.say(name, cluster.forger(name, 2).suspect(2, 0), "d")
    assert node.state.promised == 1
    node.crash()
    node.chain.clear()
    node.restart()
    assert (node.state.height, node.state.promised, node.state.may_sign) == (1, 0, False)
    node.committed(block, certificate)
    assert (node.state.height, node.state.promised, node.state.may_sign) == (2, 1, True)
