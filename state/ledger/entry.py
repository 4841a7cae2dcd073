"""Whether a transaction may enter a block: what it must satisfy before any of its operations is looked at.

One that may not enter leaves no trace, so nobody can use up another's sequence numbers or money with it: deadline,
sequence, the authorisation of sender and payer, and that the fee can be paid. Each check raises Rejected.
"""

from __future__ import annotations

from collections.abc import Callable

from state.errors import Rejected
from state.ledger.account import Account, Balance
from state.ledger.authorisation import acts_by_policy
from state.ledger.registry import Parsed
from state.limits import NOT_AFTER_AHEAD_MS_MAX
from state.transaction import Transaction
from state.types import Address

FeePrice = Callable[[int], int]
"""Units -> fee in base units of the native asset."""


def free_of_charge(units: int) -> int:
    """The price until weights are measured: nothing."""
    return 0


def check_deadline(tx: Transaction, time_ms: int) -> None:
    """Raises "expired" or "deadline_too_far" unless time <= not-after <= time + 24 h."""
    not_after = tx.not_after_ms
    if not time_ms <= not_after <= time_ms + NOT_AFTER_AHEAD_MS_MAX:
        if not_after < time_ms:
            raise Rejected("expired", f"its deadline passed {time_ms - not_after} ms ago: sign a new one")
        raise Rejected("deadline_too_far", "its deadline is more than 24 hours ahead: sign it with a nearer one")


def check_sequence(tx: Transaction, account: Account | None) -> int:
    """Returns the next sequence number of its lane; raises "sequence_used" if its own lies below."""
    expected = 0 if account is None else account.sequence(tx.lane)
    if tx.sequence < expected:
        raise Rejected(
            "sequence_used",
            f"lane {tx.lane} of the sender is at sequence {expected}, {tx.sequence} was used before",
            {"lane": tx.lane, "next_sequence": expected},
        )
    return expected


def check_next_in_sequence(tx: Transaction, account: Account) -> None:
    """Raises "sequence_used" or "sequence_gap" unless it is the very next of its lane."""
    if account.sequence(tx.lane) != tx.sequence:
        expected = check_sequence(tx, account)
        raise Rejected(
            "sequence_gap",
            f"lane {tx.lane} of the sender is at sequence {expected}; {tx.sequence} waits for those before it",
            {"lane": tx.lane, "next_sequence": expected},
        )


def authorised_accounts(
    tx: Transaction, parsed: Parsed, peek: Callable[[bytes], Account | None]
) -> tuple[Address, ...]:
    """Returns the accounts whose authorisation is valid now, the sender first.

    Raises "not_authorised" if the sender or the payer is not among them. Those of others that are not valid are left
    out: an operation that needs one fails.
    """
    sender = tx.sender
    result = [sender]
    for authorisation, born in zip(tx.authorisations, parsed.born, strict=True):
        address = authorisation.address
        account = peek(address)
        stored = None if account is None else account.policy
        if born if stored is None else acts_by_policy(authorisation, stored):
            if address != sender:
                result.append(address)
        elif address in (sender, tx.payer):
            who = "sender" if address == sender else "payer"
            raise Rejected("not_authorised", f"the keys that signed for the {who} may not act for that account")
    return tuple(result)


def check_fee(tx: Transaction, fee: int, balance: Balance) -> None:
    """Raises "fee_too_low" or "fee_unaffordable" unless the fee is accepted and the payer has it."""
    if fee > tx.fee_max:
        raise Rejected("fee_too_low", f"the fee is {fee}, the transaction allows {tx.fee_max}", {"fee": str(fee)})
    if fee > balance[0]:
        raise Rejected("fee_unaffordable", f"the fee is {fee}, who pays it has {balance[0]}", {"fee": str(fee)})
