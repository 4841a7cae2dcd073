"""One process a validator key, on one machine: a second one with the same key is refused, whichever home it has.

The lock of the database keeps two processes from one database, by whatever path they reach it. A copied home has
another database and the same key. So the name of a socket in the kernel's abstract space is taken for as long as the
process lives; it is free at once when that ends, however it ends. It does not reach beyond the machine (its network
namespace, to be exact): what guards against a second machine is the silence at start that watches for own votes.
"""

from __future__ import annotations

import socket

from state.errors import Rejected
from state.hashing import sha256


def hold_key(key: bytes) -> socket.socket:
    """Takes the lock of a validator's public key; closing the socket releases it. Raises Rejected("key_in_use")."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind("\0qenex/validator/" + sha256(key).hex())
    except OSError:
        lock.close()
        raise Rejected(
            "key_in_use",
            "another process on this machine runs with this validator key: one key, one machine, one database. "
            "Stop that one, and never start a copied home",
        ) from None
    return lock
