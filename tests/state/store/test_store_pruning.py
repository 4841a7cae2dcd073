"""Old states are forgotten and their space comes back; kept ones stay whole, and blocks stay for ever."""

from __future__ import annotations

import random
from pathlib import Path

import plyvel
import pytest
from store_support import Chain, address, contents, genesis_of

from state import slices
from state.errors import Rejected
from state.ledger.account import account_key
from state.store import pruning
from state.store.files import directory_bytes
from state.store.pruning import GARBAGE_BYTES_MIN
from state.tree.proof import verify as verify_proof
from state.tree.walk import walk


def fresh_copy_bytes(store: Path, target: Path) -> int:
    """The size of a new database with the same records."""
    records = contents(store)
    with plyvel.DB(str(target), create_if_missing=True, write_buffer_size=1 << 20) as database:
        for key in sorted(records):
            database.put(key, records[key])
        database.compact_range()
    return sum(file.stat().st_size for file in target.iterdir())


def check_state(chain: Chain, height: int) -> None:
    header = chain.store.header_at(height)
    assert header is not None
    for key in (account_key(address(height % 8)), account_key(address(1)), b"absent"):
        value = chain.store.get_at(height, key)
        verify_proof(chain.store.prove(height, key), header.state_root, key, value)


def test_after_2000_blocks_with_100_kept_the_store_is_as_small_as_a_copy_and_all_kept_heights_prove(
    tmp_path: Path,
) -> None:
    chain = Chain(tmp_path / "db", genesis_of(range(300)), keep_heights=100)
    dice = random.Random(1)
    for height in range(1, 2001):
        sources = dice.sample(range(300), 4)
        newcomer = dice.randbytes(32) if height % 8 == 0 else address(0)
        chain.block(*(chain.pay(source, newcomer if source % 2 else dice.randrange(300)) for source in sources))
        slices.run(chain.store.prune())
        if chain.store.reclaim_due(idle=True):
            chain.store.reclaim()
    assert chain.store.oldest_state_height == 1901
    for height in range(1901, 2001):
        check_state(chain, height)
    for height in (0, 1, 1900):
        with pytest.raises(Rejected, match="height_pruned") as caught:
            chain.store.prove(height, b"absent")
        assert caught.value.data == {"oldest_state_height": 1901}
        with pytest.raises(Rejected, match="height_pruned"):
            chain.store.get_at(height, b"absent")
        assert chain.store.block_at(height) is not None
        assert len(chain.store.receipts_at(height)) == 4 * min(height, 1)
    assert chain.reopen().store.oldest_state_height == 1901
    check_state(chain, 1901)
    size = directory_bytes(chain.path)
    chain.store.close()
    assert size <= 1.2 * fresh_copy_bytes(chain.path, tmp_path / "copy")


def test_pruning_leaves_exactly_the_rows_of_kept_heights(tmp_path: Path) -> None:
    archive, pruned = Chain(tmp_path / "archive"), Chain(tmp_path / "pruned", keep_heights=3)
    for _ in range(10):
        executed = archive.block(archive.pay(0, 1), archive.pay(2, 3))
        pruned.commit(pruned.execute(*executed.transactions))
    assert pruned.store.heights_to_prune == 8
    assert slices.run(pruned.store.prune()) > 0
    assert pruned.store.heights_to_prune == 0
    for height in (8, 9, 10):
        check_state(pruned, height)
        assert pruned.store.prove(height, account_key(address(0))) == archive.store.prove(
            height, account_key(address(0))
        )
    check_state(archive, 0)
    reachable: set[bytes] = set()
    for height in (8, 9, 10):
        reachable.update(b"N" + visited.node_key for visited in walk(pruned.store.nodes, height))
    pruned.store.close()
    assert {key for key in contents(pruned.path) if key.startswith(b"N")} == reachable


def test_an_archive_that_becomes_a_pruning_node_forgets_in_slices(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    for _ in range(6):
        chain.block()
    assert slices.run(chain.store.prune()) == 0
    chain.store.close()
    chain = Chain(chain.path, new=False, keep_heights=2)
    assert chain.store.heights_to_prune == 5
    work = chain.store.prune()
    while chain.store.heights_to_prune > 2:
        next(work)
    work.close()
    assert chain.reopen().store.oldest_state_height in (2, 3)
    slices.run(chain.store.prune())
    assert chain.store.oldest_state_height == 5
    check_state(chain, 5)
    chain.block()


def test_a_state_is_refused_before_its_first_row_goes(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db", keep_heights=1)
    chain.block(*(chain.pay(0, 1, sequence=n) for n in range(3)))
    work = chain.store.prune()
    next(work)
    with pytest.raises(Rejected, match="height_pruned"):
        chain.store.get_at(0, b"absent")
    work.close()
    assert chain.reopen().store.oldest_state_height == 0
    check_state(chain, 0)


def test_space_is_reclaimed_sooner_when_idle_and_never_for_little(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    pruner = chain.store._pruner
    assert not chain.store.reclaim_due(idle=True)
    chain.block()
    pruner.garbage = GARBAGE_BYTES_MIN - 1
    assert not chain.store.reclaim_due(idle=True)
    (chain.path / "leveldb" / "filler.ldb").write_bytes(bytes(4 * GARBAGE_BYTES_MIN))
    pruner.garbage = GARBAGE_BYTES_MIN
    assert chain.store.reclaim_due(idle=True)
    assert not chain.store.reclaim_due(idle=False)
    chain.store.reclaim()
    assert pruner.garbage == 0


def test_space_is_reclaimed_in_pieces_that_cover_every_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_PIECE_BYTES", 16 * 1024)
    chain = Chain(tmp_path / "db", genesis_of(range(400)), write_buffer_bytes=64 * 1024)
    for _ in range(40):
        chain.block(*(chain.pay(n, n + 1) for n in range(20)))
    chain.reopen()
    pieces = list(chain.store._pruner._pieces(b"N", b"O"))
    assert len(pieces) > 5
    chain.store.close()
    keys = [key for key in contents(chain.path) if key.startswith(b"N")]
    assert all(sum(start <= key < stop for start, stop in pieces) == 1 for key in keys)


def test_reclaiming_stops_when_the_store_closes(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    chain.block()
    chain.store._pruner.garbage = 7
    chain.store.stop_reclaiming()
    chain.store.reclaim()
    assert chain.store._pruner.garbage == 7
    chain.store.close()
