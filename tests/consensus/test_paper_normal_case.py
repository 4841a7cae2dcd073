"""Claims of the PBFT paper (Castro and Liskov, OSDI 1999) on the normal case, section 4.2, as this chain has it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster import CHAIN, GENESIS, Cluster, Node, block_on, must, needs
from variants import SmallQuorum

from consensus import interface as io
from consensus.messages import Decided, Kind, PrePrepare, Vote
from consensus.rules import Rules
from state.block import tx_root, verify_certificate
from state.errors import InvariantError
from state.hashing import ZERO_HASH, sha256
from state.types import Height, TimeMs, View


def sent(node: Node, kind: Kind) -> list:
    return [message for message in node.sent if message.kind is kind]


def proposal(cluster: Cluster, wire: bytes = b"A", **changes: object) -> tuple[io.KnownBlock, PrePrepare]:
    """a's proposal at (1, 0), its body everywhere; `changes` are made to its header."""
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, wire)
    block = io.KnownBlock(replace(block.header, **changes), block.wire_hashes)
    for node in cluster:
        node.bodies[block.header.hash] = block
    return block, cluster.forger("a").propose(0, block)


@pytest.mark.parametrize("real", [False, True], ids=["stand-in", "Ed25519"])
@pytest.mark.parametrize("n", [1, 4, 7])
def test_4_2_three_phases_commit_a_block_at_every_replica(n: int, real: bool) -> None:
    cluster = Cluster(n, real=real)
    cluster.submit(b"transaction")
    assert cluster.heights() == [1] * n
    for node in cluster:
        block, certificate = node.chain[0]
        assert (certificate.kind, certificate.block_hash) == (Kind.COMMIT, block.header.hash)
        assert len(certificate.signatures) == cluster.set_at(Height(1)).quorum
        if real:
            verify_certificate(certificate, GENESIS, cluster.set_at(Height(1)))


def test_4_2_primary_prepares_too() -> None:
    """A PRE-PREPARE never counts as a PREPARE, so the primary sends both."""
    cluster = Cluster(4)
    cluster.submit(b"A")
    assert len(sent(cluster["a"], Kind.PRE_PREPARE)) == len(sent(cluster["a"], Kind.PREPARE)) == 1


def test_4_2_one_proposal_per_view() -> None:
    """A backup accepts one proposal for a place; another is evidence, not accepted."""
    cluster = Cluster(4, byzantine="a")
    first, message = proposal(cluster)
    _, other = proposal(cluster, b"B")
    cluster.say("a", message, "b")
    cluster.say("a", other, "b")
    cluster.deliver()
    node = cluster["b"]
    assert [vote.block_hash for vote in sent(node, Kind.PREPARE)] == [first.header.hash]
    assert [item.offence for item in node.replica.evidence] == [Kind.PRE_PREPARE]
    assert [report.code for report in node.reports if report.kind is io.ReportKind.SUSPECTED] == ["equivocation"]
    assert {other.state.view for other in cluster} == {1}


def test_4_2_only_the_primary_proposes() -> None:
    cluster = Cluster(4, byzantine="b")
    block, _ = proposal(cluster)
    cluster.say("b", cluster.forger("b").propose(0, block), "c")
    assert (cluster["c"].reports[-1].code, cluster["c"].state.proposal) == ("not_primary", None)


WRONG = {
    "height": {"height": Height(2)},
    "chain": {"chain_id": CHAIN + "x"},
    "parent": {"parent_hash": ZERO_HASH},
    "validators": {"validators_hash": ZERO_HASH},
    "time": {"time_ms": TimeMs(0)},
    "empty": {"tx_root": tx_root(())},
    "proposer": {"proposer": sha256(b"somebody else")},
}


@pytest.mark.parametrize("rule", WRONG)
def test_4_2_backups_refuse_invalid_proposals_and_suspect(rule: str) -> None:
    cluster = Cluster(4, byzantine="a")
    _, message = proposal(cluster, **WRONG[rule])
    if rule == "empty":
        message = replace(message, wire_hashes=())
    node = cluster["b"]
    node.do(io.Received(replace(message, height=Height(1))))
    assert node.state.proposal is None
    assert sent(node, Kind.PREPARE) == []
    assert (node.state.suspicion, len(sent(node, Kind.SUSPECT))) == ("invalid_proposal", 1)
    assert [report.data["reason"] for report in node.reports if report.code == "invalid"] == [rule]


@pytest.mark.parametrize("outcome", [io.Outcome.INVALID, io.Outcome.NOT_YET])
def test_4_2_no_prepare_before_the_block_is_valid(outcome: io.Outcome) -> None:
    """INVALID is suspected at once; NOT_YET is asked again, and then prepared."""
    cluster = Cluster(4, byzantine="a")
    for node in cluster:
        node.validate = lambda ask: (outcome if cluster.now < 1300 else io.Outcome.VALID, "roots")
    _, message = proposal(cluster)
    cluster.say("a", message)
    cluster.deliver()
    assert all(sent(node, Kind.PREPARE) == [] for node in cluster)
    suspected = {report.code for node in cluster for report in node.reports if report.kind is io.ReportKind.SUSPECTED}
    assert suspected == ({"invalid_proposal"} if outcome is io.Outcome.INVALID else set())
    cluster.run(400)
    prepared = [len(sent(node, Kind.PREPARE)) for node in cluster]
    assert prepared == ([0, 0, 0] if outcome is io.Outcome.INVALID else [1, 1, 1])


def test_4_2_commit_only_when_prepared() -> None:
    """q PREPAREs for the accepted proposal, one view and one block, and not one fewer, make a COMMIT."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="abc", rules=rules)
        block, message = proposal(cluster)
        node = cluster["d"]
        cluster.say("a", message, "d")
        cluster.say("a", cluster.forger("a").vote(Kind.PREPARE, 1, 0, block.header.hash), "d")
        cluster.say("b", cluster.forger("b").vote(Kind.PREPARE, 1, 1, block.header.hash), "d")
        cluster.deliver()
        must(sent(node, Kind.COMMIT) == [], "two PREPAREs of view 0 are no quorum")
        cluster.say("c", cluster.forger("c").vote(Kind.PREPARE, 1, 0, block.header.hash), "d")
        cluster.deliver()
        must(len(sent(node, Kind.COMMIT)) == 1, "three are")
        must(cluster.heights() == [0], "and one COMMIT decides nothing")

    needs(scenario, SmallQuorum())


def test_4_2_messages_may_come_in_any_order() -> None:
    """COMMITs, then PREPAREs, then the proposal, and all of the next height first: the same blocks are decided."""
    straight = Cluster(4)
    for wire in (b"one", b"two"):
        straight.submit(wire)
    everything = [message for name in "abc" for message in straight[name].sent if message.kind is not Kind.STATUS]
    late = Cluster(4, byzantine="abc")
    for node in straight:
        late["d"].bodies.update(node.bodies)
    late.now = straight.now
    for message in sorted(everything, key=lambda message: (-message.height, -int(message.kind) % 3)):
        late.say("a", message, "d")
        late.deliver()
    assert [block.header.hash for block, _ in late["d"].chain] == [
        block.header.hash for block, _ in straight["d"].chain
    ]


def test_4_2_a_quorum_of_commits_decides_whatever_the_own_view() -> None:
    cluster = Cluster(4, byzantine="ab")
    block, message = proposal(cluster)
    node = cluster["d"]
    for name in "ab":
        cluster.say(name, cluster.forger(name).suspect(1, 0), "d")
    assert node.state.promised == 1
    cluster.say("a", message, "d")
    for name in "abc":
        cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 1, 0, block.header.hash), "d")
    cluster.deliver()
    assert (len(node.chain), node.state.view, node.state.promised) == (1, 0, 1)
    assert sent(node, Kind.PREPARE) == []


def test_4_2_a_view_is_entered_by_a_commit_certificate_made_in_it() -> None:
    cluster = Cluster(4, byzantine="abc")
    block, _ = proposal(cluster)
    node = cluster["d"]
    for name in "abc":
        cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 1, 3, block.header.hash), "d")
    cluster.deliver()
    assert (len(node.chain), node.state.view, node.state.floor) == (1, View(3), 2)


def test_a_block_that_we_built_must_keep_the_rules() -> None:
    """A wrong block from our own node is a bug of ours: it halts, it is not sent."""
    cluster = Cluster(4)
    block, _ = proposal(cluster, chain_id="other")
    node = cluster["a"]
    node.replica.step(io.WorkChanged(True))
    with pytest.raises(InvariantError, match="chain"):
        node.replica.step(io.Proposed(Height(1), View(0), block.header, block.wire_hashes))


@pytest.mark.parametrize("written", [False, True])
def test_two_certificates_for_one_height_halt_the_node(written: bool) -> None:
    """More than f are faulty: no node goes on as if it knew which block is right."""
    cluster = Cluster(4, byzantine="a")
    certificates = [
        cluster.certificate(Kind.COMMIT, 1, view, proposal(cluster, wire)[0].header.hash, "acd")
        for view, wire in enumerate((b"A", b"B"))
    ]
    cluster["b"].do(io.Received(Decided(certificates[0])))
    if written:
        cluster.deliver()
    with pytest.raises(InvariantError, match="two blocks"):
        cluster["b"].do(io.Received(Decided(certificates[1])))


def test_an_observer_follows_and_says_nothing() -> None:
    cluster = Cluster(4, observers="z")
    cluster.submit(b"A", "abcd")
    cluster["a"].crash()
    cluster.submit(b"B", "bcd")
    cluster.run(3000)
    node = cluster["z"]
    assert (len(node.chain), node.state.view, node.sent, node.writes) == (2, 1, [], 0)


def test_idle_network_is_silent_but_for_a_status_a_second() -> None:
    cluster = Cluster(4)
    cluster.run(2000)
    for node in cluster:
        node.sent.clear()
    cluster.run(10_000)
    for node in cluster:
        assert [message.kind for message in node.sent] == [Kind.STATUS] * 10
        assert node.writes == 0


def test_votes_for_other_blocks_do_not_count() -> None:
    cluster = Cluster(4, byzantine="abc")
    block, message = proposal(cluster)
    cluster.say("a", message, "d")
    for name in "abc":
        cluster.say(name, cluster.forger(name).vote(Kind.PREPARE, 1, 0, sha256(name.encode())), "d")
    cluster.deliver()
    assert sent(cluster["d"], Kind.COMMIT) == []
    assert isinstance(sent(cluster["d"], Kind.PREPARE)[0], Vote)
    assert block.header.height == 1
