"""The scheme at the border of two validator sets: views are each set's own, and here is what happens if they are not.

Set S has validators 0 to 3, the next one T the spare 4 in the place of one of them; 1 is the puppet and leads view 1 of
both. A block at the last height of S is committed in view 0 by one, who goes on to T and commits there in view 0 with
the spare's votes and the puppet's. The others certify the old block again, in view 1 of S. Where that counts in T too,
the spare and one other are in view 1 there, with nothing demanded, and commit another block.
"""

from __future__ import annotations

from typing import Any, Final

from consensus.messages import Decided, Kind, PrePrepare, certificate_of
from devnet.simulation.attacker import Attacker, Script, Until
from devnet.simulation.parcels import Spoken
from devnet.simulation.schedule import MS, SECOND
from state.types import Height

REFORM_US: Final = 5 * SECOND
STEP_US: Final = 600 * MS
ROUND_US: Final = 150 * MS
ROUNDS_MAX: Final = 8
POLL_US: Final = 500
LEADER: Final = 0
PUPPET: Final = 1
SPARE: Final = 4
OPENED: Final = 1


class _Border:
    """What passes while the two halves are apart: {leader, spare} and the rest of S, and the puppet with both."""

    def __init__(self, attacker: Attacker, proposal: PrePrepare) -> None:
        self.attacker = attacker
        self.proposal = proposal
        self.height = proposal.height
        self.rest = [number for number in attacker.correct if number != LEADER]
        self.prepared = attacker.rng.choice(self.rest)
        self.hidden = False
        self.later: int | None = None
        self.puppet_votes(proposal)

    def passes(self, source: int, target: int, parcel: Any, kind: Kind | None) -> bool:
        """Returns whether a message passes."""
        if self.hidden and LEADER in (source, target):
            return False
        if not isinstance(parcel, Spoken):
            return self._together(source, target)
        message = parcel.message
        if isinstance(message, Decided):
            return self._together(source, target) and (message.certificate.height <= self.height)
        height = getattr(message, "height", 0)
        if kind is Kind.PREPARE and height == self.height and message.view == 0:
            return target in (LEADER, self.prepared)
        if kind is Kind.COMMIT and message.view == 0 and height >= self.height:
            return target == LEADER
        return self._together(source, target)

    def _together(self, source: int, target: int) -> bool:
        if PUPPET in (source, target):
            return True
        if self.hidden:
            return True
        return (source in (LEADER, SPARE)) == (target in (LEADER, SPARE))

    def heard(self, message: Any) -> None:
        """Lets the puppet vote for what is proposed in either set."""
        if isinstance(message, PrePrepare) and message.height >= self.height:
            self.puppet_votes(message)

    def puppet_votes(self, proposal: PrePrepare) -> None:
        """Lets the puppet vote for a proposal, as far as the network shows votes of that view."""
        everybody = (*self.attacker.correct, SPARE)
        seeing: tuple[int, ...] = everybody
        if proposal.view == 0:
            seeing = (LEADER, self.prepared) if proposal.height == self.height else (LEADER, SPARE)
        self.attacker.vote(proposal, Kind.PREPARE, seeing)
        self.attacker.vote(proposal, Kind.COMMIT, everybody if proposal.view else (LEADER,))


def border(attacker: Attacker) -> Script:
    """Waits for the block that ends a set in view 0, and plays the scheme upon it."""
    changing: list[PrePrepare] = []

    def last_of_set() -> bool:
        for place in sorted(attacker.proposals):
            for proposal in attacker.proposals[place]:
                header = proposal.header
                if header.next_validators_hash != header.validators_hash:
                    changing.append(proposal)
        return bool(changing)

    seen = yield Until(last_of_set, REFORM_US)
    if not seen or changing[0].view:
        return
    stage = _Border(attacker, changing[0])
    attacker.rule, attacker.heard, attacker.speaks = stage.passes, stage.heard, True
    height = stage.height
    leads = yield Until(lambda: attacker.head(LEADER) > height, STEP_US, POLL_US)
    if not leads:
        return
    stage.hidden = True
    yield from _certify_again(attacker, stage)
    key = (Kind.COMMIT, int(height), OPENED, stage.proposal.block_hash)
    again = sorted(attacker.votes.get(key, {}).items())
    if len(again) < attacker.validators.quorum:
        return
    certificate = certificate_of([vote for _, vote in again][: attacker.validators.quorum])
    shown = (*stage.rest, SPARE)
    attacker.cluster.count("attack: border certified twice")
    attacker.tell(PUPPET, Decided(certificate), shown)
    yield Until(lambda: all(attacker.head(number) >= height for number in shown), STEP_US, POLL_US)
    other = attacker.other_block(PUPPET, height + 1, OPENED)
    if other is not None:
        attacker.tell(PUPPET, other, shown)
        yield Until(lambda: all(attacker.head(number) > height for number in shown), STEP_US, POLL_US)


def _certify_again(attacker: Attacker, stage: _Border) -> Script:
    """Has those who were left behind change the view, and certify the same block in it."""
    height = stage.height

    def promised() -> bool:
        return attacker.promised(OPENED, stage.rest) == len(stage.rest)

    for _ in range(ROUNDS_MAX):
        if promised():
            break
        attacker.suspect(height, 0, stage.rest)
        yield Until(promised, ROUND_US)
    attacker.promise(height, OPENED)
    found = attacker.choices(OPENED, (PUPPET, *stage.rest), attacker.validators.quorum)
    if not found:
        return
    opened = attacker.open(PUPPET, OPENED, found[0], stage.rest)
    held = [change.prepared for change in opened.view_changes if change.prepared is not None]
    again = attacker.same_block(PUPPET, OPENED, held[0]) if held and held[0].height == Height(height) else None
    if again is not None:
        attacker.tell(PUPPET, again, stage.rest)
    yield Until(lambda: all(attacker.head(number) >= height for number in stage.rest), STEP_US, POLL_US)
