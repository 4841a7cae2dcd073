"""SHA-256 and its separated domains: one tag for each kind of thing that is hashed or signed.

A tagged hash is SHA-256(tag | parts). Each tag is the ASCII text "QENEX/<name>/<version>" closed by a NUL byte, so no
tag is the beginning of another and no hash or signature of one kind can pass for one of another kind.
"""

from __future__ import annotations

from hashlib import sha256 as _sha256
from typing import Final, NewType

Hash = NewType("Hash", bytes)

TAG_ADDRESS: Final = b"QENEX/address/1\x00"
TAG_TRANSACTION: Final = b"QENEX/transaction/1\x00"
TAG_WIRE: Final = b"QENEX/wire/1\x00"
TAG_HEADER: Final = b"QENEX/header/1\x00"
TAG_VALIDATORS: Final = b"QENEX/validators/1\x00"
TAG_GENESIS: Final = b"QENEX/genesis/1\x00"
TAG_EVIDENCE: Final = b"QENEX/evidence/1\x00"
TAG_VOTE: Final = b"QENEX/vote/1\x00"
TAG_CONSENSUS: Final = b"QENEX/consensus/1\x00"
TAG_HELLO: Final = b"QENEX/hello/1\x00"
TAG_POSSESSION: Final = b"QENEX/possession/1\x00"
TAG_SNAPSHOT: Final = b"QENEX/snapshot/1\x00"

ZERO_HASH: Final = Hash(bytes(32))


def sha256(data: bytes) -> Hash:
    """Returns the 32-byte SHA-256 of `data` (FIPS 180-4)."""
    return Hash(_sha256(data).digest())


def tagged(tag: bytes, *parts: bytes) -> Hash:
    """Returns SHA-256(tag | part | part ...), 32 bytes; `tag` is one of this module's constants."""
    return Hash(_sha256(tag + b"".join(parts)).digest())
