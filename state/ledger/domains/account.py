"""Accounts: who may act for them. Changing the policy rotates keys, and turns one key into k of n or back."""

from __future__ import annotations

from state.ledger.context import Context
from state.ledger.fields import (
    ADDRESS,
    HASH,
    OPTIONAL_ADDRESS,
    POLICY,
    IntegerType,
    ListType,
    OptionalType,
    Values,
    record,
)
from state.ledger.overlay import StateReader, read_account
from state.ledger.plugin import EventType, OperationType, Plugin, Query, Rules
from state.limits import LANES_MAX, POLICY_KEYS_MAX
from state.types import Address

_SET_POLICY = record(
    ("account", OPTIONAL_ADDRESS, "the account, which must authorise by its present policy; none: the sender"),
    ("policy", POLICY, "who may act for it from the next transaction on"),
)


def _authorisers(sender: Address, values: Values) -> tuple[Address, ...]:
    return (values[0] or sender,)


def _units(values: Values) -> int:
    return 1 + len(values[1].keys) // (POLICY_KEYS_MAX // 2)


def _apply(context: Context, values: Values) -> None:
    named, policy = values
    account = named or context.sender
    context.set_policy(account, policy)
    context.emit("policy_set", account, policy.threshold, len(policy.keys), policy.address)


def _lanes(reader: StateReader, values: Values) -> Values:
    account = read_account(reader, values[0])
    lanes = () if account is None else account.lanes
    return (lanes + (0,) * (LANES_MAX - len(lanes)),)


def _policy(reader: StateReader, values: Values) -> Values:
    account = read_account(reader, values[0])
    return (None if account is None else account.policy,)


_OF_ACCOUNT = record(("address", ADDRESS, "the account"))

PLUGIN = Plugin(
    name="account",
    summary="who may act for an account",
    operations=(
        OperationType(
            "set_policy",
            "change the keys of an account, or how many of them must sign",
            {1: Rules(_SET_POLICY, _apply, authorisers=_authorisers, units=_units)},
        ),
    ),
    queries=(
        Query(
            "lanes",
            "the next sequence number of each lane",
            _OF_ACCOUNT,
            record(("lanes", ListType(IntegerType(), LANES_MAX), "by lane, from 0")),
            _lanes,
        ),
        Query(
            "policy",
            "the stored policy of an account",
            _OF_ACCOUNT,
            record(("policy", OptionalType(POLICY), "none while it is the one that the address is the hash of")),
            _policy,
        ),
    ),
    events=(
        EventType(
            "policy_set",
            "other keys may act for an account",
            record(
                ("account", ADDRESS, "the account"),
                ("threshold", IntegerType(POLICY_KEYS_MAX + 1, 1), "how many keys must sign"),
                ("keys", IntegerType(POLICY_KEYS_MAX + 1, 1), "of how many"),
                ("policy_hash", HASH, "the address that an account born with this policy would have"),
            ),
        ),
    ),
)
