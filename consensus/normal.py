"""The normal case: PRE-PREPARE, PREPARE, COMMIT, decided (PBFT 4.2), and what makes a proposal valid.

Handlers note what came; `settle` applies each rule as soon as what it needs is there, in whatever order it came. Static
validity is checked here; what needs bodies and execution is asked for, and its result is kept by block hash.
"""

from __future__ import annotations

from typing import Final

from consensus import ballot, evidence
from consensus.certificates import learn_committed, learn_prepared
from consensus.core import BlockState, Core
from consensus.interface import (
    AskProposal,
    AskValidation,
    Commit,
    KnownBlock,
    Outcome,
    Proposed,
    ReportKind,
    Validated,
)
from consensus.messages import Evidence, Kind, PrePrepare, Vote, certificate_of
from consensus.view_change import suspect_primary
from state.block import evidence_hash
from state.errors import InvariantError, Rejected
from state.hashing import Hash
from state.types import Height, View

_NO_EVIDENCE: Final = evidence_hash(())

# ---- what comes in ----


def on_pre_prepare(core: Core, message: PrePrepare) -> None:
    """Keeps the newest proposal of each primary for this height and the next; two for one place are evidence."""
    if message.sender != core.primary(message.height, message.view):
        raise Rejected("not_primary", "only the primary of (height, view) proposes")
    if not core.rules.buffered(message.height, core.height):
        return
    accepted = core.accepted
    buffer = core.proposals.setdefault(message.height, {})
    held = buffer.get(message.sender)
    for other in (accepted, held):
        if other is None or (other.height, other.view) != (message.height, message.view):
            continue
        if other.block_hash != message.block_hash:
            on_evidence(core, evidence.contradiction(other, message))
        return
    if held is None or held.view < message.view:
        buffer[message.sender] = message
        core.changed = True


def on_vote(core: Core, vote: Vote) -> None:
    """Counts a PREPARE or COMMIT for this height or the next, whatever its view."""
    if not core.rules.buffered(vote.height, core.height):
        return
    count, contradicted = core.tally(vote.height).add(vote)
    if contradicted is not None:
        on_evidence(core, evidence.contradiction(contradicted, vote))
    elif count == core.quorum:
        # More than a quorum lets no rule apply that did not before.
        core.changed = True


def on_evidence(core: Core, found: Evidence) -> None:
    """Keeps evidence; an equivocating primary of this view is suspected."""
    evidence.note(core, found)
    if evidence.incriminates_primary(core, found):
        suspect_primary(core, fault="equivocation")


def on_proposed(core: Core, built: Proposed) -> None:
    """Takes the block that we built, unless the height or the view has gone on meanwhile."""
    if (built.height, built.view) != (core.height, core.view) or not core.proposal_asked:
        return
    core.proposal_asked = False
    block = KnownBlock(built.header, built.wire_hashes)
    broken = broken_rule(core, block, first=True)
    if broken is not None:
        raise InvariantError(f"the block that we built breaks the rule {broken}")
    if not core.in_view or core.accepted is not None or core.decided is not None:
        return
    state = core.block_state(block)
    state.held = state.valid = True
    _take(core, ballot.propose(core, built.header, built.wire_hashes, None), "made")


def on_nothing_to_propose(core: Core, height: Height, view: View) -> None:
    """Waits for new work before asking for a proposal again."""
    if (height, view) == (core.height, core.view) and core.proposal_asked:
        core.proposal_asked = False
        core.proposal_declined = True


def on_work_changed(core: Core, has_work: bool) -> None:
    """Notes whether transactions wait; more of them are a reason to ask for a proposal again."""
    core.has_work = has_work
    if has_work:
        core.proposal_declined = False
    core.changed = True


def on_validated(core: Core, answer: Validated) -> None:
    """Keeps the result by block hash, across views. VALID holds for a re-proposal too, INVALID not the reverse."""
    state = core.blocks.get(answer.block_hash)
    if state is None:
        return
    current = core.accepted is not None and core.accepted.block_hash == answer.block_hash
    if answer.outcome is Outcome.VALID:
        state.valid = state.held = True
    elif answer.outcome is Outcome.NOT_YET:
        state.retry_at = core.now + core.config.not_yet_retry_ms
    elif answer.first:
        state.invalid_first = True
    else:
        state.invalid = True
    core.report(
        ReportKind.PROPOSAL,
        str(answer.outcome),
        height=core.height,
        view=core.view,
        block_hash=answer.block_hash.hex(),
        reason=answer.reason,
    )
    if current and (state.invalid or (state.invalid_first and state.asked is True)):
        suspect_primary(core, stall="invalid_proposal")
    core.changed = True


def on_body(core: Core, block_hash: Hash, block: KnownBlock) -> None:
    """Takes a body that was asked for: the block can be proposed again, or committed."""
    if block.header.hash != block_hash:
        raise InvariantError("a body was given under another block's hash")
    if block.header.height != core.height or block.header.hash not in core.bodies_wanted:
        return
    del core.bodies_wanted[block.header.hash]
    core.block_state(block).held = True
    core.changed = True


# ---- what follows ----


def settle(core: Core) -> None:
    """Applies every rule of the normal case that now applies to the height being decided."""
    tally = core.tallies.get(core.height)
    if core.decided is None and tally is not None:
        commits = tally.decided(core.quorum)
        if commits is not None:
            learn_committed(core, certificate_of(commits[: core.quorum]))
    if core.decided is not None:
        _commit(core)
    if core.rules.decision_binds(core.decided is not None) or not core.in_view:
        return
    if core.accepted is None and not core.refused:
        _accept(core)
    if core.accepted is None:
        _propose(core)
    if core.accepted is not None:
        _vote(core, core.accepted)


def broken_rule(core: Core, block: KnownBlock, *, first: bool) -> str | None:
    """Returns the rule of static validity that a block breaks at the height and view of now, or None."""
    header = block.header
    rules = {
        "height": header.height == core.height,
        "chain": header.chain_id == core.config.chain_id,
        "parent": header.parent_hash == core.head.hash,
        "validators": header.validators_hash == core.validators.hash,
        "time": header.time_ms > core.head.time_ms,
        "empty": bool(block.wire_hashes) or header.evidence_hash != _NO_EVIDENCE,
    }
    if first:
        rules["proposer"] = header.proposer == core.validators.validators[core.primary(core.height, core.view)].key
    return next((name for name, holds in rules.items() if not holds), None)


def _accept(core: Core) -> None:
    """Takes at most one proposal for (height, view): the primary's, where the floor allows it (PBFT 4.2)."""
    proposals = core.proposals.get(core.height)
    proposal = None if proposals is None else proposals.get(core.primary(core.height, core.view))
    if proposal is None or proposal.view != core.view:
        return
    allowed = core.rules.floor_allows(core.floor, core.demanded_hash, core.height, proposal.block_hash)
    if not allowed and core.height < core.floor:
        return
    block = KnownBlock(proposal.header, proposal.wire_hashes)
    broken = broken_rule(core, block, first=core.rules.first_rules_apply(proposal.certificate))
    if not allowed:
        broken = "demanded"
    if broken is not None:
        core.refused = True
        core.report(ReportKind.PROPOSAL, "invalid", proposal, height=core.height, view=core.view, reason=broken)
        suspect_primary(core, stall="invalid_proposal")
        return
    if proposal.certificate is not None:
        learn_prepared(core, proposal.certificate)
    core.block_state(block)
    _take(core, proposal, "accepted")


def _take(core: Core, proposal: PrePrepare | None, how: str) -> None:
    if proposal is None:
        return
    core.accepted = proposal
    core.changed = True
    core.report(
        ReportKind.PROPOSAL,
        how,
        height=core.height,
        view=core.view,
        block_hash=proposal.block_hash.hex(),
        transactions=len(proposal.wire_hashes),
    )


def _propose(core: Core) -> None:
    """As primary: proposes again what the NEW-VIEW demands (PBFT 4.4), or asks for a new block if there is work."""
    if core.refused or not core.may_sign or not core.is_primary or core.height < core.floor:
        return
    demanded = core.demanded
    if demanded is not None and core.height == core.floor:
        state = core.blocks.get(demanded.block_hash)
        if state is None or not state.held:
            core.want_body(demanded)
            return
        block = state.block
        _take(core, ballot.propose(core, block.header, block.wire_hashes, demanded), "made")
    elif core.has_work and not core.proposal_asked and not core.proposal_declined:
        core.proposal_asked = True
        core.emit(AskProposal(core.height, core.view))


def _vote(core: Core, proposal: PrePrepare) -> None:
    """PREPARE once the block is valid here; COMMIT once q PREPAREs stand together (PBFT 4.2, prepared)."""
    state = core.blocks[proposal.block_hash]
    if not state.valid:
        _ask_validation(core, proposal, state)
    else:
        ballot.prepare(core, proposal)
    place = (Kind.PREPARE, proposal.view, proposal.block_hash)
    tally = core.tally(core.height)
    if tally.count(*place) >= core.quorum:
        held = core.prepared
        if held is None or held.view < proposal.view:
            core.prepared = held = certificate_of(tally.standing(*place)[: core.quorum])
        if state.valid and (held.view, held.block_hash) == (proposal.view, proposal.block_hash):
            ballot.commit(core, proposal, held)


def _ask_validation(core: Core, proposal: PrePrepare, state: BlockState) -> None:
    """Asks for execution, as a first proposal or not; what we ourselves prepared is past the rule on clocks."""
    own = core.own_round()
    known = own is not None and own.prepare is not None
    first = core.rules.first_rules_apply(proposal.certificate) and not known
    if state.invalid or (first and state.invalid_first):
        if core.suspicion is None:
            suspect_primary(core, stall="invalid_proposal")
        return
    if state.asked is first:
        return
    state.asked = first
    core.emit(AskValidation(proposal.block_hash, proposal.header, proposal.wire_hashes, first, proposal.sender))


def ask_again(core: Core) -> None:
    """Asks again about the accepted proposal whose time was ahead of our clock."""
    proposal = core.accepted
    if proposal is None:
        return
    state = core.blocks.get(proposal.block_hash)
    if state is not None and state.retry_at is not None and core.now >= state.retry_at:
        state.retry_at = None
        state.asked = None
        core.changed = True


def _commit(core: Core) -> None:
    """Hands over the decided block, once; if only its hash is known, asks for its body."""
    decided = core.decided
    if decided is None or core.commit_asked:
        return
    state = core.blocks.get(decided.block_hash)
    if state is None:
        known = _buffered_block(core, decided.block_hash)
        if known is None:
            core.want_body(decided)
            return
        state = core.block_state(known)
    core.commit_asked = True
    core.emit(Commit(state.block.header, state.block.wire_hashes, decided))


def _buffered_block(core: Core, block_hash: Hash) -> KnownBlock | None:
    """Looks for a decided block among proposals that were not accepted, as in another view than ours."""
    buffer = core.proposals.get(core.height, {})
    for sender in sorted(buffer):
        if buffer[sender].block_hash == block_hash:
            return KnownBlock(buffer[sender].header, buffer[sender].wire_hashes)
    return None
