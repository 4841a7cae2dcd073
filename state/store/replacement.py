"""Putting a new database in the place of one that is there, so that a crash leaves either the old or the new, whole.

    <store>/new/       the new one while it is made: a database of its own, sealed when it is complete
    <store>/old/       LevelDB's files of the old one, between the two renames and until they are removed

Whoever does this holds the lock of the store, which stays where it is, from before the new one is complete until the
end. The step that decides is moving the old files away: before it the old database is in force, from it on the new one.
What a crash leaves half done is finished by whoever opens the store next.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from state.errors import InvariantError
from state.store import files


def new_path(store: Path) -> Path:
    """Returns where the new database is made."""
    return store / "new"


def _old_path(store: Path) -> Path:
    return store / "old"


def under_way(store: Path) -> bool:
    """Whether the old database was moved away and the new one may not be in its place yet."""
    return _old_path(store).exists()


def replace(store: Path) -> None:
    """Puts the database at `new_path`, which must be sealed, in the place of the one that is there.

    The caller holds the store's lock, and nobody has either database open.
    """
    new, old = new_path(store), _old_path(store)
    if not files.is_sealed(new):
        raise InvariantError("a database that is not sealed was to take the place of another")
    files.check_files(new)
    files.break_seal(store)
    files.leveldb_directory(store).rename(old)
    files.sync_directory(store)
    finish(store)


def finish(store: Path) -> None:
    """Finishes what a crash left half done, and removes what is not in force; the caller holds the store's lock."""
    new, old, ours = new_path(store), _old_path(store), files.leveldb_directory(store)
    if old.exists():
        if not ours.exists():
            files.leveldb_directory(new).rename(ours)
            files.sync_directory(store)
        if (new / "seal").exists():
            (new / "seal").rename(store / "seal")
            files.sync_directory(store)
        # The order matters: without the old files, a new directory is one that was never put in force.
        shutil.rmtree(new, ignore_errors=True)
        files.sync_directory(store)
        shutil.rmtree(old)
    elif new.exists():
        shutil.rmtree(new)
