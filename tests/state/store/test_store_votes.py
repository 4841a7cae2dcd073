"""Vote records survive, are made once, and none is lost or changed unseen."""

from __future__ import annotations

from pathlib import Path

import plyvel
import pytest
from store_support import Chain

from state.errors import Rejected
from state.store import Damaged, VoteBatch
from state.store.database import Database
from state.store.keys import META_VOTES, seal


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """A chain with three vote records, of which one was written twice and a fourth one removed."""
    made = Chain(tmp_path / "db", durable=True)
    made.store.create_votes(b"key")
    made.store.write_votes(VoteBatch(puts=((b"a", b"1"), (b"b", b"2"), (b"d", b"4"))))
    made.store.write_votes(VoteBatch(puts=((b"a", b"11"), (b"c", b"")), deletes=(b"d", b"never there")))
    return made


RECORDS = {b"a": b"11", b"b": b"2", b"c": b""}


def change(chain: Chain, key: bytes, value: bytes | None) -> None:
    """Changes a record behind the store's back."""
    chain.store.close()
    with plyvel.DB(str(chain.path / "leveldb")) as database:
        if value is None:
            database.delete(key)
        else:
            database.put(key, value)
    (chain.path / "seal").unlink()


def test_vote_records_survive_restarts_and_commits(chain: Chain) -> None:
    assert chain.store.votes() == RECORDS
    chain.block()
    assert chain.reopen().store.votes() == RECORDS
    assert chain.store.votes_exist
    chain.store.write_votes(VoteBatch(puts=((b"e", b"5"),)))
    assert chain.reopen().store.votes() == RECORDS | {b"e": b"5"}


def test_a_record_and_a_body_become_durable_together(chain: Chain) -> None:
    block = chain.execute(chain.pay(0, 1)).block
    chain.store.write_votes(VoteBatch(puts=((b"prepare", b"x"),), bodies=(block,)))
    chain.reopen()
    assert chain.store.votes()[b"prepare"] == b"x"
    assert chain.store.body(block.header.hash) == block


def test_a_key_deleted_and_put_in_one_batch_is_there(chain: Chain) -> None:
    chain.store.write_votes(VoteBatch(puts=((b"a", b"new"),), deletes=(b"a",)))
    assert chain.reopen().store.votes()[b"a"] == b"new"


def test_vote_records_are_created_once(chain: Chain) -> None:
    with pytest.raises(Rejected, match="votes_exist"):
        chain.store.create_votes(b"key")
    assert chain.store.votes() == RECORDS


def test_records_of_another_key_are_no_records_of_ours_and_give_way(chain: Chain) -> None:
    assert chain.reopen().store.votes_owner == b"key"
    chain.store.create_votes(b"another key")
    assert chain.store.votes() == {}
    chain.store.write_votes(VoteBatch(puts=((b"a", b"1"),)))
    assert chain.reopen().store.votes_owner == b"another key"
    assert chain.store.votes() == {b"a": b"1"}


def test_a_home_never_has_vote_records_by_itself(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    assert not chain.reopen().store.votes_exist
    assert chain.store.votes() == {}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        (b"Va", None, "not all there"),
        (b"Va", seal(b"Va", b"1"), "not all there"),
        (b"Va", b"11\x00\x00\x00\x00", "vote record 0x61"),
        (b"Vx", seal(b"Vx", b"1"), "not all there"),
        (META_VOTES, None, "is missing, though there are vote records"),
        (META_VOTES, b"\x94\x02\x03\x00\xc4\x00", "'votes'"),
    ],
)
def test_a_vote_record_that_is_gone_or_changed_stops_the_node_by_name(
    chain: Chain, key: bytes, value: bytes | None, named: str
) -> None:
    change(chain, key, value)
    with pytest.raises(Damaged, match=named) as caught:
        Chain(chain.path, new=False)
    assert caught.value.code == "store_damaged"


def test_an_unknown_version_of_vote_records_is_refused_by_name(chain: Chain) -> None:
    change(chain, META_VOTES, seal(META_VOTES, b"\x93\x01\x00\x00"))
    with pytest.raises(Rejected, match="version_unknown: vote records have version 1"):
        Chain(chain.path, new=False)


def test_records_are_created_together_with_the_first_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path / "db")
    written: list[object] = []
    whole = Database.write

    def write(self: Database, batch: object) -> None:
        written.append(batch)
        whole(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", write)
        chain.store.create_votes(b"key", ((b"barred", b"yes"),))
    assert len(written) == 1
    assert chain.reopen().store.votes() == {b"barred": b"yes"}
    chain.store.close()
