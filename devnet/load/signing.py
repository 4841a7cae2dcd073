"""Makes the load's transactions: transfers among the network's bulk accounts, signed before they are needed.

Signing while the nodes are measured would take their processors, so most of it is done before, on all cores at once.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from qenex_node.testnet import NATIVE, bulk_key
from state.codec import encode, encode_amount
from state.keys import SigningKey
from state.transaction import Operation, body_value, signing_bytes, transaction_id
from state.types import Address, ChainContext

AMOUNT: Final = 1
CHUNK: Final = 2_000
IN_PROCESS_MAX: Final = 4_000


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: its id as the node writes it, whose it is, and its place in that account's lane."""

    id: str
    wire: bytes
    account: int
    lane: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What all transactions of a load have in common; each pays `transfers` other accounts `AMOUNT` each."""

    seed: str
    context: ChainContext
    accounts: int
    transfers: int
    not_after_ms: int


def recipients(terms: Terms, account: int) -> Iterator[int]:
    """Returns the accounts that this account pays: those after it, in a circle, never itself."""
    return ((account + 1 + place % (terms.accounts - 1)) % terms.accounts for place in range(terms.transfers))


class Signer:
    """Signs for any account of the load; keys are derived when they are first needed."""

    def __init__(self, terms: Terms) -> None:
        """Takes what the transactions have in common."""
        self._terms = terms
        self._keys: dict[int, SigningKey] = {}
        self._operations: dict[int, Operation] = {}
        self._amount = encode_amount(AMOUNT)

    def address(self, account: int) -> Address:
        """Returns an account's address."""
        return self._key(account).address

    def _key(self, account: int) -> SigningKey:
        key = self._keys.get(account)
        if key is None:
            key = self._keys[account] = bulk_key(self._terms.seed, account)
        return key

    def _operation(self, account: int) -> Operation:
        operation = self._operations.get(account)
        if operation is None:
            paid = tuple((self.address(other), self._amount) for other in recipients(self._terms, account))
            operation = self._operations[account] = Operation("transfer", 1, (None, NATIVE, paid))
        return operation

    def sign(self, account: int, lane: int, sequence: int) -> Signed:
        """Returns one transaction."""
        terms, key = self._terms, self._key(account)
        address = key.address
        body = body_value(terms.context, address, lane, sequence, terms.not_after_ms, (self._operation(account),))
        message = signing_bytes(terms.context, body)
        authorisation = (address, None, ((key.public.to_value(), key.sign(message)),))
        wire = encode((body, (authorisation,)))
        return Signed("0x" + transaction_id(message).hex(), wire, account, lane, sequence)


Place = tuple[int, int]
"""An account and a sequence of its lane 0."""


def _sign_chunk(terms: Terms, places: Sequence[Place]) -> list[Signed]:
    signer = Signer(terms)
    return [signer.sign(account, 0, sequence) for account, sequence in places]


def sign_ahead(terms: Terms, places: Sequence[Place]) -> list[Signed]:
    """Returns the transactions for all places, in their order, signed on all cores if they are many.

    To be called before the event loop starts and before there are threads: it forks.
    """
    if len(places) <= IN_PROCESS_MAX:
        return _sign_chunk(terms, places)
    chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
        futures = [pool.submit(_sign_chunk, terms, chunk) for chunk in chunks]
        return [signed for future in futures for signed in future.result()]
