"""Signature schemes, account keys and the policies (k of n keys) that addresses are made of.

Scheme numbers are registered here and never reused. Ed25519 is proved by PyNaCl alone, everywhere: libraries differ on
edge-case signatures and a mix would fork the chain. ML-DSA (FIPS 204) comes from `cryptography`, with an empty context.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.utils import random as random_bytes

from state.codec import encode, expect_array, expect_int, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import TAG_ADDRESS, tagged
from state.limits import POLICY_KEYS_MAX
from state.types import Address

ED25519: Final = 1
ML_DSA_65: Final = 2
ML_DSA_87: Final = 3


@dataclass(frozen=True, slots=True)
class Scheme:
    """A registered signature scheme: number, name, and the sizes of key and signature in bytes."""

    number: int
    name: str
    key_bytes: int
    signature_bytes: int


SCHEMES: Final = {
    scheme.number: scheme
    for scheme in (
        Scheme(ED25519, "ed25519", 32, 64),
        Scheme(ML_DSA_65, "ml-dsa-65", 1952, 3309),
        Scheme(ML_DSA_87, "ml-dsa-87", 2592, 4627),
    )
}
SEED_BYTES: Final = 32


def scheme_named(name: str) -> Scheme:
    """Returns the scheme with this name; raises Rejected("scheme_unknown")."""
    for scheme in SCHEMES.values():
        if scheme.name == name:
            return scheme
    known = ", ".join(scheme.name for scheme in SCHEMES.values())
    raise Rejected("scheme_unknown", f"signature scheme {name!r} is unknown; known are {known}")


def _scheme(number: Any) -> Scheme:
    scheme = SCHEMES.get(number) if type(number) is int else None
    if scheme is None:
        known = ", ".join(f"{s.number} ({s.name})" for s in SCHEMES.values())
        raise Rejected("scheme_unknown", f"signature scheme {number!r} is unknown; known are {known}")
    return scheme


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """An account's key: scheme number and the scheme's public key bytes."""

    scheme: int
    data: bytes

    def to_value(self) -> tuple[int, bytes]:
        """Returns the canonical array [scheme, bytes]."""
        return (self.scheme, self.data)

    @classmethod
    def from_value(cls, value: Any) -> PublicKey:
        """Reads [scheme, bytes]; raises DecodeError, or Rejected("scheme_unknown") naming the number."""
        number, data = expect_tuple(value, 2, "key")
        scheme = _scheme(number)
        if type(data) is not bytes or len(data) != scheme.key_bytes:
            raise DecodeError(f"a key of scheme {scheme.name} has {scheme.key_bytes} bytes")
        return cls(number, data)


@dataclass(frozen=True)
class Policy:
    """Who may act for an account: `threshold` of `keys`, which are sorted and distinct."""

    threshold: int
    keys: tuple[PublicKey, ...]

    @classmethod
    def of(cls, threshold: int, keys: tuple[PublicKey, ...]) -> Policy:
        """Returns the policy with its keys put in order; raises Rejected("policy_invalid")."""
        policy = cls(threshold, tuple(sorted(keys)))
        policy.check()
        return policy

    @classmethod
    def single(cls, key: PublicKey) -> Policy:
        """Returns the policy of an account with one key."""
        return cls(1, (key,))

    def check(self) -> None:
        """Raises Rejected("policy_invalid") unless 1 <= threshold <= keys <= 16 and keys are sorted and distinct."""
        if not 1 <= len(self.keys) <= POLICY_KEYS_MAX:
            raise Rejected("policy_invalid", f"a policy has 1 to {POLICY_KEYS_MAX} keys, not {len(self.keys)}")
        if not 1 <= self.threshold <= len(self.keys):
            raise Rejected("policy_invalid", f"threshold {self.threshold} of {len(self.keys)} keys cannot be")
        if any(a >= b for a, b in zip(self.keys, self.keys[1:], strict=False)):
            raise Rejected("policy_invalid", "a policy's keys must be sorted and distinct")

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array [threshold, [key ...]]."""
        return (self.threshold, tuple(key.to_value() for key in self.keys))

    @classmethod
    def from_value(cls, value: Any) -> Policy:
        """Reads [threshold, [key ...]]; raises DecodeError or Rejected."""
        threshold, keys = expect_tuple(value, 2, "policy")
        items = expect_array(keys, POLICY_KEYS_MAX, "policy keys")
        policy = cls(
            expect_int(threshold, "threshold", limit=POLICY_KEYS_MAX + 1),
            tuple(PublicKey.from_value(item) for item in items),
        )
        policy.check()
        return policy

    @cached_property
    def address(self) -> Address:
        """The address of an account born with this policy: H(tag | [threshold, sorted keys])."""
        return Address(tagged(TAG_ADDRESS, encode(self.to_value())))


def verify_ed25519(key: bytes, message: bytes, signature: bytes) -> bool:
    """Returns whether `signature` (64 bytes) is this Ed25519 key's (32 bytes) for `message`."""
    if len(signature) != 64 or len(key) != 32:
        return False
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


def verify_signature(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Returns whether `signature` is this key's for `message`, by the key's scheme."""
    if key.scheme == ED25519:
        return verify_ed25519(key.data, message, signature)
    kind = mldsa.MLDSA65PublicKey if key.scheme == ML_DSA_65 else mldsa.MLDSA87PublicKey
    try:
        kind.from_public_bytes(key.data).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class SigningKey:
    """A private key made from a 32-byte seed, of any registered scheme."""

    def __init__(self, scheme: int, seed: bytes) -> None:
        """Takes the scheme number and its 32-byte seed; raises Rejected for an unknown scheme or a wrong seed."""
        _scheme(scheme)
        if len(seed) != SEED_BYTES:
            raise Rejected("seed_invalid", f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self.scheme = scheme
        self.seed = seed
        self._ed25519_secret = b""
        self._ml_dsa: mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey | None = None
        if scheme == ED25519:
            public, self._ed25519_secret = crypto_sign_seed_keypair(seed)
        else:
            kind = mldsa.MLDSA65PrivateKey if scheme == ML_DSA_65 else mldsa.MLDSA87PrivateKey
            self._ml_dsa = kind.from_seed_bytes(seed)
            public = self._ml_dsa.public_key().public_bytes_raw()
        self.public = PublicKey(scheme, public)

    @classmethod
    def generate(cls, scheme: int = ED25519) -> SigningKey:
        """Returns a new key from the operating system's randomness."""
        return cls(scheme, random_bytes(SEED_BYTES))

    def sign(self, message: bytes) -> bytes:
        """Returns the signature for `message`: deterministic for Ed25519, hedged for ML-DSA."""
        if self._ml_dsa is not None:
            return self._ml_dsa.sign(message)
        return crypto_sign(message, self._ed25519_secret)[:64]

    @property
    def address(self) -> Address:
        """The address of the account whose policy is this one key."""
        return Policy.single(self.public).address

    def __repr__(self) -> str:
        return f"SigningKey({SCHEMES[self.scheme].name}, public={self.public.data[:4].hex()}...)"
