"""The first records of a database: the state that a chain is born with, and its header 0.

A state file is read as a stream, so that millions of accounts need no more memory than a hundred. It is a sequence of
frames [length (4 bytes, big-endian)][encode((state key, value))] of account records, in strictly ascending order of
SHA-256(state key), which is the order that the tree is built in. All of it is checked: its hash before anything is
written, then order, records, the number of accounts and what they hold in all.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from state.block import Block, evidence_hash, receipts_root, tx_root
from state.codec import decode, encode, expect_blob, expect_tuple
from state.errors import DecodeError, Rejected
from state.genesis import Genesis, StateFile
from state.hashing import ZERO_HASH, Hash, sha256
from state.ledger import Ledger
from state.ledger.account import ACCOUNT_BYTES_MAX, Account, account_key
from state.store import chain
from state.store.database import Database
from state.store.keys import (
    FORMAT_VERSION,
    META_CHAIN,
    META_FORMAT,
    META_INDEX,
    META_OLDEST,
    NODE,
    STATE,
    height_bytes,
    seal,
)
from state.tree.build import build
from state.types import HEADER_VERSION, Header, Height

Progress = Callable[[int], None]
"""Told how many records of the state were written so far."""

_FRAME_LENGTH_BYTES: Final = 4
_FRAME_BYTES_MAX: Final = ACCOUNT_BYTES_MAX + 64
_BATCH_RECORDS: Final = 4096
_ACCOUNT_KEY_BYTES: Final = len(account_key(bytes(32)))
_ACCOUNT_KEY_START: Final = account_key(b"")

Leaf = tuple[Hash, bytes, bytes]
"""(SHA-256 of the state key, state key, value)."""


def write_state_file(path: Path, pairs: Iterable[tuple[bytes, bytes]]) -> StateFile:
    """Writes account records (state key, value), given in order of SHA-256(state key), as a state file.

    Returns what the genesis document says of it.
    """
    digest = hashlib.sha256()
    totals: dict[str, int] = {}
    count = 0
    with path.open("wb") as stream:
        for key, value in pairs:
            body = encode((key, value))
            frame = len(body).to_bytes(_FRAME_LENGTH_BYTES, "big") + body
            digest.update(frame)
            stream.write(frame)
            _add_balances(totals, value)
            count += 1
    balances: Any = tuple(sorted(totals.items()))
    return StateFile(Hash(digest.digest()), count, balances)


def genesis_header(genesis: Genesis, state_root: Hash) -> Header:
    """Returns header 0: its parent is the genesis document, its content empty, its state the one given."""
    validators_hash = genesis.validators.hash
    return Header(
        version=HEADER_VERSION,
        chain_id=genesis.chain_id,
        height=Height(0),
        time_ms=genesis.time_ms,
        parent_hash=genesis.hash,
        tx_root=tx_root(()),
        receipts_root=receipts_root(()),
        state_root=state_root,
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
        proposer=ZERO_HASH,
        evidence_hash=evidence_hash(()),
        units_used=0,
    )


def write_genesis(
    database: Database,
    genesis: Genesis,
    ledger: Ledger,
    *,
    state_file: Path | None,
    index_accounts: bool,
    progress: Progress | None = None,
) -> None:
    """Fills an empty database with a chain of height 0.

    Raises Rejected: "state_file_missing", "state_file_wrong", "genesis_invalid". The format record is written last,
    when all else is on the disk.
    """
    named = genesis.state_file
    sources: list[Iterable[Leaf]] = [sorted((sha256(k), k, v) for k, v in ledger.genesis_pairs(genesis))]
    if named is not None:
        if state_file is None:
            raise Rejected("state_file_missing", "genesis names a state file by hash: it is needed to make the state")
        _check_hash(state_file, named)
        sources.append(_read_state_file(state_file, named))
    state_root = _write_state(database, heapq.merge(*sources), progress or _silent)
    header = genesis_header(genesis, state_root)
    batch = database.batch()
    chain.put_block(batch, Block(header, ()))
    chain.put_receipts(batch, 0, ())
    chain.put_head(batch, header, None)
    database.put(batch, META_CHAIN, genesis.hash)
    database.put(batch, META_OLDEST, height_bytes(0))
    if index_accounts:
        database.put(batch, META_INDEX, height_bytes(1))
    database.write(batch)
    # A synced write makes only the newest log durable; what went through older ones is durable once it is in tables.
    database.compact(b"", b"\xff")
    batch = database.batch()
    database.put(batch, META_FORMAT, encode(FORMAT_VERSION))
    database.write(batch)


def _silent(records: int) -> None:
    """The progress of whoever does not want to know."""


def _write_state(database: Database, leaves: Iterator[Leaf], progress: Progress) -> Hash:
    batch = database.batch(sync=False)
    written = 0

    def flat() -> Iterator[tuple[bytes, bytes]]:
        last = b""
        for key_hash, state_key, value in leaves:
            if key_hash == last:
                raise Rejected("state_file_wrong", "the state file holds a record that genesis has itself")
            last = key_hash
            key = STATE + state_key
            batch.put(key, seal(key, value))
            yield key_hash, value

    rows = build(flat(), 0)
    while True:
        try:
            node_key, row = next(rows)
        except StopIteration as end:
            database.write(batch)
            progress(written)
            return end.value  # type: ignore[no-any-return]
        batch.put(NODE + node_key, row)
        written += 1
        if written % _BATCH_RECORDS == 0:
            database.write(batch)
            batch.clear()
            progress(written)


def _check_hash(path: Path, named: StateFile) -> None:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise Rejected("state_file_missing", f"{path} cannot be read: {error}") from None
    if digest != named.sha256:
        raise Rejected(
            "state_file_wrong", f"{path} has the hash 0x{digest.hex()}, genesis names 0x{named.sha256.hex()}"
        )


def _read_state_file(path: Path, named: StateFile) -> Generator[Leaf, None, None]:
    """Yields the records of a state file, checked; at its end proves their number and sums."""
    totals: dict[str, int] = {}
    count = 0
    last = b""
    with path.open("rb", buffering=1 << 20) as stream:
        while head := stream.read(_FRAME_LENGTH_BYTES):
            length = int.from_bytes(head, "big")
            if len(head) < _FRAME_LENGTH_BYTES or length > _FRAME_BYTES_MAX:
                raise _wrong(count, "has a malformed length")
            try:
                key, value = expect_tuple(decode(stream.read(length), bytes_max=_FRAME_BYTES_MAX), 2, "record")
                expect_blob(value, ACCOUNT_BYTES_MAX, "value")
                if len(expect_blob(key, _ACCOUNT_KEY_BYTES, "key")) != _ACCOUNT_KEY_BYTES or not key.startswith(
                    _ACCOUNT_KEY_START
                ):
                    raise DecodeError("its key is not that of an account")
                _add_balances(totals, value)
            except Rejected as error:
                raise _wrong(count, f"is malformed: {error.message}") from error
            key_hash = sha256(key)
            if key_hash <= last:
                raise _wrong(count, "is not in order of the hashes of keys")
            last = key_hash
            count += 1
            yield key_hash, key, value
    if count != named.accounts:
        raise Rejected("state_file_wrong", f"the state file has {count} accounts, genesis says {named.accounts}")
    if {code: total for code, total in totals.items() if total} != {c: int(a) for c, a in named.balances if a}:
        raise Rejected("state_file_wrong", "the accounts of the state file do not hold in all what genesis says")


def _add_balances(totals: dict[str, int], value: bytes) -> None:
    account = Account.decode(value)
    if account.balances is None:
        raise DecodeError("an account of a state file holds its balances itself")
    for code, (available, held) in account.balances.items():
        totals[code] = totals.get(code, 0) + available + held


def _wrong(place: int, why: str) -> Rejected:
    return Rejected("state_file_wrong", f"record {place} of the state file {why}")
