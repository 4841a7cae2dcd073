"""Does somebody else sign with our key: a vote of ours that our records lack, and silence at the start to look for it.

What we sign is a record before it leaves, so a message or a certificate with our signature that no record explains was
made by another process with our key, or by us before the records were lost or replaced by a backup. Either way we stop
for good. Echoes of our own messages, repeats, and what records of decided heights said are explained.

Two processes on two machines cannot see each other's locks. So a validator may be told to begin in silence: it follows
like an observer, and signs only when some heights were committed before its eyes and nobody voted with its key. If
nothing is committed for a while, silence ends too, or a network that was restarted as a whole would stay silent.
"""

from __future__ import annotations

from dataclasses import replace

from consensus import repair
from consensus.ballot import ROUNDS_KEPT_MAX
from consensus.core import Core
from consensus.interface import ReportKind
from consensus.messages import Kind, Message, NewView, PrePrepare, ViewChange, Vote
from consensus.records import SigningState
from consensus.recovery import keep
from state.types import Certificate, Height, View

# ---- another hand ----


def on_shown(core: Core, message: Message) -> None:
    """Takes a message of ours that a peer shows in HELLO."""
    if isinstance(message, Vote | PrePrepare | ViewChange | NewView) and message.sender == core.index:
        _explain(core, message)


def on_message(core: Core, message: Message) -> None:
    """Looks for own signatures at the height being decided: of a greater one it cannot tell whose index it is."""
    if not isinstance(message, Vote | PrePrepare | ViewChange | NewView):
        return
    if message.sender == core.index and message.height == core.height:
        _explain(core, message)
    if isinstance(message, NewView):
        for change in message.view_changes:
            if change.sender == core.index and change.height == core.height:
                _explain(core, change)


def on_certificate(core: Core, certificate: Certificate) -> None:
    """Looks for our COMMIT in the certificate of the height that was decided; called before the replica moves on."""
    if not any(sender == core.index for sender, _ in certificate.signatures) or _is_past(core, certificate.height):
        return
    own = core.rounds.get((certificate.height, certificate.view))
    given = None if own is None else own.commit
    if own is None and _made_room(core, certificate.height, certificate.view):
        return
    if given is None or given.block_hash != certificate.block_hash:
        _unexplained(core, Kind.COMMIT, certificate.height, certificate.view)


def _explain(core: Core, message: Vote | PrePrepare | ViewChange | NewView) -> None:
    if not _is_past(core, message.height) and not _known(core, message):
        _unexplained(core, Kind(message.kind), message.height, message.view)


def _is_past(core: Core, height: Height) -> bool:
    """Whether records of this height need not be there any more: it is decided, or was once.

    While we are silent we know better: nothing was signed above the height at which we began.
    """
    if height < core.signing.from_height:
        return True
    return height < core.height and not (core.silence_left > 0 and height > core.silent_above)


def _known(core: Core, message: Vote | PrePrepare | ViewChange | NewView) -> bool:
    """Whether our records hold this message, or held one that stood in its place and was replaced by a later one."""
    if isinstance(message, ViewChange):
        held = None if core.index is None else core.view_changes.get(core.index)
        if held is None:
            return False
        earlier = (message.view, message.height) < (held.view, held.height)
        return message == held or (earlier and message.height <= held.height)
    if isinstance(message, NewView):
        return message.view < core.view or message == core.entry
    own = core.rounds.get((message.height, message.view))
    if own is not None:
        given = {Kind.PREPARE: own.prepare, Kind.COMMIT: own.commit}.get(message.kind, own.proposal)
        return given is not None and given.block_hash == message.block_hash
    return _made_room(core, message.height, message.view)


def _made_room(core: Core, height: Height, view: View) -> bool:
    """Whether so many views of this height are on record that the round of a lower one may have been dropped."""
    views = [kept for at, kept in core.rounds if at == height]
    return len(views) >= ROUNDS_KEPT_MAX and view < max(views)


def _unexplained(core: Core, kind: Kind, height: Height, view: View) -> None:
    """Stops signing; whoever recovers knows that it forgot, and raises what it may have signed."""
    signing, terms = core.signing, core.terms
    if not core.records_exist:
        # It signs nothing without records, and what it signed while it had some is no news: its operator knows.
        return
    if signing.state is SigningState.BARRED or not core.rules.stops_at_own_vote():
        return
    if signing.state is SigningState.RECOVERING and terms is None:
        if signing.signed_at_most is not None and height > signing.signed_at_most:
            keep(core, replace(signing, signed_at_most=height), "recovering")
        return
    wiped = signing.state is SigningState.RECOVERING and terms is not None and height < terms.last_height
    if wiped and terms is not None and (kind is Kind.VIEW_CHANGE or view < terms.view):
        # Signing under a statement: what was said before is in lower views, or a promise that frees nothing.
        return
    keep(core, replace(signing, state=SigningState.BARRED), "records_lost")


# ---- silence ----


def begin_silence(core: Core) -> None:
    """At the first Tick: from now on something must be committed, or the silence ends."""
    core.silence_until = core.now + core.config.silence_quiet_ms


def on_height(core: Core, followed: bool) -> None:
    """A height was committed: it counts if it was decided while we followed, and not fetched because we were behind.

    `followed` says that votes or a certificate decided it here. Claims of others do not tell alone: when the first
    blocks are fetched after a start, none may have come yet.
    """
    if core.silence_left == 0:
        return
    core.silence_until = core.now + core.config.silence_quiet_ms
    ahead = sum(1 for status in core.statuses.values() if status.height > core.height)
    if followed and core.proven <= core.height and ahead < core.rules.one_correct(core.validators):
        core.silence_left -= 1
    if core.silence_left == 0:
        _end_silence(core)


def on_tick(core: Core) -> None:
    """Ends the silence if nothing was committed for the quiet time."""
    if core.silence_left > 0 and core.now >= core.silence_until:
        core.silence_left = 0
        _end_silence(core)


def _end_silence(core: Core) -> None:
    core.changed = True
    core.status_due = True
    core.report(ReportKind.SIGNING, "silence_over", height=core.height)
    repair.say_own_votes(core)
