"""Proofs of equivocation: two signatures of one validator for different blocks, of one kind in one (height, view).

The wire form is that of the consensus message EVIDENCE (docs/protocol.md), so that what validators show each other can
stand in a block as it is. A proof needs nothing but the validator set of its height. What a block does with it is the
ledger's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from state.block import vote_preimage
from state.codec import decode, encode, expect_bytes, expect_int, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import TAG_CONSENSUS, ZERO_HASH, Hash, tagged
from state.keys import verify_ed25519
from state.limits import EVIDENCE_BYTES_MAX, VALIDATORS_MAX
from state.types import VOTE_COMMIT, VOTE_PREPARE, Height, Validator, ValidatorSet, View

MESSAGE_KIND: Final = 9
"""What the encoding begins with: the kind of the consensus message."""

_NUMBER_LIMIT: Final = (1 << 64) - 1

Verify = Callable[[bytes, bytes, bytes], bool]
"""(key, message, signature) -> whether the signature is the key's: Ed25519, but for simulations."""


class Offence(IntEnum):
    """What was signed twice."""

    PREPARE = VOTE_PREPARE
    COMMIT = VOTE_COMMIT
    PRE_PREPARE = 3


@dataclass(frozen=True, slots=True)
class SignedHash:
    """One half of a proof: what was signed, reduced to hashes. `certificate_hash` is zero but for PRE-PREPAREs."""

    block_hash: Hash
    certificate_hash: Hash
    signature: bytes = field(repr=False)

    def to_value(self) -> tuple[Any, ...]:
        """Returns [block hash, certificate hash, signature]."""
        return (self.block_hash, self.certificate_hash, self.signature)

    @classmethod
    def from_value(cls, value: Any) -> SignedHash:
        """Reads the canonical array; raises DecodeError."""
        block_hash, certificate_hash, signature = expect_tuple(value, 3, "signed hash")
        return cls(
            Hash(expect_bytes(block_hash, 32, "block hash")),
            Hash(expect_bytes(certificate_hash, 32, "certificate hash")),
            expect_bytes(signature, 64, "signature"),
        )


@dataclass(frozen=True, slots=True)
class EquivocationProof:
    """Two halves, in order of their block hashes. `offender` is an index in the validator set of `height`."""

    offence: Offence
    height: Height
    view: View
    offender: int
    first: SignedHash
    second: SignedHash

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What it is proof of: one validator's offence of one kind in one (height, view). A block is in this order."""
        return (self.height, self.view, int(self.offence), self.offender)

    def to_value(self) -> tuple[Any, ...]:
        """Returns [9, offence, height, view, offender, first, second]."""
        return (
            MESSAGE_KIND,
            int(self.offence),
            self.height,
            self.view,
            self.offender,
            self.first.to_value(),
            self.second.to_value(),
        )

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return encode(self.to_value())


def decode_evidence(data: bytes) -> EquivocationProof:
    """Returns the proof with these canonical bytes, its form checked and its signatures not; raises DecodeError."""
    return evidence_from_value(decode(data, bytes_max=EVIDENCE_BYTES_MAX))


def evidence_from_value(value: Any) -> EquivocationProof:
    """Reads the canonical array, its form checked and its signatures not; raises DecodeError."""
    kind, offence, height, view, offender, first, second = expect_tuple(value, 7, "evidence")
    if type(kind) is not int or kind != MESSAGE_KIND:
        raise DecodeError(f"evidence begins with the kind {MESSAGE_KIND}")
    if type(offence) is not int or offence not in tuple(Offence):
        raise DecodeError("evidence is of PRE-PREPAREs, PREPAREs or COMMITs")
    proof = EquivocationProof(
        Offence(offence),
        Height(expect_int(height, "height", limit=_NUMBER_LIMIT)),
        View(expect_int(view, "view", limit=_NUMBER_LIMIT)),
        expect_int(offender, "offender", limit=VALIDATORS_MAX),
        SignedHash.from_value(first),
        SignedHash.from_value(second),
    )
    if height == 0:
        raise DecodeError("nobody votes on height 0: it is genesis")
    if proof.first.block_hash >= proof.second.block_hash:
        raise DecodeError("evidence names two different blocks, in order of their hashes")
    halves = (proof.first.certificate_hash, proof.second.certificate_hash)
    if proof.offence is not Offence.PRE_PREPARE and halves != (ZERO_HASH, ZERO_HASH):
        raise DecodeError("only PRE-PREPAREs carry certificates")
    return proof


def verify_evidence(
    proof: EquivocationProof, genesis_hash: Hash, validators: ValidatorSet, verify: Verify = verify_ed25519
) -> Validator:
    """Proves that a member of `validators`, the set in force at the proof's height, signed both halves.

    Returns that member. Raises Rejected: "sender_unknown" (no such index), "signature_invalid".
    """
    if proof.offender >= validators.n:
        raise Rejected("sender_unknown", f"validator index {proof.offender} is not in the set of {validators.n}")
    offender = validators.validators[proof.offender]
    for half in (proof.first, proof.second):
        digest = half.block_hash
        if proof.offence is Offence.PRE_PREPARE:
            digest = proposal_digest(half.block_hash, half.certificate_hash)
        preimage = vote_preimage(genesis_hash, validators.hash, int(proof.offence), proof.height, proof.view, digest)
        if not verify(offender.key, preimage, half.signature):
            raise Rejected("signature_invalid", "evidence: a signature is not that of the validator it accuses")
    return offender


def proposal_digest(block_hash: Hash, certificate_hash: Hash) -> Hash:
    """Returns the digest that a PRE-PREPARE's signature covers: it fixes header, wire hashes and certificate."""
    return tagged(TAG_CONSENSUS, block_hash, certificate_hash)


def in_block_order(items: Iterable[bytes]) -> list[tuple[EquivocationProof, bytes]]:
    """Returns those of these encoded proofs that are well-formed, decoded, in the order of a block, one for a place.

    Of several for one place, the one with the least bytes stays, so that all who hold the same make the same list.
    """
    found: dict[tuple[int, int, int, int], tuple[EquivocationProof, bytes]] = {}
    for data in sorted(items):
        try:
            proof = decode_evidence(data)
        except Rejected:
            continue
        found.setdefault(proof.place, (proof, data))
    return [found[place] for place in sorted(found)]
