"""A committed state in memory, and people with keys who act on it: what tests of the ledger and of blocks need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from state import slices
from state.execution import ExecutedBlock, Executor
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset
from state.hashing import ZERO_HASH, sha256
from state.keys import ED25519, Policy, SigningKey
from state.ledger import DEFAULT_PLUGINS, Ledger, Receipt
from state.ledger.entry import FeePrice, free_of_charge
from state.ledger.plugin import Plugin
from state.rfc6962 import root
from state.transaction import Operation, Transaction, body_value, decode_transaction, sign_transaction
from state.tree.update import update
from state.types import Address, Amount, AssetCode, Header, Height, TimeMs, Validator, ValidatorSet

START_MS = 1_700_000_000_000
PROPOSER = bytes(range(32))


def key(number: int, scheme: int = ED25519) -> SigningKey:
    """The key of the person with this number."""
    return SigningKey(scheme, sha256(b"person" + number.to_bytes(4, "big")))


def validator(number: int) -> Validator:
    """The validator v<number>: its consensus key is that of person 9000 + number, its node key of 9500 + number."""
    return Validator(f"v{number}", key(9000 + number).public.data, key(9500 + number).public.data)


def validators(count: int = 4) -> ValidatorSet:
    """So many validators with fixed keys."""
    return ValidatorSet.of(validator(n) for n in range(count))


def genesis_of(
    balances: dict[Address, dict[str, int]],
    assets: Sequence[tuple[str, Address, int]] = (),
    validator_count: int = 4,
    chain_id: str = "test-1",
    **parameters: Any,
) -> Genesis:
    """A genesis with the native asset QNX, issued by person 0, and further assets (code, issuer, flags)."""
    listed = {"QNX": (key(0).address, 0)} | {code: (issuer, flags) for code, issuer, flags in assets}
    genesis = Genesis(
        chain_id=chain_id,
        time_ms=TimeMs(START_MS),
        validators=validators(validator_count),
        parameters=ChainParameters(**parameters),
        assets=tuple(GenesisAsset(AssetCode(c), 6, issuer, flags) for c, (issuer, flags) in sorted(listed.items())),
        accounts=tuple(
            GenesisAccount(address, tuple((AssetCode(c), Amount(n)) for c, n in sorted(held.items())))
            for address, held in sorted(balances.items())
        ),
    )
    genesis.check()
    return genesis


class World:
    """A chain in memory: a state source, its executor, and shorthand for signing and for making blocks."""

    def __init__(
        self,
        balances: dict[Address, dict[str, int]],
        assets: Sequence[tuple[str, Address, int]] = (),
        plugins: Iterable[Plugin] = DEFAULT_PLUGINS,
        price: FeePrice = free_of_charge,
        accounts_cached: int = 1000,
        **parameters: Any,
    ) -> None:
        self.genesis = genesis_of(balances, assets, **parameters)
        self.context = self.genesis.context
        self.ledger = Ledger(plugins, price)
        self.validators = self.genesis.validators
        self.state: dict[bytes, bytes] = dict(self.ledger.genesis_pairs(self.genesis))
        self.nodes: dict[bytes, bytes] = {}
        tree = slices.run(update(self.nodes, None, 0, {sha256(k): v for k, v in self.state.items()}))
        self.nodes.update(tree.puts)
        self.head = Header(
            version=1,
            chain_id=self.genesis.chain_id,
            height=Height(0),
            time_ms=self.genesis.time_ms,
            parent_hash=self.genesis.hash,
            tx_root=root(()),
            receipts_root=root(()),
            state_root=tree.root,
            validators_hash=self.validators.hash,
            next_validators_hash=self.validators.hash,
            proposer=ZERO_HASH,
            evidence_hash=ZERO_HASH,
            units_used=0,
        )
        self.executor = Executor(self.ledger, self.context, self, accounts_cached=accounts_cached)
        self.sequences: dict[tuple[Address, int], int] = {}

    def get(self, state_key: bytes, /) -> bytes | None:
        """The state after the head."""
        return self.state.get(state_key)

    def commit(self, executed: ExecutedBlock) -> None:
        """Does what a store does."""
        for state_key, value in executed.changes.items():
            if value is None:
                del self.state[state_key]
            else:
                self.state[state_key] = value
        self.nodes.update(executed.tree.puts)
        self.head = executed.block.header
        self.validators = executed.validators_next
        self.executor.committed(executed)

    def wire(
        self,
        sender: SigningKey | Address,
        *operations: Operation,
        signers: Iterable[SigningKey] = (),
        keys: dict[Address, list[SigningKey]] | None = None,
        policies: dict[Address, Policy] | None = None,
        lane: int = 0,
        sequence: int | None = None,
        not_after_ms: int | None = None,
        payer: Address | None = None,
        fee_max: int = 0,
        memo: bytes = b"",
    ) -> bytes:
        """A signed transaction; the sequence number is the next one that nobody asked for yet."""
        address = sender.address if isinstance(sender, SigningKey) else sender
        if sequence is None:
            sequence = self.sequences.get((address, lane), 0)
            self.sequences[address, lane] = sequence + 1
        deadline = self.head.time_ms + 60_000 if not_after_ms is None else not_after_ms
        body = body_value(
            self.context, address, lane, sequence, deadline, operations, payer=payer, fee_max=fee_max, memo=memo
        )
        signing: dict[Address, list[SigningKey]] = {} if keys is None else dict(keys)
        for signer in (*([sender] if isinstance(sender, SigningKey) else []), *signers):
            signing.setdefault(signer.address, [signer])
        return sign_transaction(self.context, body, signing, policies)

    def tx(self, *args: Any, **kwargs: Any) -> Transaction:
        """The same, decoded."""
        return decode_transaction(self.wire(*args, **kwargs), self.context)

    def build(
        self, *transactions: Transaction, time_ms: int | None = None, evidence: Iterable[bytes] = ()
    ) -> ExecutedBlock | None:
        """The next block of these transactions and this evidence, not committed."""
        time = self.head.time_ms + 10 if time_ms is None else time_ms
        return slices.run(self.executor.build(time, transactions, PROPOSER, lambda: False, evidence=evidence))

    def block(
        self, *transactions: Transaction, time_ms: int | None = None, evidence: Iterable[bytes] = ()
    ) -> tuple[Receipt, ...]:
        """Builds a block, has it executed by a node that knows nothing, commits it, and returns the receipts."""
        executed = self.build(*transactions, time_ms=time_ms, evidence=evidence)
        assert executed is not None, "none of the transactions may enter a block"
        other = Executor(self.ledger, self.context, self, accounts_cached=0, pages_cached=0)
        again = slices.run(other.execute(executed.block.header, executed.transactions, executed.block.evidence))
        assert again.changes == executed.changes
        assert again.receipt_bytes == executed.receipt_bytes
        self.commit(executed)
        return executed.receipts

    def codes(self, *transactions: Transaction) -> list[str]:
        """The outcome of each transaction in a block of them."""
        return [receipt.code for receipt in self.block(*transactions)]

    def available(self, address: Address, code: str = "QNX") -> int:
        """What an account has available."""
        return self.ledger.read_balance(self, address, code)[0]


def pay(to: Address, amount: int, asset: str = "QNX", source: Address | None = None) -> Operation:
    """A transfer to one account."""
    return pay_all([(to, amount)], asset, source)


def pay_all(recipients: Iterable[tuple[Address, int]], asset: str = "QNX", source: Address | None = None) -> Operation:
    """A transfer to many accounts."""
    items = tuple((to, amount.to_bytes((amount.bit_length() + 7) // 8, "big")) for to, amount in recipients)
    return Operation("transfer", 1, (source, asset, items))
