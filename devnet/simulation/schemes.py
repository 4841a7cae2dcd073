"""What the attacker does with its powers: each scheme as a script that waits for what it sees and then acts.

A scheme is an execution with choices left open. The shape is that of the attacks that fork a careless reading of the
protocol: show the votes of a view to a few, hide whoever decided, leave the view, and let the others decide again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from consensus.messages import Decided, Kind, Message, PrePrepare, ViewChange
from consensus.records import ENTRY_KEY
from devnet.simulation.attacker import SOUND_RULES, Attacker, Script, Until
from devnet.simulation.attacks import Border, Fall, Ladder, OldPromise, Opening, Scheme, Starve, Step
from devnet.simulation.border import border
from devnet.simulation.parcels import BlocksSent, Spoken
from devnet.simulation.schedule import MS, SECOND
from state.types import Height

LEVEL_US: Final = 1_500 * MS
PLACE_US: Final = 1_000 * MS
PROPOSAL_US: Final = 400 * MS
VOTES_US: Final = 150 * MS
ROUND_US: Final = 150 * MS
ROUNDS_MAX: Final = 16
VIEWS_MAX: Final = 6
AGAIN_US: Final = 500 * MS
POLL_US: Final = 200


@dataclass(slots=True)
class Stage:
    """What the network lets pass while a height is under attack; a script changes it from step to step."""

    attacker: Attacker
    height: int
    view: int
    sight: frozenset[int] = frozenset()
    deciders: frozenset[int] = frozenset()
    hidden: set[int] = field(default_factory=set)
    excluded: set[int] = field(default_factory=set)
    open: bool = False
    mute: bool = False

    def passes(self, source: int, target: int, parcel: Any, kind: Kind | None) -> bool:
        """Returns whether a message passes now."""
        if source in self.hidden or target in self.hidden:
            return False
        if not isinstance(parcel, Spoken):
            return not isinstance(parcel, BlocksSent) or self.open
        message = parcel.message
        if isinstance(message, Decided):
            return self.open or message.certificate.height < self.height
        if kind is Kind.NEW_VIEW:
            return not self.mute
        if kind is Kind.VIEW_CHANGE:
            return source not in self.excluded
        return self._vote_passes(target, message, kind)

    def _vote_passes(self, target: int, message: Message, kind: Kind | None) -> bool:
        if kind not in (Kind.PREPARE, Kind.COMMIT) or getattr(message, "height", 0) != self.height:
            return True
        if self.open:
            return getattr(message, "view", 0) == self.view
        if kind is Kind.PREPARE:
            return target in self.sight and getattr(message, "view", 0) == self.view
        return target in self.deciders

    def heard(self, message: Message) -> None:
        """Lets the puppets vote for whatever is proposed at the place under attack, towards those who may see it."""
        if isinstance(message, PrePrepare) and (message.height, message.view) == (self.height, self.view):
            self.vote(message)

    def vote(self, proposal: PrePrepare) -> None:
        """Lets the puppets vote for a proposal of the place under attack."""
        shown = [number for number in self.attacker.correct if number not in self.hidden]
        self.attacker.vote(proposal, Kind.PREPARE, shown if self.open else sorted(self.sight))
        self.attacker.vote(proposal, Kind.COMMIT, shown if self.open else sorted(self.deciders))

    def show(self, kind: Kind, to: frozenset[int], view: int | None = None) -> None:
        """Brings to some machines the votes of this height (of one view) that were held."""
        for (given, height, within, _), votes in list(self.attacker.votes.items()):
            if (given, height) == (kind, self.height) and within in (view, within if view is None else view):
                for vote in list(votes.values()):
                    self.attacker.pass_on(vote, sorted(to - self.hidden))


def play(attacker: Attacker, schemes: tuple[Scheme, ...]) -> Script:
    """Plays schemes one after the other, with some quiet between them."""
    for scheme in schemes:
        match scheme:
            case Ladder():
                yield from _ladder(attacker, scheme)
            case OldPromise():
                yield from _old_promise(attacker)
            case Border():
                yield from border(attacker)
            case Starve():
                yield from _starve(attacker, scheme)
        attacker.rest(late_us=SECOND)
        yield Until(lambda: False, attacker.rng.randrange(AGAIN_US))


# ---- a ladder of views ----


def _ladder(attacker: Attacker, plan: Ladder) -> Script:
    stage = yield from _begin(attacker, plan.opening)
    if stage is None:
        return
    order = list(attacker.correct)
    attacker.rng.shuffle(order)
    for place, step in enumerate(plan.steps):
        leading = [number for number in order[place:] + order[:place] if number not in stage.hidden]
        yield from _show(attacker, stage, step, leading)
        opening = plan.opening if stage.hidden else Opening.PLAIN
        opened = yield from _next_view(attacker, stage, opening)
        if not opened:
            return
        if step.fall is Fall.ENTERED:
            yield from _fall_at_entry(attacker, stage)
    yield from _finish(attacker, stage)


def _begin(attacker: Attacker, opening: Opening) -> Any:
    """Waits until all stand at one height and takes the network; if it must, until a puppet leads the next view."""
    level = yield Until(attacker.level, LEVEL_US)
    if not level:
        return None
    view, turning = attacker.view(), attacker.cluster.settings.leader_term > 0

    def suits() -> bool:
        height = attacker.head(attacker.correct[0]) + 1
        led = all(attacker.primary(at, view + 1) in attacker.puppets for at in (height, height + 1))
        return attacker.level() and led

    if opening is not Opening.PLAIN and turning and not (yield Until(suits, PLACE_US)):
        return None
    stage = Stage(attacker, attacker.head(attacker.correct[0]) + 1, attacker.view())
    attacker.rule, attacker.heard, attacker.speaks = stage.passes, stage.heard, True
    if opening is not Opening.PLAIN and not turning:
        for _ in range(attacker.validators.n):
            if attacker.primary(stage.height, stage.view + 1) in attacker.puppets:
                break
            if not (yield from _next_view(attacker, stage, Opening.PLAIN)):
                return None
    return stage


def _show(attacker: Attacker, stage: Stage, step: Step, leading: list[int]) -> Script:
    """Plays one view: who sees its votes, who decides, and who falls."""
    height, view = stage.height, stage.view
    seeing = frozenset(leading[: step.sight])
    first = frozenset(leading[:1])
    stage.excluded = set()
    if not step.late:
        stage.sight, stage.deciders = seeing, first if step.decide else frozenset()
        stage.show(Kind.COMMIT, stage.deciders)
    _puppets_propose(attacker, stage)
    yield Until(lambda: bool(attacker.proposals.get((height, view))), PROPOSAL_US)
    for proposal in attacker.proposals.get((height, view), []):
        stage.vote(proposal)
    if step.late:
        yield Until(lambda: attacker.has_said(Kind.PREPARE, height, view, seeing), VOTES_US)
        yield from _promises(attacker, stage, view)
        if step.fall is Fall.PROMISED:
            yield from _fall(attacker, stage)
        stage.sight, stage.deciders = seeing, first if step.decide else frozenset()
        for proposal in attacker.proposals.get((height, view), []):
            stage.vote(proposal)
        stage.show(Kind.PREPARE, stage.sight, view)
    yield Until(lambda: attacker.has_said(Kind.COMMIT, height, view, seeing), VOTES_US)
    if step.decide:
        stage.show(Kind.COMMIT, stage.deciders)
        yield Until(lambda: all(attacker.head(number) >= height for number in first), VOTES_US, POLL_US)
        if all(attacker.head(number) >= height for number in first):
            _hide(attacker, stage, first)
    if step.hide and not first <= stage.hidden:
        stage.excluded = set(first)
    if step.fall is Fall.VOTED:
        yield from _fall(attacker, stage)
    stage.sight = stage.deciders = frozenset()


def _hide(attacker: Attacker, stage: Stage, machines: frozenset[int]) -> None:
    """Takes machines out of the network, as long as the others are a quorum."""
    if len(stage.hidden | machines) <= attacker.validators.n - attacker.validators.quorum:
        stage.hidden |= machines
        attacker.cluster.count("attack: one decided, hidden")


def _fall(attacker: Attacker, stage: Stage) -> Script:
    """Takes the power of all that are not hidden, and waits until they are back."""
    falling = [number for number in attacker.correct if number not in stage.hidden]
    attacker.take_power(falling)
    yield Until(lambda: all(attacker.cluster.machines[number].up for number in falling), 100 * MS, MS)


def _fall_at_entry(attacker: Attacker, stage: Stage) -> Script:
    """Takes the power of each as soon as its entry into the view is on its disk, and nothing later is."""
    falling = [number for number in attacker.correct if number not in stage.hidden]
    before = {number: attacker.cluster.machines[number].disk.records.get(ENTRY_KEY) for number in falling}
    waiting = set(falling)

    def entered() -> bool:
        for number in sorted(waiting):
            if attacker.cluster.machines[number].disk.records.get(ENTRY_KEY) != before[number]:
                waiting.discard(number)
                attacker.take_power((number,))
        return not waiting

    yield Until(entered, VOTES_US, POLL_US)
    yield Until(lambda: all(attacker.cluster.machines[number].up for number in falling), 100 * MS, MS)


def _promises(attacker: Attacker, stage: Stage, view: int) -> Script:
    """Suspects a view until enough of those who may speak have promised a later one, for a bounded time."""
    speaking = [number for number in attacker.correct if number not in stage.hidden | stage.excluded]
    needed = attacker.validators.quorum - len(attacker.puppets)

    def enough() -> bool:
        return any(later > view and attacker.promised(later, speaking) >= needed for later in attacker.changes)

    for _ in range(ROUNDS_MAX):
        if enough():
            return
        for number in attacker.correct:
            attacker.suspect(max(stage.height, attacker.head(number) + 1), view, (number,))
        yield Until(enough, ROUND_US)


def _next_view(attacker: Attacker, stage: Stage, opening: Opening) -> Any:
    """Leaves the view for one that somebody who may speak can open, and has it opened; returns whether it was."""
    for _ in range(VIEWS_MAX):
        left = stage.view
        yield from _promises(attacker, stage, left)
        speaking = [number for number in attacker.correct if number not in stage.hidden | stage.excluded]
        needed = attacker.validators.quorum - len(attacker.puppets)
        later = [view for view in sorted(attacker.changes) if view > left]
        reached = [view for view in later if attacker.promised(view, speaking) >= needed]
        if not reached:
            return False
        stage.view = reached[-1]
        attacker.promise(stage.height, stage.view)
        if opening is Opening.FLOOR:
            yield Until(partial(_any_above, attacker, stage), 4 * ROUND_US)
        leader = attacker.primary(stage.height, stage.view)
        if leader in attacker.puppets:
            return _open(attacker, stage, leader, opening)
        if leader in speaking and opening is Opening.PLAIN:
            return (yield Until(partial(attacker.opened.__contains__, stage.view), 2 * ROUND_US))
        stage.mute = opening is not Opening.PLAIN
    return False


def _any_above(attacker: Attacker, stage: Stage) -> bool:
    """Whether somebody hidden has promised the view from above the height under attack."""
    said = attacker.changes.get(stage.view, {})
    return any(height > stage.height for number in sorted(stage.hidden) for height in said.get(number, {}))


def _open(attacker: Attacker, stage: Stage, leader: int, opening: Opening) -> bool:
    """Makes the NEW-VIEW that serves best, of all that the VIEW-CHANGEs at hand allow."""
    stage.mute = False
    senders = [number for number in range(attacker.validators.n) if number not in stage.excluded]
    if opening is not Opening.FLOOR:
        senders = [number for number in senders if number not in stage.hidden]
    found = attacker.choices(stage.view, senders, attacker.validators.quorum)
    if not found:
        return False
    best = max(_worth(attacker, changes, stage.height, opening) for changes in found)
    chosen = [changes for changes in found if _worth(attacker, changes, stage.height, opening) == best]
    to = [number for number in attacker.correct if number not in stage.hidden]
    attacker.cluster.count(f"attack: view opened, {opening}")
    attacker.open(leader, stage.view, attacker.rng.choice(chosen), to)
    return True


def _worth(attacker: Attacker, changes: tuple[ViewChange, ...], height: int, opening: Opening) -> int:
    highest = max(change.height for change in changes)
    free = SOUND_RULES.demanded(changes, highest) is None
    old = sum(highest - change.height for change in changes if change.sender in attacker.correct)
    if any(change.height < highest - 1 for change in changes):
        return -1
    if opening is Opening.FLOOR:
        return 2 * (highest > height) + free
    if opening is Opening.OLD:
        return 4 * (highest == height) + 2 * (old > 0) + free
    return 2 * (highest == height) + free


def _puppets_propose(attacker: Attacker, stage: Stage) -> None:
    """If a puppet leads the view: proposes another block, or the one that must be, or both to different validators."""
    leader = attacker.primary(stage.height, stage.view)
    if leader not in attacker.puppets or attacker.proposals.get((stage.height, stage.view)):
        return
    shown = [number for number in attacker.correct if number not in stage.hidden]
    opened = attacker.opened.get(stage.view)
    demanded = None
    if opened is not None and opened.height == stage.height:
        demanded = SOUND_RULES.demanded(opened.view_changes, Height(stage.height))
    again = None if demanded is None else attacker.same_block(leader, stage.view, demanded)
    other = attacker.other_block(leader, stage.height, stage.view)
    proposals = [proposal for proposal in (again, other) if proposal is not None]
    if not proposals:
        return
    chosen = attacker.rng.choice(proposals)
    attacker.tell(leader, chosen, shown)


def _finish(attacker: Attacker, stage: Stage) -> Script:
    """Lets those who are not hidden decide, in this view or one of the next."""
    shown = [number for number in attacker.correct if number not in stage.hidden]
    for _ in range(2):
        stage.open = True
        _puppets_propose(attacker, stage)
        for proposal in attacker.proposals.get((stage.height, stage.view), []):
            stage.vote(proposal)
        stage.show(Kind.PREPARE, frozenset(shown), stage.view)
        decided = yield Until(lambda: any(attacker.head(number) >= stage.height for number in shown), ROUND_US, MS)
        if decided:
            return
        stage.excluded = set()
        opened = yield from _next_view(attacker, stage, Opening.PLAIN)
        if not opened:
            return


# ---- a promise that its giver has forgotten ----


def _old_promise(attacker: Attacker) -> Script:
    """One promises a view, loses its records, follows, votes again; then its promise opens the view it promised."""
    stage = yield from _begin(attacker, Opening.OLD)
    if stage is None:
        return
    height, view = stage.height, stage.view
    order = list(attacker.correct)
    attacker.rng.shuffle(order)
    witness, victim, *others = order
    attacker.rule, attacker.speaks = (lambda *_: False), True

    def promised() -> bool:
        return height in attacker.changes.get(view + 1, {}).get(victim, {})

    for _ in range(ROUNDS_MAX):
        attacker.suspect(height, view, (victim,))
        if (yield Until(promised, ROUND_US)):
            break
    if not promised():
        return
    attacker.cluster.count("attack: promise forgotten")
    attacker.cluster.lose_records(victim, 20 * MS, recovered=True)
    attacker.rule, attacker.speaks = _up_to(height), False
    level = yield Until(lambda: attacker.level() and attacker.head(victim) == height, 2 * SECOND, MS)
    if not level:
        return
    stage.height = height + 1
    attacker.rule, attacker.speaks = stage.passes, True
    yield from _show(attacker, stage, Step(sight=2, decide=True), [witness, victim, *others])
    if (yield from _next_view(attacker, stage, Opening.OLD)):
        yield from _finish(attacker, stage)


def _up_to(height: int) -> Any:
    """Returns a rule by which this height is decided and no other begins, and nobody leaves the view."""

    def passes(source: int, target: int, parcel: Any, kind: Kind | None) -> bool:
        if kind in (Kind.SUSPECT, Kind.VIEW_CHANGE):
            return False
        return kind is None or getattr(parcel.message, "height", 0) <= height

    return passes


# ---- COMMITs that hardly arrive ----


def _starve(attacker: Attacker, plan: Starve) -> Script:
    """Loses most COMMITs for a while; one that would complete a quorum at its target is late instead."""
    brought: dict[tuple[int, int, int, bytes], set[int]] = {}

    def passes(source: int, target: int, parcel: Any, kind: Kind | None) -> bool:
        if kind not in (Kind.COMMIT, Kind.PREPARE):
            return kind is not Kind.DECIDED or attacker.rng.random() > plan.loss
        vote = parcel.message
        if kind is Kind.COMMIT and attacker.rng.random() < plan.loss:
            return False
        had = brought.setdefault((target, int(kind), vote.view, vote.block_hash), set())
        had.add(vote.sender)
        if len(had) == attacker.validators.quorum - 1:
            attacker.cluster.network.carry(source, target, parcel, attacker.rng.randrange(plan.late_us))
            return False
        return True

    attacker.rule = passes
    yield Until(lambda: False, plan.for_us)
