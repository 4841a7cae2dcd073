"""Who says what again to whom: lost messages delay and never block.

Each validator says in STATUS what it lacks; whoever has it sends it, to that validator alone: certificates, the
NEW-VIEW of a later view, the proposal, own votes. What waits for an answer (SUSPECT, VIEW-CHANGE, a body, blocks) is
repeated each second. Only a certificate proves that we are behind; a claim that lasts while we stand still is worth
one question.
"""

from __future__ import annotations

from typing import Final

from consensus import ballot
from consensus.core import Core
from consensus.interface import Broadcast, PushTransactions, ReportKind, RequestBody, RequestSync, Send
from consensus.messages import Decided, Kind, NewView, Status
from consensus.timers import status_interval
from state.types import Height

ALL_SPEAK_MAX: Final = 4


def on_status(core: Core, message: Status) -> None:
    """Notes a claim, and sends its sender what it lacks and we have."""
    core.statuses[message.sender] = message
    peer = message.sender
    if message.view < core.view and core.entry is not None and message.height >= core.since and _speaks(core, peer):
        entry = core.entry
        core.emit(Send(peer, entry if isinstance(entry, NewView) else Decided(entry)))
    if message.height < core.height:
        if core.head_certificate is not None:
            core.emit(Send(peer, Decided(core.head_certificate)))
    elif message.height == core.height:
        if core.decided is not None:
            core.emit(Send(peer, Decided(core.decided)))
        elif message.view == core.view:
            _send_votes(core, message)


def on_former_status(core: Core, message: Status) -> None:
    """Tells somebody who is still in the set before ours that it is over: what we say ourselves it could not prove.

    Its index is that of its own set. Whoever is no member any more cannot be addressed: that is said to all, seldom.
    """
    former = core.former
    if former is None or not core.rules.answers_former_set():
        return
    if message.sender >= former.validators.n or message.height > former.last.height:
        return
    index = core.validators.index_of(former.validators.validators[message.sender].key)
    if index is not None and index != core.index:
        core.emit(Send(index, Decided(former.last)))
    elif index is None and core.now >= former.told_at + core.config.status_interval_ms:
        former.told_at = core.now
        core.emit(Broadcast(Decided(former.last)))


def on_tick(core: Core) -> None:
    """Once a second: repeats what is unanswered."""
    if core.now < core.repeat_at:
        return
    core.repeat_at = core.now + core.config.status_interval_ms
    if core.may_sign:
        if core.suspicion is not None:
            ballot.suspect(core)
        own = None if core.index is None else core.view_changes.get(core.index)
        if own is not None and core.promised > core.view:
            core.emit(Broadcast(own))
            if core.has_work and core.suspicion is None:
                core.emit(PushTransactions())
    for block_hash in core.bodies_wanted:
        core.emit(RequestBody(block_hash, core.bodies_wanted[block_hash]))
    if core.proposal_declined:
        core.proposal_declined = False
        core.changed = True
    if core.rules.sync_due(core.proven, core.height, core.sync_asked):
        _ask_sync(core)
    elif core.still_height == core.height:
        _ask_claimed(core)
    core.still_height = core.height


def on_height(core: Core) -> None:
    """A suspicion that outlasts a commit is said at each height: where one takes some ms, repeats a second apart of
    different validators would never meet, and a primary that serves all but one account would stay for ever."""
    if core.suspicion is not None and core.may_sign:
        ballot.suspect_still(core)


def settle(core: Core) -> None:
    """Sends STATUS when it is due, and asks for blocks as soon as a certificate proves that we are behind."""
    if core.proven > core.height and core.proven > core.sync_asked:
        _ask_sync(core)
    due = core.status_due or core.now >= core.status_sent_at + status_interval(core)
    if due and core.started and core.may_sign:
        core.status_due = False
        core.status_sent_at = core.now
        core.status_height = core.height
        ballot.status(core)


def start(core: Core) -> None:
    """After a restart: our votes of the current place again, as the same bytes, if we may sign."""
    core.started = True
    core.repeat_at = core.now
    say_own_votes(core)


def say_own_votes(core: Core) -> None:
    """Says again what the records hold of our votes in the current height and view."""
    own = core.own_round()
    if own is None or not core.may_sign:
        return
    if core.accepted is not None and core.accepted.sender == core.index:
        core.emit(Broadcast(core.accepted))
    for vote in (own.prepare, own.commit):
        if vote is not None:
            core.emit(Broadcast(vote))


def _send_votes(core: Core, message: Status) -> None:
    """Sends a peer in our height and view the proposal and our own votes that it lacks."""
    proposal = core.accepted
    peer = message.sender
    lacks = proposal is not None and message.proposal != proposal.block_hash and proposal.sender != peer
    if proposal is not None and lacks and (proposal.sender == core.index or _speaks(core, peer)):
        core.emit(Send(peer, proposal))
    own = core.own_round()
    if own is None or core.index is None:
        return
    for vote in (own.prepare, own.commit):
        held = message.prepares if vote is not None and vote.kind is Kind.PREPARE else message.commits
        if vote is not None and not held >> core.index & 1:
            core.emit(Send(peer, vote))


def _speaks(core: Core, peer: int) -> bool:
    """Whether it is for us to send `peer` something large that others have too: the primary, and one more in turn."""
    if core.index is None:
        return False
    n = core.validators.n
    turn = (core.now // core.config.status_interval_ms + peer) % n
    return core.is_primary or core.index == turn or n <= ALL_SPEAK_MAX


def _ask_sync(core: Core) -> None:
    core.sync_asked = core.proven
    core.emit(RequestSync(core.proven, None, True))
    core.report(ReportKind.BEHIND, "proven", height=core.height, proven=core.proven)


def _ask_claimed(core: Core) -> None:
    """Asks one of those who claim to be ahead, in turn, so that a liar only delays."""
    ahead = [sender for sender in sorted(core.statuses) if core.statuses[sender].height > core.height]
    if ahead:
        sender = ahead[core.now // core.config.status_interval_ms % len(ahead)]
        claimed = Height(core.statuses[sender].height)
        core.emit(RequestSync(claimed, sender, False))
        core.report(ReportKind.BEHIND, "claimed", height=core.height, claimed=claimed, sender=sender)
