"""Making blocks and judging them: every rule of a block's validity that needs the state stands here, by name.

A block is executed on an overlay of the committed state, without touching the database: the result holds everything
that a commit writes, and is dropped without a trace if the block loses. Work goes in slices of about a millisecond.

What depends on a clock, on who the proposer is, or on the proof of transactions' signatures is not looked at here:
those are proved once, before a transaction comes this far. Evidence is proved here, because the set that it accuses a
member of is state. Local policy is never validity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from state.block import Block, evidence_hash
from state.errors import InvariantError, Rejected
from state.evidence import EquivocationProof, Verify, decode_evidence, in_block_order, verify_evidence
from state.hashing import Hash, sha256
from state.keys import verify_ed25519
from state.ledger import AccountCache, BlockRun, Environment, Ledger, Receipt
from state.ledger.account import Account
from state.ledger.overlay import ACCOUNTS_CACHED_DEFAULT
from state.ledger.plugin import Accusation
from state.ledger.run import EVIDENCE_UNITS
from state.ledger.validators import VALIDATORS_KEY, Rule, decode_rule, rule_at, rules_back
from state.limits import BLOCK_TRANSACTIONS_MAX, EVIDENCE_MAX
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


_RULE_OF_FIELD: Final = {
    "tx_root": "tx_root",
    "units_used": "units_used",
    "receipts_root": "receipts_root",
    "state_root": "state_root",
    "next_validators_hash": "next_validators",
}
"""The name of the validity rule that a header field breaks that is not what executing the block gives."""


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
    accounts that list it as theirs; `validators_next` is the set in force at the next height; `accounts` are the
    changed accounts decoded, for the cache.
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
        verify: Verify = verify_ed25519,
    ) -> None:
        """Takes the rules, the chain, its state, the bounds of the caches, and how evidence's signatures are proved."""
        self.ledger = ledger
        self.context = context
        self.source = source
        self._accounts = AccountCache(source, accounts_cached)
        self._pages = PageCache(pages_cached)
        self._verify = verify
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
        *,
        evidence: Iterable[bytes] = (),
    ) -> Slices[ExecutedBlock | None]:
        """Makes the next block of that `evidence` and those `candidates`, in their order, that may enter and fit.

        Args:
            time_ms: the block's time; one later than the parent's is taken if that is not later.
            candidates: transactions whose signatures were proved.
            proposer: the consensus key of whoever proposes, 32 bytes.
            out_of_time: asked before each transaction; once true, the block is closed.
            skipped: told of each candidate that may not enter, and why.
            evidence: encoded proofs of equivocation, in any order; what may not enter is left out.

        Returns None if there is nothing to propose, or if another block was committed meanwhile.
        """
        try:
            work = self._build(time_ms, candidates, proposer, out_of_time, skipped, evidence)
            return (yield from self._while_head(work))
        except Rejected as error:
            if error.code == "superseded":
                return None
            raise

    def admits_evidence(self, item: bytes) -> bool:
        """Returns whether the next block may hold this encoded proof of equivocation, its signatures proved here."""
        draft = _Draft(self, self.source.head.time_ms + 1)
        try:
            draft.add_evidence(decode_evidence(item), item)
        except Rejected:
            return False
        return True

    def execute(
        self, header: Header, transactions: Sequence[Transaction], evidence: Sequence[bytes] = ()
    ) -> Slices[ExecutedBlock]:
        """Executes a proposed or certified block and proves that it is valid.

        `transactions` are those of the block, in order, with their signatures proved; `evidence` is the block's, which
        is proved here. Raises Rejected("block_invalid", why, {"rule": name}); Rejected("superseded") if another block
        was committed meanwhile, which says nothing about this one.
        """
        return (yield from self._while_head(self._execute(header, transactions, evidence)))

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
        evidence: Iterable[bytes],
    ) -> Slices[ExecutedBlock | None]:
        head = self.source.head
        draft = _Draft(self, max(time_ms, head.time_ms + 1))
        for proof, item in in_block_order(evidence):
            if draft.evidence_misfit(item) is None:
                try:
                    draft.add_evidence(proof, item)
                except Rejected:
                    continue
                yield
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
        if not draft.transactions and not draft.evidence:
            return None
        return (yield from draft.finish(proposer))

    def _execute(
        self, header: Header, transactions: Sequence[Transaction], evidence: Sequence[bytes]
    ) -> Slices[ExecutedBlock]:
        self._check_header(header, evidence)
        if not transactions and not evidence:
            raise _invalid("empty", "a block holds at least one transaction or piece of evidence")
        draft = _Draft(self, header.time_ms)
        yield from self._execute_evidence(draft, evidence)
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
        for field_name, rule in _RULE_OF_FIELD.items():
            if getattr(ours, field_name) != getattr(header, field_name):
                raise _invalid(rule, f"the header's {field_name} is not that of our own execution")
        if ours != header:
            raise InvariantError(f"block {header.height} passed every rule and still differs from our own header")
        return executed

    def _execute_evidence(self, draft: _Draft, evidence: Sequence[bytes]) -> Slices[None]:
        for place, item in enumerate(evidence):
            misfit = draft.evidence_misfit(item)
            if misfit is not None:
                raise _invalid(misfit, f"evidence {place} goes beyond the bound of {misfit} in a block")
            try:
                draft.add_evidence(decode_evidence(item), item)
            except Rejected as error:
                raise _invalid("evidence", f"evidence {place}: {error}") from error
            yield

    def _check_header(self, header: Header, evidence: Sequence[bytes]) -> None:
        head, validators = self.source.head, self.source.validators
        expected = (
            ("version", header.version, HEADER_VERSION),
            ("chain", header.chain_id, self.context.chain_id),
            ("height", header.height, head.height + 1),
            ("parent", header.parent_hash, head.hash),
            ("validators", header.validators_hash, validators.hash),
            ("evidence", header.evidence_hash, evidence_hash(evidence)),
        )
        for rule, found, wanted in expected:
            if found != wanted:
                raise _invalid(rule, f"its {rule} is not what follows from block {head.height}")
        if header.time_ms <= head.time_ms:
            raise _invalid("time", f"its time {header.time_ms} is not later than its parent's {head.time_ms}")


class _Draft:
    """A block in the making: what was applied so far, against the bounds of the chain's parameters."""

    def __init__(self, executor: Executor, time_ms: int) -> None:
        self.executor = executor
        self.head = executor.source.head
        self.environment = Environment(self.head.height + 1, time_ms)
        state = executor.state
        self.run: BlockRun = executor.ledger.begin_block(state, self.environment)
        self.bytes_left: int = executor.ledger.read_parameter(state, "block_bytes_max")
        self.units_left: int = executor.ledger.read_parameter(state, "block_units_max")
        self.evidence_age: int = executor.ledger.read_parameter(state, "evidence_age_heights")
        self.transactions: list[Transaction] = []
        self.evidence: list[bytes] = []
        self.last_place: tuple[int, ...] = ()
        self.rules: list[Rule] = []
        self.older_rules = rules_back(state)
        self.units_at_pause = 0

    def evidence_misfit(self, item: bytes) -> str | None:
        """Returns which bound a piece of evidence would break, or None."""
        if len(item) > self.bytes_left:
            return "bytes"
        if self.units_left < EVIDENCE_UNITS:
            return "units"
        return "count" if len(self.evidence) >= EVIDENCE_MAX else None

    def add_evidence(self, proof: EquivocationProof, item: bytes) -> None:
        """Applies a piece of evidence that fits; raises Rejected if it may not enter.

        Its age is looked at first: that bounds how far back its validator set is searched.
        """
        height = self.environment.height
        if proof.place <= self.last_place:
            raise Rejected("evidence_order", "evidence is in order of height, view, kind and offender, each once")
        if not height - self.evidence_age <= proof.height <= height:
            raise Rejected("evidence_age", f"evidence of height {proof.height} may not enter a block at {height}")
        validators = self.rule_at(proof.height).validators
        if proof.offender >= validators.n:
            raise Rejected("sender_unknown", f"validator index {proof.offender} is not in the set of {validators.n}")
        offender = validators.validators[proof.offender]
        executor = self.executor

        def prove() -> None:
            verify_evidence(proof, executor.context.genesis_hash, validators, executor._verify)

        self.run.apply_evidence(Accusation(offender, proof.offence, proof.height, proof.view), prove)
        self.last_place = proof.place
        self.evidence.append(item)
        self.bytes_left -= len(item)
        self.units_left -= EVIDENCE_UNITS

    def misfit(self, tx: Transaction) -> str | None:
        """Returns which bound the transaction would break, or None."""
        if len(tx.wire) > self.bytes_left:
            return "bytes"
        if self.executor.ledger.parse(tx).units > self.units_left:
            return "units"
        if len(self.transactions) >= BLOCK_TRANSACTIONS_MAX:
            return "count"
        return None

    def rule_at(self, height: int) -> Rule:
        """Returns who was in force at a height; each set of the history is read once for a block."""
        while not self.rules or self.rules[-1].first > height:
            self.rules.append(next(self.older_rules))
        return rule_at(self.rules, height)

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
        rule = changes.get(VALIDATORS_KEY)
        validators_next = source.validators if rule is None else decode_rule(rule).validators
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
            next_validators_hash=validators_next.hash,
            proposer=proposer,
            evidence_hash=evidence_hash(self.evidence),
            units_used=run.units_used,
        )
        return ExecutedBlock(
            block=Block.of(header, self.transactions, self.evidence),
            changes=changes,
            tree=tree,
            receipts=tuple(run.receipts),
            receipt_bytes=tuple(run.receipt_bytes),
            transactions=tuple(self.transactions),
            touched=tuple(run.touched),
            validators_next=validators_next,
            accounts=accounts,
        )


def _invalid(rule: str, why: str) -> Rejected:
    return Rejected("block_invalid", f"the block breaks the rule {rule}: {why}", {"rule": rule})
