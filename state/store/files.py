"""The files of a database beneath LevelDB's own rules: what a clean stop leaves behind, and what may differ at opening.

LevelDB checks what it reads, with three gaps that this module closes. It takes a log that ends early for a write that a
crash cut off, even where damage made the end look early; it does not miss a log file that is gone; and it mends both
silently when it opens.

- A clean stop leaves a seal beside the files: names and sizes of all, hashes of those that are not checked block by
  block. It is removed before the database is opened, so a crash leaves none.
- Without a seal, the end of each log is looked at: bytes that hold a whole record under a length that says otherwise
  are damage, not a write that was cut off.

    <store>/lock        held, by flock, while the database is open
    <store>/seal        as described; only while it is closed
    <store>/leveldb/    LevelDB's own files
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from state.codec import decode, encode, expect_array, expect_bytes, expect_int, expect_str, expect_tuple
from state.errors import DecodeError, Rejected
from state.store.errors import Damaged, StorageFailed

SEAL_VERSION: Final = 1
SEAL_BYTES_MAX: Final = 64 * 1024 * 1024
_FILES_MAX: Final = 1 << 20

_LOG_BLOCK_BYTES: Final = 32 * 1024
_LOG_HEADER_BYTES: Final = 7
_CRC_MASK_DELTA: Final = 0xA282EAD8
_CRC32C_REFLECTED: Final = 0x82F63B78


def free_bytes(path: Path) -> int:
    """Returns how many bytes can still be written to the file system that holds `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def leveldb_directory(store: Path) -> Path:
    """Returns where LevelDB's files lie."""
    return store / "leveldb"


def directory_bytes(store: Path) -> int:
    """Returns the size of all database files together."""
    return sum(file.stat().st_size for file in _data_files(store))


def hold_lock(store: Path) -> int:
    """Takes the lock of a database and returns its descriptor; closing that releases it.

    Raises Rejected("store_locked") if any process, this one included, has it open.
    """
    descriptor = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Rejected(
            "store_locked", f"the database {store} is open in another process: stop that one first"
        ) from None
    return descriptor


def write_seal(store: Path) -> None:
    """Seals a database that LevelDB has closed: all of it is durable before the seal says so."""
    entries = []
    for file in _data_files(store):
        if _is_small(file.name):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        entries.append(_describe(file))
    sync_directory(leveldb_directory(store))
    body = encode((SEAL_VERSION, tuple(entries)))
    temporary = store / "seal.new"
    with temporary.open("wb") as stream:
        stream.write(body + hashlib.sha256(body).digest())
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(store / "seal")
    sync_directory(store)


def is_sealed(store: Path) -> bool:
    """Whether the database was closed cleanly and is not open."""
    return (store / "seal").exists()


def check_files(store: Path) -> None:
    """Proves that the files are as they were left; raises Damaged naming the file that is not."""
    if not is_sealed(store):
        for file in _data_files(store):
            if file.suffix == ".log" or file.name.startswith("MANIFEST-"):
                _check_log_end(file)
        return
    expected = _read_seal(store)
    found = {file.name: file for file in _data_files(store)}
    for entry in expected:
        if entry[0] not in found:
            raise Damaged(f"database file {entry[0]}", "is missing")
        if _describe(found.pop(entry[0])) != entry:
            raise Damaged(f"database file {entry[0]}", "is not what it was when the node stopped")
    for name in found:
        raise Damaged(f"database file {name}", "was not there when the node stopped")


def break_seal(store: Path) -> None:
    """Removes the seal, durably, before anything is written."""
    if is_sealed(store):
        (store / "seal").unlink()
        sync_directory(store)


def copy_store(source: Path, target: Path) -> None:
    """Copies a closed database to a new place, as for many homes with the same genesis state.

    Raises Rejected("store_locked") if it is open, "store_unclean" if it was not closed cleanly, "store_exists" if
    there is something at `target`. Vote records are copied too: copy before they are created.
    """
    if target.exists() and any(target.iterdir()):
        raise Rejected("store_exists", f"{target} is not empty: nothing was copied")
    lock = hold_lock(source)
    try:
        if not is_sealed(source):
            raise Rejected("store_unclean", f"the database {source} was not closed cleanly: open and close it first")
        check_files(source)
        leveldb_directory(target).mkdir(parents=True)
        for file in _data_files(source):
            copied = leveldb_directory(target) / file.name
            shutil.copyfile(file, copied)
            with copied.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_directory(leveldb_directory(target))
        write_seal(target)
    finally:
        os.close(lock)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _data_files(store: Path) -> Iterator[Path]:
    """LevelDB's files in order of name, without its lock and its diary, which hold no data."""
    directory = leveldb_directory(store)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise StorageFailed(f"reading {directory}", str(error)) from error
    return (directory / name for name in names if name not in ("LOCK", "LOG", "LOG.old"))


def _is_small(name: str) -> bool:
    """Whether a file is bounded by the write buffer or less; tables are not, and have checksums in every block."""
    return not name.endswith((".ldb", ".sst"))


def _describe(file: Path) -> tuple[str, int, bytes]:
    digest = b""
    if _is_small(file.name):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
    return file.name, file.stat().st_size, digest


def _read_seal(store: Path) -> list[tuple[str, int, bytes]]:
    data = (store / "seal").read_bytes()
    body, digest = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != digest:
        raise Damaged("the seal of the database", "does not match its checksum")
    try:
        version, entries = expect_tuple(decode(body, bytes_max=SEAL_BYTES_MAX), 2, "seal")
        if version != SEAL_VERSION or type(version) is not int:
            raise Rejected("version_unknown", f"the seal has version {version!r}; this node reads {SEAL_VERSION}")
        return [_seal_entry(entry) for entry in expect_array(entries, _FILES_MAX, "files")]
    except DecodeError as error:
        raise Damaged("the seal of the database", f"is malformed: {error.message}") from error


def _seal_entry(value: Any) -> tuple[str, int, bytes]:
    name, size, digest = expect_tuple(value, 3, "file")
    if digest != b"":
        expect_bytes(digest, 32, "hash")
    return expect_str(name, 255, "name"), expect_int(size, "size"), digest


def _check_log_end(file: Path) -> None:
    """Raises Damaged if the last record of a log is whole but for a length that leads beyond the end of the file.

    LevelDB takes such a record, and all after it, for a write that was cut off (log_reader.cc, ReadPhysicalRecord).
    """
    size = file.stat().st_size
    start = size - size % _LOG_BLOCK_BYTES
    with file.open("rb") as stream:
        stream.seek(start)
        block = stream.read(_LOG_BLOCK_BYTES)
    at = 0
    while at + _LOG_HEADER_BYTES <= len(block):
        length = int.from_bytes(block[at + 4 : at + 6], "little")
        end = at + _LOG_HEADER_BYTES + length
        if end > len(block):
            if _holds_whole_record(int.from_bytes(block[at : at + 4], "little"), block[at + 6 :]):
                raise Damaged(f"database file {file.name}", f"has a record with a wrong length at byte {start + at}")
            return
        at = end


def _holds_whole_record(masked_crc: int, type_and_payload: bytes) -> bool:
    """Whether some beginning of these bytes has the checksum (CRC-32C, masked as LevelDB does)."""
    rotated = (masked_crc - _CRC_MASK_DELTA) & 0xFFFFFFFF
    wanted = (rotated >> 17 | rotated << 15) & 0xFFFFFFFF ^ 0xFFFFFFFF
    crc = 0xFFFFFFFF
    for byte in type_and_payload:
        crc = _CRC32C_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
        if crc == wanted:
            return True
    return False


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C_REFLECTED if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C_TABLE: Final = _crc32c_table()
