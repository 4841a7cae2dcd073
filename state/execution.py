"""Making blocks and judging them: every rule of a block's validity that needs the state stands here, by name.

A block is executed on an overlay of the committed state, without touching the database: the result holds everything
that a commit writes, and is dropped without a trace if the block loses. Work goes in slices of about a millisecond.

What depends on a clock, on who the proposer is, or on the proof of signatures is not looked at here: signatures are
proved once, before a transaction comes this far. Local policy is never validity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from state.block import Block, evidence_hash
from state.errors import InvariantError, Rejected
from state.hashing import Hash, sha256
from state.ledger import AccountCache, BlockRun, Environment, Ledger, Receipt
from state.ledger.account import Account
from state.ledger.overlay import ACCOUNTS_CACHED_DEFAULT
from state.limits import BLOCK_TRANSACTIONS_MAX
from state.rfc6962 import root_in_slices
from state.slices import Slices
from state.transaction import Transaction
from state.tree.cache import CACHE_PAGES_DEFAULT, PageCache
from state.tree.read import Reader as NodeReader
from state.tree.update import TreeUpdate, commit_to_cache, update
from state.types import HEADER_VERSION, Address, ChainContext, Header, Height, TimeMs, ValidatorSet

T = TypeVar("T")

_SLICE_UNITS: Final = 128
_SLICE_KEYS: Final = 1024
_MISFITS_MAX: Final = 64
"""How many transactions that are too big for what is left of a block are passed over before it counts as full."""

_EMPTY_EVIDENCE: Final = evidence_hash(())

_RULE_OF_CODE: Final = {
    "expired": "deadline",
    "deadline_too_far": "deadline",
    "sequence_used": "sequence",
    "sequence_gap": "sequence",
    "not_authorised": "authorisation",
    "fee_too_low": "fee",
    "fee_unaffordable": "fee",
}
"""The name of the validity rule that a transaction breaks; any other code breaks the rule "operation"."""


class StateSource(Protocol):
    """The newest committed state."""

    @property
    def head(self) -> Header:
        """The header of the newest committed block."""

    @property
    def validators(self) -> ValidatorSet:
        """The validator set in force at the height after the head."""

    @property
    def nodes(self) -> NodeReader:
        """The stored rows of the state's tree."""

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key after the head, or None."""


@dataclass(frozen=True, slots=True)
class ExecutedBlock:
    """A block with everything that committing it writes. Nothing of it is written or cached anywhere yet.

    `changes` maps state keys to new values, None where a record goes; `touched` holds, for each transaction, the
    accounts that list it as theirs; `accounts` are the changed accounts decoded, for the cache.
    """

    block: Block
    changes: dict[bytes, bytes | None]
    tree: TreeUpdate
    receipts: tuple[Receipt, ...]
    receipt_bytes: tuple[bytes, ...]
    transactions: tuple[Transaction, ...]
    touched: tuple[tuple[Address, ...], ...]
    validators_next: ValidatorSet
    accounts: dict[bytes, Account | None] = field(repr=False)


class Executor:
    """Builds and executes the block after the head of `source`, whose decoded records it caches."""

    def __init__(
        self,
        ledger: Ledger,
        context: ChainContext,
        source: StateSource,
        *,
        accounts_cached: int = ACCOUNTS_CACHED_DEFAULT,
        pages_cached: int = CACHE_PAGES_DEFAULT,
    ) -> None:
        self.ledger = ledger
        self.context = context
        self.source = source
        self._accounts = AccountCache(source, accounts_cached)
        self._pages = PageCache(pages_cached)
        self._cached_head: Hash = source.head.hash

    @property
    def state(self) -> AccountCache:
        """A reader of the newest committed state with decoded accounts, for admission, simulation and queries."""
        if self.source.head.hash != self._cached_head:
            self._forget()
        return self._accounts

    def committed(self, executed: ExecutedBlock) -> None:
        """Takes what a block changed into the caches. To be called once it is committed and `source` has it as head."""
        header = executed.block.header
        if self.source.head.hash != header.hash:
            raise InvariantError(f"block {header.height} was called committed, and is not the head")
        if self._cached_head == header.parent_hash:
            self._accounts.replace(executed.accounts)
            commit_to_cache(self._pages, executed.tree)
            self._cached_head = header.hash
        elif self._cached_head != header.hash:
            self._forget()

    def _forget(self) -> None:
        self._accounts.clear()
        self._pages.clear()
        self._cached_head = self.source.head.hash

    def build(
        self,
        time_ms: int,
        candidates: Iterable[Transaction],
        proposer: bytes,
        out_of_time: Callable[[], bool],
        skipped: Callable[[Transaction, Rejected], None] | None = None,
    ) -> Slices[ExecutedBlock | None]:
        """Makes the next block of those `candidates`, in their order, that may enter and fit.

        Args:
            time_ms: the block's time; one later than the parent's is taken if that is not later.
            candidates: transactions whose signatures were proved.
            proposer: the consensus key of whoever proposes, 32 bytes.
            out_of_time: asked before each transaction; once true, the block is closed.
            skipped: told of each candidate that may not enter, and why.

        Returns None if there is nothing to propose, or if another block was committed meanwhile.
        """
        try:
            return (yield from self._while_head(self._build(time_ms, candidates, proposer, out_of_time, skipped)))
        except Rejected as error:
            if error.code == "superseded":
                return None
            raise

    def execute(self, header: Header, transactions: Sequence[Transaction]) -> Slices[ExecutedBlock]:
        """Executes a proposed or certified block and proves that it is valid.

        `transactions` are those of the block, in order, with their signatures proved. Raises
        Rejected("block_invalid", why, {"rule": name}); Rejected("superseded") if another block was committed
        meanwhile, which says nothing about this one.
        """
        return (yield from self._while_head(self._execute(header, transactions)))

    def _while_head(self, work: Slices[T]) -> Slices[T]:
        """Runs `work`, which reads the committed state, and breaks it off as soon as that state is another."""
        head = self.source.head.hash
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield
            if self.source.head.hash != head:
                raise Rejected("superseded", "another block was committed while this one was being executed")

    def _build(
        self,
        time_ms: int,
        candidates: Iterable[Transaction],
        proposer: bytes,
        out_of_time: Callable[[], bool],
        skipped: Callable[[Transaction, Rejected], None] | None,
    ) -> Slices[ExecutedBlock | None]:
        head = self.source.head
        draft = _Draft(self, max(time_ms, head.time_ms + 1))
        misfits = 0
        for tx in candidates:
            if misfits > _MISFITS_MAX or out_of_time():
                break
            try:
                if draft.misfit(tx) is not None:
                    misfits += 1
                    continue
                yield from draft.add(tx)
            except Rejected as error:
                if skipped is not None:
                    skipped(tx, error)
            if draft.pause_due():
                yield
        if not draft.transactions:
            return None
        return (yield from draft.finish(proposer))

    def _execute(self, header: Header, transactions: Sequence[Transaction]) -> Slices[ExecutedBlock]:
        self._check_header(header)
        if not transactions:
            raise _invalid("empty", "a block holds at least one transaction")
        draft = _Draft(self, header.time_ms)
        for place, tx in enumerate(transactions):
            try:
                misfit = draft.misfit(tx)
                if misfit is None:
                    yield from draft.add(tx)
            except Rejected as error:
                rule = _RULE_OF_CODE.get(error.code, "operation")
                raise _invalid(rule, f"transaction {place}: {error}") from error
            if misfit is not None:
                raise _invalid(misfit, f"transaction {place} goes beyond the bound of {misfit} in a block")
            if draft.pause_due():
                yield
        executed = yield from draft.finish(header.proposer)
        ours = executed.block.header
        for rule in ("tx_root", "units_used", "receipts_root", "state_root"):
            if getattr(ours, rule) != getattr(header, rule):
                raise _invalid(rule, f"the header's {rule} is not that of our own execution")
        if ours != header:
            raise InvariantError(f"block {header.height} passed every rule and still differs from our own header")
        return executed

    def _check_header(self, header: Header) -> None:
        head, validators = self.source.head, self.source.validators
        expected = (
            ("version", header.version, HEADER_VERSION),
            ("chain", header.chain_id, self.context.chain_id),
            ("height", header.height, head.height + 1),
            ("parent", header.parent_hash, head.hash),
            ("validators", header.validators_hash, validators.hash),
            ("next_validators", header.next_validators_hash, validators.hash),
            ("evidence", header.evidence_hash, _EMPTY_EVIDENCE),
        )
        for rule, found, wanted in expected:
            if found != wanted:
                raise _invalid(rule, f"its {rule} is not what follows from block {head.height}")
        if header.time_ms <= head.time_ms:
            raise _invalid("time", f"its time {header.time_ms} is not later than its parent's {head.time_ms}")


class _Draft:
    """A block in the making: the transactions applied so far, against the bounds of the chain's parameters."""

    def __init__(self, executor: Executor, time_ms: int) -> None:
        self.executor = executor
        self.head = executor.source.head
        self.environment = Environment(self.head.height + 1, time_ms)
        state = executor.state
        self.run: BlockRun = executor.ledger.begin_block(state, self.environment)
        self.bytes_left: int = executor.ledger.read_parameter(state, "block_bytes_max")
        self.units_left: int = executor.ledger.read_parameter(state, "block_units_max")
        self.transactions: list[Transaction] = []
        self.units_at_pause = 0

    def misfit(self, tx: Transaction) -> str | None:
        """Returns which bound the transaction would break, or None."""
        if len(tx.wire) > self.bytes_left:
            return "bytes"
        if self.executor.ledger.parse(tx).units > self.units_left:
            return "units"
        if len(self.transactions) >= BLOCK_TRANSACTIONS_MAX:
            return "count"
        return None

    def add(self, tx: Transaction) -> Slices[None]:
        """Applies a transaction that fits; raises Rejected if it may not enter."""
        receipt = yield from self.run.apply_in_slices(tx)
        self.transactions.append(tx)
        self.bytes_left -= len(tx.wire)
        self.units_left -= receipt.units

    def pause_due(self) -> bool:
        """Returns whether enough was done for one slice, and begins the next."""
        if self.run.units_used - self.units_at_pause < _SLICE_UNITS:
            return False
        self.units_at_pause = self.run.units_used
        return True

    def finish(self, proposer: bytes) -> Slices[ExecutedBlock]:
        """Computes the roots and makes the block."""
        source, run = self.executor.source, self.run
        changes, accounts = yield from run.finish()
        hashed: dict[bytes, bytes | None] = {}
        for count, (state_key, value) in enumerate(changes.items(), 1):
            hashed[sha256(state_key)] = value
            if count % _SLICE_KEYS == 0:
                yield
        pages = self.executor._pages
        tree = yield from update(source.nodes, self.head.height, self.environment.height, hashed, pages)
        tx_root = yield from root_in_slices([tx.wire_hash for tx in self.transactions])
        receipts_root = yield from root_in_slices(run.receipt_bytes)
        header = Header(
            version=HEADER_VERSION,
            chain_id=self.executor.context.chain_id,
            height=Height(self.environment.height),
            time_ms=TimeMs(self.environment.time_ms),
            parent_hash=self.head.hash,
            tx_root=tx_root,
            receipts_root=receipts_root,
            state_root=tree.root,
            validators_hash=source.validators.hash,
            next_validators_hash=source.validators.hash,
            proposer=proposer,
            evidence_hash=_EMPTY_EVIDENCE,
            units_used=run.units_used,
        )
        return ExecutedBlock(
            block=Block.of(header, self.transactions),
            changes=changes,
            tree=tree,
            receipts=tuple(run.receipts),
            receipt_bytes=tuple(run.receipt_bytes),
            transactions=tuple(self.transactions),
            touched=tuple(run.touched),
            validators_next=source.validators,
            accounts=accounts,
        )


def _invalid(rule: str, why: str) -> Rejected:
    return Rejected("block_invalid", f"the block breaks the rule {rule}: {why}", {"rule": rule})
