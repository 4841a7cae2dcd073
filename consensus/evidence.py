"""Equivocation: two different signed PRE-PREPAREs, PREPAREs or COMMITs of one validator for one (height, view).

Found in what arrives, kept in bounded number, durable, passed on to all once, reported. Proposals that differ in their
certificates alone are not evidence, nor are VIEW-CHANGEs.
"""

from __future__ import annotations

from typing import Final

from consensus.core import Core
from consensus.interface import Broadcast, ReportKind
from consensus.messages import Evidence, Kind, PrePrepare, SignedHash, Vote
from consensus.records import evidence_key, evidence_record
from state.hashing import ZERO_HASH

EVIDENCE_KEPT_MAX: Final = 64
EVIDENCE_PER_VALIDATOR_MAX: Final = 8


def contradiction(one: Vote | PrePrepare, other: Vote | PrePrepare) -> Evidence:
    """Returns the evidence that two messages of one sender, kind, height and view for different blocks make."""
    first, second = sorted((_half(one), _half(other)), key=lambda half: half.block_hash)
    return Evidence(Kind(one.kind), one.height, one.view, one.sender, first, second)


def note(core: Core, found: Evidence) -> None:
    """Keeps, spreads and reports evidence that is new, as long as there is room."""
    key = evidence_key(found)
    of_offender = sum(1 for item in core.evidence.values() if item.offender == found.offender)
    if key in core.evidence or len(core.evidence) >= EVIDENCE_KEPT_MAX or of_offender >= EVIDENCE_PER_VALIDATOR_MAX:
        return
    core.evidence[key] = found
    if core.records_exist:
        core.persist((evidence_record(found),))
    core.emit(Broadcast(found))
    core.report(
        ReportKind.EVIDENCE,
        found.offence.name.lower(),
        found,
        height=found.height,
        view=found.view,
        offender=found.offender,
    )


def incriminates_primary(core: Core, found: Evidence) -> bool:
    """Whether evidence shows the primary of our view to have proposed two blocks in it."""
    return (
        found.offence is Kind.PRE_PREPARE
        and found.view == core.view
        and core.rules.same_set(found.height, core.since)
        and found.offender == core.primary(found.height, found.view)
    )


def _half(message: Vote | PrePrepare) -> SignedHash:
    certificate_hash = message.certificate_hash if isinstance(message, PrePrepare) else ZERO_HASH
    return SignedHash(message.block_hash, certificate_hash, message.signature)
