"""More than f validators lost their vote records: the statement of all, what it may not lose, and what it must refuse.

a, b, c, d have the indexes 0 to 3, so that view v has primary "abcd"[v % 4]. `wipe` takes records, bodies and, if told,
the end of the chain; what left a wiped validator before is still on its way (`old`).
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from cluster import GENESIS, Cluster, Node, Violated, must, needs
from variants import KeptForOneHeight, OnlyQuorumCounts

from consensus import interface as io
from consensus.messages import Kind, Message, ViewChange
from consensus.records import SigningState, Terms, decode_records, rollback_records
from consensus.rules import Rules
from consensus.statement import (
    RecordsChange,
    Report,
    Statement,
    check_statement,
    make_report,
    report_change,
    statement_change,
    statement_of,
    withdrawal,
)
from state.errors import DecodeError, InvariantError, Rejected
from state.hashing import sha256
from state.types import Height, View


def wipe(cluster: Cluster, names: str, blocks_left: int | None = None) -> list[Message]:
    """Takes the disks of these validators; returns what they ever said."""
    said: list[Message] = []
    for name in names:
        node = cluster[name]
        node.crash()
        node.records, node.stored = None, {}
        if blocks_left is not None:
            del node.chain[blocks_left:]
        said += node.sent
    return said


def write(node: Node, change: RecordsChange) -> None:
    node.records = {} if node.records is None else node.records
    node.records.update(change.puts)
    for key in change.deletes:
        node.records.pop(key, None)


def members(cluster: Cluster) -> list[Node]:
    height = max(len(node.chain) for node in cluster) + 1
    return [node for node in cluster if cluster.set_at(Height(height)).index_of(node.who.key) is not None]


def report_all(cluster: Cluster) -> list[Report]:
    """Every node is stopped, and every operator of a member of the set in force reports."""
    cluster.queue.clear()
    made = []
    for node in cluster:
        node.crash()
    for node in members(cluster):
        report = make_report(node.config(), node.restored(), node.who.sign)
        write(node, report_change(report))
        made.append(Report.decode(report.encode()))
    return made


def checked(cluster: Cluster, statement: Statement) -> Statement:
    height = Height(statement.head.head_height + 1)
    at = {height: cluster.set_at(height)}
    check_statement(
        Statement.decode(statement.encode()), GENESIS, at[height], cluster.since(height), cluster.set_at, verify
    )
    return statement


def verify(key: bytes, preimage: bytes, signature: bytes) -> bool:
    return sha256(key + preimage) * 2 == signature


def apply(node: Node, statement: Statement) -> RecordsChange:
    change = statement_change(statement, node.config(), node.restored(), node.cluster.now)
    write(node, change)
    return change


def ceremony(cluster: Cluster) -> Statement:
    statement = checked(cluster, statement_of(report_all(cluster)))
    for node in members(cluster):
        apply(node, statement)
    for node in cluster:
        node.restart()
    return statement


def signing(node: Node) -> SigningState:
    return decode_records(node.records).signing.state


@pytest.mark.parametrize(("n", "wiped"), [(4, "ab"), (4, "cd"), (5, "ac"), (6, "abc"), (7, "acdg"), (10, "bcdefg")])
def test_the_chain_goes_on_after_a_statement_and_not_before(n: int, wiped: str) -> None:
    cluster = Cluster(n, progress_timeout_max_ms=4000)
    for wire in (b"1", b"2"):
        cluster.submit(wire)
    wipe(cluster, wiped)
    for name in wiped:
        cluster[name].restart()
    cluster.submit(b"3")
    cluster.run(10_000)
    assert cluster.heights() == [2] * n
    ceremony(cluster)
    cluster.submit(b"3")
    cluster.run(2000)
    assert cluster.heights() == [3] * n
    assert {signing(cluster[name]) for name in wiped} == {SigningState.RECOVERING}
    for wire in (b"4", b"5", b"6"):
        cluster.submit(wire)
    assert {signing(node) for node in cluster} == {SigningState.OPEN}
    for node in cluster:
        node.crash()
        node.restart()
    cluster.submit(b"7")
    cluster.run(100)
    assert cluster.heights() == [7] * n
    cluster.check_agreement()


def final_at_a_alone(cluster: Cluster) -> tuple[io.KnownBlock, list[Message]]:
    """a, b and c vote for B at height 2; only a sees that it is final; then a and b lose everything above height 1."""
    cluster.submit(b"1")
    cluster.passes = lambda source, to, message: (
        "d" not in (source, to) and (message.kind is not Kind.COMMIT or to == "a")
    )
    cluster.submit(b"B", "abc")
    must(cluster.heights() == [2, 1, 1, 1], "B is final at a")
    block = cluster["a"].chain[1][0]
    return block, wipe(cluster, "ab", 1)


def test_a_block_that_only_wiped_validators_knew_to_be_final_is_made_final_again() -> None:
    """c alone remembers having voted for it: no view is opened without c, however long it takes."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        block, _ = final_at_a_alone(cluster)
        cluster.passes = lambda source, to, message: "c" not in (source, to)
        statement = ceremony(cluster)
        must((statement.head.head_height, statement.wiped, statement.kept) == (1, (0, 1), (2, 3)), "as reported")
        cluster.submit(b"X", "abd")
        cluster.run(20_000)
        must(cluster.heights() == [1, 1, 1, 1], "nothing is final without c")
        cluster.passes = lambda *_: True
        cluster.run(20_000)
        must(cluster.committed_hashes(2) == {block.header.hash}, "what was final stays final")
        must(min(cluster.heights()) == 3, "and the chain goes on")

    needs(scenario, OnlyQuorumCounts())


def test_old_messages_of_wiped_validators_change_nothing() -> None:
    """All that they said before, in any order, while the chain goes on: no fork, and nobody falls silent for it."""
    for turn in (1, -1):
        cluster = Cluster(4)
        block, old = final_at_a_alone(cluster)
        cluster.passes = lambda *_: True
        ceremony(cluster)
        for wire in (b"2", b"3", b"4", b"5", b"6"):
            for message in old[::turn]:
                for node in cluster:
                    node.do(io.Received(message))
            cluster.submit(wire)
            cluster.run(300)
        assert cluster.committed_hashes(2) == {block.header.hash}
        assert min(cluster.heights()) >= 6
        assert all(node.state.may_sign for node in cluster)


def far_promises(cluster: Cluster, height: int, view: int) -> list[ViewChange]:
    """What a and b would have sent, had they been that far ahead before they were wiped."""
    certificate = cluster["c"].chain[height - 2][1]
    return [cluster.forger(name).view_change(height, view, certificate) for name in "ab"]


def test_old_promises_of_wiped_validators_free_no_height_that_they_may_reach() -> None:
    """C is committed above the statement's first height by a, b and c; their old promises know nothing of it."""

    def scenario(rules: Rules) -> None:
        cluster = Cluster(4, rules=rules)
        cluster.submit(b"1")
        wipe(cluster, "ab")
        ceremony(cluster)
        cluster.submit(b"2")
        cluster.run(50)
        must(cluster.heights() == [2] * 4, "the first height is committed")
        old = far_promises(cluster, 3, 7)
        # C at height 3 is committed at a alone, by a, b and c.
        cluster.passes = lambda source, to, message: (
            "d" not in (source, to) and (message.kind is not Kind.COMMIT or to == "a")
        )
        cluster.submit(b"C", "abc")
        must(cluster.heights() == [3, 2, 2, 2], "C is final at a")
        cluster["a"].crash()
        # d is the primary of that view: it joins the two old promises, and could open the view on them and its own.
        cluster.queue.clear()
        cluster.passes = lambda source, to, message: source in "bcd" and to in "bcd"
        for message in old:
            cluster.say("", message, "d")
        cluster.submit(b"X", "bcd")
        cluster.run(5000)
        cluster["a"].restart()
        cluster.passes = lambda *_: True
        cluster.run(30_000)
        cluster.check_agreement()

    needs(scenario, OnlyQuorumCounts(), KeptForOneHeight())


def storm(seed: int, rules: Rules) -> None:
    """Blocks are decided under loss, the last one before few; some lose everything; old messages return."""
    rng = random.Random(seed)
    n = rng.choice([4, 4, 5, 6, 7])
    cluster = Cluster(n, rules=rules, progress_timeout_max_ms=2000)
    names = "".join(cluster.everybody)
    final: dict[int, bytes] = {}
    said: list[Message] = []
    loss = {"rate": 0.0, "cut": ""}

    def passes(source: str, to: str, message: Message) -> bool:
        if message not in said[-32:]:
            said.append(message)
        cut = loss["cut"]
        return rng.random() >= loss["rate"] and (source in cut) == (to in cut)

    def note_final() -> None:
        for node in cluster:
            for block, _ in node.chain:
                known = final.setdefault(block.header.height, block.header.hash)
                must(known == block.header.hash, f"height {block.header.height} stays what it was")

    cluster.passes = passes
    for number in range(rng.randrange(2, 9)):
        loss.update(rate=rng.choice([0.0, 0.2, 0.4]), cut="".join(rng.sample(names, rng.choice([0, 0, 1, 2]))))
        cluster.submit(b"%d" % number)
        cluster.run(rng.choice([20, 200, 1200]))
        if rng.random() < 0.4:
            for name in rng.sample(names, 2):
                cluster[name].do(io.Complaint("left_out"))
            cluster.deliver()
        note_final()
    quorum = cluster.set_at(Height(1)).quorum
    loss.update(rate=0.0, cut="")
    cluster.run(5000)
    took_part = rng.sample(names, quorum)
    cluster.passes = lambda source, to, message: (
        source in took_part
        and to in took_part
        and (message.kind is not Kind.COMMIT or to == took_part[0])
        and message.kind not in (Kind.STATUS, Kind.DECIDED)
    )
    cluster.submit(b"hidden")
    note_final()
    cluster.passes = passes
    wiped = took_part[0] + "".join(rng.sample(sorted(set(names) - {took_part[0]}), rng.randrange(1, quorum - 1)))
    for name in wiped:
        wipe(cluster, name, rng.randrange(len(cluster[name].chain) + 1))
    ceremony(cluster)
    late = rng.sample(sorted(set(took_part) - set(wiped)), 1)
    for number in range(6):
        loss.update(rate=rng.choice([0.0, 0.2]), cut="".join(late) if number < 2 else "")
        for message in rng.sample(said, min(30, len(said))):
            cluster[rng.choice(names)].do(io.Received(message))
        cluster.submit(b"after %d" % number)
        cluster.run(rng.choice([100, 1500, 4000]))
        note_final()
    loss.update(rate=0.0, cut="")
    cluster.run(20_000)
    note_final()
    must(len(set(cluster.heights())) == 1, "all are at one height")
    must({node.state.refusal for node in cluster} == {None}, "and all sign")
    must(len({wire for block, _ in cluster["a"].chain for wire in block.wire_hashes}) >= 6, "and the chain went on")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_before_a_statement_nothing_final_is_lost(seed: int) -> None:
    storm(seed, Rules())


def test_random_storms_notice_a_statement_under_which_any_quorum_counts() -> None:
    caught = []
    for seed in range(8, 18):
        try:
            storm(seed, OnlyQuorumCounts())
        except (Violated, InvariantError):
            caught.append(seed)
    assert caught


def test_kept_validators_behind_catch_up_before_they_sign() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    cluster.passes = lambda source, to, message: "d" not in (source, to)
    for wire in (b"2", b"3"):
        cluster.submit(wire, "abc")
    assert cluster.heights() == [3, 3, 3, 1]
    wipe(cluster, "ab", 0)
    cluster.passes = lambda source, to, message: False
    statement = ceremony(cluster)
    assert statement.terms.head_height == 3
    for name in "abd":
        cluster[name].sent.clear()
    cluster.run(3000)
    assert [cluster[name].sent for name in "abd"] == [[], [], []]
    assert cluster["d"].replica.snapshot().refusal == "behind"
    cluster.passes = lambda *_: True
    cluster.run(3000)
    cluster.submit(b"4")
    cluster.run(3000)
    assert cluster.heights() == [4] * 4


def test_a_kept_validator_that_went_further_takes_the_others_along() -> None:
    """The head of c rises between its report and the start: COMMITs of before reach it as an observer."""
    cluster = Cluster(4)
    block, _ = final_at_a_alone(cluster)
    statement = statement_of(report_all(cluster))
    certificate = cluster.certificate(Kind.COMMIT, 2, 0, block.header.hash, "abc")
    cluster["c"].bodies[block.header.hash] = block
    cluster["c"].chain.append((block, certificate))
    cluster.passes = lambda *_: True
    for node in cluster:
        apply(node, statement)
        node.restart()
    cluster.run(3000)
    cluster.submit(b"3")
    cluster.run(3000)
    assert cluster.heights() == [3] * 4
    assert cluster.committed_hashes(2) == {block.header.hash}


@pytest.mark.parametrize("missing", ["c", "a", "ab"])
def test_what_happens_while_some_have_not_applied_it(missing: str) -> None:
    """Without one that kept its records, or without a quorum, nothing; a wiped one alone is not waited for."""
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    statement = statement_of(report_all(cluster))
    for node in cluster:
        if node.who.name not in missing:
            apply(node, statement)
        node.restart()
    cluster.submit(b"2")
    cluster.run(15_000)
    assert cluster.heights() == ([2] * 4 if missing == "a" else [1] * 4)
    assert all(cluster[name].replica.snapshot().refusal == "reported" for name in missing)
    for wire in (b"3", b"4", b"5"):
        cluster.submit(wire)
    for name in missing:
        cluster[name].crash()
        apply(cluster[name], statement)
        cluster[name].restart()
    cluster.run(15_000)
    for wire in (b"6", b"7", b"8", b"9"):
        cluster.submit(wire)
        cluster.run(1000)
    assert len(set(cluster.heights())) == 1
    assert all(node.state.may_sign for node in cluster)
    cluster.check_agreement()


def test_power_may_fail_at_any_step_of_going_on() -> None:
    """After every write of every validator all are restarted; what was final stays final."""
    for writes in range(1, 12):
        cluster = Cluster(4)
        block, _ = final_at_a_alone(cluster)
        cluster.passes = lambda *_: True
        ceremony(cluster)
        for node in cluster:
            node.writes = 0
        for _ in range(400):
            if not cluster.queue or any(node.writes >= writes for node in cluster):
                break
            _, to, message = cluster.queue.pop(0)
            cluster._hand_over(to, message)
            while cluster.later:
                node, effect = cluster.later.pop(0)
                node.answer(effect)
        cluster.queue.clear()
        for node in cluster:
            node.crash()
            node.restart()
        cluster.submit(b"3")
        cluster.run(20_000)
        assert cluster.committed_hashes(2) == {block.header.hash}
        assert min(cluster.heights()) == 3


def test_the_primary_may_be_a_wiped_one_that_lacks_the_block() -> None:
    """View 1 is b's: it fetches what c reports before it opens the view; if b is dead, the next view comes."""
    cluster = Cluster(4)
    block, _ = final_at_a_alone(cluster)
    cluster.passes = lambda *_: True
    ceremony(cluster)
    cluster.run(200)
    assert cluster.committed_hashes(2) == {block.header.hash}
    assert cluster["b"].chain[1][1].view == 1
    cluster = Cluster(4)
    block, _ = final_at_a_alone(cluster)
    cluster.passes = lambda *_: True
    ceremony(cluster)
    cluster["b"].crash()
    cluster.queue = [item for item in cluster.queue if item[0] != "b"]
    cluster.run(20_000)
    assert cluster.committed_hashes(2) == {block.header.hash}
    assert cluster["c"].chain[1][1].view == 2


def test_a_second_wipe_before_the_first_is_over_counts_both() -> None:
    """a and b still count as wiped two heights after the statement: with c, nobody would remember enough."""
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    first = ceremony(cluster)
    cluster.submit(b"2")
    cluster.run(1000)
    assert cluster.heights() == [2] * 4
    reports = report_all(cluster)
    assert statement_of(reports).wiped == (0, 1)
    second = checked(cluster, statement_of(reports))
    assert second.view > first.view
    wipe(cluster, "c")
    with pytest.raises(Rejected, match="statement_too_few_kept"):
        checked(cluster, statement_of(report_all(cluster)))


def test_a_later_statement_replaces_an_earlier_one_and_not_the_reverse() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    first = ceremony(cluster)
    for wire in (b"2", b"3", b"4", b"5"):
        cluster.submit(wire)
        cluster.run(300)
    wipe(cluster, "cd")
    second = ceremony(cluster)
    assert (second.terms.head_height, second.kept) == (5, (0, 1))
    with pytest.raises(Rejected, match="statement_not_ours"):
        apply(cluster["a"], first)
    for wire in (b"6", b"7", b"8", b"9", b"10"):
        cluster.submit(wire)
        cluster.run(1000)
    assert cluster.heights() == [10] * 4
    assert decode_records(cluster["a"].records).terms == second.terms


def test_applied_twice_it_changes_nothing() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    statement = ceremony(cluster)
    for wire in (b"2", b"3", b"4", b"5"):
        cluster.submit(wire)
        cluster.run(300)
    for node in cluster:
        assert apply(node, statement) == RecordsChange(())
        assert signing(node) is SigningState.OPEN


def test_who_reported_signs_nothing_until_the_statement_or_until_it_takes_the_report_back() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    report_all(cluster)
    for node in cluster:
        node.restart()
        node.sent.clear()
    cluster.submit(b"2")
    cluster.run(3000)
    assert [node.sent for node in cluster] == [[]] * 4
    assert {node.replica.snapshot().refusal for node in cluster} == {"reported"}
    for node in cluster:
        node.crash()
        write(node, withdrawal())
        node.restart()
    cluster.submit(b"2")
    assert cluster.heights() == [2] * 4


def test_a_statement_does_not_count_for_whoever_took_its_report_back() -> None:
    cluster = Cluster(4)
    statement = statement_of(report_all(cluster))
    write(cluster["c"], withdrawal())
    with pytest.raises(Rejected, match="statement_not_ours"):
        apply(cluster["c"], statement)


def forged(cluster: Cluster, report: Report, **changed: object) -> Report:
    name = cluster.set_at(Height(1)).validators[report.sender].name
    other = replace(report, **changed, signature=b"")
    return replace(other, signature=cluster.identities[name].sign(other.preimage))


LIES = {
    "report_invalid: signature": (2, lambda c, r: replace(r, promised=View(9))),
    "report_invalid: chain": (2, lambda c, r: forged(c, r, genesis_hash=bytes(32))),
    "statement_sets_differ: set": (2, lambda c, r: forged(c, r, validators_hash=bytes(32))),
    "statement_sets_differ: reign": (2, lambda c, r: forged(c, r, since=2)),
    "certificate_invalid: head": (2, lambda c, r: forged(
        c, r, head_height=10**9, certificate=replace(r.certificate, height=Height(10**9)))),
    "statement_fork: heads": (2, lambda c, r: forged(
        c, r, head_hash=sha256(b"x"), certificate=c.certificate(Kind.COMMIT, 1, 0, sha256(b"x"), "abc"))),
    "statement_view: view": (2, lambda c, r: forged(c, r, promised=1 << 50)),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_report_that_lies_where_it_can_be_seen_is_refused(lie: str) -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    reports = report_all(cluster)
    place, change = LIES[lie]
    reports[place] = change(cluster, reports[place])
    with pytest.raises(Rejected, match=lie.partition(":")[0]):
        checked(cluster, statement_of(reports))


@pytest.mark.parametrize("which", ["missing", "twice"])
def test_a_statement_needs_one_report_of_each(which: str) -> None:
    cluster = Cluster(4)
    reports = report_all(cluster)
    some = reports[:3] if which == "missing" else [*reports[:3], reports[0]]
    with pytest.raises(Rejected, match="statement_reports") as caught:
        checked(cluster, statement_of(some))
    assert caught.value.data == {"missing": ["d"]}


def test_a_report_proves_its_head_in_form() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    good = report_all(cluster)[0]
    for bad in (replace(good, certificate=None), replace(good, head_hash=bytes(32))):
        with pytest.raises(DecodeError):
            Report.decode(bad.encode())


def test_a_chain_that_was_taken_back_below_own_votes_is_not_reported_as_whole() -> None:
    cluster = Cluster(4)
    for wire in (b"1", b"2"):
        cluster.submit(wire)
    node = cluster["a"]
    node.crash()
    node.chain.pop()
    node.records.update(rollback_records(node.records, Height(2)))
    with pytest.raises(Rejected, match="report_behind"):
        make_report(node.config(), node.restored(), node.who.sign)
    node.restart()
    node.sent.clear()
    cluster.submit(b"other", "a")
    assert (node.sent, node.replica.snapshot().refusal) == ([], "behind")


def test_an_observer_does_not_report() -> None:
    cluster = Cluster(4, observers="z")
    with pytest.raises(Rejected, match="not_in_force"):
        make_report(cluster["z"].config(), cluster["z"].restored(), lambda preimage: bytes(64))


def test_damaged_records_are_lost_records_and_go_with_the_statement() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    for name in "ab":
        cluster[name].records[b"junk"] = b"junk"
    statement = ceremony(cluster)
    assert statement.wiped == (0, 1)
    assert all(b"junk" not in cluster[name].records for name in "ab")
    cluster.submit(b"2")
    cluster.run(2000)
    assert cluster.heights() == [2] * 4


def test_a_new_set_at_once_leaves_the_wiped_silent_in_it() -> None:
    """They may have voted in the new set's view 0 at its first height: no statement of the old set tells."""
    cluster = Cluster(sets={1: "abcd", 3: "abce"}, progress_timeout_max_ms=4000)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    ceremony(cluster)
    cluster.submit(b"2")
    cluster.run(3000)
    assert len(cluster["c"].chain) == 2
    assert [cluster[name].replica.snapshot().refusal for name in "abce"] == ["recovering", "recovering", None, None]
    assert decode_records(cluster["a"].records).signing.signed_at_most is None
    cluster.submit(b"3")
    cluster.run(5000)
    assert len(cluster["c"].chain) == 2
    second = ceremony(cluster)
    assert (second.wiped, second.head.head_height) == ((0, 1), 2)
    cluster.submit(b"3")
    cluster.run(5000)
    assert len(cluster["c"].chain) == 3


def test_what_the_wiped_decided_with_a_new_member_is_not_decided_again() -> None:
    """a, b and the new e went on to height 6 without c and d; then a and b are wiped, and e is out of reach."""
    cluster = Cluster(sets={1: "abcd", 3: "abce"}, progress_timeout_max_ms=4000)
    cluster.submit(b"1")
    cluster.passes = lambda source, to, message: (
        "d" not in (source, to) and (message.kind is not Kind.COMMIT or to != "c") and (source != "e" or to != "c")
    )
    cluster.hears_heights = False
    cluster.submit(b"2", "abce")
    cluster.passes = lambda source, to, message: source in "abe" and to in "abe"
    for number in range(3, 7):
        cluster.submit(b"%d" % number, "abe")
    assert cluster.heights() == [6, 6, 1, 1, 6]
    final = [block.header.hash for block, _ in cluster["e"].chain]
    wipe(cluster, "ab", 1)
    cluster.passes = lambda source, to, message: "e" not in (source, to)
    cluster.queue.clear()
    made = []
    for name in "abcd":
        node = cluster[name]
        node.crash()
        made.append(make_report(node.config(), node.restored(), node.who.sign))
        write(node, report_change(made[-1]))
    for name in "abcd":
        apply(cluster[name], checked(cluster, statement_of(made)))
        cluster[name].restart()
    cluster.submit(b"other", "abcd")
    cluster.run(60_000)
    assert cluster.heights() == [2, 2, 2, 2, 6]
    assert decode_records(cluster["a"].records).signing.signed_at_most is None
    cluster.passes = lambda *_: True
    cluster.hears_heights = True
    cluster.run(3000)
    assert cluster.heights() == [6] * 5
    assert not cluster["a"].state.may_sign
    second = ceremony(cluster)
    assert (second.wiped, second.head.head_height) == ((0, 1), 6)
    cluster.submit(b"7")
    cluster.run(5000)
    assert min(cluster.heights()) == 7
    assert [block.header.hash for block, _ in cluster["c"].chain][:6] == final


@pytest.mark.parametrize("first", [4, 5])
def test_a_new_set_later_on_finds_the_wiped_recovered(first: int) -> None:
    cluster = Cluster(sets={1: "abcd", first: "abce"})
    cluster.submit(b"1")
    wipe(cluster, "ab")
    ceremony(cluster)
    for wire in (b"2", b"3", b"4", b"5"):
        cluster.submit(wire)
        cluster.run(1000)
    assert len(cluster["a"].chain) == 5
    assert {signing(cluster[name]) for name in "ab"} == {SigningState.OPEN}
    assert cluster["a"].replica.snapshot().promised == 0


def test_the_terms_are_a_record_of_their_own() -> None:
    cluster = Cluster(4)
    cluster.submit(b"1")
    wipe(cluster, "ab")
    statement = ceremony(cluster)
    terms = decode_records(cluster["c"].records).terms
    assert terms == statement.terms == Terms(Height(1), Height(1), View(1), (2, 3), statement.digest)
