"""When a validator that lost its vote records may sign again, and how it learns that it lost them.

It could have signed anything up to a height `a`; it signs again only above a height of at least a + 2 that was
committed without it, in views not below that certificate's. Until then it follows like an observer.
"""

from __future__ import annotations

from dataclasses import replace

from consensus.core import Core
from consensus.interface import ReportKind
from consensus.messages import Kind, Message, NewView, PrePrepare, ViewChange, Vote
from consensus.records import Signing, SigningState, signing_record
from state.types import Certificate, Header, Height


def on_committed(core: Core, header: Header, certificate: Certificate) -> None:
    """Follows a recovery through the chain; called before the replica moves above `header`."""
    signing, terms = core.signing, core.terms
    if signing.state is not SigningState.RECOVERING:
        return
    if terms is not None and header.height >= terms.last_height:
        _keep(core, Signing(SigningState.OPEN, Height(header.height + 1)), "recovered")
        return
    if signing.signed_at_most is None:
        if header.time_ms > signing.started_ms + 2 * core.config.drift_ms:
            _keep(core, replace(signing, signed_at_most=header.height), "recovering")
        return
    without_us = all(sender != core.index for sender, _ in certificate.signatures)
    if without_us and header.height >= core.rules.recovery_height(signing.signed_at_most):
        above = Height(max(header.height + 1, signing.from_height))
        _keep(core, Signing(SigningState.OPEN, above), "recovered")


def on_new_set(core: Core) -> None:
    """Ends a recovery under a statement where a new set begins at a height at which nothing can have been signed."""
    terms = core.terms
    if terms is not None and core.signing.state is SigningState.RECOVERING and core.height >= terms.last_height:
        _keep(core, Signing(SigningState.OPEN, core.height), "recovered")


def on_own_vote_shown(core: Core, message: Message) -> None:
    """Stops signing if a message of ours is shown that our records should hold and do not."""
    if isinstance(message, Vote | PrePrepare | ViewChange | NewView) and message.sender == core.index:
        if message.height < core.height or core.signing.state is SigningState.BARRED or _known(core, message):
            return
        if core.signing.state is SigningState.OPEN:
            _keep(core, replace(core.signing, state=SigningState.BARRED), "records_lost")
        elif core.signing.signed_at_most is not None:
            highest = Height(max(core.signing.signed_at_most, message.height))
            _keep(core, replace(core.signing, signed_at_most=highest), "recovering")


def _known(core: Core, message: Vote | PrePrepare | ViewChange | NewView) -> bool:
    """Whether our records hold this message, or are later than it."""
    if isinstance(message, ViewChange):
        held = core.view_changes.get(message.sender)
        place = (core.promised, core.height if held is None else held.height)
        return (message.view, message.height) <= place
    if isinstance(message, NewView):
        return message.view <= core.view
    own = core.rounds.get((message.height, message.view))
    if own is not None:
        given = {Kind.PREPARE: own.prepare, Kind.COMMIT: own.commit}.get(message.kind, own.proposal)
        return given is not None and given.block_hash == message.block_hash
    return message.height == core.height and message.view < core.promised


def _keep(core: Core, signing: Signing, code: str) -> None:
    core.signing = signing
    if core.records_exist:
        core.persist((signing_record(signing),))
    core.report(ReportKind.SIGNING, code, height=core.height, signed_at_most=signing.signed_at_most)
