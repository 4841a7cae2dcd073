"""Leaving a view whose primary is suspected, and opening the next (PBFT 4.4 and 4.5.2).

Suspicion is only a word (SUSPECT); f + 1 words make a promise (VIEW-CHANGE), so that a replica with a bad link does not
take itself out of the quorum; q promises make a NEW-VIEW. A replica whose promise is unanswered waits: it goes further
only with others, or its view would race ahead of theirs for ever.
"""

from __future__ import annotations

from typing import Final

from consensus import ballot
from consensus.certificates import enter, learn_committed, learn_prepared
from consensus.core import Core
from consensus.interface import ReportKind
from consensus.messages import NewView, Suspect, ViewChange
from consensus.new_view import check_new_view
from state.errors import DecodeError, Rejected
from state.types import Height, View

UNANSWERED: Final = "view_change_unanswered"


def suspect_primary(core: Core, *, stall: str | None = None, fault: str | None = None) -> None:
    """Starts to suspect the view: a `stall` ends with the next commit, a `fault` only with the view.

    Once a later view is promised, what the old primary did is no reason to leave that one too.
    """
    if core.promised > core.view and stall != UNANSWERED:
        return
    already = core.suspicion is not None
    core.stall = core.stall or stall
    core.fault = core.fault or fault
    if not already and core.may_sign:
        ballot.suspect(core)


def on_complaint(core: Core, reason: str | None) -> None:
    """Takes the node's own reason to suspect the primary, or its end."""
    already = core.suspicion is not None
    if core.promised == core.view:
        core.complaint = reason
        if reason is not None and not already and core.may_sign:
            ballot.suspect(core)


def on_suspect(core: Core, message: Suspect) -> None:
    """Keeps the newest SUSPECT of each validator; one whose height is committed here is void."""
    if not core.rules.suspect_counts(message, core.height, View(0)):
        return
    held = core.suspects.get(message.sender)
    if held is None or (held.view, held.height) < (message.view, message.height):
        core.suspects[message.sender] = message
        core.changed = True


def on_view_change(core: Core, message: ViewChange) -> None:
    """Keeps the newest VIEW-CHANGE of each validator, and learns from its certificates."""
    try:
        core.rules.check_view_change(message)
    except DecodeError as error:
        raise Rejected("view_change_malformed", error.message) from error
    if not core.rules.same_set(message.height, core.since):
        return
    _learn(core, message)
    held = core.view_changes.get(message.sender)
    if held is None or (held.view, held.height) < (message.view, message.height):
        core.view_changes[message.sender] = message
        core.changed = True


def on_new_view(core: Core, message: NewView) -> None:
    """Enters a view by its NEW-VIEW, once: others for the same view are ignored from then on."""
    if not core.rules.same_set(message.height, core.since):
        return
    check_new_view(message, core.validators, core.since, core.primary, core.rules, core.terms)
    for change in message.view_changes:
        _learn(core, change)
    if core.may_enter(message.view):
        enter(core, message.view, message)


def settle(core: Core) -> None:
    """Applies what may now apply: promise the next view, join a greater one, renew the promise, open the view."""
    if not core.may_sign or not (core.suspects or core.view_changes or core.promised > core.view):
        return
    if not core.rules.decision_binds(core.decided is not None):
        _leave(core)
        _renew(core)
    if core.promised > core.view:
        _open(core)


def supporters(core: Core) -> list[int]:
    """Returns who wants to leave the greatest view that we entered or promised: by SUSPECT or by a greater promise."""
    found = []
    for sender in range(core.validators.n):
        word = core.suspects.get(sender)
        change = core.view_changes.get(sender)
        if (word is not None and core.rules.suspect_counts(word, core.height, core.promised)) or (
            change is not None and core.rules.change_supports(change, core.promised)
        ):
            found.append(sender)
    return found


def unanswered(core: Core) -> int:
    """Returns how many validators have promised our promised view or a greater one, ourselves included."""
    return sum(1 for change in core.view_changes.values() if change.view >= core.promised)


def _learn(core: Core, change: ViewChange) -> None:
    if change.committed is not None and core.rules.inner_certificate_counts():
        learn_committed(core, change.committed)
    if change.prepared is not None:
        learn_prepared(core, change.prepared)


def _leave(core: Core) -> None:
    """Promises a greater view: one that f + 1 have reached alone, or the next if f + 1 want to leave this one."""
    one_correct = core.rules.one_correct(core.validators)
    target = core.rules.view_to_join([change.view for change in core.view_changes.values()], one_correct)
    if target <= core.promised:
        if len(supporters(core)) < one_correct:
            return
        target = View(core.promised + 1)
    reason = core.suspicion or "others"
    core.stall = core.fault = core.complaint = None
    core.timeout_ms = core.rules.timeout_after_failure(core.timeout_ms, core.config.progress_timeout_max_ms)
    ballot.promise(core, target)
    core.status_due = True
    core.report(ReportKind.VIEW_CHANGE, "sent", height=core.height, view=target, reason=reason)


def _renew(core: Core) -> None:
    """Makes the unanswered promise again at a risen height; not while blocks are still being fetched.

    A statement on a lost quorum promises a view without a VIEW-CHANGE: it is made here too.
    """
    if core.promised <= core.view or core.index is None or core.proven > core.height:
        return
    own = core.view_changes.get(core.index)
    if own is None or own.view < core.promised or own.height < core.height:
        ballot.promise(core, core.promised)


def _open(core: Core) -> None:
    """As the primary of (promised view, h*), makes the NEW-VIEW once a quorum of VIEW-CHANGEs counts (PBFT 4.4)."""
    changes = [core.view_changes[sender] for sender in sorted(core.view_changes)]
    changes = [change for change in changes if change.view == core.promised]
    own = next((change for change in changes if change.sender == core.index), None)
    if own is None or own.height != core.height:
        return
    highest = core.rules.highest_proved(changes)
    if highest > core.height or core.primary(highest, core.promised) != core.index:
        return
    counted = [change for change in changes if _counts(core, change, highest)]
    needed = (own.sender, *core.rules.must_count(core.terms, highest))
    chosen = [change for change in counted if change.sender in needed]
    if len(chosen) < len(set(needed)) or len(counted) < core.quorum:
        return
    others = [change for change in counted if change.sender not in needed]
    chosen += others[: max(0, core.quorum - len(chosen))]
    chosen.sort(key=lambda change: change.sender)
    enter(core, core.promised, ballot.new_view(core, tuple(chosen)))


def _counts(core: Core, change: ViewChange, highest: Height) -> bool:
    """Whether a VIEW-CHANGE may be used: late enough, and its prepared block, if at h*, is at hand to be proposed."""
    if not core.rules.counts_in_new_view(change, highest, core.since):
        return False
    held = change.prepared
    if held is None or change.height != highest:
        return True
    state = core.blocks.get(held.block_hash)
    if state is not None and state.held:
        return True
    core.want_body(held)
    return False
