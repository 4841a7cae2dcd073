"""Applies transactions to an overlay, one after another, as a block or a simulation needs it.

What may not enter raises Rejected and leaves no trace. What enters has a receipt, consumes its sequence number and its
fee, and happens whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from state import slices
from state.errors import InvariantError, Rejected
from state.hashing import TAG_ADDRESS, tagged
from state.ledger.account import Account
from state.ledger.context import BlockView, Context
from state.ledger.entry import FeePrice, authorised_accounts, check_deadline, check_fee, check_next_in_sequence
from state.ledger.overlay import Changes, Overlay, StateReader
from state.ledger.plugin import Accusation, OperationFailed
from state.ledger.receipt import OK, Receipt
from state.ledger.registry import Parsed, ParsedOperation, Registry
from state.slices import Slices
from state.transaction import Transaction
from state.types import Address, Amount

FEE_POOL = Address(tagged(TAG_ADDRESS, b"fees"))
"""Where fees go. No policy encodes to these four bytes, so no keys can act for it."""

EVIDENCE_UNITS: Final = 4
"""The weight of a piece of evidence: two signatures, and the records that it changes."""

_HEAVY_UNITS: Final = 128
"""An operation from this weight on is a slice of its own: the heaviest takes about 5 ms."""


@dataclass(frozen=True, slots=True)
class Environment:
    """When a block happens: its height, and its time in ms since 1970 UTC."""

    height: int
    time_ms: int


class BlockRun:
    """The transactions of one block, as far as they were applied."""

    __slots__ = (
        "_end_hooks",
        "_invariants",
        "_price",
        "_registry",
        "context",
        "environment",
        "overlay",
        "receipt_bytes",
        "receipts",
        "touched",
        "units_used",
    )

    def __init__(self, registry: Registry, price: FeePrice, reader: StateReader, environment: Environment) -> None:
        self._registry = registry
        self._price = price
        self._end_hooks = registry.transaction_end
        self._invariants = registry.block_invariant
        self.environment = environment
        self.overlay = Overlay(reader)
        self.context = Context(
            self.overlay, environment.height, environment.time_ms, registry.events, registry.before_move
        )
        self.receipts: list[Receipt] = []
        self.receipt_bytes: list[bytes] = []
        self.touched: list[tuple[Address, ...]] = []
        self.units_used = 0
        for plugin, hook in registry.block_begin:
            self.context.enter(plugin)
            try:
                hook(self.context)
            except Rejected as error:
                raise InvariantError(f"plug-in {plugin.name} failed at the beginning of a block: {error}") from error

    def apply_evidence(self, accusation: Accusation, prove: Callable[[], None]) -> None:
        """Records an offence; raises Rejected if it may not enter the block.

        `prove` proves its signatures, or raises Rejected: it is called last, as most that is refused is known already.
        """
        overlay, context = self.overlay, self.context
        if not self._registry.evidence:
            raise Rejected("evidence_unknown", "no plug-in of this ledger takes evidence")
        overlay.journal.clear()
        try:
            for plugin, hook in self._registry.evidence:
                context.enter(plugin)
                hook(context, accusation)
            prove()
        except Rejected:
            overlay.undo()
            raise
        self.units_used += EVIDENCE_UNITS

    def apply(self, tx: Transaction) -> Receipt:
        """Applies a transaction whose signatures were proved; raises Rejected if it may not enter the block."""
        return slices.run(self.apply_in_slices(tx))

    def apply_in_slices(self, tx: Transaction) -> Slices[Receipt]:
        """The same, with a pause after each heavy operation. What was begun must be ended or the run be dropped."""
        parsed = self._registry.parse(tx)
        check_deadline(tx, self.environment.time_ms)
        overlay = self.overlay
        account = overlay.open(tx.sender)
        check_next_in_sequence(tx, account)
        if len(tx.authorisations) == 1 and account.policy is None and parsed.born[0]:
            # The one authorisation is the sender's: the usual case, cut short.
            return (yield from self._apply(tx, parsed, (tx.sender,)))
        return (yield from self._apply(tx, parsed, authorised_accounts(tx, parsed, overlay.peek)))

    def simulate(self, tx: Transaction, *, unsigned: bool) -> Receipt:
        """Applies a transaction without regard to its place in its lane.

        An unsigned one is taken to be authorised by all accounts that its operations name as authorisers.
        """
        parsed = self._registry.parse(tx)
        check_deadline(tx, self.environment.time_ms)
        if unsigned:
            named = [tx.sender, *([tx.payer] if tx.payer else [])]
            for operation in parsed.operations:
                named.extend(operation.authorisers)
            authorised = tuple(dict.fromkeys(named))
        else:
            authorised = authorised_accounts(tx, parsed, self.overlay.peek)
        return slices.run(self._apply(tx, parsed, authorised))

    def _apply(self, tx: Transaction, parsed: Parsed, authorised: tuple[Address, ...]) -> Slices[Receipt]:
        overlay, context = self.overlay, self.context
        fee = self._price(parsed.units)
        if fee:
            payer = tx.payer or tx.sender
            native = context.parameter("native_asset")
            check_fee(tx, fee, overlay.balance(payer, native))
            context.charge_fee(payer, FEE_POOL, native, fee)
        overlay.open(tx.sender).advance(tx.lane)
        overlay.journal.clear()
        context.begin_transaction(tx.sender, authorised)
        code = OK
        heavy = parsed.units >= _HEAVY_UNITS
        try:
            for operation in parsed.operations:
                self._operate(operation, authorised)
                if heavy and operation.rules.units(operation.values) >= _HEAVY_UNITS:
                    yield
            for plugin, hook in self._end_hooks:
                context.enter(plugin)
                hook(context)
        except OperationFailed as failure:
            overlay.undo()
            code = failure.code
        except Rejected as error:
            raise InvariantError(f"plug-in {context.plugin.name} let a rejection through: {error}") from error
        events, touched = context.end_transaction()
        if code == OK:
            touched_by = tuple(dict.fromkeys((*authorised, *touched)))
        else:
            events, touched_by = (), authorised
        receipt = Receipt(tx.id, code, parsed.units, Amount(fee), events)
        self.receipts.append(receipt)
        self.receipt_bytes.append(receipt.encode())
        self.touched.append(touched_by)
        self.units_used += parsed.units
        return receipt

    def _operate(self, operation: ParsedOperation, authorised: tuple[Address, ...]) -> None:
        plugin, rules, values, authorisers = operation
        context = self.context
        context.enter(plugin)
        for address in authorisers:
            if address not in authorised:
                context.require(address)
        role = rules.role
        if role is not None and not any(role.held_by(context, values, address) for address in authorised):
            context.fail("not_authorised", f"no account that authorised the operation is {role.name}")
        rules.apply(context, values)

    def finish(self) -> Slices[tuple[Changes, dict[bytes, Account | None]]]:
        """Ends the block, proves the invariants of the whole, and encodes: (changes, changed accounts decoded)."""
        environment = self.environment
        for plugin, hook in self._registry.block_end:
            self.context.enter(plugin)
            try:
                hook(self.context)
            except Rejected as error:
                raise InvariantError(f"plug-in {plugin.name} failed at the end of a block: {error}") from error
        for _, invariant in self._invariants:
            yield from invariant(BlockView(self.overlay, environment.height, environment.time_ms))
        return (yield from self.overlay.finish())
