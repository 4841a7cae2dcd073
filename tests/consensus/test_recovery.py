"""Lost vote records: how a validator learns of it, what it does until it may sign, and when that is."""

from __future__ import annotations

import pytest
from cluster import Cluster, block_on
from test_paper_normal_case import sent

from consensus import interface as io
from consensus.messages import Kind
from consensus.records import SigningState, decode_records, recovery_records
from state.types import Height


def without_d(cluster: Cluster, wire: bytes) -> None:
    cluster.submit(wire, "abc")


def lost(cluster: Cluster, records: dict[bytes, bytes]) -> None:
    node = cluster["d"]
    node.crash()
    node.records, node.stored = records, {}
    node.restart()
    node.sent.clear()


def test_signs_again_above_a_plus_2_committed_without_it() -> None:
    """Chain intact at height 2: it could have signed at 3, so 5 is the first height that ends recovery."""
    cluster = Cluster(4)
    for wire in (b"A", b"B"):
        cluster.submit(wire)
    lost(cluster, dict(recovery_records(Height(2), 0)))
    for wire, may_sign in ((b"C", False), (b"D", False), (b"E", True)):
        cluster.submit(wire)
        assert cluster["d"].state.may_sign is may_sign
        assert sent(cluster["d"], Kind.PREPARE) == []
    cluster.submit(b"F")
    assert [vote.height for vote in sent(cluster["d"], Kind.PREPARE)] == [6]


def test_a_recovery_survives_restarts() -> None:
    cluster = Cluster(4)
    cluster.submit(b"A")
    lost(cluster, dict(recovery_records(Height(1), 0)))
    for wire in (b"B", b"C", b"D"):
        cluster.submit(wire)
        cluster["d"].crash()
        cluster["d"].restart()
    assert cluster["d"].state.may_sign
    assert decode_records(cluster["d"].records).signing.from_height == 5


def test_where_the_chain_was_lost_too_time_tells() -> None:
    """`a` is then the first height whose time is later than recovery's start by more than twice the drift bound."""
    cluster = Cluster(4, drift_ms=1000)
    cluster.submit(b"A")
    node = cluster["d"]
    node.crash()
    node.chain.clear()
    lost(cluster, dict(recovery_records(None, cluster.now)))
    cluster.run(1500)
    cluster.submit(b"B")
    assert decode_records(node.records).signing.signed_at_most is None
    assert (node.state.signed_at_most, node.state.recovers_at) == (None, None)
    cluster.run(1000)
    cluster.submit(b"C")
    assert decode_records(node.records).signing.signed_at_most == 3
    assert (node.state.signed_at_most, node.state.recovers_at) == (3, 5)
    for wire in (b"D", b"E"):
        assert not node.state.may_sign
        cluster.submit(wire)
    assert node.state.may_sign
    assert (len(node.chain), node.state.recovers_at) == (5, None)


def test_a_height_committed_with_a_vote_of_ours_does_not_end_recovery() -> None:
    """Somebody still has votes of ours for it: it is the height from which on two more are waited for."""
    cluster = Cluster(4, byzantine="abc")
    lost(cluster, dict(recovery_records(Height(0), 0)))
    parent = cluster.genesis
    for height, names in ((1, "abc"), (2, "abc"), (3, "abd"), (4, "abc"), (5, "abc")):
        block = block_on(parent, cluster.set_at(Height(height)), cluster.identities["a"].key, b"%d" % height)
        certificate = cluster.certificate(Kind.COMMIT, height, 0, block.header.hash, names)
        cluster["d"].committed(block, certificate)
        assert cluster["d"].state.may_sign is (height == 5)
        parent = block.header


def test_signs_in_no_view_below_the_certificate_s() -> None:
    cluster = Cluster(4, byzantine="abc")
    lost(cluster, dict(recovery_records(Height(0), 0)))
    parent = cluster.genesis
    for height, view in ((1, 0), (2, 0), (3, 5)):
        block = block_on(parent, cluster.set_at(Height(height)), cluster.identities["a"].key, b"%d" % height)
        certificate = cluster.certificate(Kind.COMMIT, height, view, block.header.hash, "abc")
        cluster["d"].committed(block, certificate)
        parent = block.header
    state = cluster["d"].state
    assert (state.may_sign, state.view, state.floor) == (True, 5, 4)


def test_a_backup_is_found_out_by_a_vote_that_a_peer_shows() -> None:
    """Records from before the last votes: HELLO shows one of them, and nothing is signed from then on, ever after."""
    cluster = Cluster(4)
    cluster.submit(b"A")
    node = cluster["d"]
    backup = (dict(node.records), dict(node.stored))
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"B")
    shown = cluster["a"].replica.latest_vote(3)
    assert (shown.kind, shown.height) == (Kind.PREPARE, 2)
    node.crash()
    node.records, node.stored = backup
    node.restart()
    assert node.state.may_sign
    node.do(io.OwnVoteShown(shown))
    assert not node.state.may_sign
    node.crash()
    node.restart()
    node.sent.clear()
    cluster.passes = lambda *_: True
    cluster.run(3000)
    assert (node.state.may_sign, node.sent) == (False, [])
    assert decode_records(node.records).signing.state is SigningState.BARRED


def test_a_backup_from_between_prepare_and_commit_is_found_out() -> None:
    """It would change views without the certificate that its COMMIT rested on."""
    cluster = Cluster(4)
    node = cluster["d"]
    cluster.passes = lambda source, to, message: (
        message.kind is Kind.PRE_PREPARE or (to != "d" and message.kind is not Kind.COMMIT)
    )
    cluster.submit(b"A")
    backup = (dict(node.records), dict(node.stored))
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT or source == "d"
    cluster.run(500)
    shown = cluster["a"].replica.latest_vote(3)
    assert (shown.kind, shown.height) == (Kind.COMMIT, 1)
    node.crash()
    node.records, node.stored = backup
    node.restart()
    node.do(io.OwnVoteShown(shown))
    assert not node.state.may_sign


def test_a_validator_without_records_takes_its_earlier_votes_for_no_news() -> None:
    """It follows and waits for `recover`; saying that records are lost would end its process again and again."""
    cluster = Cluster(4)
    cluster.submit(b"A")
    node = cluster["d"]
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"B")
    shown = cluster["a"].replica.latest_vote(3)
    assert shown is not None
    node.crash()
    node.records = None
    node.restart()
    node.reports.clear()
    node.do(io.OwnVoteShown(shown))
    node.do(io.Received(shown))
    assert node.state.refusal == "records_missing"
    assert [report.code for report in node.reports if report.kind is io.ReportKind.SIGNING] == []


@pytest.mark.parametrize("kind", [Kind.PREPARE, Kind.COMMIT, Kind.VIEW_CHANGE, Kind.PRE_PREPARE, Kind.NEW_VIEW])
def test_own_messages_that_the_records_hold_are_no_alarm(kind: Kind) -> None:
    cluster = Cluster(4)
    cluster.submit(b"A")
    cluster.passes = lambda source, to, message: message.kind is not Kind.COMMIT
    cluster.submit(b"B")
    cluster.run(2500)
    for node in cluster:
        for message in sent(node, kind):
            node.do(io.OwnVoteShown(message))
            assert node.state.may_sign


def test_a_vote_shown_during_recovery_raises_what_could_have_been_signed() -> None:
    cluster = Cluster(4)
    lost(cluster, dict(recovery_records(Height(0), 0)))
    node = cluster["d"]
    node.do(io.OwnVoteShown(cluster.forger("d").vote(Kind.PREPARE, 4, 0, bytes(32))))
    assert decode_records(node.records).signing.signed_at_most == 4
    for number in range(5):
        cluster.submit(b"%d" % number)
        assert not node.state.may_sign
    cluster.submit(b"last")
    assert node.state.may_sign
