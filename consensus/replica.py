"""A PBFT replica as a pure machine: `Replica.step(input)` returns effects, and nothing else ever happens.

Each input is handed to the module whose subject it is, which notes what it says; then the rules that now apply are
applied until none does. A message that breaks a rule changes nothing and comes back as a Report; a broken invariant of
our own raises InvariantError, and the node must halt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from consensus import certificates, chain, normal, own_votes, recovery, repair, timers, view_change
from consensus.core import Core, Signer
from consensus.interface import (
    BodyAvailable,
    Committed,
    Complaint,
    Config,
    Effect,
    Input,
    NothingToPropose,
    OwnVoteShown,
    Phase,
    Proposed,
    Received,
    ReportKind,
    Restored,
    Snapshot,
    Tick,
    Validated,
    WorkChanged,
)
from consensus.messages import (
    Decided,
    Evidence,
    Kind,
    Message,
    NewView,
    PrePrepare,
    SignedMessage,
    Status,
    Suspect,
    ViewChange,
    Vote,
)
from consensus.rules import Rules
from state.errors import InvariantError, Rejected

_MESSAGES: Final[dict[type, Callable[[Core, Any], None]]] = {
    Vote: normal.on_vote,
    PrePrepare: normal.on_pre_prepare,
    Suspect: view_change.on_suspect,
    ViewChange: view_change.on_view_change,
    NewView: view_change.on_new_view,
    Status: repair.on_status,
}
_SETTLE_ROUNDS_MAX: Final = 64


class Replica:
    """One validator's, or observer's, part in consensus."""

    def __init__(
        self, config: Config, restored: Restored, sign: Signer | None = None, rules: Rules | None = None
    ) -> None:
        """Stands where `restored` says. `sign` makes a deterministic Ed25519 signature; an observer has none.

        Raises Rejected("vote_records_damaged") for vote records that cannot be read or lack a block.
        """
        self._core = Core(config, restored, sign, Rules() if rules is None else rules)

    def step(self, event: Input) -> tuple[Effect, ...]:
        """Takes one input; returns what must be done now, in order. Raises InvariantError: halt, never go on."""
        core = self._core
        if isinstance(event, Tick):
            if core.started and core.timer_at is not None and event.now_ms < core.timer_at:
                core.now = max(core.now, event.now_ms)
                return ()
            self._tick(event.now_ms)
        elif isinstance(event, Received):
            self._receive(event.message)
            if not core.changed and not core.has_effects:
                # Most votes and claims complete nothing: rules and timers stand where they stood.
                return ()
        else:
            self._take(event)
        self._settle()
        return core.take_effects()

    def snapshot(self) -> Snapshot:
        """Returns the replica as it stands, for RPC and metrics."""
        core = self._core
        tally = core.tally(core.height)
        timers_set = [("status", core.status_sent_at + timers.status_interval(core)), ("repeat", core.repeat_at)]
        if core.progress_at is not None:
            timers_set.append(("progress", core.progress_at))
        return Snapshot(
            height=core.height,
            view=core.view,
            promised=core.promised,
            floor=core.floor,
            demanded=core.demanded_hash,
            phase=self._phase(),
            primary=core.primary(core.height, core.view),
            index=core.index,
            may_sign=core.may_sign,
            refusal=core.refusal,
            signed_at_most=core.signing.signed_at_most,
            recovers_at=recovery.ends_at(core),
            proposal=None if core.accepted is None else core.accepted.block_hash,
            prepares=_members(tally.mask(Kind.PREPARE, core.view), core.validators.n),
            commits=_members(tally.mask(Kind.COMMIT, core.view), core.validators.n),
            suspects=tuple(view_change.supporters(core)),
            suspicion=core.suspicion,
            timers=tuple(timers_set),
            timeout_ms=core.timeout_ms,
        )

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """All evidence that is kept, oldest first, what blocks hold already included."""
        return tuple(self._core.evidence.values())

    def latest_vote(self, index: int) -> Message | None:
        """Returns the latest PREPARE, COMMIT or VIEW-CHANGE seen of a validator, to show it in HELLO."""
        return self._core.latest_votes.get(index)

    # ---- inside ----

    def _settle(self) -> None:
        core = self._core
        for _ in range(_SETTLE_ROUNDS_MAX):
            if not core.changed:
                break
            core.changed = False
            view_change.settle(core)
            normal.settle(core)
        else:
            raise InvariantError("the rules never come to rest")
        repair.settle(core)
        timers.settle(core)

    def _tick(self, now_ms: int) -> None:
        core = self._core
        core.now = max(core.now, now_ms)
        if not core.started:
            own_votes.begin_silence(core)
            repair.start(core)
        own_votes.on_tick(core)
        repair.on_tick(core)
        timers.expire(core)
        normal.ask_again(core)

    def _receive(self, message: Message) -> None:
        core = self._core
        own_votes.on_message(core, message)
        try:
            if isinstance(message, Decided):
                certificates.learn_committed(core, message.certificate)
            elif isinstance(message, Evidence):
                normal.on_evidence(core, message)
            elif isinstance(message, Status) and not core.rules.same_set(message.height, core.since):
                repair.on_former_status(core, message)
            elif self._is_of_another_member(message):
                _MESSAGES[type(message)](core, message)
                self._remember_latest(message)
        except Rejected as error:
            core.report(ReportKind.REJECTED, error.code, message, why=error.message)

    def _is_of_another_member(self, message: SignedMessage) -> bool:
        """Echoes of our own messages and what belongs to an earlier validator set have nothing to say."""
        core = self._core
        if not core.rules.same_set(message.height, core.since) or message.sender == core.index:
            return False
        if message.sender >= core.validators.n:
            raise Rejected("sender_unknown", f"validator index {message.sender} is not in the set")
        return True

    def _remember_latest(self, message: SignedMessage) -> None:
        if isinstance(message, Vote | ViewChange):
            held = self._core.latest_votes.get(message.sender)
            if not isinstance(held, Vote | ViewChange) or _place(held) < _place(message):
                self._core.latest_votes[message.sender] = message

    def _take(self, event: Input) -> None:
        core = self._core
        match event:
            case Committed():
                chain.on_committed(core, event)
            case Validated():
                normal.on_validated(core, event)
            case Proposed():
                normal.on_proposed(core, event)
            case NothingToPropose():
                normal.on_nothing_to_propose(core, event.height, event.view)
            case WorkChanged():
                normal.on_work_changed(core, event.has_work)
            case BodyAvailable():
                normal.on_body(core, event.block_hash, event.block)
            case Complaint():
                view_change.on_complaint(core, event.reason)
            case OwnVoteShown():
                own_votes.on_shown(core, event.message)
            case _:
                raise InvariantError(f"{type(event).__name__} is no input of the core")

    def _phase(self) -> Phase:
        core = self._core
        if core.decided is not None:
            return Phase.DECIDED
        if core.promised > core.view:
            return Phase.VIEW_CHANGE
        if core.accepted is None:
            return Phase.WAITING
        own = core.own_round()
        if own is not None and own.commit is not None:
            return Phase.COMMITTING
        return Phase.PREPARING if core.blocks[core.accepted.block_hash].valid else Phase.VALIDATING


def _place(message: Vote | ViewChange) -> tuple[int, int, int]:
    return (message.height, message.view, message.kind)


def _members(mask: int, n: int) -> tuple[int, ...]:
    return tuple(index for index in range(n) if mask >> index & 1)
