"""The seven executions that fork or stall a careless reading of the rules, each with the variants it must catch.

n = 4 unless said otherwise: a, b, c, d with indexes 0 to 3, so that view v has primary "abcd"[v % 4].
"""

from __future__ import annotations

import pytest
from cluster import Cluster, Forger, block_on, must, needs
from variants import (
    BelievesClaims,
    ClockForEver,
    ImpatientAlone,
    MixedViews,
    NoDoubling,
    NoFloor,
    NoFloorNoInnerCertificate,
    OldPromisesCount,
    OneViewForAllSets,
    OnlyWaitingIsWork,
    PromiseIsEntry,
    RecoversAtOnce,
)

from consensus import interface as io
from consensus.messages import Decided, Kind, Message, Status, ViewChange, Vote
from consensus.records import recovery_records
from consensus.rules import Rules
from state.limits import BLOCK_TRANSACTIONS_MAX
from state.types import Height, View


def committed_at_a_only(cluster: Cluster, byzantine: str, prepared_at: str) -> io.KnownBlock:
    """a proposes B at height 1; a, `prepared_at` and the Byzantine one vote for it; only a sees the COMMITs."""
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"B")
    reached = {"a", *prepared_at}

    def passes(source: str, to: str, message: Message) -> bool:
        if isinstance(message, Vote) and message.kind is Kind.COMMIT:
            return to == "a"
        return to in reached and source in reached

    cluster.passes = passes
    cluster.submit(b"B", "a")
    for vote in cluster.forger(byzantine).votes(1, 0, cluster["a"].bodies_hash()):
        cluster.say(byzantine, vote, "a" if vote.kind is Kind.COMMIT else "a" + prepared_at)
    cluster.deliver()
    must(cluster.heights()[0] == 1, "a committed B")
    assert cluster["a"].chain[0][0].header.tx_root == block.header.tx_root
    return cluster["a"].chain[0][0]


def promised(cluster: Cluster, name: str, height: int) -> ViewChange:
    """Brings a replica to promise view 1 at its height, by the SUSPECTs of two others; returns its VIEW-CHANGE."""
    for suspect in [other for other in "abcd" if other != name][:2]:
        cluster.say(suspect, cluster.forger(suspect).suspect(height, 0), name)
    said = [message for message in cluster[name].sent if isinstance(message, ViewChange)][-1]
    must((said.height, said.view) == (height, 1), f"{name} promised view 1")
    return said


def push_block(cluster: Cluster, forger: Forger, view: int, block: io.KnownBlock, to: str) -> None:
    """A Byzantine primary does its best to have `block` committed in `view` by `to`."""
    for name in to:
        cluster[name].bodies[block.header.hash] = block
    cluster.say(forger.who.name, forger.propose(view, block), to)
    cluster.deliver()
    for vote in forger.votes(block.header.height, view, block.header.hash):
        cluster.say(forger.who.name, vote, to)
        cluster.deliver()


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
def test_1_floor(restart: bool) -> None:
    """In a view entered by NEW-VIEW nobody votes below h*, not even after a restart, when the decision is forgotten."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        forger = cluster.forger("b")
        committed_at_a_only(cluster, "b", "c")
        cluster.passes = lambda source, to, message: False
        certificate = cluster["a"].chain[0][1]
        opening = forger.new_view(
            1,
            cluster.forger("a").view_change(2, 1, certificate),
            forger.view_change(1, 1),
            promised(cluster, "d", 1),
        )
        cluster.say("b", opening, "cd")
        for name in "cd" if restart else "":
            cluster[name].crash()
            cluster[name].restart()
        cluster.queue.clear()
        cluster.passes = lambda source, to, message: "a" not in (source, to)
        cluster.withheld.update(cluster["a"].bodies)
        other = block_on(cluster.genesis, cluster.set_at(Height(1)), forger.who.key, b"X")
        push_block(cluster, forger, 1, other, "cd")
        cluster.check_agreement()

    needs(scenario, NoFloor() if restart else NoFloorNoInnerCertificate())


def test_2_view_entry_is_a_record() -> None:
    """Whoever entered a view that demands B still refuses X in it after losing power."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="b", rules=rules)
        forger = cluster.forger("b")
        block = committed_at_a_only(cluster, "b", "c")
        cluster.passes = lambda source, to, message: False
        for name in "cd":
            for suspect in ("a", "b"):
                cluster.say("b", cluster.forger(suspect).suspect(1, 0), name)
        must(all(cluster[name].state.promised == 1 for name in "cd"), "c and d promised view 1")
        prepared = cluster.certificate(Kind.PREPARE, 1, 0, block.header.hash, "abc")
        opening = forger.new_view(
            1, forger.view_change(1, 1), cluster.forger("c").view_change(1, 1, None, prepared),
            cluster.forger("d").view_change(1, 1),
        )  # fmt: skip
        cluster.say("b", opening, "cd")
        for name in "cd":
            must(cluster[name].state.demanded == block.header.hash, "the NEW-VIEW demands B")
            cluster[name].crash()
            cluster[name].restart()
        cluster.passes = lambda source, to, message: "a" not in (source, to)
        other = block_on(cluster.genesis, cluster.set_at(Height(1)), forger.who.key, b"X")
        push_block(cluster, forger, 1, other, "cd")
        cluster.check_agreement()
        must(all(cluster[name].state.view == 1 for name in "cd"), "they stand where their records say")

    needs(scenario, PromiseIsEntry())


def test_3_views_are_per_set() -> None:
    """A certificate of an earlier validator set, made in its view 1, takes nobody to view 1 of the set in force."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(byzantine="e", rules=rules, sets={1: "abcd", 2: "defg"})
        cluster.passes = lambda source, to, message: to in "dfg" or source in "abc"
        cluster.submit(b"B", "a")
        first = cluster["d"].chain[0][0]
        cluster.passes = lambda source, to, message: False
        cluster.now += 1
        byzantine = cluster.forger("e", 2)
        # C is committed at (2, 0) by d, e and f, and known to f only.
        block = block_on(first.header, cluster.set_at(Height(2)), cluster.identities["d"].key, b"C")
        cluster["f"].committed(block, cluster.certificate(Kind.COMMIT, 2, 0, block.header.hash, "def"))
        again = cluster.certificate(Kind.COMMIT, 1, 1, first.header.hash, "abc")
        cluster.say("e", Decided(again), "dg")
        cluster.passes = lambda source, to, message: source in "dg" and to in "dg"
        other = block_on(first.header, cluster.set_at(Height(2)), byzantine.who.key, b"X")
        push_block(cluster, byzantine, 1, other, "dg")
        cluster.check_agreement()
        must(all(cluster[name].state.view == 0 for name in "dg"), "the view of the set in force stays")

    needs(scenario, OneViewForAllSets())


def lose_records(cluster: Cluster, name: str) -> None:
    """The disk of `name` is replaced, and `recover` is run on the empty chain."""
    node = cluster[name]
    node.crash()
    node.records = dict(recovery_records(Height(0), 0))
    node.stored, node.chain = {}, []
    node.restart()


def promised_then_lost(rules: Rules) -> tuple[Cluster, Forger, object]:
    """c promises view 1 at height 1, loses its records, and follows the others over height 1."""
    cluster = Cluster(4, byzantine="b", rules=rules)
    forger = cluster.forger("b")
    for suspect in ("b", "d"):
        cluster.say("b", cluster.forger(suspect).suspect(1, 0), "c")
    cluster.queue.clear()
    old_promise = next(message for message in cluster["c"].sent if isinstance(message, ViewChange))
    must(cluster["c"].state.promised == 1, "c promised view 1")
    lose_records(cluster, "c")
    cluster.queue.clear()
    return cluster, forger, old_promise


def commit_next(cluster: Cluster, forger: Forger, wire: bytes, reached: str, sees_commits: str) -> None:
    """a proposes; b votes along; COMMITs reach only `sees_commits`."""
    height = len(cluster["a"].chain) + 1

    def passes(source: str, to: str, message: Message) -> bool:
        if isinstance(message, Vote) and message.kind is Kind.COMMIT:
            return to in sees_commits and source in reached
        return to in reached and source in reached and not isinstance(message, Status)

    cluster.passes = passes
    cluster.submit(wire, "a")
    block_hash = cluster["a"].bodies_hash()
    for vote in forger.votes(height, 0, block_hash):
        cluster.say("b", vote, sees_commits if vote.kind is Kind.COMMIT else reached)
        cluster.deliver()


def test_4_promises_outlive_heights() -> None:
    """Votes given after records were lost never meet an old promise in one NEW-VIEW."""

    def scenario(rules: Rules) -> None:
        cluster, forger, old_promise = promised_then_lost(rules)
        commit_next(cluster, forger, b"one", "acd", "acd")
        must(cluster.heights() == [1, 1, 1], "height 1 is committed without c")
        # B at height 2 is committed by a, b and c alone, if c votes.
        commit_next(cluster, forger, b"B", "ac", "a")
        certificate = cluster["d"].chain[0][1]
        cluster.passes = lambda source, to, message: source in "cd" and to in "cd"
        opening = forger.new_view(1, old_promise, forger.view_change(2, 1, certificate), promised(cluster, "d", 2))
        cluster.say("b", opening, "cd")
        other = block_on(cluster["d"].head, cluster.set_at(Height(2)), forger.who.key, b"X")
        push_block(cluster, forger, 1, other, "cd")
        cluster.check_agreement()

    needs(scenario, RecoversAtOnce())


def test_4_old_promises_do_not_count_for_later_heights() -> None:
    """A promise made at height 1 frees nothing at height 4, where its sender signs again."""

    def scenario(rules: Rules) -> None:
        cluster, forger, old_promise = promised_then_lost(rules)
        for wire in (b"one", b"two", b"three"):
            commit_next(cluster, forger, wire, "acd", "acd")
        must(cluster.heights() == [3, 3, 3] and cluster["c"].state.may_sign, "c signs again above height 3")
        commit_next(cluster, forger, b"B", "ac", "a")
        must(len(cluster["a"].chain) == 4, "B is committed with c's vote")
        certificate = cluster["d"].chain[2][1]
        cluster.passes = lambda source, to, message: source in "cd" and to in "cd"
        opening = forger.new_view(1, old_promise, forger.view_change(4, 1, certificate), promised(cluster, "d", 4))
        cluster.say("b", opening, "cd")
        other = block_on(cluster["d"].head, cluster.set_at(Height(4)), forger.who.key, b"X")
        push_block(cluster, forger, 1, other, "cd")
        cluster.check_agreement()

    needs(scenario, OldPromisesCount())


def test_5_no_mixed_views() -> None:
    """COMMITs of views 0 and 2 for the same block are not a quorum."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="abc", rules=rules)
        block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"B")
        cluster["d"].bodies[block.header.hash] = block
        cluster.say("a", cluster.forger("a").propose(0, block), "d")
        for name, view in (("a", 0), ("b", 2), ("c", 2)):
            cluster.say(name, cluster.forger(name).vote(Kind.COMMIT, 1, view, block.header.hash), "d")
        cluster.deliver()
        must(cluster.heights() == [0], "nothing is committed")
        cluster.say("a", cluster.forger("a").vote(Kind.COMMIT, 1, 2, block.header.hash), "d")
        cluster.deliver()
        assert cluster.heights() == [1]

    needs(scenario, MixedViews())


def test_6_racer() -> None:
    """A replica that is a view ahead waits for the others, whoever tells it alone to move on."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="a", rules=rules, progress_timeout_max_ms=2000)
        forger = cluster.forger("a")
        cluster.say("a", forger.suspect(1, 0), "b")
        cluster.say("a", cluster.forger("d").suspect(1, 0), "b")
        must(cluster["b"].state.promised == 1, "b is ahead")
        for tenth in range(400):
            if tenth == 100:
                cluster.submit(b"work")
            cluster.say("a", forger.suspect(1, cluster["b"].state.promised), "b")
            cluster.run(100)
        must(cluster.heights() == [1, 1, 1], "the views meet and the work is done")

    needs(scenario, ImpatientAlone())


def test_7_withheld_body() -> None:
    """A proposal whose body nobody can get ends in a view change, though no transaction waits elsewhere."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="a", rules=rules)
        block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"hidden")
        cluster.say("a", cluster.forger("a").propose(0, block))
        cluster.run(4000)
        must(all(node.state.view == 1 for node in cluster), "the view is left")
        cluster.submit(b"work")
        cluster.run(10)
        must(cluster.heights() == [1, 1, 1], "work is done at once")

    needs(scenario, OnlyWaitingIsWork())


def test_7_lying_status() -> None:
    """A claim to be at height 10**9 keeps nobody from voting."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, byzantine="d", rules=rules)
        forger = cluster.forger("d")
        lie = Status(Height(10**9), View(7), View(7), None, 0, 0, forger.index)
        cluster.say("d", forger.signed(lie))
        cluster.submit(b"work")
        cluster.run(3000)
        must(cluster.heights() == [1, 1, 1], "the work is done")
        asked = [report for node in cluster for report in node.reports if report.kind is io.ReportKind.BEHIND]
        must(all(report.code == "claimed" for report in asked) and len(asked) <= 12, "at most one question a second")

    needs(scenario, BelievesClaims())


def test_7_heaviest_legal_block() -> None:
    """A block that takes longer than the first timeout is decided: timeouts grow, and validation is not done twice."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        asked_at: dict[tuple[str, bytes], int] = {}

        def slow(name: str):
            def validate(ask: io.AskValidation) -> tuple[io.Outcome, str]:
                started = asked_at.setdefault((name, ask.block_hash), cluster.now)
                done = cluster.now >= started + 5000
                return (io.Outcome.VALID if done else io.Outcome.NOT_YET), ""

            return validate

        for node in cluster:
            node.validate = slow(node.who.name)
        cluster.submit(b"heavy")
        cluster.run(60_000)
        must(cluster.heights() == [1, 1, 1, 1], "the heavy block is decided")

    needs(scenario, NoDoubling())


def test_7_heaviest_legal_proposal_fits_a_message() -> None:
    cluster = Cluster(4)
    cluster["a"].learn(*[index.to_bytes(4, "big") for index in range(BLOCK_TRANSACTIONS_MAX)])
    cluster.deliver()
    assert [len(node.chain[0][0].wire_hashes) for node in cluster] == [BLOCK_TRANSACTIONS_MAX] * 4


def test_7_transaction_known_to_one_replica_only() -> None:
    """The replica that knows it suspects in vain alone, but pushes it to all, and so it is committed."""

    def scenario(rules: Rules, pushes: bool) -> None:
        cluster = Cluster(4, rules=rules, pushes=pushes)
        cluster.submit(b"only here", "c")
        cluster.run(5000)
        must(cluster.heights() == [1, 1, 1, 1], "it is committed")

    scenario(Rules(), pushes=True)
    with pytest.raises(AssertionError, match="it is committed"):
        scenario(Rules(), pushes=False)


def test_7_all_restarted_with_a_prepared_certificate_and_empty_mempools() -> None:
    """What was prepared is proposed again and committed, though nobody remembers the transactions."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        # c alone sees a quorum of PREPAREs, b sees nothing.
        cluster.passes = lambda source, to, message: (
            to == "c" if isinstance(message, Vote) else to in "cd" and source in "acd"
        )
        cluster.submit(b"work", "acd")
        must(cluster["c"].state.phase is io.Phase.COMMITTING, "c is prepared")
        hashes = {cluster["c"].state.proposal}
        for node in cluster:
            node.crash()
        cluster.passes = lambda source, to, message: "a" not in (source, to)
        cluster.now += 3_600_000
        for node in cluster:
            node.validate = within_drift(cluster)
            node.restart()
        cluster.run(10_000)
        must(len(cluster["b"].chain) == 1, "the prepared block is committed in another view")
        assert cluster.committed_hashes(1) == hashes

    needs(scenario, OnlyWaitingIsWork(), ClockForEver())


def within_drift(cluster: Cluster):
    def validate(ask: io.AskValidation) -> tuple[io.Outcome, str]:
        if ask.first and ask.header.time_ms < cluster.now - 5000:
            return io.Outcome.INVALID, "time"
        return io.Outcome.VALID, ""

    return validate
