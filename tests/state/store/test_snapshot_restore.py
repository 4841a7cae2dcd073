"""A database restored from a snapshot goes on as the one it was made of; a crash leaves the old one or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from snapshot_support import header_of, put_in_place, replay, restore, snapshot_of, snapshot_of_chain
from store_support import LEDGER, Chain, address, contents

from state.errors import Rejected
from state.ledger.account import account_key
from state.store import Store, VoteBatch, replacement
from state.store.database import Database
from state.store.errors import Damaged
from state.store.keys import META, STALE, VOTE
from state.store.snapshots import Draft, Snapshot, manifest, remove, snapshots_in, tidy
from state.store.snapshots.directory import newest_fetched, path_of
from state.store.verify import verify


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 500)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """A chain of six blocks, whose store is open."""
    made = Chain(tmp_path / "full")
    for target in range(6):
        made.block(made.pay(0, 10 + target), made.pay(2, 3))
    return made


@pytest.fixture
def snapshot(chain: Chain, tmp_path: Path) -> Snapshot:
    """The snapshot of height 6."""
    return snapshot_of_chain(chain, tmp_path / "snapshots")


@pytest.fixture
def behind(chain: Chain, tmp_path: Path) -> Chain:
    """A closed database of the same chain at height 2, with a vote and a block that the vote is for."""
    made = Chain(tmp_path / "behind")
    made.store.create_votes(b"key")
    for target in range(2):
        made.block(made.pay(0, 10 + target), made.pay(2, 3))
    made.store.write_votes(VoteBatch(puts=((b"voted", b"for it"),), bodies=(made.execute(made.pay(5, 6)).block,)))
    made.store.close()
    return made


def test_a_restored_chain_has_the_state_and_goes_on_with_the_very_same_blocks(
    chain: Chain, snapshot: Snapshot, behind: Chain
) -> None:
    restored = restore(snapshot, behind)
    store = restored.store
    assert (store.base_height, store.head.hash, store.oldest_state_height) == (6, chain.store.head.hash, 6)
    assert store.validators == chain.store.validators
    for number in (0, 2, 12, 77):
        assert store.get(account_key(address(number))) == chain.store.get(account_key(address(number)))
    chain.block(chain.pay(0, 50), chain.pay(2, 0))
    chain.block(chain.pay(3, 4))
    replay(chain, restored)
    assert store.head.hash == chain.store.head.hash
    assert store.prove(7, account_key(address(50))) == chain.store.prove(7, account_key(address(50)))
    # The snapshots of both are the same, byte for byte.
    ours = snapshot_of_chain(chain, chain.path.parent / "ours").manifest
    assert snapshot_of_chain(restored, chain.path.parent / "theirs").manifest.encoded == ours.encoded
    restored.reopen()
    assert restored.store.head.hash == chain.store.head.hash


def test_a_restored_database_has_the_very_records_of_the_other_but_for_what_lies_below(
    chain: Chain, snapshot: Snapshot, behind: Chain
) -> None:
    restored = restore(snapshot, behind)
    chain.store.close()
    restored.store.close()
    full, ours = contents(chain.path), contents(restored.path)
    states = {key for key in full if key[:1] == b"S"}
    assert states == {key for key in ours if key[:1] == b"S"}
    assert all(ours[key] == full[key] for key in states)
    others = {key for key in ours if key[:1] not in (b"S", b"N", VOTE, META)}
    assert {key[:1] for key in others} == {b"H", b"C"}
    assert all(ours[key] == full[key] for key in others)
    assert not any(key[:1] == STALE for key in ours)


def test_what_lies_below_is_refused_by_a_code_that_says_so(snapshot: Snapshot, behind: Chain) -> None:
    restored = restore(snapshot, behind)
    restored.block()
    store = restored.store
    asked: list[Callable[[int], object]] = [
        store.block_at,
        store.receipts_at,
        store.receipt_bytes_at,
        lambda height: store.transaction_at(height, 0),
    ]
    for ask in asked:
        for height in (0, 3, 6):
            with pytest.raises(Rejected, match="block_pruned") as caught:
                ask(height)
            assert caught.value.data == {"height": height, "base_height": 6}
        ask(7)
    assert store.validators_at(5) == store.validators
    for ask in (store.header_at, store.certificate_at):
        with pytest.raises(Rejected, match="block_pruned"):
            ask(5)
        assert ask(6) is not None
    assert store.body(store.header_at(6).hash) is None  # type: ignore[union-attr]
    with pytest.raises(Rejected, match="height_pruned"):
        store.get_at(5, account_key(address(0)))
    assert store.get_at(6, account_key(address(0))) is not None


def test_votes_and_the_blocks_that_they_are_for_are_carried_over(snapshot: Snapshot, chain: Chain) -> None:
    home = Chain(chain.path.parent / "home")
    home.store.create_votes(b"key")
    for target in range(5):
        home.block(home.pay(0, 10 + target), home.pay(2, 3))
    ahead = chain.execute(chain.pay(5, 6))
    bodies = (ahead.block, home.execute(home.pay(5, 6)).block)
    home.store.write_votes(VoteBatch(puts=((b"a", b"1"), (b"b", b"2")), bodies=bodies))
    home.store.close()
    restored = restore(snapshot, home)
    assert restored.store.votes() == {b"a": b"1", b"b": b"2"}
    # The block of height 7 is needed still; that of height 6 is committed.
    assert restored.store.uncommitted_bodies() == {ahead.block.header.hash: 7}
    assert restored.store.body(ahead.block.header.hash) == ahead.block
    restored.store.write_votes(VoteBatch(puts=((b"c", b"3"),)))
    restored.reopen()
    assert restored.store.votes() == {b"a": b"1", b"b": b"2", b"c": b"3"}


def test_a_home_without_vote_records_gets_none_by_a_restore(snapshot: Snapshot, tmp_path: Path) -> None:
    home = Chain(tmp_path / "home")
    home.store.close()
    assert not restore(snapshot, home).store.votes_exist


def test_nothing_that_was_committed_is_given_up_for_an_older_snapshot(chain: Chain, snapshot: Snapshot) -> None:
    chain.block()
    chain.store.close()
    with pytest.raises(Rejected, match="snapshot_behind"):
        restore(snapshot, chain)
    assert Store.open(chain.path, chain.genesis, LEDGER, chain.options).head.height == 7


def test_a_chunk_that_is_damaged_or_forged_is_named_and_the_old_database_stays(
    snapshot: Snapshot, behind: Chain, tmp_path: Path
) -> None:
    other = Snapshot.open(Path(shutil.copytree(snapshot.path, tmp_path / "forged")))
    number = 2
    file = other.path / "chunks" / f"{number:06}"
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with pytest.raises(Rejected, match="snapshot_damaged"):
        restore(other, behind)
    # With a right checksum it is no accident.
    forged = bytearray(snapshot.read_chunk(number))
    forged[-1] ^= 1
    Draft(other.path, other.path).put_chunk(number, bytes(forged))
    with pytest.raises(Rejected, match="chunk_invalid") as caught:
        restore(other, behind)
    assert caught.value.data == {"chunk": number}
    file.unlink()
    with pytest.raises(Rejected, match="snapshot_missing"):
        restore(other, behind)
    assert not replacement.new_path(behind.path).exists()
    assert Chain(behind.path, behind.genesis, new=False).store.head.height == 2


def head_of(chain: Chain) -> int:
    opened = Chain(chain.path, chain.genesis, new=False)
    head = opened.store.head.height
    votes = opened.store.votes()
    opened.store.close()
    assert votes == {b"voted": b"for it"}
    assert sorted(os.listdir(chain.path)) == ["leveldb", "lock", "seal"]
    return head


class Crash(Exception):
    """The power fails."""


def test_a_crash_at_any_step_leaves_the_old_database_or_the_new_one_whole(
    snapshot: Snapshot, behind: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes names on the disk is a step; the power fails at each of them in turn."""
    heads = []
    for step in range(100):
        home = Chain.__new__(Chain)
        home.__dict__.update(behind.__dict__)
        home.path = Path(shutil.copytree(behind.path, tmp_path / f"home-{step}"))
        with monkeypatch.context() as patch:
            calls = crash_at(step, patch)
            try:
                put_in_place(snapshot, home)
                done = True
            except Crash:
                done = False
        heads.append(head_of(home))
        if done:
            break
    assert calls
    assert step > 8
    # The old one up to some step, the new one from there on.
    assert heads == sorted(heads)
    assert set(heads) == {2, 6}


def crash_at(step: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Lets the power fail at the n-th change of names on the disk, and everything after it do nothing."""
    calls: list[str] = []

    def failing(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            calls.append(name)
            if len(calls) > step:
                raise Crash
            return real(*args, **options)

        return call

    for module, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (os, "fsync"),
    ):
        patch.setattr(module, name, failing(name, getattr(module, name)))
    return calls


def test_a_crash_amid_the_removal_of_the_old_files_is_finished_by_the_next_opener(
    snapshot: Snapshot, behind: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_removed)
        with pytest.raises(Crash):
            put_in_place(snapshot, behind)
    assert (behind.path / "old").is_dir()
    assert head_of(behind) == 6


def half_removed(path: Path, ignore_errors: bool = False) -> None:
    if ignore_errors:
        return
    next(path.iterdir()).unlink()
    raise Crash


def test_a_snapshot_that_is_made_while_the_chain_goes_on_is_of_the_height_it_began_at(
    chain: Chain, tmp_path: Path
) -> None:
    from state.store.snapshots import snapshot_head

    expected = chain.store.head
    work = snapshot_head(chain.store, tmp_path / "snapshots")
    for blocking in work:
        if blocking is not None:
            blocking()
        if chain.store.head.height < 12:
            chain.block(chain.pay(0, 60 + chain.store.head.height))
    assert chain.store.head.height == 12
    (path,) = snapshots_in(tmp_path / "snapshots")
    assert Snapshot.open(path).manifest.header == expected


def test_a_damaged_record_makes_no_snapshot_and_leaves_nothing_behind(chain: Chain, tmp_path: Path) -> None:
    database = chain.store.database
    batch = database.batch()
    key = b"S" + account_key(address(0))
    database.put(batch, key, b"another value")
    database.write(batch)
    with pytest.raises(Damaged, match="the state of height 6"):
        snapshot_of_chain(chain, tmp_path / "snapshots")
    assert os.listdir(tmp_path / "snapshots") == []


def test_nobody_makes_a_snapshot_of_height_0(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="snapshot_empty"):
        snapshot_of_chain(Chain(tmp_path / "new"), tmp_path / "snapshots")


def test_what_a_crash_left_of_a_snapshot_is_removed_and_what_was_fetched_is_kept(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    root = tmp_path / "snapshots"
    Draft.to_make(root, 9).put_chunk(0, b"half")
    fetched = Draft.to_fetch(root, snapshot.manifest, snapshot.certificate)
    fetched.put_chunk(3, snapshot.read_chunk(3))
    tidy(root)
    assert [path.name for path in snapshots_in(root)] == ["000000000006"]
    assert newest_fetched(root) == (snapshot.manifest, snapshot.certificate)
    again = Draft.to_fetch(root, snapshot.manifest, snapshot.certificate)
    assert again.present() == {3}
    assert again.read_chunk(3) == snapshot.read_chunk(3)
    # A snapshot of that height is there already: what was fetched is not needed.
    assert again.finish(6) == path_of(root, 6)
    assert newest_fetched(root) is None
    remove(root, path_of(root, 6))
    assert os.listdir(root) == []


def test_another_snapshot_that_was_begun_is_let_go_of(snapshot: Snapshot, tmp_path: Path) -> None:
    root = tmp_path / "begun"
    first = Draft.to_fetch(root, snapshot.manifest, snapshot.certificate)
    other = snapshot_of(tmp_path / "other", {b"a": b"1"})
    second = Draft.to_fetch(root, other.manifest, other.certificate)
    assert not first.path.exists()
    assert second.path.exists()
    assert header_of({b"a": b"1"}.items()) == other.manifest.header


@pytest.mark.parametrize("kept", [True, False])
def test_the_audit_of_a_restored_chain_begins_at_its_base(
    chain: Chain, snapshot: Snapshot, behind: Chain, kept: bool
) -> None:
    """With the snapshot that it began with the blocks are executed again, without it they are proved by signatures."""
    root = snapshot.path.parent if kept else None
    restored = restore(snapshot, behind)
    restored.block()
    restored.block()
    restored.store.close()
    report = verify(restored.path, restored.genesis, LEDGER, snapshots=root)
    assert report.ok, report.findings
    assert (report.base, report.head, report.height) == (6, 8, 8 if kept else 6)
    assert (report.transactions, report.votes) == (2, 1)
    database = Database.open(restored.path)
    batch = database.batch()
    database.put(batch, b"S" + account_key(address(0)), b"another value")
    batch.delete(b"S" + account_key(address(3)))
    database.write(batch)
    database.close()
    report = verify(restored.path, restored.genesis, LEDGER, snapshots=root)
    assert not report.ok
    assert [finding.record[:12] for finding in report.findings] == ["state record"] * 2
