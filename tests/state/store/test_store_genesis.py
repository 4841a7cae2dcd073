"""A chain's first state is the same however its accounts are given, and a wrong state file makes no chain."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from store_support import LEDGER, Chain, accounts_of, address, genesis_of

from state.codec import encode
from state.errors import Rejected
from state.genesis import StateFile
from state.hashing import Hash
from state.ledger.account import Account, account_key
from state.store import Store, genesis_header, write_state_file
from state.store.keys import STATE, after
from state.types import Amount, AssetCode

CHAIN_KEY = encode(("governance", "chain"))

QNX = AssetCode("QNX")


def named(frames: bytes, accounts: int, total: int) -> StateFile:
    return StateFile(Hash(hashlib.sha256(frames).digest()), accounts, ((QNX, Amount(total)),))


def frame(*pair: object) -> bytes:
    body = encode(pair)
    return len(body).to_bytes(4, "big") + body


def refusal(tmp_path: Path, frames: bytes, accounts: int = 3, total: int = 3_000_000) -> str:
    """Why no chain is made of a state file with these bytes."""
    state_file = tmp_path / "genesis.state"
    state_file.write_bytes(frames)
    genesis = genesis_of(range(5), state_file=named(frames, accounts, total))
    with pytest.raises(Rejected) as caught:
        Store.create(tmp_path / "db", genesis, LEDGER, state_file=state_file)
    with pytest.raises(Rejected, match="store_incomplete"):
        Store.open(tmp_path / "db", genesis, LEDGER)
    assert caught.value.code == "state_file_wrong"
    return caught.value.message


def test_header_0_binds_the_state_to_the_genesis_document(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    header = chain.store.head
    assert (header.height, header.parent_hash, header.time_ms) == (0, chain.genesis.hash, chain.genesis.time_ms)
    assert header == genesis_header(chain.genesis, header.state_root)
    assert header.proposer == bytes(32)
    assert chain.store.head_certificate is None
    assert chain.store.block_at(0) is not None
    assert chain.store.receipts_at(0) == ()
    assert chain.reopen().store.head == header


def test_accounts_of_a_state_file_give_the_same_state_as_inline_ones(tmp_path: Path) -> None:
    inline = Chain(tmp_path / "inline", genesis_of(range(40)))
    state_file = tmp_path / "genesis.state"
    described = write_state_file(state_file, accounts_of(range(10, 40)))
    assert described == named(state_file.read_bytes(), 30, 30_000_000)
    genesis = genesis_of(range(10), state_file=described)
    store = Store.create(tmp_path / "file", genesis, LEDGER, state_file=state_file)
    states = [
        {key: value for key, value in database.scan(STATE, after(STATE)) if key != STATE + CHAIN_KEY}
        for database in (store.database, inline.store.database)
    ]
    # Only the record of the genesis hash differs: the documents do.
    assert len(states[0]) > 40
    assert states[0] == states[1]
    for number in (0, 9, 10, 39):
        assert store.get(account_key(address(number))) == inline.store.get(account_key(address(number)))
    assert LEDGER.read_asset(store, "QNX") == LEDGER.read_asset(inline.store, "QNX")
    assert LEDGER.read_balance(store, address(39), "QNX") == (1_000_000, 0)
    store.close()


def test_a_named_state_file_must_be_given(tmp_path: Path) -> None:
    genesis = genesis_of(range(5), state_file=named(b"", 0, 0))
    with pytest.raises(Rejected, match="state_file_missing"):
        Store.create(tmp_path / "db", genesis, LEDGER)
    with pytest.raises(Rejected, match="state_file_missing"):
        Store.create(tmp_path / "other", genesis, LEDGER, state_file=tmp_path / "absent")


def test_a_state_file_with_another_hash_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    state_file = tmp_path / "genesis.state"
    described = write_state_file(state_file, accounts_of(range(10, 13)))
    genesis = genesis_of(range(5), state_file=replace(described, sha256=Hash(bytes(32))))
    with pytest.raises(Rejected, match="genesis names 0x00"):
        Store.create(tmp_path / "db", genesis, LEDGER, state_file=state_file)


PAIRS = accounts_of(range(10, 13))
GOOD = [frame(*pair) for pair in PAIRS]
VALUE = PAIRS[0][1]

WRONG_FILES = {
    "is not in order": GOOD[1] + GOOD[0] + GOOD[2],
    "record 1 of the state file is not in order": GOOD[0] + GOOD[0] + GOOD[2],
    "has a malformed length": b"".join(GOOD) + b"\0\0",
    "record 0 of the state file is malformed": GOOD[0][:4] + b"\xc1" + GOOD[0][5:],
    "record 2 of the state file is malformed": b"".join(GOOD)[:-1],
    "its key is not that of an account": frame(encode(("asset", "QNX")), VALUE),
    "an empty account has no record": frame(PAIRS[0][0], Account.holding({}).encode()),
    "holds its balances itself": frame(PAIRS[0][0], Account((1,)).encode()),
    "has 2 accounts, genesis says 3": b"".join(GOOD[:2]),
    "do not hold in all": b"".join(frame(*pair) for pair in accounts_of(range(10, 13), 999_999)),
    "holds a record that genesis has itself": b"".join(frame(*pair) for pair in accounts_of((1, 10, 11))),
}


@pytest.mark.parametrize("why", WRONG_FILES)
def test_a_state_file_is_checked_record_by_record_and_in_all(tmp_path: Path, why: str) -> None:
    assert why in refusal(tmp_path, WRONG_FILES[why])
