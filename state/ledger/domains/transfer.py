"""Payments: one account pays one or many others in one asset."""

from __future__ import annotations

from state.ledger.context import Context
from state.ledger.fields import (
    ADDRESS,
    AMOUNT,
    AMOUNT_OR_ZERO,
    ASSET_CODE,
    OPTIONAL_ADDRESS,
    ListType,
    Values,
    record,
)
from state.ledger.overlay import StateReader, read_balance
from state.ledger.plugin import OperationType, Plugin, Query, Rules
from state.limits import RECIPIENTS_MAX
from state.types import Address

_RECIPIENT = record(
    ("to", ADDRESS, "the account to credit"),
    ("amount", AMOUNT, "how much, in base units"),
)

_FIELDS = record(
    ("source", OPTIONAL_ADDRESS, "the account to debit, which must authorise; none: the sender"),
    ("asset", ASSET_CODE, "the asset to pay in"),
    ("recipients", ListType(_RECIPIENT, RECIPIENTS_MAX, 1), "whom to pay, and how much each"),
)


def _authorisers(sender: Address, values: Values) -> tuple[Address, ...]:
    return (values[0] or sender,)


def _units(values: Values) -> int:
    return len(values[2])


def _apply(context: Context, values: Values) -> None:
    source, asset, recipients = values
    payer = source or context.sender
    for target, amount in recipients:
        context.move(payer, target, asset, amount)


def _balance(reader: StateReader, values: Values) -> Values:
    address, asset = values
    return read_balance(reader, address, asset)


PLUGIN = Plugin(
    name="transfer",
    summary="payments between accounts",
    operations=(
        OperationType(
            "transfer",
            "pay one or many accounts",
            {1: Rules(_FIELDS, _apply, authorisers=_authorisers, units=_units)},
        ),
    ),
    queries=(
        Query(
            "balance",
            "what an account has of one asset",
            record(("address", ADDRESS, "the account"), ("asset", ASSET_CODE, "the asset")),
            record(
                ("available", AMOUNT_OR_ZERO, "what may leave the account"),
                ("held", AMOUNT_OR_ZERO, "what is set aside"),
            ),
            _balance,
        ),
    ),
)
