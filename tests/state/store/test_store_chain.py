"""What is committed can be read back, as of the head and of every kept height, and nothing is stored twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_support import LEDGER, VALIDATORS, Chain, address, certify, contents

from state import slices
from state.errors import InvariantError, Rejected
from state.ledger.account import account_key
from state.store import Store, VoteBatch
from state.store.keys import BODY, HEADER, META_INDEX
from state.tree.proof import verify as verify_proof


def balance(store: Store, number: int) -> int:
    return LEDGER.read_balance(store, address(number), "QNX")[0]


def test_a_committed_block_is_found_by_height_hash_and_transaction(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    first = chain.block(chain.pay(0, 1), chain.pay(2, 3))
    second = chain.block(chain.pay(1, 0))
    store = chain.store
    header = first.block.header
    assert store.head == second.block.header
    assert store.header_at(1) == header
    assert store.block_at(1) == store.body(header.hash) == first.block
    assert store.height_of(header.hash) == 1
    assert store.certificate_at(1) == certify(chain.genesis, header)
    assert store.head_certificate == certify(chain.genesis, second.block.header)
    assert store.receipts_at(1) == first.receipts
    assert store.receipt_at(1, 1) == first.receipts[1]
    assert store.transaction_at(1, 1) == first.transactions[1].wire
    assert [store.locate(tx.id) for tx in first.transactions] == [(1, 0), (1, 1)]
    assert store.validators_at(0) == store.validators_at(3) == VALIDATORS


def test_what_is_not_committed_is_unknown(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    block = chain.block().block
    store = chain.store
    assert store.header_at(2) is store.block_at(2) is store.certificate_at(2) is store.certificate_at(0) is None
    assert store.body(block.header.parent_hash) is not None
    unknown = block.header.tx_root
    assert store.body(unknown) is store.height_of(unknown) is None
    assert store.locate(unknown) is None
    assert store.receipt_at(1, 1) is store.transaction_at(1, 1) is None
    for ask in (store.receipts_at, lambda h: store.get_at(h, b""), lambda h: store.prove(h, b"")):
        with pytest.raises(Rejected, match="height_unknown"):
            ask(2)
    with pytest.raises(Rejected, match="height_unknown"):
        store.validators_at(3)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    blocks = [chain.block(chain.pay(0, 1, 5)) for _ in range(3)]
    chain.reopen()
    assert chain.store.head == blocks[-1].block.header
    assert balance(chain.store, 1) == 1_000_015
    assert [chain.store.block_at(height) for height in (1, 2, 3)] == [executed.block for executed in blocks]
    chain.block()
    assert chain.store.head.height == 4


def test_states_of_all_heights_are_read_and_proved_on_an_archive(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    key = account_key(address(1))
    values = [chain.store.get(key)]
    for _ in range(4):
        chain.block(chain.pay(0, 1))
        values.append(chain.store.get(key))
    assert len(set(values)) == 5
    for height, value in enumerate(values):
        header = chain.store.header_at(height)
        assert header is not None
        assert chain.store.get_at(height, key) == value
        verify_proof(chain.store.prove(height, key), header.state_root, key, value)
        verify_proof(chain.store.prove(height, b"absent"), header.state_root, b"absent", None)


def test_reads_answer_as_of_the_old_head_until_the_head_advances(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    store = chain.store
    executed = chain.execute(chain.pay(0, 1, 7))
    prepared = slices.run(store.commit(executed, certify(chain.genesis, executed.block.header)))
    prepared.write()
    block_hash, tx_id = executed.block.header.hash, executed.transactions[0].id
    assert balance(store, 1) == 1_000_000
    assert store.header_at(1) is store.height_of(block_hash) is store.locate(tx_id) is None
    assert store.account_transactions(address(1), None, 10) == ()
    store.advance(prepared)
    assert balance(store, 1) == 1_000_007
    assert store.height_of(block_hash) == 1
    assert store.locate(tx_id) == (1, 0)
    assert store.account_transactions(address(1), None, 10) == ((1, 0),)


def test_a_head_moves_only_to_a_block_that_is_written_and_next(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    executed = chain.execute(chain.pay(0, 1))
    certificate = certify(chain.genesis, executed.block.header)
    prepared = slices.run(chain.store.commit(executed, certificate))
    with pytest.raises(InvariantError, match="not written"):
        chain.store.advance(prepared)
    chain.commit(chain.execute(chain.pay(0, 1)))
    prepared.write()
    with pytest.raises(InvariantError, match="not its next"):
        chain.store.advance(prepared)
    with pytest.raises(InvariantError, match="does not follow"):
        slices.run(chain.store.commit(executed, certificate))


def test_a_block_is_not_committed_with_the_certificate_of_another(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    executed = chain.execute(chain.pay(0, 1))
    other = chain.execute(chain.pay(2, 1))
    with pytest.raises(InvariantError, match="certificate of another"):
        slices.run(chain.store.commit(executed, certify(chain.genesis, other.block.header)))


def test_a_body_that_was_stored_with_votes_is_not_written_again(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    executed = chain.execute(*(chain.pay(0, 1, sequence=n) for n in range(20)))
    certificate = certify(chain.genesis, executed.block.header)
    fresh = slices.run(chain.store.commit(executed, certificate)).batch.approximate_size()
    chain.store.write_votes(VoteBatch(bodies=(executed.block, executed.block)))
    assert chain.store.body(executed.block.header.hash) == executed.block
    assert chain.store.height_of(executed.block.header.hash) is None
    prepared = slices.run(chain.store.commit(executed, certificate))
    assert fresh - prepared.batch.approximate_size() > len(executed.block.encoded)
    prepared.write()
    chain.store.advance(prepared)
    chain.store.write_votes(VoteBatch(bodies=(executed.block,)))
    assert not chain.store.uncommitted_bodies()
    assert chain.store.block_at(1) == executed.block


@pytest.mark.parametrize("restart", [False, True])
def test_blocks_that_lost_their_height_go_with_the_commit(tmp_path: Path, restart: bool) -> None:
    chain = Chain(tmp_path / "db")
    winner = chain.execute(chain.pay(0, 1))
    losers = [chain.execute(chain.pay(0, 1), proposer=n).block for n in (1, 2)]
    chain.store.write_votes(VoteBatch(bodies=(winner.block, *losers)))
    if restart:
        chain.reopen()
    assert set(chain.store.uncommitted_bodies()) == {block.header.hash for block in (winner.block, *losers)}
    chain.commit(winner)
    assert [chain.store.body(block.header.hash) for block in losers] == [None, None]
    assert not chain.store.uncommitted_bodies()
    chain.store.close()
    stored = [key for key in contents(chain.path) if key[:1] in (HEADER, BODY)]
    assert len(stored) == 4


def test_bodies_of_later_heights_survive_a_commit(tmp_path: Path) -> None:
    ahead = Chain(tmp_path / "ahead")
    first = ahead.block()
    second = ahead.execute(ahead.pay(2, 3))
    chain = Chain(tmp_path / "db")
    chain.store.write_votes(VoteBatch(bodies=(second.block,)))
    chain.commit(chain.execute(*first.transactions))
    assert chain.store.head.hash == first.block.header.hash
    assert chain.reopen().store.body(second.block.header.hash) == second.block


def test_an_accounts_transactions_come_in_pages_newest_first(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    for _ in range(3):
        chain.block(chain.pay(0, 1), chain.pay(2, 1), chain.pay(3, 4))
    store = chain.store
    assert store.account_transactions(address(1), None, 4) == ((3, 1), (3, 0), (2, 1), (2, 0))
    assert store.account_transactions(address(1), (2, 0), 4) == ((1, 1), (1, 0))
    assert store.account_transactions(address(4), None, 10) == ((3, 2), (2, 2), (1, 2))
    assert store.account_transactions(address(5), None, 10) == ()


def test_the_account_index_can_be_switched_off_and_on(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db", index_accounts=False)
    chain.block()
    with pytest.raises(Rejected, match="index_off"):
        chain.store.account_transactions(address(0), None, 10)
    chain.store.close()
    chain = Chain(chain.path, index_accounts=True, new=False)
    chain.block()
    assert chain.store.accounts_indexed_from == 2
    assert chain.store.account_transactions(address(0), None, 10) == ((2, 0),)
    chain.store.close()
    chain = Chain(chain.path, index_accounts=False, new=False)
    assert chain.store.accounts_indexed_from is None
    chain.store.close()
    assert not [key for key in contents(chain.path) if key.startswith(b"A")]


def test_an_index_whose_removal_was_broken_off_is_never_taken_for_one(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    chain.block()
    batch = chain.store.database.batch()
    chain.store.database.put(batch, META_INDEX, b"")
    chain.store.database.write(batch)
    assert chain.reopen().store.accounts_indexed_from == 2
    assert chain.store.account_transactions(address(0), None, 10) == ()


def test_a_record_that_goes_from_the_state_goes_from_the_database(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    executed = chain.execute(chain.pay(0, 1))
    key = account_key(address(7))
    executed.changes[key] = None
    chain.commit(executed)
    assert chain.store.get(key) is None


def test_committing_yields_so_that_a_large_block_does_not_hold_the_loop(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    executed = chain.execute(*(chain.pay(0, 1, sequence=n) for n in range(1100)))
    work = chain.store.commit(executed, certify(chain.genesis, executed.block.header))
    assert sum(1 for _ in work) >= 6


def test_a_store_without_vote_records_takes_bodies_and_refuses_votes(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    assert not chain.store.votes_exist
    chain.store.write_votes(VoteBatch())
    with pytest.raises(InvariantError, match="init"):
        chain.store.write_votes(VoteBatch(puts=((b"a", b"1"),)))
