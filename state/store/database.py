"""One LevelDB: opening it by the rules, checked reads, whole writes, and the errors that it gives rise to.

It knows keys and sealed values (keys.py), and nothing of what they mean. plyvel is imported here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import plyvel

from state.errors import Rejected
from state.store import files, replacement
from state.store.errors import Damaged, StorageFailed
from state.store.keys import NODE, STATE, name_of, seal, unseal

CACHE_BYTES_DEFAULT: Final = 64 * 1024 * 1024
WRITE_BUFFER_BYTES_DEFAULT: Final = 16 * 1024 * 1024
"""LevelDB holds up to two such buffers, and as much again in its log."""

_TABLE_BYTES: Final = 8 * 1024 * 1024
_OPEN_FILES_MAX: Final = 512
_BLOOM_BITS: Final = 10


class Batch(Protocol):
    """Writes that become visible and durable together, or not at all."""

    def put(self, key: bytes, value: bytes, /) -> None:
        """Sets a value, sealed by the caller."""

    def delete(self, key: bytes, /) -> None:
        """Removes a key."""


class Database:
    """An open LevelDB, held by this object alone."""

    def __init__(self, path: Path, database: Any, lock: int, durable: bool) -> None:
        self.path = path
        self._db = database
        self._lock = lock
        self._durable = durable
        self._failure: str | None = None
        self._get = database.get

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        cache_bytes: int = CACHE_BYTES_DEFAULT,
        write_buffer_bytes: int = WRITE_BUFFER_BYTES_DEFAULT,
        durable: bool = True,
    ) -> Database:
        """Makes an empty database at `path`; raises Rejected("store_exists") if there is anything."""
        if path.exists() and any(path.iterdir()):
            raise Rejected("store_exists", f"{path} is not empty: nothing was changed")
        try:
            files.leveldb_directory(path).mkdir(parents=True)
            lock = files.hold_lock(path)
        except OSError as error:
            raise StorageFailed(f"making the database {path}", str(error)) from error
        return cls._open(path, lock, cache_bytes, write_buffer_bytes, durable, new=True)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        cache_bytes: int = CACHE_BYTES_DEFAULT,
        write_buffer_bytes: int = WRITE_BUFFER_BYTES_DEFAULT,
        durable: bool = True,
    ) -> Database:
        """Opens a database whose files are as they were left.

        Raises Rejected("store_missing"), Rejected("store_locked"), Damaged naming a file, StorageFailed.
        """
        if not files.leveldb_directory(path).is_dir() and not replacement.under_way(path):
            raise Rejected("store_missing", f"there is no database at {path}")
        try:
            lock = files.hold_lock(path)
            try:
                replacement.finish(path)
                files.check_files(path)
                files.break_seal(path)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise StorageFailed(f"opening the database {path}", str(error)) from error
        return cls._open(path, lock, cache_bytes, write_buffer_bytes, durable, new=False)

    @classmethod
    def _open(
        cls, path: Path, lock: int, cache_bytes: int, write_buffer_bytes: int, durable: bool, *, new: bool
    ) -> Database:
        try:
            database = plyvel.DB(
                str(files.leveldb_directory(path)),
                create_if_missing=new,
                error_if_exists=new,
                paranoid_checks=True,
                write_buffer_size=write_buffer_bytes,
                lru_cache_size=cache_bytes,
                max_file_size=_TABLE_BYTES,
                max_open_files=_OPEN_FILES_MAX,
                bloom_filter_bits=_BLOOM_BITS,
            )
        except plyvel.Error as error:
            os.close(lock)
            if "LOCK" in str(error):
                raise Rejected("store_locked", f"the database {path} is open in another program: {error}") from None
            if isinstance(error, plyvel.IOError) and "No such file" not in str(error):
                raise StorageFailed(f"opening the database {path}", str(error)) from error
            raise Damaged(f"the database {path}", f"cannot be opened: {error}") from error
        return cls(path, database, lock, durable)

    def close(self) -> None:
        """Closes the database and, unless a write failed, seals its files."""
        if self._db.closed:
            return
        try:
            self._close_and_seal()
        finally:
            os.close(self._lock)

    def give_way(self) -> None:
        """Closes the database and puts the new one beside it in its place; see replacement.py."""
        try:
            self._close_and_seal()
            replacement.replace(self.path)
        except OSError as error:
            raise StorageFailed(f"replacing the database {self.path}", str(error)) from error
        finally:
            os.close(self._lock)

    def _close_and_seal(self) -> None:
        self._db.close()
        try:
            if self._failure is None:
                files.write_seal(self.path)
        except OSError as error:
            raise StorageFailed(f"closing the database {self.path}", str(error)) from error

    # Reading

    def get(self, key: bytes) -> bytes | None:
        """Returns the content under a key, or None; raises Damaged, StorageFailed."""
        value = self.get_raw(key)
        return None if value is None else unseal(key, value)

    def get_raw(self, key: bytes) -> bytes | None:
        """Returns the whole value under a key, its checksum not looked at."""
        try:
            return self._get(key, verify_checksums=True)  # type: ignore[no-any-return]
        except plyvel.Error as error:
            raise _reading(key, error) from error

    def need(self, key: bytes) -> bytes:
        """Returns the content under a key that must be there; raises Damaged if it is not."""
        content = self.get(key)
        if content is None:
            raise Damaged(name_of(key), "is missing")
        return content

    def scan(self, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, whole value) of start <= key < stop, in order; raises Damaged, StorageFailed.

        LevelDB passes over what it cannot read and says so at the end. What is passed does not push other data out
        of the cache.
        """
        yield from _iterate(self._db, start, stop, reverse=False)

    def scan_back(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yields the same range from its end."""
        yield from _iterate(self._db, start, stop, reverse=True)

    def view(self) -> View:
        """Returns the database as it is now, whatever is written later."""
        return View(self._db.snapshot())

    # Writing

    def batch(self, *, sync: bool = True) -> Any:
        """Returns an empty batch for `write`; with `sync` it is on the disk when `write` returns."""
        return self._db.write_batch(transaction=True, sync=sync and self._durable)

    def put(self, batch: Batch, key: bytes, content: bytes) -> None:
        """Puts a record into a batch, sealed."""
        batch.put(key, seal(key, content))

    def write(self, batch: Any) -> None:
        """Writes a batch, whole or not at all; safe in a worker thread. Raises Damaged, StorageFailed.

        After a failure every write is refused: LevelDB might append to a log that ends in half a record.
        """
        if self._failure is not None:
            raise StorageFailed("writing", f"an earlier write failed: {self._failure}")
        try:
            batch.write()
        except plyvel.Error as error:
            self._failure = str(error)
            if isinstance(error, plyvel.CorruptionError):
                # LevelDB met it as it merged files in the background, and has refused to write since.
                raise Damaged("a table of the database", f"is damaged: {error}") from error
            raise StorageFailed("writing", str(error)) from error

    def compact(self, start: bytes, stop: bytes) -> None:
        """Rewrites a range without what was overwritten or deleted. Takes long; safe in a worker thread."""
        try:
            self._db.compact_range(start=start, stop=stop)
        except plyvel.Error as error:
            raise StorageFailed("compacting", str(error)) from error

    def approximate_bytes(self, start: bytes, stop: bytes) -> int:
        """Returns about how many bytes a range takes in files."""
        return int(self._db.approximate_size(start, stop))


class View:
    """The database at one moment. To be closed, as LevelDB keeps what it shows until then."""

    __slots__ = ("_get", "_snapshot")

    def __init__(self, snapshot: Any) -> None:
        self._snapshot = snapshot
        self._get = snapshot.get

    def close(self) -> None:
        """Lets go of that moment."""
        self._snapshot.close()

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, whole value) of start <= key < stop, in order; raises Damaged, StorageFailed."""
        yield from _iterate(self._snapshot, start, stop, reverse=False)

    def state(self, state_key: bytes) -> bytes | None:
        """Returns the value of a state record, or None."""
        key = STATE + state_key
        try:
            value = self._get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _reading(key, error) from error
        return None if value is None else unseal(key, value)

    def get(self, node_key: bytes, /) -> bytes | None:
        """Returns a row of the tree, or None: a View is the tree's Reader."""
        key = NODE + node_key
        try:
            return self._get(key, verify_checksums=True)  # type: ignore[no-any-return]
        except plyvel.Error as error:
            raise _reading(key, error) from error


class Rows:
    """The rows of the tree as they are now: its Reader for updates, which read only rows that are not pruned."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, node_key: bytes, /) -> bytes | None:
        """Returns a row of the tree, or None."""
        return self._database.get_raw(NODE + node_key)


@contextmanager
def viewing(database: Database) -> Iterator[View]:
    """A view for the time of a `with` block."""
    view = database.view()
    try:
        yield view
    finally:
        view.close()


def _iterate(source: Any, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[Any]:
    try:
        with source.iterator(
            start=start, stop=stop, reverse=reverse, verify_checksums=True, fill_cache=False
        ) as iterator:
            yield from iterator
    except plyvel.CorruptionError as error:
        raise Damaged("a table of the database", f"is damaged: {error}") from error
    except plyvel.Error as error:
        raise StorageFailed("reading", str(error)) from error


def _reading(key: bytes, error: Exception) -> Exception:
    if isinstance(error, plyvel.CorruptionError):
        return Damaged(f"a table with the {name_of(key)}, or one near it,", f"is damaged: {error}")
    return StorageFailed(f"reading the {name_of(key)}", str(error))
