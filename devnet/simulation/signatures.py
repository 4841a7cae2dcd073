"""How validators sign in a run: with Ed25519, or with stand-ins that cost a microsecond.

Whoever knows a public key can make a stand-in, so nobody simulated may want to forge: what a correct or Byzantine
machine says is always signed by its own key, as the simulator looks for faults of the protocol and not of Ed25519. The
checks stay the real ones of consensus/verify.py, which are handed these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha512
from typing import Final

from state.keys import SigningKey, verify_ed25519


@dataclass(frozen=True, slots=True)
class Scheme:
    """`sign` makes the 64-byte signature of the validator with a public key; `verify` tells whether it did."""

    sign: Callable[[bytes, bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]


def _sign(key: bytes, preimage: bytes) -> bytes:
    return sha512(key + preimage).digest()


def _verify(key: bytes, preimage: bytes, signature: bytes) -> bool:
    return sha512(key + preimage).digest() == signature


STAND_IN: Final = Scheme(_sign, _verify)


def real(secrets: Mapping[bytes, SigningKey]) -> Scheme:
    """Returns Ed25519 for the validators whose secret keys are given, by public key."""
    return Scheme(lambda key, preimage: secrets[key].sign(preimage), verify_ed25519)
