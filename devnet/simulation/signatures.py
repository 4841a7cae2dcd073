"""Signatures that cost a microsecond: whoever knows a public key can make them, so nobody simulated may want to forge.

What a correct or Byzantine machine says is always signed by its own key; the simulator looks for faults of the protocol
and not of Ed25519. The checks themselves stay the real ones of consensus/verify.py: only their primitive is exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha512
from typing import Final

import consensus.verify
import state.block

_USERS: Final = (consensus.verify, state.block)
_NAME: Final = "verify_ed25519"


def sign(key: bytes, preimage: bytes) -> bytes:
    """Returns the 64-byte stand-in signature of the validator with this public key."""
    return sha512(key + preimage).digest()


def verify(key: bytes, preimage: bytes, signature: bytes) -> bool:
    """Returns whether `sign` made this signature."""
    return sha512(key + preimage).digest() == signature


signer_of = partial(partial, sign)
"""Returns the signing function of the validator with a public key."""


@contextmanager
def stand_in() -> Iterator[None]:
    """Lets all checks of consensus signatures and certificates take stand-in signatures, until the block ends."""
    before = [(module, getattr(module, _NAME)) for module in _USERS]
    for module in _USERS:
        setattr(module, _NAME, verify)
    try:
        yield
    finally:
        for module, function in before:
            setattr(module, _NAME, function)
