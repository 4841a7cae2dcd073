"""What a blocking client can be asked, as methods: each names the flow that does it (reads.py, submit.py).

async_queries.py has the same methods for a client that awaits; both stay so thin that they cannot differ in what
they do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from qenex_node.client import reads, submit
from qenex_node.client.flows import Flow
from qenex_node.client.light import LightBlock
from qenex_node.client.session import Session
from qenex_node.client.signing import Signer
from qenex_node.client.submit import ORDINARY, WAIT_MS_DEFAULT, Committed, Prepared, Submitted, Terms
from state.errors import JsonValue
from state.keys import SigningKey
from state.transaction import Operation
from state.types import Address, ChainContext, Header, TxId, ValidatorSet

T = TypeVar("T")


class Queries(ABC):
    """The methods of a client that returns results."""

    session: Session

    @abstractmethod
    def run(self, flow: Flow[T]) -> T:
        """Carries out a flow and returns its result."""

    def context(self) -> ChainContext:
        """Returns which chain the client is on."""
        return self.run(submit.context_of(self.session))

    def status(self) -> reads.Status:
        """Returns where the node stands."""
        return self.run(reads.status(self.session))

    def account(self, address: Address, height: int | None = None) -> reads.AccountAt:
        """Returns an account, now or at a height."""
        return self.run(reads.account(self.session, address, height))

    def balance(self, address: Address, asset: str, height: int | None = None) -> reads.BalanceAt:
        """Returns what an account has of an asset, in base units."""
        return self.run(reads.balance(self.session, address, asset, height))

    def asset(self, code: str, height: int | None = None) -> reads.AssetAt:
        """Returns an asset; raises NotFound."""
        return self.run(reads.asset(self.session, code, height))

    def transaction(self, tx_id: TxId) -> reads.TransactionAt:
        """Returns a transaction and what became of it."""
        return self.run(reads.transaction(self.session, tx_id))

    def receipt(self, tx_id: TxId) -> reads.ReceiptAt:
        """Returns a transaction's receipt."""
        return self.run(reads.receipt(self.session, tx_id))

    def history(
        self, address: Address, before: tuple[int, int] | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, JsonValue]]:
        """Returns an account's transactions, newest first; never proved."""
        return self.run(reads.history(self.session, address, before, limit))

    def block(self, reference: int | bytes | None = None) -> reads.BlockAt:
        """Returns a whole block by height or hash, the newest if None."""
        return self.run(reads.block(self.session, reference))

    def headers(self, start: int | None = None, limit: int = 20) -> tuple[Header, ...]:
        """Returns headers from a height on, the newest if None."""
        return self.run(reads.headers(self.session, start, limit))

    def validators(self, height: int | None = None) -> ValidatorSet:
        """Returns the validators in force."""
        return self.run(reads.validators(self.session, height))

    def light_block(self, height: int) -> LightBlock:
        """Returns header, certificate and validator set of a height, proved through all changes of the set."""
        return self.run(reads.light_block(self.session, height))

    def prove(self, key: bytes, height: int | None = None) -> tuple[bytes | None, Header]:
        """Returns the proved value under a state key, and the block whose state it is of."""
        return self.run(reads.prove(self.session, key, height))

    def simulate(self, wire: bytes) -> Mapping[str, JsonValue]:
        """Returns the receipt that a transaction would have now."""
        return self.run(reads.simulate(self.session, wire))

    def prepare(self, who: Signer | SigningKey, operations: Iterable[Operation], terms: Terms = ORDINARY) -> Prepared:
        """Returns a signed transaction without sending it."""
        return self.run(submit.prepare(self.session, who, tuple(operations), terms))

    def submit(self, who: Signer | SigningKey, operations: Iterable[Operation], terms: Terms = ORDINARY) -> Submitted:
        """Signs and submits operations as one transaction; returns once f other validators hold it."""
        return self.run(submit.submit(self.session, who, tuple(operations), terms))

    def submit_and_wait(
        self,
        who: Signer | SigningKey,
        operations: Iterable[Operation],
        terms: Terms = ORDINARY,
        *,
        wait_ms: int = WAIT_MS_DEFAULT,
        check: bool = True,
    ) -> Committed:
        """Signs and submits operations as one transaction and returns once it is final, proved if a chain is trusted.

        Raises TransactionFailed if it is final and failed (unless `check` is off), Expired or Dropped if it never will
        be final, StillPending if `wait_ms` was not enough.
        """
        flow = submit.submit_and_wait(self.session, who, tuple(operations), terms, wait_ms=wait_ms)
        return self.run(reads.settled(self.session, flow, check))

    def submit_many(self, prepared: Sequence[Prepared]) -> list[Submitted | Exception]:
        """Submits signed transactions in one request; returns what became of each, in order."""
        return self.run(submit.submit_many(prepared))

    def wait(self, tx: Submitted | Prepared, *, wait_ms: int = WAIT_MS_DEFAULT, check: bool = True) -> Committed:
        """Submits a transaction, again if it was before, and returns once it is final; raises as submit_and_wait."""
        return self.run(reads.settled(self.session, submit.wait_wire(tx.wire, tx.id, wait_ms=wait_ms), check))

    def wait_id(self, tx_id: TxId, *, wait_ms: int = WAIT_MS_DEFAULT, check: bool = True) -> Committed:
        """Returns once the transaction with this id is final; raises as submit_and_wait, NotFound if it is unknown."""
        return self.run(reads.settled(self.session, submit.wait_id(tx_id, wait_ms=wait_ms), check))

    def never(self, prepared: Prepared) -> bool:
        """Returns whether it is proved that a transaction never was and never will be committed; see reads.never."""
        return self.run(reads.never(self.session, prepared))

    def transfer(
        self,
        who: Signer | SigningKey,
        to: Address | str,
        amount: int,
        asset: str,
        terms: Terms = ORDINARY,
        *,
        wait_ms: int = WAIT_MS_DEFAULT,
    ) -> Committed:
        """Pays `amount` base units and returns once that is final."""
        operation = self.session.operations.build("transfer", {"asset": asset, "recipients": [(to, amount)]})
        return self.submit_and_wait(who, [operation], terms, wait_ms=wait_ms)
