"""Signatures that cost a microsecond: whoever knows a public key can make them, so nobody simulated may want to forge.

What a correct or Byzantine machine says is always signed by its own key; the simulator looks for faults of the protocol
and not of Ed25519. The checks stay the real ones of consensus/verify.py, which are handed these functions.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha512


def sign(key: bytes, preimage: bytes) -> bytes:
    """Returns the 64-byte stand-in signature of the validator with this public key."""
    return sha512(key + preimage).digest()


def verify(key: bytes, preimage: bytes, signature: bytes) -> bool:
    """Returns whether `sign` made this signature."""
    return sha512(key + preimage).digest() == signature


signer_of = partial(partial, sign)
"""Returns the signing function of the validator with a public key."""
