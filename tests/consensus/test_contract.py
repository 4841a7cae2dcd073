"""The border of the core: what a driver may rely on, and what halts because it breaks the contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster import CHAIN, GENESIS, Cluster, block_on, identity, set_of
from test_paper_normal_case import proposal

from consensus import interface as io
from consensus.messages import Kind
from consensus.replica import Replica
from state.errors import InvariantError
from state.types import Height, View


@pytest.mark.parametrize(
    "wrong",
    [
        {"progress_timeout_ms": 0},
        {"progress_timeout_ms": 2000, "progress_timeout_max_ms": 1000},
        {"status_busy_ms": 2000},
        {"not_yet_retry_ms": 0},
        {"leader_term": -1},
    ],
)
def test_configuration_keeps_its_relations(wrong: dict[str, int]) -> None:
    with pytest.raises(InvariantError, match="configuration"):
        io.Config(CHAIN, GENESIS, None, **wrong)


def test_a_key_without_a_signer_is_refused() -> None:
    who = identity("a")
    restored = io.Restored(Cluster(1).genesis, None, set_of([who]), Height(1), {}, lambda _: None)
    with pytest.raises(InvariantError, match="signer"):
        Replica(io.Config(CHAIN, GENESIS, who.key), restored)


def committed_wrongly(cluster: Cluster) -> dict[str, io.Committed]:
    validators = cluster.set_at(Height(1))
    block, _ = proposal(cluster)
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abc")
    after = block_on(block.header, validators, cluster.identities["a"].key, b"B")
    other = block_on(cluster.genesis, validators, cluster.identities["a"].key, b"C")
    return {
        "a height is left out": io.Committed(after.header, replace(certificate, height=Height(2)), validators),
        "not on the head": io.Committed(replace(block.header, parent_hash=bytes(32)), certificate, validators),
        "another block's certificate": io.Committed(other.header, certificate, validators),
    }


@pytest.mark.parametrize("name", ["a height is left out", "not on the head", "another block's certificate"])
def test_commits_out_of_order_halt(name: str) -> None:
    cluster = Cluster(4)
    with pytest.raises(InvariantError):
        cluster["a"].do(committed_wrongly(cluster)[name])


def test_a_body_under_another_hash_halts() -> None:
    cluster = Cluster(4)
    block, _ = proposal(cluster)
    with pytest.raises(InvariantError, match="another block's hash"):
        cluster["a"].do(io.BodyAvailable(bytes(32), block))


def test_what_is_no_input_halts() -> None:
    with pytest.raises(InvariantError, match="no input"):
        Cluster(1)["a"].replica.step("hello")


def test_answers_that_come_too_late_change_nothing() -> None:
    cluster = Cluster(4)
    block, _ = proposal(cluster)
    node = cluster["a"]
    before = node.state
    for late in (
        io.Proposed(Height(1), View(0), block.header, block.wire_hashes),
        io.NothingToPropose(Height(1), View(0)),
        io.Validated(block.header.hash, True, io.Outcome.INVALID, "roots"),
        io.BodyAvailable(block.header.hash, block),
    ):
        node.do(late)
        assert node.state == before


def test_after_nothing_to_propose_new_work_or_a_second_asks_again() -> None:
    cluster = Cluster(4)
    replica = cluster["a"].replica
    ask = io.AskProposal(Height(1), View(0))
    assert ask in replica.step(io.WorkChanged(True))
    assert ask not in replica.step(io.NothingToPropose(Height(1), View(0)))
    assert ask in replica.step(io.WorkChanged(True))
    replica.step(io.NothingToPropose(Height(1), View(0)))
    assert ask in replica.step(io.Tick(cluster.now + 1000))


def test_time_never_goes_back() -> None:
    cluster = Cluster(1)
    replica = cluster["a"].replica
    replica.step(io.Tick(5000))
    assert replica.step(io.Tick(3000)) == ()
    replica.step(io.WorkChanged(True))
    assert ("progress", 6000) in replica.snapshot().timers


def test_one_persist_a_step_before_all_that_it_binds() -> None:
    """PRE-PREPARE and PREPARE of a primary leave after one write that holds both."""
    cluster = Cluster(4)
    node = cluster["a"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), node.who.key, b"A")
    node.replica.step(io.WorkChanged(True))
    effects = node.replica.step(io.Proposed(Height(1), View(0), block.header, block.wire_hashes))
    kinds = [type(effect) for effect in effects if not isinstance(effect, io.Report | io.SetTimer)]
    assert kinds == [io.Persist, io.Broadcast, io.Broadcast]
    persist = next(effect for effect in effects if isinstance(effect, io.Persist))
    assert persist.bodies == (block.header.hash,)


def test_a_complaint_can_be_withdrawn() -> None:
    cluster = Cluster(4)
    node = cluster["d"]
    node.do(io.Complaint("left_out"))
    assert node.state.suspicion == "left_out"
    node.do(io.Complaint(None))
    node.sent.clear()
    cluster.run(3000)
    assert {message.kind for message in node.sent} == {Kind.STATUS}


def test_a_complaint_that_outlasts_commits_is_said_at_each_height_so_that_two_meet() -> None:
    """A primary that serves all but one account commits quickly: words a second apart would each be void in turn."""
    cluster = Cluster(4)
    alone, second = cluster["c"], cluster["d"]
    alone.do(io.Complaint("left_out"))
    alone.sent.clear()
    for number in range(3):
        cluster.submit(b"%d" % number)
    assert [message.height for message in alone.sent if message.kind is Kind.SUSPECT] == [2, 3, 4]
    assert cluster["b"].state.view == 0
    second.do(io.Complaint("left_out"))
    cluster.deliver()
    assert {node.state.view for node in cluster} == {1}


def test_the_snapshot_names_the_phase() -> None:
    cluster = Cluster(4, byzantine="abc")
    node = cluster["d"]
    block, message = proposal(cluster)
    body = node.bodies.pop(block.header.hash)
    phases = [node.state.phase]
    cluster.say("a", message, "d")
    cluster.deliver()
    phases.append(node.state.phase)
    node.bodies[block.header.hash] = body
    node.retry()
    phases.append(node.state.phase)
    for name in "ab":
        cluster.say(name, cluster.forger(name).vote(Kind.PREPARE, 1, 0, block.header.hash), "d")
    phases.append(node.state.phase)
    for name in "ab":
        cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 1, 0, block.header.hash), "d")
    phases.append(node.state.phase)
    assert phases == [
        io.Phase.WAITING,
        io.Phase.VALIDATING,
        io.Phase.PREPARING,
        io.Phase.COMMITTING,
        io.Phase.DECIDED,
    ]
