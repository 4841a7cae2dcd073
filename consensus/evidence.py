"""Equivocation: two different signed PRE-PREPAREs, PREPAREs or COMMITs of one validator for one (height, view).

Found in what arrives, kept in bounded number, durable until a block holds it, passed on to all, reported.
Whoever signed three blocks for one place gives proofs that differ, and which comes first differs from node to node. So
the least bytes stay: a smaller proof takes the place of the one that is kept and is passed on in turn, a bounded number
of times, for each costs a write and a message to all. Who signs so many that the bound ends this leaves nodes with
different proofs of the same: any of them will do in a block, and a validator that holds another fetches the body.
Proposals that differ in their certificates alone are not evidence, nor are VIEW-CHANGEs. What counts against the bounds
is what no block holds yet; what one holds stays in memory while there is room, so that an echo of it is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consensus.core import Core
from consensus.interface import Broadcast, ReportKind
from consensus.messages import Evidence, PrePrepare, Vote
from consensus.records import evidence_key, evidence_record
from state.errors import Rejected
from state.evidence import Offence, SignedHash, decode_evidence
from state.hashing import ZERO_HASH

EVIDENCE_KEPT_MAX: Final = 64
EVIDENCE_PER_VALIDATOR_MAX: Final = 8
SMALLER_PROOFS_MAX: Final = 4
"""How often the proof of one offence gives way to a smaller one, in one life of the process."""
HEIGHTS_AHEAD_MAX: Final = 1
"""How far above the height being decided: votes of so many are kept, and what they contradict must be."""


def contradiction(one: Vote | PrePrepare, other: Vote | PrePrepare) -> Evidence:
    """Returns the evidence that two messages of one sender, kind, height and view for different blocks make."""
    first, second = sorted((_half(one), _half(other)), key=lambda half: half.block_hash)
    return Evidence(Offence(one.kind), one.height, one.view, one.sender, first, second)


def note(core: Core, found: Evidence) -> None:
    """Keeps, spreads and reports evidence that is new, or smaller than what is kept, as long as there is room.

    What lies further above is left to those who are there: no block could hold it, so it would keep its room for good.
    """
    if found.height > core.height + HEIGHTS_AHEAD_MAX:
        return
    key = evidence_key(found)
    if key in core.evidence:
        if not _takes_place(core, key, found):
            return
        core.smaller_proofs[key] = core.smaller_proofs.get(key, 0) + 1
    elif not _make_room(core, found):
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


def settle(core: Core, held: Iterable[bytes]) -> None:
    """Notes what a committed block holds: its record is needed no more, and it gives way to what no block holds yet."""
    for data in held:
        try:
            proof = decode_evidence(data)
        except Rejected:
            continue
        found = Evidence(proof.offence, proof.height, proof.view, proof.offender, proof.first, proof.second)
        key = evidence_key(found)
        core.evidence.setdefault(key, found)
        core.settled[key] = None
        core.smaller_proofs.pop(key, None)
        core.forget((key,), ())
    while len(core.evidence) > EVIDENCE_KEPT_MAX:
        _forget_settled(core)


def incriminates_primary(core: Core, found: Evidence) -> bool:
    """Whether evidence shows the primary of our view to have proposed two blocks in it."""
    return (
        found.offence is Offence.PRE_PREPARE
        and found.view == core.view
        and core.rules.same_set(found.height, core.since)
        and found.offender == core.primary(found.height, found.view)
    )


def _takes_place(core: Core, key: bytes, found: Evidence) -> bool:
    """Whether a proof takes the place of the one that is kept of the same offence, which no block holds yet."""
    if key in core.settled or core.smaller_proofs.get(key, 0) >= SMALLER_PROOFS_MAX:
        return False
    return found.encode() < core.evidence[key].encode()


def _make_room(core: Core, found: Evidence) -> bool:
    """Whether there is room for more: what a block holds gives way. An index is one validator within a set alone."""
    now = found.height >= core.since
    of_offender = [
        item
        for key, item in core.evidence.items()
        if key not in core.settled and item.offender == found.offender and (item.height >= core.since) is now
    ]
    if len(of_offender) >= EVIDENCE_PER_VALIDATOR_MAX:
        return False
    if len(core.evidence) >= EVIDENCE_KEPT_MAX and core.settled:
        _forget_settled(core)
    return len(core.evidence) < EVIDENCE_KEPT_MAX


def _forget_settled(core: Core) -> None:
    key = next(iter(core.settled))
    del core.settled[key]
    del core.evidence[key]


def _half(message: Vote | PrePrepare) -> SignedHash:
    certificate_hash = message.certificate_hash if isinstance(message, PrePrepare) else ZERO_HASH
    return SignedHash(message.block_hash, certificate_hash, message.signature)
