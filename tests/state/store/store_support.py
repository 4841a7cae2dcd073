"""A chain on a real store: people with keys, validators who certify, blocks of transfers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import plyvel

from state import slices
from state.block import vote_preimage
from state.execution import ExecutedBlock, Executor
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset, StateFile
from state.hashing import sha256
from state.keys import ED25519, SigningKey
from state.ledger import Ledger
from state.ledger.account import Account, account_key
from state.store import Store, StoreOptions
from state.transaction import Operation, Transaction, body_value, decode_transaction, sign_transaction
from state.types import (
    VOTE_COMMIT,
    Address,
    Amount,
    AssetCode,
    Certificate,
    Header,
    TimeMs,
    Validator,
    ValidatorSet,
    View,
)

START_MS = 1_700_000_000_000
LEDGER = Ledger()
SMALL = {"cache_bytes": 1 << 20, "write_buffer_bytes": 1 << 20}


def person(number: int) -> SigningKey:
    """The key of the person with this number."""
    return SigningKey(ED25519, sha256(b"person" + number.to_bytes(4, "big")))


def address(number: int) -> Address:
    """The account of the person with this number."""
    return person(number).address


VALIDATOR_KEYS = [person(9000 + n) for n in range(4)]
VALIDATORS = ValidatorSet(
    tuple(Validator(f"v{n}", key.public.data, person(9500 + n).public.data) for n, key in enumerate(VALIDATOR_KEYS))
)


def genesis_of(people: Iterable[int] = range(8), state_file: StateFile | None = None, **fields: Any) -> Genesis:
    """A genesis in which each of these people has 1,000,000 QNX."""
    genesis = Genesis(
        chain_id="store-1",
        time_ms=TimeMs(START_MS),
        validators=VALIDATORS,
        parameters=ChainParameters(block_units_max=100_000, **fields),
        assets=(GenesisAsset(AssetCode("QNX"), 6, address(0)),),
        accounts=tuple(
            sorted(
                (GenesisAccount(address(n), ((AssetCode("QNX"), Amount(1_000_000)),)) for n in people),
                key=lambda account: account.address,
            )
        ),
        state_file=state_file,
    )
    genesis.check()
    return genesis


def accounts_of(people: Iterable[int], amount: int = 1_000_000) -> list[tuple[bytes, bytes]]:
    """Account records in the order of a state file."""
    value = Account.holding({"QNX": amount}).encode()
    return sorted(((account_key(address(n)), value) for n in people), key=lambda pair: sha256(pair[0]))


def certify(genesis: Genesis, header: Header, view: int = 0, validators: ValidatorSet = VALIDATORS) -> Certificate:
    """The COMMITs of a quorum of a set whose members are v0, v1 ... with the keys of persons 9000, 9001 ..."""
    preimage = vote_preimage(genesis.hash, validators.hash, VOTE_COMMIT, header.height, view, header.hash)
    signers = [person(9000 + int(validator.name[1:])) for validator in validators.validators[: validators.quorum]]
    signatures = tuple((index, signer.sign(preimage)) for index, signer in enumerate(signers))
    return Certificate(VOTE_COMMIT, header.height, View(view), header.hash, signatures)


class Chain:
    """A store with an executor; `block` makes, certifies and commits the next block."""

    def __init__(self, path: Path, genesis: Genesis | None = None, *, new: bool = True, **options: Any) -> None:
        self.path = path
        self.genesis = genesis or genesis_of()
        self.options = StoreOptions(**(SMALL | {"durable": False} | options))
        if new:
            self.store = Store.create(path, self.genesis, LEDGER, options=self.options)
        else:
            self.store = Store.open(path, self.genesis, LEDGER, self.options)
        self._begin()

    def _begin(self) -> None:
        self.executor = Executor(LEDGER, self.genesis.context, self.store, accounts_cached=1000, pages_cached=1000)

    def reopen(self) -> Chain:
        """Closes the database and opens it again."""
        self.store.close()
        self.store = Store.open(self.path, self.genesis, LEDGER, self.options)
        self._begin()
        return self

    def pay(self, source: int, target: int | Address, amount: int = 1, sequence: int | None = None) -> Transaction:
        """A signed transfer from one person to another."""
        key = person(source)
        if sequence is None:
            account = LEDGER.read_account(self.store, key.address)
            sequence = 0 if account is None else account.sequence(0)
        to = target if isinstance(target, bytes) else address(target)
        value = amount.to_bytes((amount.bit_length() + 7) // 8, "big")
        return self.sign(key, Operation("transfer", 1, (None, "QNX", ((to, value),))), sequence)

    def sign(self, key: SigningKey, operation: Operation, sequence: int) -> Transaction:
        """A signed transaction of the account of one key."""
        context = self.genesis.context
        body = body_value(context, key.address, 0, sequence, self.store.head.time_ms + 60_000, [operation])
        return decode_transaction(sign_transaction(context, body, {key.address: [key]}), context)

    def execute(self, *transactions: Transaction, proposer: int = 0, evidence: Iterable[bytes] = ()) -> ExecutedBlock:
        """The next block of these transactions and this evidence, not committed."""
        time_ms = self.store.head.time_ms + 10
        key = VALIDATOR_KEYS[proposer].public.data
        executed = slices.run(self.executor.build(time_ms, transactions, key, lambda: False, evidence=evidence))
        assert executed is not None
        assert len(executed.transactions) == len(transactions)
        return executed

    def commit(self, executed: ExecutedBlock) -> None:
        """Certifies a block and makes it the head."""
        certificate = certify(self.genesis, executed.block.header, validators=self.store.validators)
        prepared = slices.run(self.store.commit(executed, certificate))
        prepared.write()
        self.store.advance(prepared)
        self.executor.committed(executed)

    def block(self, *transactions: Transaction) -> ExecutedBlock:
        """Makes and commits the next block."""
        executed = self.execute(*(transactions or (self.pay(0, 1),)))
        self.commit(executed)
        return executed


def contents(store_path: Path) -> dict[bytes, bytes]:
    """Every record of a closed database, read by LevelDB alone from a copy: it rewrites files when it opens them."""
    with TemporaryDirectory() as directory:
        copy = shutil.copytree(store_path / "leveldb", Path(directory) / "leveldb")
        with plyvel.DB(str(copy), paranoid_checks=True) as database:
            return dict(database.iterator(verify_checksums=True))
