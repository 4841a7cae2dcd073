"""Gives this validator's own messages: the only place that signs, and where each is made durable before it leaves.

Whatever asks for a vote, it is given only if no earlier vote, promise or floor forbids it. One place never gets two
votes: the second time nothing happens, and repeats are the bytes of the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from consensus.core import Core
from consensus.interface import Broadcast, PushTransactions, ReportKind
from consensus.messages import (
    Kind,
    NewView,
    PrePrepare,
    SignedMessage,
    Status,
    Suspect,
    ViewChange,
    Vote,
    signing_preimage,
)
from consensus.records import Round, TakenProposal, entry_record, promise_record, round_key, round_record
from state.errors import InvariantError
from state.hashing import Hash
from state.types import Certificate, Header, View, WireHash

ROUNDS_KEPT_MAX: Final = 8
M = TypeVar("M", bound=SignedMessage)


def may_vote(core: Core, block_hash: Hash) -> bool:
    """Whether a PREPARE or COMMIT for this block at the current height and view breaks no promise and no floor."""
    rules = core.rules
    return (
        core.may_sign
        and core.in_view
        and not rules.decision_binds(core.decided is not None)
        and rules.votes_beside_sync(core.statuses, core.proven, core.height)
        and rules.floor_allows(core.floor, core.demanded_hash, core.height, block_hash)
    )


def propose(
    core: Core, header: Header, wire_hashes: tuple[WireHash, ...], certificate: Certificate | None
) -> PrePrepare | None:
    """Sends our PRE-PREPARE for the current height and view, once (PBFT 4.2); returns it, or None if one is taken."""
    if core.accepted is not None or core.refused or core.own_round() is not None or not may_vote(core, header.hash):
        return None
    message = _signed(core, PrePrepare(core.height, core.view, header, wire_hashes, certificate, _index(core)))
    _keep_round(core, Round(core.height, core.view, TakenProposal.of(message)))
    core.emit(Broadcast(message))
    return message


def prepare(core: Core, proposal: PrePrepare) -> None:
    """Sends our PREPARE for the accepted proposal (PBFT 4.2), once, and never against an earlier one."""
    block_hash = proposal.block_hash
    earlier = core.own_round()
    if earlier is not None and earlier.prepare is not None and earlier.prepare.block_hash == block_hash:
        return
    if not may_vote(core, block_hash):
        return
    if earlier is not None and not core.rules.repeats(earlier.proposal.block_hash, block_hash):
        return
    vote = _signed(core, Vote(Kind.PREPARE, core.height, core.view, block_hash, _index(core)))
    _keep_round(core, Round(core.height, core.view, TakenProposal.of(proposal), vote))
    core.tally(core.height).add(vote)
    core.emit(Broadcast(vote))
    core.changed = True


def commit(core: Core, proposal: PrePrepare, prepared: Certificate) -> None:
    """Sends our COMMIT for the prepared block (PBFT 4.2), once; its certificate becomes durable with it."""
    block_hash = proposal.block_hash
    earlier = core.own_round()
    if earlier is None or earlier.prepare is None or earlier.commit is not None:
        return
    if not may_vote(core, block_hash) or not core.rules.repeats(earlier.proposal.block_hash, block_hash):
        return
    vote = _signed(core, Vote(Kind.COMMIT, core.height, core.view, block_hash, _index(core)))
    _keep_round(core, replace(earlier, commit=vote, prepared=prepared))
    core.tally(core.height).add(vote)
    core.emit(Broadcast(vote))
    core.changed = True


def promise(core: Core, view: View) -> ViewChange:
    """Sends our VIEW-CHANGE to `view` at the current height (PBFT 4.4): from now on no vote below that view."""
    if view < core.promised or not core.may_sign:
        raise InvariantError("a promise is never lowered, and never given by whoever may not sign")
    held = core.rules.prepared_to_report(core.prepared, view)
    message = _signed(core, ViewChange(core.height, view, core.head_certificate, held, _index(core)))
    core.promised = view
    core.remembered_promise = (core.since, message)
    core.view_changes[message.sender] = message
    core.persist((promise_record(core.since, message),))
    core.emit(Broadcast(message))
    core.changed = True
    return message


def new_view(core: Core, changes: tuple[ViewChange, ...]) -> NewView:
    """Sends our NEW-VIEW as the primary of the promised view (PBFT 4.4), durable with the block that it demands."""
    highest = core.rules.highest_proved(changes)
    message = _signed(core, NewView(highest, core.promised, changes, _index(core)))
    demanded = core.rules.demanded(changes, highest)
    bodies = () if demanded is None else (demanded.block_hash,)
    core.persist((entry_record(core.since, message),), bodies)
    core.emit(Broadcast(message))
    return message


def suspect(core: Core) -> None:
    """Says, again each second while it is true, that the greatest view we entered or promised should be left."""
    suspect_still(core)
    core.emit(PushTransactions())
    core.report(ReportKind.SUSPECTED, core.suspicion or "", height=core.height, view=core.promised)


def suspect_still(core: Core) -> None:
    """Says at a new height what was said at the last, where it is void: only words of one height add up to f + 1."""
    message = _signed(core, Suspect(core.height, core.promised, _index(core)))
    core.suspects[message.sender] = message
    core.emit(Broadcast(message))
    core.changed = True


def status(core: Core) -> None:
    """Says where we stand and which votes we hold: nothing that needs to be remembered."""
    tally = core.tally(core.height)
    core.emit(
        Broadcast(
            _signed(
                core,
                Status(
                    core.height,
                    core.view,
                    core.promised,
                    None if core.accepted is None else core.accepted.block_hash,
                    tally.mask(Kind.PREPARE, core.view),
                    tally.mask(Kind.COMMIT, core.view),
                    _index(core),
                ),
            )
        )
    )


def _signed(core: Core, message: M) -> M:
    if core.sign is None:
        raise InvariantError("an observer signs nothing")
    preimage = signing_preimage(message, core.config.genesis_hash, core.validators.hash)
    return replace(message, signature=core.sign(preimage))


def _index(core: Core) -> int:
    if core.index is None:
        raise InvariantError("only a member of the validator set has an index")
    return core.index


def _keep_round(core: Core, item: Round) -> None:
    """Makes a round durable with its block, and lets go of rounds so old that no vote can contradict them."""
    core.rounds[(item.height, item.view)] = item
    core.persist((round_record(item),), (item.proposal.block_hash,))
    own = [place for place in sorted(core.rounds) if place[0] == item.height]
    if len(own) <= ROUNDS_KEPT_MAX:
        return
    place = next(place for place in own if core.rounds[place].prepared is None or core.rounds[place] != _highest(core))
    dropped = core.rounds.pop(place).proposal.block_hash
    kept = {other.proposal.block_hash for other in core.rounds.values()} | {core.demanded_hash}
    bodies = () if dropped in kept else (dropped,)
    if bodies and dropped in core.blocks:
        core.blocks[dropped].durable = False
    core.forget((round_key(*place),), bodies)


def _highest(core: Core) -> Round | None:
    """The round of the prepared certificate with the highest view among our COMMITs of this height."""
    rounds = [core.rounds[place] for place in sorted(core.rounds) if place[0] == core.height]
    prepared = [item for item in rounds if item.prepared is not None]
    return prepared[-1] if prepared else None
