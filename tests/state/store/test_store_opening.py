"""A database is opened only if it is whole, ours, of a known format, and open nowhere else; else it is said why."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import plyvel
import pytest
from store_support import LEDGER, Chain, address, genesis_of

from state.codec import encode
from state.errors import Rejected
from state.ledger.account import account_key
from state.store import Damaged, StorageFailed, Store, StoreOptions, copy_store, free_bytes
from state.store.keys import CHAIN, META_FORMAT, META_HEAD, STATE, height_bytes, seal


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """A closed chain of three blocks."""
    made = Chain(tmp_path / "db")
    for _ in range(3):
        made.block(made.pay(0, 1), made.pay(2, 3))
    made.store.close()
    return made


def open_store(chain: Chain) -> Store:
    return Store.open(chain.path, chain.genesis, LEDGER, chain.options)


def edit(chain: Chain, change: Callable[[plyvel.DB], None]) -> None:
    """Changes records behind the store's back, as a node that stopped uncleanly."""
    with plyvel.DB(str(chain.path / "leveldb")) as database:
        change(database)
    (chain.path / "seal").unlink()


def file_of(chain: Chain, pattern: str) -> Path:
    return next((chain.path / "leveldb").glob(pattern))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def test_a_second_opener_is_told_that_the_database_is_open(chain: Chain) -> None:
    store = open_store(chain)
    with pytest.raises(Rejected, match="store_locked"):
        open_store(chain)
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from state.errors import Rejected\n"
            "from state.store.database import Database\n"
            "try: Database.open(Path(sys.argv[1]))\nexcept Rejected as error: print(error.code)",
            str(chain.path),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == "store_locked"
    store.close()
    open_store(chain).close()


def test_a_database_that_another_program_reads_is_not_opened(chain: Chain) -> None:
    (chain.path / "seal").unlink()
    with plyvel.DB(str(chain.path / "leveldb")), pytest.raises(Rejected, match="store_locked"):
        open_store(chain)
    open_store(chain).close()


def test_a_directory_that_cannot_be_written_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="Not a directory"):
        Store.create(tmp_path / "file" / "db", genesis_of(), LEDGER)


def test_no_database_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="store_missing"):
        Store.open(tmp_path / "none", genesis_of(), LEDGER)


def test_an_existing_database_is_never_made_anew(chain: Chain) -> None:
    with pytest.raises(Rejected, match="store_exists"):
        Store.create(chain.path, chain.genesis, LEDGER)
    open_store(chain).close()


def test_another_chains_database_is_refused(chain: Chain) -> None:
    with pytest.raises(Rejected, match="wrong_chain"):
        Store.open(chain.path, genesis_of(range(9)), LEDGER, chain.options)


def test_an_unknown_format_is_refused_by_name(chain: Chain) -> None:
    edit(chain, lambda database: database.put(META_FORMAT, seal(META_FORMAT, encode(2))))
    with pytest.raises(Rejected, match="version_unknown: the database has format 2"):
        open_store(chain)


def test_a_database_whose_making_was_broken_off_is_refused(chain: Chain) -> None:
    edit(chain, lambda database: database.delete(META_FORMAT))
    with pytest.raises(Rejected, match="store_incomplete"):
        open_store(chain)


def head_records(chain: Chain) -> dict[str, bytes]:
    store = open_store(chain)
    block_hash = store.head.hash
    store.close()
    height = height_bytes(3)
    return {
        "header of block": b"H" + block_hash,
        "block of height 3": b"B" + height + block_hash,
        "certificate of height 3": CHAIN + height,
        "'head'": META_HEAD,
        "tree root record of version 3": b"N" + height,
        "tree page of version 3 at path root": b"N" + height + b"\x00",
    }


@pytest.mark.parametrize("name", range(6))
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_damage_of_the_head_is_named_at_opening(chain: Chain, name: int, how: str) -> None:
    named, key = list(head_records(chain).items())[name]

    def change(database: plyvel.DB) -> None:
        if how == "gone":
            database.delete(key)
        else:
            value = bytearray(database.get(key))
            value[len(value) // 2] ^= 1
            database.put(key, bytes(value))

    edit(chain, change)
    with pytest.raises(Damaged, match=named) as caught:
        open_store(chain)
    assert caught.value.code == "store_damaged"


def test_a_certificate_that_proves_nothing_is_named_at_opening(chain: Chain) -> None:
    store = open_store(chain)
    certificate = store.head_certificate
    assert certificate is not None
    forged = (*certificate.to_value()[:4], tuple((index, bytes(64)) for index, _ in certificate.signatures))
    store.close()
    key = CHAIN + height_bytes(3)
    edit(chain, lambda database: database.put(key, seal(key, encode((certificate.block_hash, forged)))))
    with pytest.raises(Damaged, match="the certificate of height 3 does not hold"):
        open_store(chain)


def test_a_state_record_that_differs_from_the_tree_is_named(chain: Chain) -> None:
    key = STATE + encode(("parameter", "leader_term"))
    edit(chain, lambda database: database.put(key, seal(key, encode(7))))
    with pytest.raises(Damaged, match="not what the state root commits to"):
        open_store(chain)


def test_a_state_record_with_a_flipped_bit_is_named_when_it_is_read(chain: Chain) -> None:
    store = open_store(chain)
    state_key = account_key(address(1))
    value = store.get(state_key)
    assert value is not None
    store.close()
    edit(chain, lambda database: database.put(STATE + state_key, value + bytes(4)))
    store = open_store(chain)
    with pytest.raises(Damaged, match="state record 0x"):
        store.get(state_key)
    store.close()


FLIPPED = [(pattern, "flipped") for pattern in ("*.log", "MANIFEST-*", "CURRENT")]
CHANGED = [(pattern, how) for pattern in ("*.log", "MANIFEST-*", "CURRENT", "*.ldb") for how in ("cut", "gone")]


@pytest.mark.parametrize(("pattern", "how"), FLIPPED + CHANGED)
def test_a_file_that_changed_while_the_node_was_stopped_is_named(chain: Chain, pattern: str, how: str) -> None:
    file = file_of(chain, pattern)
    assert file.stat().st_size > 9
    if how == "flipped":
        flip(file, file.stat().st_size // 2)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    for _ in range(2):
        with pytest.raises(Damaged, match=f"database file {file.name}"):
            open_store(chain)


def test_a_file_that_was_added_while_the_node_was_stopped_is_named(chain: Chain) -> None:
    log = file_of(chain, "*.log")
    shutil.copy(log, log.with_name("000999.log"))
    with pytest.raises(Damaged, match=r"000999\.log was not there"):
        open_store(chain)


def test_a_damaged_seal_is_named(chain: Chain) -> None:
    flip(chain.path / "seal", 20)
    with pytest.raises(Damaged, match="the seal of the database"):
        open_store(chain)


def test_a_log_whose_last_record_was_cut_off_by_a_crash_is_opened_without_it(chain: Chain) -> None:
    (chain.path / "seal").unlink()
    log = file_of(chain, "*.log")
    log.write_bytes(log.read_bytes()[:-9])
    store = open_store(chain)
    assert store.head.height == 2
    store.close()


def test_a_log_that_only_seems_cut_off_is_damaged(chain: Chain) -> None:
    (chain.path / "seal").unlink()
    log = file_of(chain, "*.log")
    data = bytearray(log.read_bytes())
    at = last = 0
    while at < len(data):
        last, at = at, at + 7 + int.from_bytes(data[at + 4 : at + 6], "little")
    data[last + 5] |= 0x40
    log.write_bytes(data)
    with pytest.raises(Damaged, match=f"{log.name} has a record with a wrong length at byte {last}"):
        open_store(chain)


def test_a_damaged_log_after_a_crash_is_named(chain: Chain) -> None:
    (chain.path / "seal").unlink()
    log = file_of(chain, "*.log")
    flip(log, log.stat().st_size // 2)
    with pytest.raises(Damaged, match=r"cannot be opened: .*checksum mismatch"):
        open_store(chain)


def test_copies_are_databases_of_their_own(chain: Chain, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copy_store(chain.path, tmp_path / name)
    stores = [Store.open(tmp_path / name, chain.genesis, LEDGER, chain.options) for name in ("one", "two")]
    original = open_store(chain)
    assert stores[0].head == stores[1].head == original.head
    stores[0].create_votes(b"key")
    assert not stores[1].votes_exist
    for store in (*stores, original):
        store.close()


def test_an_open_or_uncleanly_closed_database_is_not_copied(chain: Chain, tmp_path: Path) -> None:
    store = open_store(chain)
    with pytest.raises(Rejected, match="store_locked"):
        copy_store(chain.path, tmp_path / "copy")
    store.close()
    (chain.path / "seal").unlink()
    with pytest.raises(Rejected, match="store_unclean"):
        copy_store(chain.path, tmp_path / "copy")
    with pytest.raises(Rejected, match="store_exists"):
        copy_store(chain.path, chain.path)


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) <= shutil.disk_usage(tmp_path).total


def test_keeping_no_height_is_refused() -> None:
    with pytest.raises(Rejected, match="keep_heights"):
        StoreOptions(keep_heights=0)
