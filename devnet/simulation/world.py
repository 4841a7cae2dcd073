"""The chain that is simulated: its validators, a handful of accounts, and transfers that were signed beforehand.

It is the same for all seeds with one number of validators, so that it is made once a process; a seed chooses from it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from state import rfc6962, slices
from state.block import evidence_hash
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset
from state.hashing import ZERO_HASH, sha256
from state.keys import ED25519, SigningKey
from state.ledger import Ledger
from state.transaction import Operation, Transaction, body_value, decode_transaction, sign_transaction
from state.tree.update import update
from state.types import (
    HEADER_VERSION,
    Address,
    Amount,
    AssetCode,
    ChainContext,
    Header,
    Height,
    TimeMs,
    Validator,
    ValidatorSet,
)

START_MS: Final = 1_700_000_000_000
ASSET: Final = AssetCode("QNX")
ACCOUNTS: Final = 6
SPARES: Final = 4
TRANSFERS_EACH: Final = 12
BALANCE: Final = 1_000
DEADLINE_MS: Final = 3_600_000
HASTY_MS: Final = (700, 1_900, 3_100)


@dataclass(frozen=True)
class World:
    """What all machines of a simulation share before it begins.

    `pairs` is the genesis state, `rows` its tree; `transfers` holds, for each account, its transfers in order of
    sequence. An identity is a number: the validators of genesis come first, by index, then SPARES that may be let in.
    `keys` are their public consensus keys, `secrets` the secret ones by public key, `operators` the accounts that act
    for them. `hasty` are transfers that expire soon, each in a lane of its own. Nothing of it is changed by a run.
    """

    genesis: Genesis
    ledger: Ledger
    header: Header
    pairs: dict[bytes, bytes]
    rows: dict[bytes, bytes]
    accounts: tuple[Address, ...]
    transfers: tuple[tuple[Transaction, ...], ...]
    hasty: tuple[Transaction, ...]
    keys: tuple[bytes, ...]
    node_keys: tuple[SigningKey, ...]
    operators: tuple[Address, ...]
    secrets: dict[bytes, SigningKey]

    @property
    def validators(self) -> ValidatorSet:
        """The validators of genesis."""
        return self.genesis.validators


@lru_cache(maxsize=64)
def world_of(n: int, leader_term: int, drift_ms: int = 5_000) -> World:
    """Returns the world with `n` validators."""
    keys = [_key(b"account", number) for number in range(ACCOUNTS)]
    genesis = _genesis(n, leader_term, drift_ms, keys)
    ledger = Ledger()
    pairs = dict(ledger.genesis_pairs(genesis))
    tree = slices.run(update({}, None, 0, {sha256(key): value for key, value in pairs.items()}))
    header = Header(
        version=HEADER_VERSION,
        chain_id=genesis.chain_id,
        height=Height(0),
        time_ms=genesis.time_ms,
        parent_hash=genesis.hash,
        tx_root=rfc6962.root(()),
        receipts_root=rfc6962.root(()),
        state_root=tree.root,
        validators_hash=genesis.validators.hash,
        next_validators_hash=genesis.validators.hash,
        proposer=ZERO_HASH,
        evidence_hash=evidence_hash(()),
        units_used=0,
    )
    transfers = tuple(_transfers(genesis, keys, number) for number in range(ACCOUNTS))
    addresses = tuple(key.address for key in keys)
    secrets = {key.public.data: key for key in (_key(b"validator", number) for number in range(n + SPARES))}
    return World(
        genesis=genesis,
        ledger=ledger,
        header=header,
        pairs=pairs,
        rows=dict(tree.puts),
        accounts=addresses,
        transfers=transfers,
        hasty=tuple(_hasty(genesis, keys)),
        keys=tuple(secrets),
        node_keys=tuple(_key(b"node", number) for number in range(n + SPARES)),
        operators=tuple(key.address for key in secrets.values()),
        secrets=secrets,
    )


def name_of(number: int) -> str:
    """Returns the name under which an identity is a validator: in order of names they are in order of numbers."""
    return f"v{number:02}"


def _key(what: bytes, number: int) -> SigningKey:
    return SigningKey(ED25519, sha256(what + bytes([number])))


def _genesis(n: int, leader_term: int, drift_ms: int, keys: list[SigningKey]) -> Genesis:
    genesis = Genesis(
        chain_id="simulated-1",
        time_ms=TimeMs(START_MS),
        validators=ValidatorSet.of(
            Validator(name_of(number), _key(b"validator", number).public.data, _key(b"node", number).public.data)
            for number in range(n)
        ),
        parameters=ChainParameters(leader_term=leader_term, drift_ms=drift_ms),
        assets=(GenesisAsset(ASSET, 0, keys[0].address),),
        accounts=tuple(
            GenesisAccount(address, ((ASSET, Amount(BALANCE)),)) for address in sorted(key.address for key in keys)
        ),
    )
    genesis.check()
    return genesis


def _transfers(genesis: Genesis, keys: list[SigningKey], number: int) -> tuple[Transaction, ...]:
    """Transfers of one account; some are for more than it can have, so that blocks hold failures too."""
    rng = random.Random(number)
    key, context = keys[number], genesis.context
    made = []
    for sequence in range(TRANSFERS_EACH):
        to = keys[rng.randrange(ACCOUNTS)].address
        amount = rng.randrange(1, BALANCE * 2 if rng.random() < 0.2 else BALANCE // 4)
        made.append(_transfer(context, key, 0, sequence, DEADLINE_MS, to, amount))
    return tuple(made)


def _hasty(genesis: Genesis, keys: list[SigningKey]) -> Iterator[Transaction]:
    """Yields transfers that expire during a run."""
    for number, key in enumerate(keys):
        for lane, deadline_ms in enumerate(HASTY_MS, 1):
            to = keys[(number + lane) % ACCOUNTS].address
            yield _transfer(genesis.context, key, lane, 0, deadline_ms + 100 * number, to, 1)


def _transfer(
    context: ChainContext, key: SigningKey, lane: int, sequence: int, deadline_ms: int, to: Address, amount: int
) -> Transaction:
    pay = Operation("transfer", 1, (None, ASSET, ((to, amount.to_bytes((amount.bit_length() + 7) // 8, "big")),)))
    body = body_value(context, key.address, lane, sequence, START_MS + deadline_ms, [pay])
    return decode_transaction(sign_transaction(context, body, {key.address: [key]}), context)
