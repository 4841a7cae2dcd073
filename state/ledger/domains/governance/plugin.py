"""The declaration of governance: its operations, queries, events and error codes, and the invariant of its records."""

from __future__ import annotations

from typing import Any, Final

from state.codec import decode, encode
from state.errors import InvariantError, Rejected
from state.evidence import Offence as OffenceKind
from state.evidence import Verify
from state.keys import verify_ed25519
from state.ledger.context import RECORD_BYTES_MAX, BlockView, Context
from state.ledger.domains.governance.change import CHANGE_ERRORS
from state.ledger.domains.governance.records import (
    CHANGES,
    NAMESPACE,
    STATUSES,
    Get,
    Proposal,
    genesis_pairs,
    read_agenda,
    read_proposal,
    read_validator,
    reading,
)
from state.ledger.domains.governance.rules import (
    CLOSED_KEPT_MAX,
    EXPIRY_AHEAD_MS_MAX,
    OFFENCES_KEPT_MAX,
    OPEN_MAX,
    OPEN_PER_VALIDATOR_MAX,
    acts_for,
    begin_block,
    check_proposal,
    end_block,
    proposing,
    record_evidence,
    units_of_proposal,
    units_of_vote,
    vote,
)
from state.ledger.fields import (
    ADDRESS,
    BOOLEAN,
    INTEGER,
    OPTIONAL_ADDRESS,
    BytesType,
    ChoiceType,
    IntegerType,
    ListType,
    OptionalType,
    TextType,
    Values,
    record,
)
from state.ledger.overlay import StateReader
from state.ledger.plugin import EventType, OperationType, Plugin, Query, Role, Rules
from state.ledger.validators import VALIDATORS_KEY, decode_former, decode_rule, read_rule, rule_key
from state.limits import NAME_LENGTH_MAX, VALIDATORS_MAX
from state.slices import Slices
from state.types import Address

_NAME: Final = TextType(NAME_LENGTH_MAX)
_NAMES: Final = ListType(_NAME, VALIDATORS_MAX)
_KEY: Final = OptionalType(BytesType(32, 32))
_PROOF: Final = OptionalType(BytesType(64, 64))
_NUMBER: Final = IntegerType(minimum=1)
_CHANGE: Final = ChoiceType(CHANGES)
_OFFENCES: Final = tuple(kind.name.lower() for kind in OffenceKind)

_PROPOSE: Final = record(
    ("by", _NAME, "the validator who proposes; its operator must authorise"),
    ("change", _CHANGE, "add or remove a validator, or replace its keys or operator"),
    ("validator", _NAME, "the name of the validator to add, remove or replace"),
    ("key", _KEY, "its new Ed25519 consensus key"),
    ("node_key", _KEY, "its new Ed25519 node key"),
    ("key_proof", _PROOF, "the new consensus key's proof of possession"),
    ("node_key_proof", _PROOF, "the new node key's proof of possession"),
    ("operator", OPTIONAL_ADDRESS, "the account that is to act for it; none: that of its consensus key, or as before"),
    ("from_height", INTEGER, "the height from which the change is in force; 0: the next after its acceptance"),
    ("expires_ms", INTEGER, "the block time until which votes count, in ms since 1970 UTC; 0: in seven days"),
)
_VOTE: Final = record(
    ("proposal", _NUMBER, "the number of the proposal"),
    ("by", _NAME, "the validator who votes; its operator must authorise"),
    ("approve", BOOLEAN, "whether it approves or rejects"),
)
_PROPOSAL: Final = record(
    ("proposal", _NUMBER, "its number"),
    ("status", ChoiceType(STATUSES), "where it stands"),
    ("by", _NAME, "the validator who proposed it"),
    ("change", _CHANGE, "what it does"),
    ("validator", _NAME, "to whom"),
    ("key", _KEY, "the new consensus key"),
    ("node_key", _KEY, "the new node key"),
    ("operator", OPTIONAL_ADDRESS, "the new operator"),
    ("from_height", INTEGER, "the height from which it is in force; 0: the next after its acceptance"),
    ("expires_ms", INTEGER, "the block time until which votes count"),
    ("approvals", _NAMES, "the validators in force who approve"),
    ("rejections", _NAMES, "the validators in force who reject"),
    ("quorum", INTEGER, "how many approvals it needs of the set in force"),
    ("height", INTEGER, "the height at which it took force or was closed; 0 before"),
    ("reason", TextType(NAME_LENGTH_MAX), "the error code for which it failed"),
)
_VALIDATOR: Final = record(
    ("name", _NAME, "its name"),
    ("key", BytesType(32, 32), "its consensus key"),
    ("node_key", BytesType(32, 32), "its node key"),
    ("operator", ADDRESS, "the account that acts for it"),
    ("in_force", BOOLEAN, "whether it is a validator at the next height"),
    ("since", INTEGER, "the first height of its present or last membership under this key"),
    ("until", INTEGER, "the first height after that; 0 while it lasts"),
    ("suspended", BOOLEAN, "whether evidence ended it"),
    ("evidence_count", INTEGER, "how often this key was proved to have signed two blocks"),
    (
        "offences",
        ListType(
            record(
                ("height", INTEGER, "the height"),
                ("view", INTEGER, "the view"),
                ("kind", ChoiceType(_OFFENCES), "what was signed twice"),
            ),
            OFFENCES_KEPT_MAX,
        ),
        "those that are recent enough to be shown again",
    ),
)
_OFFENCE_NAMES: Final = {int(kind): kind.name.lower() for kind in OffenceKind}


def _proposer(context: Context, values: Values, address: Address) -> bool:
    return acts_for(values[0], context, address)


def _voter(context: Context, values: Values, address: Address) -> bool:
    return acts_for(values[1], context, address)


# Queries


def _proposal_json(reader: StateReader, get: Get, proposal: Proposal) -> Values:
    validators = read_rule(reader).validators

    def names(keys: tuple[bytes, ...]) -> tuple[str, ...]:
        indexes = [validators.index_of(key) for key in keys]
        return tuple(validators.validators[index].name for index in sorted(i for i in indexes if i is not None))

    proposer = read_validator(get, proposal.proposer)
    change = proposal.change
    return (
        proposal.number,
        proposal.status,
        "" if proposer is None else proposer.name,
        *change,
        proposal.from_height,
        proposal.expires_ms,
        names(proposal.approvals),
        names(proposal.rejections),
        validators.quorum,
        proposal.height,
        proposal.reason,
    )


def _proposal(reader: StateReader, values: Values) -> Values:
    get = reading(reader)
    proposal = read_proposal(get, values[0])
    if proposal is None:
        raise Rejected("not_found", f"there is no proposal {values[0]}, or it was closed long ago")
    return _proposal_json(reader, get, proposal)


def _proposals(reader: StateReader, values: Values) -> Values:
    get = reading(reader)
    agenda = read_agenda(get)
    numbers = {item.number for item in (*agenda.open, *agenda.accepted)}
    if values[0]:
        numbers.update(agenda.closed)
    found = (read_proposal(get, number) for number in sorted(numbers))
    return (tuple(_proposal_json(reader, get, proposal) for proposal in found if proposal is not None),)


def _validator(reader: StateReader, values: Values) -> Values:
    get = reading(reader)
    key = get("name", values[0])
    found = None if key is None else read_validator(get, key)
    if found is None:
        raise Rejected("not_found", f"there is and was no validator {values[0]}")
    in_force = read_rule(reader).validators.index_of(key) is not None
    offences = tuple((item.height, item.view, _OFFENCE_NAMES[item.kind]) for item in found.offences)
    return (
        found.name,
        key,
        found.node_key,
        found.operator,
        in_force,
        found.since,
        found.until,
        found.suspended,
        found.evidence_count,
        offences,
    )


# The invariant


def _records_agree(view: BlockView) -> Slices[None]:
    """A set changes by one member at a time, and the records of its members say the same as the set."""
    before = {key: old for key, old, _ in view.records()}.get(VALIDATORS_KEY)
    data = view.record(VALIDATORS_KEY)
    if before is None or data is None or before == data:
        return
    old, new = decode_rule(before), decode_rule(data)
    left = [v for v in old.validators.validators if v not in new.validators.validators]
    came = [v for v in new.validators.validators if v not in old.validators.validators]
    history = view.record(rule_key(new.first))
    if (
        new.first != view.height + 1
        or max(len(left), len(came)) != 1
        or history is None
        or decode_former(history) != (old.first, new.validators)
    ):
        raise InvariantError(f"block {view.height} changes the validator set by more than one member, or without trace")
    for validator in left:
        if validator.key not in {v.key for v in new.validators.validators}:
            _check(view, validator.key, until=new.first)
    for validator in new.validators.validators:
        found = _check(view, validator.key, until=0)
        if found[:2] != (validator.name, validator.node_key):
            raise InvariantError(f"the record of validator {validator.name} is not what the set says")
    yield


def _check(view: BlockView, key: bytes, *, until: int) -> tuple[Any, ...]:
    data = view.record(encode((NAMESPACE, "validator", key)))
    found: tuple[Any, ...] = () if data is None else decode(data, bytes_max=RECORD_BYTES_MAX)
    if not found or found[4] != until:
        raise InvariantError(f"the record of the validator with the key {key.hex()} does not end at {until}")
    return found


ERRORS: Final = {
    **CHANGE_ERRORS,
    "possession_unproved": "a new key did not sign that it is this validator's on this chain",
    "height_invalid": "the height from which the change is to be in force has come already, or is too far ahead",
    "expiry_invalid": f"a proposal expires after its block, within {EXPIRY_AHEAD_MS_MAX // 86_400_000} days",
    "proposals_too_many": f"a validator has at most {OPEN_PER_VALIDATOR_MAX} proposals open, all together {OPEN_MAX}",
    "proposal_unknown": "there is no such proposal, or it was closed long ago",
    "proposal_closed": "the proposal is not open: votes no longer count",
}


def governance_plugin(verify: Verify = verify_ed25519) -> Plugin:
    """Returns the plug-in; `verify` proves possession of keys: Ed25519, but for simulations."""
    return Plugin(
        name="governance",
        summary="who is a validator",
        operations=(
            OperationType(
                "governance_propose",
                "propose to add, remove or replace a validator; it counts as approval",
                {
                    1: Rules(
                        _PROPOSE,
                        proposing(verify),
                        authorisers=_nobody,
                        role=Role("operator of the proposing validator", _proposer),
                        check=check_proposal,
                        units=units_of_proposal,
                    )
                },
            ),
            OperationType(
                "governance_vote",
                "approve or reject a proposal",
                {
                    1: Rules(
                        _VOTE,
                        vote,
                        authorisers=_nobody,
                        role=Role("operator of the voting validator", _voter),
                        units=units_of_vote,
                    )
                },
            ),
        ),
        queries=_queries(),
        events=_events(),
        errors=ERRORS,
        namespace=NAMESPACE,
        genesis=genesis_pairs,
        block_begin=begin_block,
        evidence=record_evidence,
        block_end=end_block,
        block_invariant=_records_agree,
    )


def _nobody(sender: Address, values: Values) -> tuple[Address, ...]:
    """The authorisers beside the role."""
    return ()


def _queries() -> tuple[Query, ...]:
    return (
        Query(
            "proposals",
            "the proposals that are open, or accepted and not yet in force",
            record(
                ("closed", OptionalType(BOOLEAN), f"whether to list the last {CLOSED_KEPT_MAX} that were closed too")
            ),
            record(("proposals", ListType(_PROPOSAL, OPEN_MAX + CLOSED_KEPT_MAX), "in the order of their numbers")),
            _proposals,
        ),
        Query("proposal", "one proposal", record(("proposal", _NUMBER, "its number")), _PROPOSAL, _proposal),
        Query(
            "validator",
            "the record of a validator, present or former",
            record(("name", _NAME, "its name")),
            _VALIDATOR,
            _validator,
        ),
    )


def _events() -> tuple[EventType, ...]:
    number = ("proposal", _NUMBER, "its number")
    return (
        EventType(
            "governance_proposed",
            "a change of the validators was proposed",
            record(
                number,
                ("by", _NAME, "the validator who proposed it"),
                ("change", _CHANGE, "what it does"),
                ("validator", _NAME, "to whom"),
                ("from_height", INTEGER, "the height from which it is to be in force; 0: the next"),
                ("expires_ms", INTEGER, "the block time until which votes count"),
            ),
        ),
        EventType(
            "governance_voted",
            "a validator approved or rejected a proposal",
            record(number, ("by", _NAME, "the validator"), ("approve", BOOLEAN, "whether it approved")),
        ),
        EventType(
            "governance_decided",
            "a proposal was accepted by a quorum, or cannot be any more",
            record(number, ("accepted", BOOLEAN, "whether it was accepted")),
        ),
    )


PLUGIN: Final = governance_plugin()
