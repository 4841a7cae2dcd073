"""The rules: proposing, voting, evidence, and what a block begins and ends with.

A block is decided on by one set, the one in force at its height: its members propose and vote, and a quorum of it
accepts. What was accepted waits for its height; at a block's end the first that is due changes the set of the next
height, one change a height, suspensions before proposals. All of it follows from the state and the block alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from state.errors import DecodeError, InvariantError, Rejected
from state.evidence import Verify
from state.genesis import check_validator_name
from state.ledger.context import Context
from state.ledger.domains.governance.change import Refused, changed, member, without
from state.ledger.domains.governance.possession import possession_preimage
from state.ledger.domains.governance.records import (
    ACCEPTED,
    ADD,
    EXPIRED,
    FAILED,
    IN_FORCE,
    OPEN,
    REJECTED,
    REPLACE,
    Agenda,
    Change,
    Offence,
    Pending,
    Proposal,
    ValidatorRecord,
    born,
    operator_of,
    proposal_value,
    read_agenda,
    read_proposal,
    read_validator,
)
from state.ledger.fields import Values
from state.ledger.plugin import Accusation
from state.limits import VALIDATORS_MAX
from state.types import Address, Validator

OPEN_PER_VALIDATOR_MAX: Final = 4
OPEN_MAX: Final = OPEN_PER_VALIDATOR_MAX * VALIDATORS_MAX
"""Open and accepted proposals in all: room for every validator's, so that f of them cannot shut out the others."""

CLOSED_KEPT_MAX: Final = 256
OFFENCES_KEPT_MAX: Final = 64
EXPIRY_MS_DEFAULT: Final = 7 * 24 * 3600 * 1000
EXPIRY_AHEAD_MS_MAX: Final = 90 * 24 * 3600 * 1000
FROM_HEIGHT_AHEAD_MAX: Final = 100_000_000

PROPOSE_UNITS: Final = 8
VOTE_UNITS: Final = 6

Apply = Callable[[Context, Values], None]


# Proposing and voting


def acts_for(name: str, context: Context, address: Address) -> bool:
    """Returns whether this account is the operator of the validator in force with this name."""
    validator = member(context.validators, name)
    record = None if validator is None else read_validator(context.get, validator.key)
    return record is not None and record.operator == address


def proposing(verify: Verify) -> Apply:
    """Returns the rules of governance_propose, which prove possession of new keys by `verify`."""

    def propose(context: Context, values: Values) -> None:
        by, kind, name, key, node_key, key_proof, node_key_proof, operator, from_height, expires_ms = values
        proposer = _in_force(context, by)
        expires_ms = expires_ms or context.time_ms + EXPIRY_MS_DEFAULT
        _check_terms(context, from_height, expires_ms)
        change = Change(kind, name, key, node_key, operator)
        try:
            changed(context.validators, change, context.get)
        except Refused as refused:
            context.fail(refused.code, refused.message)
        _check_possession(context, change, key_proof, node_key_proof, verify)
        agenda = read_agenda(context.get)
        _check_room(context, agenda, proposer)
        number = agenda.next_number
        pending = Pending(number, from_height, expires_ms, proposer.key)
        put_agenda(context, agenda._replace(next_number=number + 1, open=(*agenda.open, pending)))
        context.emit("governance_proposed", number, by, kind, name, from_height, expires_ms)
        proposal = Proposal(number, proposer.key, change, from_height, expires_ms, (), (), OPEN, 0, "")
        _count(context, proposal, proposer.key, approve=True)

    return propose


def _in_force(context: Context, name: str) -> Validator:
    validator = member(context.validators, name)
    if validator is None:
        context.fail("validator_unknown", f"no validator in force is called {name}")
    return validator


def _check_terms(context: Context, from_height: int, expires_ms: int) -> None:
    if from_height and not context.height < from_height <= context.height + FROM_HEIGHT_AHEAD_MAX:
        context.fail("height_invalid", f"a change in force from {from_height} cannot be proposed at {context.height}")
    if not context.time_ms < expires_ms <= context.time_ms + EXPIRY_AHEAD_MS_MAX:
        context.fail("expiry_invalid", f"a proposal made at {context.time_ms} cannot expire at {expires_ms}")


def _check_room(context: Context, agenda: Agenda, proposer: Validator) -> None:
    waiting = (*agenda.open, *agenda.accepted)
    own = sum(pending.proposer == proposer.key for pending in waiting)
    if own >= OPEN_PER_VALIDATOR_MAX or len(waiting) >= OPEN_MAX:
        context.fail("proposals_too_many", f"{proposer.name} has {own} proposals open, all have {len(waiting)}")


def _check_possession(
    context: Context, change: Change, key_proof: bytes | None, node_key_proof: bytes | None, verify: Verify
) -> None:
    """Whoever proposes a key shows that its owner wants it to be this validator's, on this chain, beside that key."""
    present = member(context.validators, change.name)
    key = change.key or (present.key if present else b"")
    node_key = change.node_key or (present.node_key if present else b"")
    message = possession_preimage(context.get("chain"), change.name, key, node_key)
    for new, proof in ((change.key, key_proof), (change.node_key, node_key_proof)):
        if new is not None and not verify(new, message, proof or b""):
            context.fail("possession_unproved", "a new key did not sign that it is this validator's on this chain")


def vote(context: Context, values: Values) -> None:
    """The rules of governance_vote. A later vote replaces an earlier one; voting again has all votes counted anew."""
    number, by, approve = values
    voter = _in_force(context, by)
    proposal = read_proposal(context.get, number)
    if proposal is None:
        context.fail("proposal_unknown", f"there is no proposal {number}, or it was closed long ago")
    if proposal.status != OPEN:
        context.fail("proposal_closed", f"proposal {number} is {proposal.status}")
    _count(context, proposal, voter.key, approve=approve)


def _count(context: Context, proposal: Proposal, voter: bytes, *, approve: bool) -> None:
    """Enters a vote, and decides if it is the one that decides. Only votes of validators in force are kept."""
    validators = context.validators
    approvals = [key for key in proposal.approvals if key != voter and validators.index_of(key) is not None]
    rejections = [key for key in proposal.rejections if key != voter and validators.index_of(key) is not None]
    (approvals if approve else rejections).append(voter)
    context.emit("governance_voted", proposal.number, _name(context, voter), approve)
    proposal = proposal._replace(approvals=tuple(approvals), rejections=tuple(rejections))
    agenda = read_agenda(context.get)
    if len(approvals) >= validators.quorum:
        pending = next(item for item in agenda.open if item.number == proposal.number)
        from_height = pending.from_height or context.height + 1
        accepted = (*agenda.accepted, pending._replace(from_height=from_height))
        put_agenda(context, _without_open(agenda, proposal.number)._replace(accepted=accepted))
        proposal = proposal._replace(status=ACCEPTED, from_height=from_height)
        context.emit("governance_decided", proposal.number, True)
    elif validators.n - len(rejections) < validators.quorum:
        put_agenda(context, _close(context, _without_open(agenda, proposal.number), proposal.number))
        proposal = proposal._replace(status=REJECTED, height=context.height)
        context.emit("governance_decided", proposal.number, False)
    put_proposal(context, proposal)


def _name(context: Context, key: bytes) -> str:
    record = read_validator(context.get, key)
    if record is None:
        raise InvariantError(f"the validator with the key {key.hex()} has no record")
    return record.name


# The agenda


def put_agenda(context: Context, agenda: Agenda) -> None:
    """Puts the agenda."""
    context.put("agenda", value=agenda)


def put_proposal(context: Context, proposal: Proposal) -> None:
    """Puts a proposal's record."""
    context.put("proposal", proposal.number, value=proposal_value(proposal))


def _without_open(agenda: Agenda, number: int) -> Agenda:
    return agenda._replace(open=tuple(item for item in agenda.open if item.number != number))


def _close(context: Context, agenda: Agenda, number: int) -> Agenda:
    """Notes that a proposal is closed, and forgets the one that was closed longest ago if there are too many."""
    closed = (*agenda.closed, number)
    if len(closed) > CLOSED_KEPT_MAX:
        context.put("proposal", closed[0], value=None)
        closed = closed[1:]
    return agenda._replace(closed=closed)


def _close_as(context: Context, agenda: Agenda, number: int, status: str, height: int, reason: str = "") -> Agenda:
    proposal = read_proposal(context.get, number)
    if proposal is None:
        raise InvariantError(f"proposal {number} is on the agenda and has no record")
    put_proposal(context, proposal._replace(status=status, height=height, reason=reason))
    return _close(context, agenda, number)


def begin_block(context: Context) -> None:
    """Closes the open proposals whose time is over, or whose stated height this block is too late to meet."""
    agenda = read_agenda(context.get)
    over = [item for item in agenda.open if _is_over(item, context)]
    for item in over:
        agenda = _close_as(context, _without_open(agenda, item.number), item.number, EXPIRED, context.height)
    if over:
        put_agenda(context, agenda)


def _is_over(item: Pending, context: Context) -> bool:
    return item.expires_ms < context.time_ms or 0 < item.from_height <= context.height


def end_block(context: Context) -> None:
    """Lets the first change that is due take force at the next height; those that cannot any more are closed."""
    agenda = read_agenda(context.get)
    due = sorted((item.from_height, item.number) for item in agenda.accepted if item.from_height <= context.height + 1)
    if not due and not agenda.suspensions:
        return
    agenda, suspended = _suspend(context, agenda)
    for _, number in due if not suspended else ():
        agenda = agenda._replace(accepted=tuple(item for item in agenda.accepted if item.number != number))
        before = context.validators
        proposal = read_proposal(context.get, number)
        if proposal is None:
            raise InvariantError(f"proposal {number} was accepted and has no record")
        try:
            after = changed(before, proposal.change, context.get)
        except Refused as refused:
            agenda = _close_as(context, agenda, number, FAILED, context.height, refused.code)
            continue
        _take_force(context, proposal.change)
        agenda = _close_as(context, agenda, number, IN_FORCE, context.height + 1)
        if after != before:
            context.change_validators(after)
            break
    put_agenda(context, agenda)


# Taking force


def _take_force(context: Context, change: Change) -> None:
    """Keeps the records of who is a validator with a change that is in force from the next height on."""
    first = context.height + 1
    present = member(context.validators, change.name)
    if change.kind == ADD:
        validator = Validator(change.name, change.key or b"", change.node_key or b"")
        record = _enter(context, validator, change.operator or operator_of(validator.key), first)
    elif present is None:
        raise InvariantError(f"a change of {change.name} takes force, who is no validator")
    elif change.kind == REPLACE:
        old = _record(context, present.key)
        validator = Validator(change.name, change.key or present.key, change.node_key or present.node_key)
        operator = change.operator or old.operator
        if validator.key == present.key:
            record = old._replace(node_key=validator.node_key, operator=operator)
        else:
            _put_validator(context, present.key, old._replace(until=first))
            record = _enter(context, validator, operator, first)
    else:
        validator, record = present, _record(context, present.key)._replace(until=first)
    _put_validator(context, validator.key, record)
    context.put("name", validator.name, value=validator.key)
    for key in (validator.key, validator.node_key):
        context.put("used", key, value=validator.name)


def _enter(context: Context, validator: Validator, operator: Address, first: int) -> ValidatorRecord:
    """Returns the record of a validator who comes in; what was recorded of its key before stays."""
    former = read_validator(context.get, validator.key)
    record = born(validator, operator, first)
    if former is None:
        return record
    return record._replace(evidence_count=former.evidence_count, offences=former.offences)


def _record(context: Context, key: bytes) -> ValidatorRecord:
    record = read_validator(context.get, key)
    if record is None:
        raise InvariantError(f"the validator with the key {key.hex()} has no record")
    return record


def _put_validator(context: Context, key: bytes, record: ValidatorRecord) -> None:
    context.put("validator", key, value=record)


def _suspend(context: Context, agenda: Agenda) -> tuple[Agenda, bool]:
    """Takes the first of those out who are to be suspended and can be; the others before it are let off."""
    waiting = list(agenda.suspensions)
    while waiting:
        key = waiting.pop(0)
        if context.validators.index_of(key) is None:
            continue
        try:
            after = without(context.validators, key)
        except Refused:
            continue
        _put_validator(context, key, _record(context, key)._replace(until=context.height + 1, suspended=True))
        context.change_validators(after)
        return agenda._replace(suspensions=tuple(waiting)), True
    return agenda._replace(suspensions=()), False


# Evidence


def record_evidence(context: Context, accusation: Accusation) -> None:
    """Enters an offence on the record of the key that committed it, and has its owner suspended if the chain says so.

    An offence from before the present membership counts, but suspends nobody: the others let that validator in since.
    """
    key = accusation.offender.key
    record = _record(context, key)
    offence = Offence(accusation.height, accusation.view, int(accusation.offence))
    if offence in record.offences:
        raise Rejected("evidence_known", f"this offence of {record.name} is on record")
    oldest = context.height - int(context.parameter("evidence_age_heights"))
    offences = tuple(item for item in record.offences if item.height >= oldest)
    if len(offences) >= OFFENCES_KEPT_MAX:
        raise Rejected("evidence_enough", f"{len(offences)} recent offences of {record.name} are on record")
    counted = record._replace(evidence_count=record.evidence_count + 1, offences=(*offences, offence))
    _put_validator(context, key, counted)
    present = record.until == 0 and accusation.height >= record.since
    if present and context.parameter("evidence_suspends"):
        agenda = read_agenda(context.get)
        if key not in agenda.suspensions:
            put_agenda(context, agenda._replace(suspensions=(*agenda.suspensions, key)))


# Form


def check_proposal(values: Values) -> None:
    """Raises DecodeError unless a proposal says just what its change needs."""
    _, kind, name, key, node_key, key_proof, node_key_proof, operator, _, _ = values
    check_validator_name(name)
    if (key is None) != (key_proof is None) or (node_key is None) != (node_key_proof is None):
        raise DecodeError("each new key needs its proof of possession, and no other")
    if kind == ADD and (key is None or node_key is None):
        raise DecodeError(f"to add {name}, its key and node_key are needed, with their proofs")
    if kind == REPLACE and key is node_key is operator is None:
        raise DecodeError(f"a replacement of {name} names a new key, a new node_key or a new operator")
    if kind not in (ADD, REPLACE) and not (key is node_key is operator is None):
        raise DecodeError(f"to remove {name}, its name says it all")


def units_of_proposal(values: Values) -> int:
    """The weight of a proposal."""
    return PROPOSE_UNITS


def units_of_vote(values: Values) -> int:
    """The weight of a vote."""
    return VOTE_UNITS
