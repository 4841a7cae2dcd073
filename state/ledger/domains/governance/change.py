"""What a change makes of a validator set, and when it is refused. Pure: sets and records in, a set or a reason out."""

from __future__ import annotations

from typing import Final

from state.errors import InvariantError, Rejected
from state.ledger.domains.governance.records import ADD, REMOVE, Change, Get, read_validator
from state.limits import VALIDATORS_MAX
from state.types import Validator, ValidatorSet

VALIDATORS_KEPT_MIN: Final = 4
"""No change shrinks a set below this: with three, one faulty validator stops or forks the chain."""

CHANGE_ERRORS: Final = {
    "validator_unknown": "no validator in force has this name",
    "validator_exists": "a validator in force has this name already",
    "validators_too_few": f"the change would leave fewer than {VALIDATORS_KEPT_MIN} validators",
    "validators_too_many": f"there are at most {VALIDATORS_MAX} validators",
    "key_in_use": "a key of the change is or was another validator's, or one key is to serve as both",
    "change_empty": "the validator has these keys and this operator already",
}


class Refused(Rejected):
    """A change that cannot be made of this set, with a code of CHANGE_ERRORS."""

    def __init__(self, code: str) -> None:
        super().__init__(code, CHANGE_ERRORS[code])


def member(validators: ValidatorSet, name: str) -> Validator | None:
    """Returns the validator in force with this name, or None."""
    return next((validator for validator in validators.validators if validator.name == name), None)


def changed(validators: ValidatorSet, change: Change, get: Get) -> ValidatorSet:
    """Returns the set that a change makes of `validators`: the same if only the operator changes; raises Refused."""
    present = member(validators, change.name)
    if change.kind == ADD:
        if present is not None:
            raise Refused("validator_exists")
        if validators.n >= VALIDATORS_MAX:
            raise Refused("validators_too_many")
        return ValidatorSet.of((*validators.validators, _new(change, None, get)))
    if present is None:
        raise Refused("validator_unknown")
    if change.kind == REMOVE:
        return without(validators, present.key)
    record = read_validator(get, present.key)
    if record is None:
        raise InvariantError(f"validator {present.name} has no record")
    new = _new(change, present, get)
    if new == present and change.operator in (None, record.operator):
        raise Refused("change_empty")
    return ValidatorSet.of(new if validator is present else validator for validator in validators.validators)


def without(validators: ValidatorSet, key: bytes) -> ValidatorSet:
    """Returns the set without the validator with this consensus key; raises Refused."""
    if validators.n <= VALIDATORS_KEPT_MIN:
        raise Refused("validators_too_few")
    return ValidatorSet.of(validator for validator in validators.validators if validator.key != key)


def _new(change: Change, present: Validator | None, get: Get) -> Validator:
    """Returns the validator that a change makes; its keys are its own, and used by no other name, ever."""
    key = change.key or (present.key if present else b"")
    node_key = change.node_key or (present.node_key if present else b"")
    if not key or not node_key:
        raise InvariantError("a validator without keys was let through")
    if key == node_key:
        raise Refused("key_in_use")
    for one in (key, node_key):
        if get("used", one) not in (None, change.name):
            raise Refused("key_in_use")
    return Validator(change.name, key, node_key)
