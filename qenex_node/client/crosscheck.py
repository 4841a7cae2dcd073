"""Examining a node: its head is proved, and its ordinary answers are held against what it can prove.

A proof shows what is so; that the node's ordinary answers say the same is what its ordinary clients rely on. So the
same question is asked twice, once believed and once proved. Needs a session with a trusted chain; a difference is
VerificationFailed("value"), as if the proof were of another value.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from qenex_node.client import forms, reads
from qenex_node.client.errors import HeightAhead, HeightPruned, NotFound, VerificationFailed
from qenex_node.client.flows import Flow
from qenex_node.client.light import LightBlock
from qenex_node.client.session import Session
from state.address import to_text
from state.errors import Rejected
from state.types import Address, TxId

T = TypeVar("T")

ATTEMPTS: Final = 3
"""How often a newer height is taken, where the node forgets a state between the two questions."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """What is examined beside the head; of balances, account and asset."""

    accounts: tuple[Address, ...] = ()
    assets: tuple[str, ...] = ()
    balances: tuple[tuple[Address, str], ...] = ()
    receipts: tuple[TxId, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """One answer that held: what was asked, of which subject, and the height whose state or block it is of."""

    what: str
    of: str
    height: int


def head(session: Session) -> Flow[tuple[reads.Status, LightBlock | None]]:
    """Returns where the node stands, proved, with the light block of its head (None at height 0).

    What is trusted already of a height that the node has must be its own block there. Raises VerificationFailed.
    """
    trusted = session.trusted
    if trusted is None:
        raise Rejected("trust_missing", "nothing is trusted: give the chain's genesis file")
    known = trusted.light.highest
    if known.height > 0:
        # First, so that another block there is named a fork, and not taken for a break in what follows it. A node that
        # does not have that height is looked at by its head.
        with suppress(HeightAhead, NotFound):
            yield from reads.light_block(session, known.height)
    status = yield from reads.status(session)
    if status.height == 0:
        return status, None
    return status, (yield from reads.light_block(session, status.height))


def answers(session: Session, subjects: Subjects) -> Flow[tuple[Examined, ...]]:
    """Proves the newest block whole, the validators, and each subject; returns what held. Raises VerificationFailed."""
    found: list[Examined] = []
    newest = yield from reads.block(session)
    height = newest.block.header.height
    found.append(Examined("block", forms.hexed(newest.block.header.hash), height))
    validators = yield from reads.validators(session, height)
    found.append(Examined("validators", forms.hexed(validators.hash), height))
    for address in subjects.accounts:
        shown = yield from account(session, address)
        found.append(Examined("account", to_text(address), shown.height))
    for code in subjects.assets:
        found.append(Examined("asset", code, (yield from asset(session, code)).height))
    for address, code in subjects.balances:
        held = yield from balance(session, address, code)
        found.append(Examined("balance", f"{to_text(address)}:{code}", held.height))
    for tx_id in subjects.receipts:
        told = yield from reads.receipt(session, tx_id)
        if told.height is None:
            raise NotFound(-32002, f"the transaction is {told.status}: it has no receipt", {"reason": "not_committed"})
        found.append(Examined("receipt", forms.hexed(tx_id), told.height))
    return tuple(found)


def account(session: Session, address: Address) -> Flow[reads.AccountAt]:
    """Returns an account of the newest height, proved; the node tells the same of that height."""

    def at(asked: Session, height: int | None) -> Flow[reads.AccountAt]:
        return reads.account(asked, address, height)

    return (yield from _twice(session, at, lambda found: found.height, lambda found: found.account, "account"))


def balance(session: Session, address: Address, asset: str) -> Flow[reads.BalanceAt]:
    """Returns what an account has of an asset at the newest height, proved; the node tells the same."""

    def at(asked: Session, height: int | None) -> Flow[reads.BalanceAt]:
        return reads.balance(asked, address, asset, height)

    return (
        yield from _twice(
            session, at, lambda found: found.height, lambda found: (found.available, found.held), "balance"
        )
    )


def asset(session: Session, code: str) -> Flow[reads.AssetAt]:
    """Returns an asset of the newest height, proved; the node tells the same. Raises NotFound."""

    def at(asked: Session, height: int | None) -> Flow[reads.AssetAt]:
        return reads.asset(asked, code, height)

    return (yield from _twice(session, at, lambda found: found.height, lambda found: found.asset, "asset"))


def _twice(
    session: Session,
    ask: Callable[[Session, int | None], Flow[T]],
    height_of: Callable[[T], int],
    content: Callable[[T], object],
    what: str,
) -> Flow[T]:
    believing = Session(operations=session.operations, context=session.context)
    attempt = 1
    while True:
        proved = yield from ask(session, None)
        height = height_of(proved)
        try:
            told = yield from ask(believing, height)
        except NotFound:
            raise VerificationFailed("value", f"the node hides the {what} that it proves at height {height}") from None
        except HeightPruned:
            if attempt == ATTEMPTS:
                raise
            attempt += 1
            continue
        if height_of(told) != height:
            raise VerificationFailed("height", f"asked for height {height}, answered for {height_of(told)}")
        if content(told) != content(proved):
            raise VerificationFailed("value", f"the node tells another {what} than it proves at height {height}")
        return proved
