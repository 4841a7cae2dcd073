"""When a validator that lost its vote records may sign again.

It could have signed anything up to a height `a`; it signs again only above a height of at least a + 2 that was
committed without it, in views not below that certificate's. Until then it follows like an observer.
"""

from __future__ import annotations

from dataclasses import replace

from consensus.core import Core
from consensus.interface import ReportKind
from consensus.records import Signing, SigningState, signing_record
from state.types import Certificate, Header, Height


def on_committed(core: Core, header: Header, certificate: Certificate) -> None:
    """Follows a recovery through the chain; called before the replica moves above `header`."""
    signing, terms = core.signing, core.terms
    if signing.state is not SigningState.RECOVERING:
        return
    if terms is not None and header.height >= terms.last_height:
        keep(core, Signing(SigningState.OPEN, Height(header.height + 1)), "recovered")
        return
    if signing.signed_at_most is None:
        if header.time_ms > signing.started_ms + 2 * core.config.drift_ms:
            keep(core, replace(signing, signed_at_most=header.height), "recovering")
        return
    without_us = all(sender != core.index for sender, _ in certificate.signatures)
    if without_us and header.height >= core.rules.recovery_height(signing.signed_at_most):
        above = Height(max(header.height + 1, signing.from_height))
        keep(core, Signing(SigningState.OPEN, above), "recovered")


def ends_at(core: Core) -> Height | None:
    """Returns the first height whose commit may let a validator sign that lost records; None if it is not known yet."""
    signing, terms = core.signing, core.terms
    below = Height(signing.from_height - 1)
    if signing.state is not SigningState.RECOVERING:
        return below if core.height <= below else None
    if terms is not None:
        return max(below, terms.last_height)
    if signing.signed_at_most is None:
        return None
    return max(below, core.rules.recovery_height(signing.signed_at_most))


def on_new_set(core: Core) -> None:
    """Ends a recovery under a statement where a new set begins at a height at which nothing can have been signed.

    Where it begins earlier, those that lost their records and a new member may have been a quorum in it, and gone far:
    then only time tells what was signed.
    """
    terms = core.terms
    if terms is None or core.signing.state is not SigningState.RECOVERING:
        return
    if core.height >= terms.last_height:
        keep(core, Signing(SigningState.OPEN, core.height), "recovered")
    else:
        keep(core, replace(core.signing, signed_at_most=None), "recovering")


def keep(core: Core, signing: Signing, code: str) -> None:
    """Makes durable whether this validator may sign, and says so."""
    core.signing = signing
    if core.records_exist:
        core.persist((signing_record(signing),))
    core.report(ReportKind.SIGNING, code, height=core.height, signed_at_most=signing.signed_at_most)
