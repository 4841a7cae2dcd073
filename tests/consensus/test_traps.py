"""Traps that real systems fell into, each shown to be a trap by a core without the rule that avoids it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from cluster import GENESIS, Cluster, block_on, must, needs
from variants import (
    AsksOnce,
    ClassicQuorum,
    ClockForEver,
    EachForItself,
    EmptyViewChange,
    ForgetsDecision,
    FreeNewView,
    KeepsAll,
    LosesPrepared,
    LosesPromise,
    LosesPromiseUnwatched,
    LosesProposal,
    NoCap,
    NoMemory,
    OnlyWaitingIsWork,
    OutcomeNotRecomputed,
    TrustsForm,
    ViewSurvivesSet,
)

from consensus import interface as io
from consensus.messages import Kind, Message, NewView, PrePrepare, Status, ViewChange, Vote, decode_message
from consensus.rules import Rules
from consensus.tally import VIEWS_KEPT_MAX
from consensus.verify import verify_message
from state.codec import encode
from state.errors import DecodeError, Rejected
from state.hashing import TAG_CONSENSUS, ZERO_HASH, sha256, tagged
from state.types import Certificate, Height, View, WireHash


@pytest.mark.parametrize("n", [5, 6])
def test_quorum_2f_plus_1_where_n_is_not_3f_plus_1(n: int) -> None:
    """With n = 5 or 6 an equivocating primary cannot have both its blocks committed (GoQuorum's fork)."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(n, byzantine="a", rules=rules)
        forger = cluster.forger("a")
        halves = ("bc", "de")
        cluster.passes = lambda source, to, message: any(source in half and to in half for half in halves)
        for half, wire in zip(halves, (b"X", b"Y"), strict=True):
            block = block_on(cluster.genesis, cluster.set_at(Height(1)), forger.who.key, wire)
            for name in half:
                cluster[name].bodies[block.header.hash] = block
            cluster.say("a", forger.propose(0, block), half)
            for vote in forger.votes(1, 0, block.header.hash):
                cluster.say("a", vote, half)
        cluster.deliver()
        cluster.check_agreement()

    needs(scenario, ClassicQuorum())


def commit_at_a_only(cluster: Cluster, prepared_at: str) -> io.KnownBlock:
    """a proposes B; `prepared_at` are prepared with it; a alone sees a quorum of COMMITs."""
    names = {"a", *prepared_at}

    def passes(source: str, to: str, message: Message) -> bool:
        if isinstance(message, Vote) and message.kind is Kind.COMMIT:
            return to == "a"
        return source in names and to in names

    cluster.passes = passes
    cluster.submit(b"B", "a")
    block_hash = cluster["a"].bodies_hash()
    for vote in cluster.forger("b").votes(1, 0, block_hash):
        cluster.say("b", vote, "a" if vote.kind is Kind.COMMIT else "".join(names))
    cluster.deliver()
    must(cluster.heights()[0] == 1, "a committed B")
    return cluster["a"].chain[0][0]


def open_view_1(cluster: Cluster) -> None:
    """c and d are driven to view 1; b opens it with their VIEW-CHANGEs and an empty one of its own. STATUS is lost."""
    cluster.passes = lambda source, to, message: source in "cd" and to in "bcd" and not isinstance(message, Status)
    for name in "cd":
        for suspect in "ab":
            cluster.say("b", cluster.forger(suspect).suspect(1, 0), name)
    changes = [message for name in "cd" for message in cluster[name].sent if isinstance(message, ViewChange)]
    forger = cluster.forger("b")
    cluster.say("b", forger.new_view(1, forger.view_change(1, 1), *changes), "cd")
    cluster.deliver()


def propose_x_in_view_1(cluster: Cluster) -> None:
    forger = cluster.forger("b")
    other = block_on(cluster.genesis, cluster.set_at(Height(1)), forger.who.key, b"X")
    for name in "cd":
        cluster[name].bodies[other.header.hash] = other
    cluster.say("b", forger.propose(1, other), "cd")
    cluster.deliver()
    for vote in forger.votes(1, 1, other.header.hash):
        cluster.say("b", vote, "cd")
        cluster.deliver()


def test_commit_accepted_then_view_change_without_its_certificate() -> None:
    """A replica that knows the decision takes no part in deciding otherwise (Besu: two blocks final)."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        block = commit_at_a_only(cluster, "c")
        cluster["c"].committed = lambda *_: None  # it is slow to write the block
        for name in "ab":
            cluster.say("b", cluster.forger(name).vote(Kind.COMMIT, 1, 0, block.header.hash), "c")
        must(cluster["c"].state.phase is io.Phase.DECIDED, "c knows the decision")
        open_view_1(cluster)
        propose_x_in_view_1(cluster)
        cluster.check_agreement()

    needs(scenario, ForgetsDecision())


def test_prepared_state_lost_by_a_restart() -> None:
    """What c was prepared with before its restart is demanded after it."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        commit_at_a_only(cluster, "c")
        cluster["c"].crash()
        cluster["c"].restart()
        open_view_1(cluster)
        propose_x_in_view_1(cluster)
        cluster.check_agreement()

    needs(scenario, NoMemory(), LosesPrepared(), EmptyViewChange())


def test_a_new_primary_s_word_for_what_must_be_proposed_again_is_not_taken() -> None:
    """Everybody works it out from the same VIEW-CHANGEs: a primary that demands nothing of itself gets no votes."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        commit_at_a_only(cluster, "c")
        open_view_1(cluster)
        must({cluster[name].state.view for name in "cd"} == {1}, "the view is open")
        propose_x_in_view_1(cluster)
        cluster.check_agreement()

    needs(scenario, OutcomeNotRecomputed(), FreeNewView())


def test_a_promise_outlives_a_restart() -> None:
    """d promised view 1; restarted, it must not help to commit in view 0 what its VIEW-CHANGE knows nothing of."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        forger = cluster.forger("b")
        cluster.passes = lambda source, to, message: False
        changes = []
        for name in "dc":
            for suspect in "ab":
                cluster.say("b", cluster.forger(suspect).suspect(1, 0), name)
            changes += [message for message in cluster[name].sent if isinstance(message, ViewChange)][:1]
            if name == "d":
                cluster[name].crash()
                cluster[name].restart()
        cluster.queue.clear()
        cluster.passes = lambda source, to, message: (
            "c" not in (source, to) and (message.kind is not Kind.COMMIT or to == "a")
        )
        cluster.submit(b"B", "a")
        for vote in forger.votes(1, 0, cluster["a"].bodies_hash()):
            cluster.say("b", vote, "a" if vote.kind is Kind.COMMIT else "ad")
            cluster.deliver()
        cluster.passes = lambda source, to, message: source in "cd" and to in "cd" and message.kind is not Kind.STATUS
        cluster.say("b", forger.new_view(1, forger.view_change(1, 1), *changes), "cd")
        propose_x_in_view_1(cluster)
        cluster.check_agreement()

    needs(scenario, LosesPromiseUnwatched())
    with pytest.raises(AssertionError, match="does not notice LosesPromise"):
        needs(scenario, LosesPromise())


def test_restarted_primary_proposes_the_same_block_again() -> None:
    """A primary that restarts sends its proposal again, the same bytes, and nothing is locked."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        cluster.passes = lambda source, to, message: to == "b"
        cluster.submit(b"one", "a")
        proposals = [message for message in cluster["a"].sent if isinstance(message, PrePrepare)]
        cluster["a"].crash()
        cluster["a"].restart()
        cluster.passes = lambda source, to, message: True
        cluster.submit(b"two")
        cluster.run(500)
        again = [message for message in cluster["a"].sent if isinstance(message, PrePrepare)]
        must(again[1] == proposals[0], "the same proposal again")
        must(cluster.heights() == [2, 2, 2, 2] and cluster["b"].state.view == 0, "no view is lost by it")
        must(all(not node.replica.evidence for node in cluster), "nobody equivocated")

    needs(scenario, NoMemory(), LosesProposal())


def test_clock_rules_do_not_bind_a_reproposal() -> None:
    """A prepared block is proposed again an hour later by another primary, and is accepted."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        for node in cluster:
            node.validate = lambda ask: (
                (io.Outcome.INVALID, "time")
                if ask.first and ask.header.time_ms < cluster.now - 5000
                else (io.Outcome.VALID, "")
            )
        cluster.passes = lambda source, to, message: (
            to == "c" if isinstance(message, Vote) else to in "abc" and source in "abc"
        )
        cluster.submit(b"work", "abc")
        must(cluster["c"].state.phase is io.Phase.COMMITTING, "c is prepared")
        cluster["a"].crash()
        cluster.now += 3_600_000
        cluster.passes = lambda source, to, message: True
        cluster.run(20_000)
        must(len(cluster["d"].chain) == 1, "the old block is committed")

    needs(scenario, ClockForEver())


def test_timeouts_are_capped() -> None:
    """After two minutes without proposals the network is back within a few times the cap, nobody restarted."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules, progress_timeout_max_ms=4000)
        cluster.passes = lambda source, to, message: not isinstance(message, PrePrepare)
        cluster.submit(b"work")
        cluster.run(130_000)
        must(cluster.heights() == [0] * 4, "nothing was decided")
        cluster.passes = lambda source, to, message: True
        dead = "abcd"[cluster["a"].state.primary]
        cluster[dead].crash()
        cluster.run(12_000)
        must(sorted(cluster.heights()) == [0, 1, 1, 1], "it goes on")

    needs(scenario, NoCap())


def test_a_dead_validator_costs_one_view_change() -> None:
    """Twelve heights with the first primary dead: one view change; rotating primaries pay at each of its turns."""

    def view_changes(leader_term: int) -> int:
        cluster = Cluster(4, leader_term=leader_term)
        cluster["a"].crash()
        for number in range(12):
            cluster.submit(b"work %d" % number)
            cluster.run(9000)
        must(cluster.heights() == [0, 12, 12, 12], "all is committed")
        return sum(1 for report in cluster["b"].reports if report.kind is io.ReportKind.VIEW_ENTERED)

    assert view_changes(0) == 1
    assert view_changes(1) >= 3


def test_whole_network_restarted_at_once_resumes() -> None:
    """All stop while each is somewhere else in the height, and come back one by one."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        cluster.submit(b"one")
        cluster.passes = lambda source, to, message: (
            to == "c" if isinstance(message, Vote) else to in "cd" and source in "acd"
        )
        cluster.submit(b"two", "acd")
        for node in cluster:
            node.crash()
        cluster.passes = lambda source, to, message: True
        for node in cluster:
            node.validate = lambda ask: (
                (io.Outcome.INVALID, "time") if ask.first and ask.header.height == 2 else (io.Outcome.VALID, "")
            )
        for name in "dcb":
            cluster.run(3000)
            cluster[name].restart()
        cluster.run(20_000)
        must(cluster.heights()[1:] == [2, 2, 2], "it resumes with three")
        cluster["a"].restart()
        cluster.run(3000)
        must(cluster.heights() == [2, 2, 2, 2], "and with the fourth")

    needs(scenario, OnlyWaitingIsWork())


def test_a_lone_node_waits_for_nobody() -> None:
    cluster = Cluster(1)
    cluster.submit(b"one")
    cluster["a"].crash()
    cluster["a"].restart()
    cluster.submit(b"two")
    assert cluster.heights() == [2]


def test_a_lagging_node_returns_to_sync_by_itself() -> None:
    """Sync that failed once is asked for again as long as a certificate proves that we are behind."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        cluster.passes = lambda source, to, message: "d" not in (source, to)
        for number in range(5):
            cluster.submit(b"work %d" % number, "abc")
        everyone, cluster.reachable = cluster.reachable, lambda node: []
        cluster.passes = lambda source, to, message: not (isinstance(message, Status) and to == "d")
        cluster.run(2000)
        must(cluster.heights() == [5, 5, 5, 0], "nobody answers its requests")
        must(any(report.code == "proven" for report in cluster["d"].reports), "it is proved to be behind")
        cluster.reachable = everyone
        cluster.run(2000)
        must(cluster.heights() == [5, 5, 5, 5], "it catches up without a restart")

    needs(scenario, AsksOnce())


def test_views_of_rejoining_nodes_meet() -> None:
    """A node that was cut off for a minute is in reach of the others' view when it is needed (Polygon Edge)."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules, progress_timeout_max_ms=2000)
        cluster.passes = lambda source, to, message: "d" not in (source, to)
        cluster.submit(b"one")
        cluster.run(60_000)
        must(cluster.heights() == [1, 1, 1, 0], "three go on without it")
        cluster.passes = lambda source, to, message: True
        cluster.run(5000)
        cluster["a"].crash()
        cluster.submit(b"two", "bcd")
        cluster.run(60_000)
        must(cluster.heights()[1:] == [2, 2, 2], "it is needed, and there")

    needs(scenario, EachForItself())


def test_membership_changes_amid_a_view_change() -> None:
    """Promises of the old set count for nothing in the new one, which has its own n, f and view 0."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(rules=rules, sets={1: "abcd", 2: "bcdefgh"})
        held: list[tuple[str, str, Message]] = []

        def hold_view_changes(source: str, to: str, message: Message) -> bool:
            if isinstance(message, ViewChange | NewView):
                held.append((source, to, message))
                return False
            return True

        cluster.passes = hold_view_changes
        for suspect in "ab":
            cluster["d"].do(io.Received(cluster.forger(suspect).suspect(1, 0)))
        must(cluster["d"].state.promised == 1, "a view change is under way")
        cluster.submit(b"B")
        must(set(cluster.heights()) == {1}, "and the old set decides beside it")
        cluster.passes = lambda source, to, message: True
        for source, to, message in held:
            cluster.post(source, to, message)
        cluster.deliver()
        must({node.state.promised for node in cluster if node.who.name != "a"} == {0}, "the new set is in view 0")
        cluster.submit(b"work")
        must(all(len(node.chain) == 2 for node in cluster), "and decides at once")
        must(len(cluster["h"].chain[1][1].signatures) == 5, "with its own quorum")

    needs(scenario, ViewSurvivesSet())


# ---- the digest covers every field ----


def signed_messages(cluster: Cluster) -> list[Message]:
    """One of each kind that is signed, with every optional part there."""
    forger, validators = cluster.forger("b"), cluster.set_at(Height(2))
    first = block_on(cluster.genesis, validators, cluster.identities["a"].key, b"A")
    second = block_on(first.header, validators, cluster.identities["a"].key, b"B")
    committed = cluster.certificate(Kind.COMMIT, 1, 0, first.header.hash, "abc")
    prepared = cluster.certificate(Kind.PREPARE, 2, 0, second.header.hash, "abc")
    changes = [cluster.forger(name).view_change(2, 1, committed, prepared) for name in "bcd"]
    return [
        forger.vote(Kind.PREPARE, 2, 1, second.header.hash),
        forger.vote(Kind.COMMIT, 2, 1, second.header.hash),
        forger.propose(1, second, prepared),
        forger.suspect(2, 1),
        changes[0],
        forger.new_view(1, *changes),
        forger.signed(Status(Height(2), View(1), View(2), second.header.hash, 3, 5, forger.index)),
    ]


def other_value(value: object) -> object:
    """A value of the same type that is not the same."""
    if isinstance(value, Kind):
        return Kind.COMMIT if value is Kind.PREPARE else Kind.PREPARE
    if isinstance(value, int):
        return type(value)(value + 1)
    if isinstance(value, bytes):
        return sha256(value) if len(value) == 32 else bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, Certificate):
        return replace(value, signatures=value.signatures[:-1])
    if isinstance(value, tuple):
        return (*value[:-1], other_value(value[-1]))
    return replace(value, **{fields(value)[-1].name: other_value(getattr(value, fields(value)[-1].name))})


def tampered(message: Message):
    for item in fields(message):
        changed = replace(message, **{item.name: other_value(getattr(message, item.name))})
        assert changed != message
        yield item.name, changed


def unnoticed(message: Message, cluster: Cluster) -> list[str]:
    """The fields that can be changed without anybody noticing."""
    names = []
    for name, changed in tampered(message):
        try:
            verify_message(decode_message(encode(changed.to_value())), GENESIS, cluster.set_at)
        except Rejected:
            continue
        names.append(name)
    return names


def test_digest_covers_every_field() -> None:
    """No field of any signed message can be changed under its signature (Indy's proposals could)."""
    cluster = Cluster(4, real=True)
    for message in signed_messages(cluster):
        verify_message(decode_message(encode(message.to_value())), GENESIS, cluster.set_at)
        assert unnoticed(message, cluster) == [], type(message).__name__


def test_a_digest_that_leaves_fields_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Status, "digest", property(lambda message: tagged(TAG_CONSENSUS, encode((message.promised,)))))
    cluster = Cluster(4, real=True)
    status = signed_messages(cluster)[-1]
    assert unnoticed(status, cluster) == ["proposal", "prepares", "commits"]


# ---- buffers and malformed messages ----


def test_buffers_for_future_messages_are_bounded() -> None:
    """A flood of votes, proposals and view changes for future heights and views is not kept."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="d", rules=rules)
        forger = cluster.forger("d")
        node = cluster["a"]
        for number in range(300):
            for height in (1, 2, 3 + number):
                block_hash = sha256(b"%d" % number)
                node.do(io.Received(forger.vote(Kind.PREPARE, height, number, block_hash)))
                node.do(io.Received(forger.vote(Kind.COMMIT, height, number, block_hash)))
            node.do(io.Received(forger.suspect(1 + number, number)))
        core = node.replica._core
        held = sum(len(tally._first) for tally in core.tallies.values())
        must(held <= 2 * 2 * VIEWS_KEPT_MAX, f"{held} votes of one validator are held")
        must(len(core.tallies) <= 2, "of this height and the next")
        must(len(core.suspects) <= 1, "and one SUSPECT")

    needs(scenario, KeepsAll())


def test_proposals_held_are_bounded() -> None:
    cluster = Cluster(4, byzantine="d")
    node, forger = cluster["a"], cluster.forger("d")
    validators = cluster.set_at(Height(1))
    for view in range(3, 400, 4):
        block = block_on(cluster.genesis, validators, forger.who.key, b"%d" % view)
        node.do(io.Received(forger.propose(view, block)))
        node.do(io.Received(forger.propose(view, block_on(block.header, validators, forger.who.key, b"next"))))
    held = node.replica._core.proposals
    assert [len(held[height]) for height in sorted(held)] == [1, 1]


MALFORMED = {
    "no certificate of the height below": lambda c, good: replace(good, committed=None),
    "certificate of another height": lambda c, good: replace(good, committed=replace(good.committed, height=Height(7))),
    "PREPAREs as commit certificate": lambda c, good: replace(good, committed=replace(good.committed, kind=1)),
    "prepared at another height": lambda c, good: replace(good, prepared=replace(good.prepared, height=Height(1))),
    "prepared in the view it changes to": lambda c, good: replace(good, prepared=replace(good.prepared, view=View(1))),
    "COMMITs as prepared certificate": lambda c, good: replace(good, prepared=replace(good.prepared, kind=2)),
    "view 0": lambda c, good: replace(good, view=View(0)),
    "sender outside the set": lambda c, good: replace(good, sender=9),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_view_change_changes_nothing(name: str) -> None:
    """A malformed VIEW-CHANGE is refused by its decoder, and by the core, which stands as it stood."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        cluster.submit(b"A", "a")
        for vote in cluster.forger("b").votes(1, 0, cluster["a"].bodies_hash()):
            cluster.say("b", vote)
        cluster.deliver()
        node = cluster["a"]
        block = block_on(node.head, cluster.set_at(Height(2)), cluster.identities["a"].key, b"B")
        prepared = cluster.certificate(Kind.PREPARE, 2, 0, block.header.hash, "bcd")
        good = cluster.forger("b").view_change(2, 1, node.chain[0][1], prepared)
        bad = MALFORMED[name](cluster, good)
        if name != "sender outside the set":
            with pytest.raises(DecodeError):
                decode_message(encode(bad.to_value()))
        before = node.state
        node.do(io.Received(bad))
        must(node.state == before and not node.replica._core.view_changes, "nothing changed")
        must(node.reports[-1].kind is io.ReportKind.REJECTED, "and it was said why")
        node.do(io.Received(NewView(Height(2), View(1), (good, bad, good), 1)))
        must(node.state == before, "nor by a NEW-VIEW that holds it")

    if name == "sender outside the set":
        scenario(Rules())
    else:
        needs(scenario, TrustsForm())


def test_proposal_with_other_wire_hashes_is_refused() -> None:
    cluster = Cluster(4)
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"A")
    message = cluster.forger("a").propose(0, io.KnownBlock(block.header, (WireHash(ZERO_HASH),)))
    with pytest.raises(DecodeError, match="wire hashes"):
        decode_message(encode(message.to_value()))
