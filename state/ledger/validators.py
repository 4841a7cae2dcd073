"""Validator sets in the state: who is in force, since when, and who was before.

    ["validators"]           [first height, set]: the set in force at the height after the newest block
    ["validators", height]   [first height of the set before (0: there was none), set]: what came into force there

The records of former sets hang together by their first heights, so the state alone answers for every height: a node
that began with a snapshot has no old headers. A block at height h changes the set from h + 1 on, once at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from state.codec import decode, encode, expect_int, expect_tuple
from state.errors import DecodeError, InvariantError
from state.genesis import Genesis
from state.ledger.overlay import StateReader
from state.limits import VALIDATORS_MAX
from state.types import Height, ValidatorSet

VALIDATORS_KEY: Final = encode(("validators",))
RULE_BYTES_MAX: Final = VALIDATORS_MAX * 128
FIRST_HEIGHT: Final = Height(1)
"""The first height of the genesis set."""


class Rule(NamedTuple):
    """A validator set with the first height at which it was in force without a break."""

    first: Height
    validators: ValidatorSet


class FormerRule(NamedTuple):
    """A set that came into force at some height; `before` is the first height of the one before it, 0 for none."""

    before: int
    validators: ValidatorSet


def rule_key(first: int) -> bytes:
    """Returns the state key of the set that came into force at a height: ["validators", height]."""
    return encode(("validators", first))


def genesis_rule_pairs(genesis: Genesis) -> Iterator[tuple[bytes, bytes]]:
    """Yields the records that a chain is born with."""
    validators = genesis.validators.to_value()
    yield VALIDATORS_KEY, encode((FIRST_HEIGHT, validators))
    yield rule_key(FIRST_HEIGHT), encode((0, validators))


def changed_rule_pairs(rule: Rule, before: Height) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the records that a new rule puts; `before` is the first height of the one that it follows."""
    validators = rule.validators.to_value()
    return (
        (VALIDATORS_KEY, encode((rule.first, validators))),
        (rule_key(rule.first), encode((before, validators))),
    )


def decode_rule(data: bytes) -> Rule:
    """Reads the record of the set in force; raises DecodeError."""
    first, validators = _pair(data)
    return Rule(Height(first), validators)


def decode_former(data: bytes) -> FormerRule:
    """Reads a record of the history; raises DecodeError."""
    return FormerRule(*_pair(data))


def read_rule(reader: StateReader) -> Rule:
    """Returns the set in force at the height after the state's newest block, with its first height."""
    data = reader.get(VALIDATORS_KEY)
    if data is None:
        raise InvariantError("the state holds no validator set")
    return decode_rule(data)


def rules_back(reader: StateReader) -> Iterator[Rule]:
    """Yields the set in force and all former ones, newest first."""
    rule = read_rule(reader)
    first = int(rule.first)
    while first:
        data = reader.get(rule_key(first))
        if data is None:
            raise InvariantError(f"the state does not hold the validator set that came into force at {first}")
        before, validators = decode_former(data)
        if before >= first:
            raise InvariantError(f"the validator set of {first} names a later one before it")
        yield Rule(Height(first), validators)
        first = before


def rule_at(rules: Iterable[Rule], height: int) -> Rule:
    """Returns the one of these rules, newest first, that is in force at a height; height 0 counts as the first."""
    for rule in rules:
        if rule.first <= max(height, FIRST_HEIGHT):
            return rule
    raise InvariantError("the history of validator sets does not go back to the first height")


def _pair(data: bytes) -> tuple[int, ValidatorSet]:
    value: Any = decode(data, bytes_max=RULE_BYTES_MAX)
    number, validators = expect_tuple(value, 2, "validators")
    if type(validators) is not tuple:
        raise DecodeError("validators must be an array")
    return expect_int(number, "height"), ValidatorSet.from_value(validators)
