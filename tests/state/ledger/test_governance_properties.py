"""Governance against a model of a page: whatever is proposed, voted and shown, in whatever order and time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.ledger.validators import rule_at, rules_back
from tests.state.ledger.council import Council
from tests.state.ledger.world import key, pay

NUMBERS = st.integers(0, 8)
STEP = st.one_of(
    st.tuples(st.just("propose"), NUMBERS, st.sampled_from(["add", "remove"]), NUMBERS, st.integers(0, 5), NUMBERS),
    st.tuples(st.just("vote"), NUMBERS, st.integers(0, 4), st.booleans()),
    st.tuples(st.just("all"), st.integers(0, 3), st.integers(0, 4)),
    st.tuples(st.just("all"), st.just(0), st.just(0)),
    st.tuples(st.just("evidence"), NUMBERS, st.integers(0, 3)),
)
BLOCK = st.tuples(st.integers(1, 4), st.lists(STEP, max_size=6))
"""How much later the block is, and what happens in it. Votes are for one of the newest proposals; `all` are those of
all members but so many."""


@dataclass
class Model:
    """The rules in words: names in force, proposals as lists, and what waits."""

    members: set[int]
    height: int = 0
    time_ms: int = 0
    proposals: list[dict] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    guilty: list[int] = field(default_factory=list)
    since: dict[int, int] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)

    @property
    def quorum(self) -> int:
        n = len(self.members)
        return (n + (n - 1) // 3) // 2 + 1

    def refusal(self, change: str, target: int) -> str | None:
        if change == "add":
            return "validator_exists" if target in self.members else None
        if target not in self.members:
            return "validator_unknown"
        return "validators_too_few" if len(self.members) <= 4 else None

    def begin(self, height: int, time_ms: int) -> None:
        self.height, self.time_ms = height, time_ms
        for proposal in self.proposals:
            late = 0 < proposal["from"] <= height
            if proposal["status"] == "open" and (proposal["expires"] < time_ms or late):
                proposal["status"] = "expired"

    def propose(self, by: int, change: str, target: int, from_height: int, expires: int) -> str:
        if by not in self.members:
            return "not_authorised"
        refused = self.refusal(change, target)
        if refused is not None:
            return refused
        if sum(p["by"] == by and p["status"] in ("open", "accepted") for p in self.proposals) >= 4:
            return "proposals_too_many"
        self.proposals.append(
            {"by": by, "change": change, "target": target, "from": from_height, "expires": expires}
            | {"status": "open", "votes": {}}
        )
        return self.vote(by, len(self.proposals), True)

    def vote(self, by: int, number: int, approve: bool) -> str:
        if by not in self.members:
            return "not_authorised"
        if number > len(self.proposals):
            return "proposal_unknown"
        proposal = self.proposals[number - 1]
        if proposal["status"] != "open":
            return "proposal_closed"
        proposal["votes"][by] = approve
        proposal["votes"] = {who: said for who, said in proposal["votes"].items() if who in self.members}
        said = list(proposal["votes"].values())
        if said.count(True) >= self.quorum:
            proposal["status"] = "accepted"
            self.waiting.append((proposal["from"] or self.height + 1, number))
        elif len(self.members) - said.count(False) < self.quorum:
            proposal["status"] = "rejected"
        return "ok"

    def accuse(self, who: int, height: int, was_member: bool) -> None:
        if not was_member or (who, height) in self.seen:
            return
        self.seen.add((who, height))
        if who in self.members and height >= self.since.get(who, 1) and who not in self.guilty:
            self.guilty.append(who)

    def end(self) -> None:
        while self.guilty:
            who = self.guilty.pop(0)
            if who in self.members and len(self.members) > 4:
                self.members.discard(who)
                return
        for due in sorted(self.waiting):
            if due[0] > self.height + 1:
                break
            self.waiting.remove(due)
            proposal = self.proposals[due[1] - 1]
            change, target = proposal["change"], proposal["target"]
            if self.refusal(change, target) is not None:
                proposal["status"] = "failed"
                continue
            proposal["status"] = "in_force"
            if change == "add":
                self.members.add(target)
                self.since[target] = self.height + 1
            else:
                self.members.discard(target)
            return


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([4, 5, 7]), st.lists(BLOCK, min_size=1, max_size=14))
def test_sets_and_proposals_are_what_the_model_says(count, blocks):
    council = Council(count)
    model = Model(set(range(count)))
    for step_ms, steps in blocks:
        time_ms = council.world.head.time_ms + step_ms
        height = council.height + 1
        model.begin(height, time_ms)
        shown = [(who, max(1, height - back)) for kind, who, back in (s for s in steps if s[0] == "evidence")]
        proved = {(at, who) for who, at in shown if f"v{who}" in members_at(council, at)}
        accused = [(who, at) for at, who in sorted(proved)]
        for who, at in accused:
            model.accuse(who, at, True)
        txs, expected = [], []
        for step in steps:
            made = acts(council, model, step, height, time_ms)
            txs += [tx for tx, _ in made]
            expected += [code for _, code in made]
        txs.append(council.world.tx(key(1), pay(key(2).address, 1)))
        evidence = [council.evidence(f"v{who}", at) for who, at in accused]
        assert council.block(*txs, time_ms=time_ms, evidence=evidence) == [*expected, "ok"]
        model.end()
        assert council.names == [f"v{n}" for n in sorted(model.members)]
        told = [council.status(number + 1) for number in range(len(model.proposals))]
        assert told == [proposal["status"] for proposal in model.proposals]
    for height, validators in council.sets.items():
        assert rule_at(rules_back(council.world), height).validators == validators


def members_at(council, height):
    return [validator.name for validator in council.set_at(height).validators]


def acts(council, model, step, height, time_ms):
    """The transactions of a step with the outcomes that the model foresees."""
    kind, *rest = step
    if kind == "propose":
        by, change, target, ahead, life = rest
        if life:
            by = sorted(model.members)[by % len(model.members)]
        from_height = height + ahead if ahead else 0
        expires = time_ms + 1 + 3 * life
        terms = {"from_height": from_height, "expires_ms": expires}
        tx = (
            council.add(target, by=by, **terms)
            if change == "add"
            else council.propose(by, "remove", f"v{target}", **terms)
        )
        return [(tx, model.propose(by, change, target, from_height, expires))]
    if kind == "vote":
        by, number, approve = rest
        number = max(1, len(model.proposals) - number)
        return [(council.vote(by, number, approve), model.vote(by, number, approve))]
    if kind == "all":
        number = max(1, len(model.proposals) - rest[0])
        return [(council.vote(by, number), model.vote(by, number, True)) for by in sorted(model.members)[rest[1] :]]
    return []
