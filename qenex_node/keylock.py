"""One process a validator key, on one machine: a second one with the same key is refused, whichever home it has.

The lock of the database keeps two processes from one database, by whatever path they reach it. A copied home has
another database and the same key. So a file that stands for the key is locked for as long as the process lives; it is
free at once when that ends, however it ends. The file lies in a directory that belongs to the user alone: what others
can take too, they could hold against a validator. It is named by the user's id and the system's user table, never by
the environment, which differs between a shell and a service. It does not reach beyond the user and what shares the
directory: what guards against another user's process, or a second machine, is the silence at start that watches for
own votes.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from state.errors import Rejected
from state.hashing import sha256

_IN_HOME: Final = Path(".local", "state", "qenex", "locks")
_WITHOUT_HOME: Final = Path("/tmp")


@contextmanager
def hold_key(key: bytes, directory: Path | None = None) -> Iterator[None]:
    """Holds the lock of a validator's public key, in `directory` or the user's own.

    Raises Rejected: "key_in_use", or "key_lock_unusable" where there is no directory that is the user's alone.
    """
    descriptor = _open(_own_directory() if directory is None else _private(directory), sha256(key).hex())
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Rejected(
                "key_in_use",
                "another process on this machine runs with this validator key: one key, one machine, one database. "
                "Stop that one, and never start a copied home",
            ) from None
        yield
    finally:
        os.close(descriptor)


def _own_directory() -> Path:
    """Returns the directory in the user's home, or one in /tmp for a user that has none: so it is in containers."""
    try:
        return _private(Path(pwd.getpwuid(os.geteuid()).pw_dir) / _IN_HOME)
    except (KeyError, Rejected):
        return _private(_WITHOUT_HOME / f"qenex-{os.geteuid()}")


def _private(directory: Path) -> Path:
    """Makes a directory unless it is there, and proves that nobody else can put or take anything in it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise _unusable(directory, str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise _unusable(directory, "it belongs to another user, or others may write in it")
    return directory


def _open(directory: Path, name: str) -> int:
    """Opens the file of a key. It is never removed: whoever waits for a removed one would hold what nobody sees."""
    path = directory / f"{name}.lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, why: str) -> Rejected:
    return Rejected(
        "key_lock_unusable",
        f"the lock of the validator key cannot be held at {path}: {why}. Give the node's user a home directory that it "
        "alone may write in",
    )
