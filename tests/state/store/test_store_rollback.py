"""Taking back the newest block leaves the database as it was before, but for the block itself and the vote records."""

from pathlib import Path

import pytest
from store_support import LEDGER, Chain, contents

from state import slices
from state.errors import Rejected
from state.store import VoteBatch, rollback
from state.store.database import Database
from state.store.errors import Damaged, StorageFailed
from state.store.keys import BODY, HEADER, META_GARBAGE, META_VOTES, VOTE, seal
from state.store.rollback import rollback as take_back
from state.store.verify import verify
from state.transaction import decode_transaction


def chain_of(path: Path, blocks: int = 3, **options) -> Chain:
    """A chain with votes, in which accounts appear, change, and spend all they have."""
    chain = Chain(path, **options)
    chain.store.create_votes(b"key")
    for number in range(blocks):
        chain.block(
            chain.pay(number, 100 + number, 1_000_000 if number == 1 else 5), chain.pay(number + 3, number + 4, 7)
        )
    return chain


def undo(chain: Chain):
    return take_back(chain.path, chain.genesis, LEDGER, bind, chain.options)


def bind(records, height):
    return ((b"bound", b"%d" % max(height, int(records.get(b"bound", b"0")))),)


def comparable(records, leave=()):
    """All records but those of the votes, of how much waste there is, and what a test names."""
    left_out = {META_GARBAGE, META_VOTES, *leave}
    return {key: value for key, value in records.items() if key[:1] != VOTE and key not in left_out}


def votes_of(records):
    return {key: value for key, value in records.items() if key[:1] == VOTE}


@pytest.mark.parametrize("index_accounts", [True, False])
def test_the_database_is_as_before_but_for_the_block_which_is_no_longer_committed(tmp_path, index_accounts):
    chain = chain_of(tmp_path / "db", index_accounts=index_accounts)
    chain.store.close()
    before = contents(chain.path)
    chain.reopen()
    executed = chain.block(chain.pay(1, 110, 1), chain.pay(2, 3, 9))
    chain.store.write_votes(VoteBatch(puts=((b"vote", b"of height 5"),)))
    chain.store.close()
    with_votes = votes_of(contents(chain.path))
    done = undo(chain)
    header = executed.block.header
    assert (done.height, done.block_hash, done.head.height) == (4, header.hash, 3)
    after = contents(chain.path)
    body = {HEADER + header.hash, BODY + (4).to_bytes(8, "big") + header.hash}
    assert body <= set(after)
    bound = VOTE + b"bound"
    assert votes_of(after) == with_votes | {bound: seal(bound, b"4")}
    assert comparable(after, body) == comparable(before)
    assert verify(chain.path, chain.genesis, LEDGER).ok


def test_the_same_block_is_committed_again_and_the_chain_goes_on(tmp_path):
    chain = chain_of(tmp_path / "db")
    newest = chain.store.block_at(3)
    chain.store.close()
    whole = contents(chain.path)
    undo(chain)
    chain.reopen()
    assert chain.store.uncommitted_bodies() == {newest.header.hash: 3}
    assert chain.store.body(newest.header.hash) == newest
    transactions = [decode_transaction(wire, chain.genesis.context) for wire in newest.transactions]
    again = slices.run(chain.executor.execute(newest.header, transactions))
    chain.commit(again)
    assert chain.store.uncommitted_bodies() == {}
    chain.store.close()
    assert comparable(contents(chain.path)) == comparable(whole)
    chain.reopen().block()
    chain.store.close()
    assert verify(chain.path, chain.genesis, LEDGER).ok


def test_block_after_block_goes_back_to_genesis_and_no_further(tmp_path):
    chain = chain_of(tmp_path / "db")
    chain.store.close()
    assert [undo(chain).height for _ in range(3)] == [3, 2, 1]
    with pytest.raises(Rejected, match="rollback_impossible"):
        undo(chain)
    chain.reopen()
    assert chain.store.head.height == 0
    assert len(chain.store.uncommitted_bodies()) == 3
    chain.store.close()
    assert verify(chain.path, chain.genesis, LEDGER).ok


def test_a_state_that_is_pruned_is_not_gone_back_to(tmp_path):
    chain = chain_of(tmp_path / "db", keep_heights=1)
    slices.run(chain.store.prune())
    chain.store.close()
    before = contents(chain.path)
    with pytest.raises(Rejected, match="rollback_impossible") as caught:
        undo(chain)
    assert caught.value.data == {"height": 2, "oldest_state_height": 3}
    assert contents(chain.path) == before


def test_what_is_kept_of_old_states_stays(tmp_path):
    chain = chain_of(tmp_path / "db", keep_heights=2)
    slices.run(chain.store.prune())
    chain.store.close()
    undo(chain)
    chain.reopen()
    assert chain.store.oldest_state_height == 2
    assert chain.store.get_at(2, b"absent") is None
    chain.store.close()
    with pytest.raises(Rejected, match="rollback_impossible"):
        undo(chain)


def test_a_block_that_does_not_follow_from_the_state_before_is_not_taken_back(tmp_path, monkeypatch):
    chain = chain_of(tmp_path / "db")
    chain.store.close()
    before = contents(chain.path)
    monkeypatch.setattr(rollback, "Executor", _OtherRules)
    with pytest.raises(Rejected, match="rollback_differs"):
        undo(chain)
    assert contents(chain.path) == before


class _OtherRules:
    def __init__(self, *_):
        pass

    def execute(self, header, transactions, evidence):
        yield
        raise Rejected("block_invalid", "other rules give another state root")


def test_it_is_one_write_so_that_a_failure_leaves_all_as_it_was(tmp_path, monkeypatch):
    chain = chain_of(tmp_path / "db")
    chain.store.close()
    before = contents(chain.path)
    written = []

    def fail(self, batch):
        written.append(batch)
        raise StorageFailed("writing", "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", fail)
        with pytest.raises(StorageFailed):
            undo(chain)
    assert len(written) == 1
    assert contents(chain.path) == before


def test_an_open_database_is_refused(tmp_path):
    chain = chain_of(tmp_path / "db")
    with pytest.raises(Rejected, match="store_locked"):
        undo(chain)
    chain.store.close()


def test_the_audit_names_what_does_not_hold(tmp_path, monkeypatch):
    chain = chain_of(tmp_path / "db")
    chain.store.close()
    monkeypatch.setattr(rollback, "_put_records_back", lambda *_: None)
    with pytest.raises(Damaged, match="state record"):
        undo(chain)
