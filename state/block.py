"""Blocks and certificates: their encodings, roots, and the check of a quorum's signatures.

A block is [header, transactions (wire bytes), evidence]. The certificate stands beside it, because validators may hold
different ones (other signers, another view) for the same block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from state import rfc6962
from state.codec import decode, encode, expect_array, expect_blob, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import TAG_EVIDENCE, TAG_VOTE, Hash, tagged
from state.keys import verify_ed25519
from state.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_ENCODED_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    TRANSACTION_BYTES_MAX,
)
from state.transaction import Transaction, wire_hash_of
from state.types import Certificate, Header, ValidatorSet, WireHash


@dataclass(frozen=True)
class Block:
    """A header with the content that it commits to: whole transactions and items of evidence, as bytes."""

    header: Header
    transactions: tuple[bytes, ...]
    evidence: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, header: Header, transactions: Iterable[Transaction], evidence: Sequence[bytes] = ()) -> Block:
        """Returns the block of these decoded transactions, whose wire hashes are known already, and evidence."""
        items = tuple(transactions)
        block = cls(header, tuple([tx.wire for tx in items]), tuple(evidence))
        block.__dict__["wire_hashes"] = tuple([tx.wire_hash for tx in items])
        return block

    @cached_property
    def wire_hashes(self) -> tuple[WireHash, ...]:
        """The wire hash of each transaction, in order."""
        return tuple(wire_hash_of(wire) for wire in self.transactions)

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array [header, [wire ...], [evidence ...]]."""
        return (self.header.to_value(), self.transactions, self.evidence)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes."""
        return encode(self.to_value())

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Reads canonical bytes and checks that the header commits to the content; raises DecodeError."""
        header_value, transactions, evidence = expect_tuple(decode(data, bytes_max=BLOCK_ENCODED_BYTES_MAX), 3, "block")
        wires = expect_array(transactions, BLOCK_TRANSACTIONS_MAX, "transactions")
        for wire in wires:
            expect_blob(wire, TRANSACTION_BYTES_MAX, "transaction")
        items = expect_array(evidence, EVIDENCE_MAX, "evidence")
        for item in items:
            expect_blob(item, EVIDENCE_BYTES_MAX, "evidence item")
        block = cls(Header.from_value(header_value), wires, items)
        if sum(map(len, wires)) > BLOCK_BYTES_MAX:
            raise DecodeError(f"a block's transactions have at most {BLOCK_BYTES_MAX} bytes")
        if tx_root(block.wire_hashes) != block.header.tx_root:
            raise DecodeError("the transactions are not those of the header")
        if evidence_hash(items) != block.header.evidence_hash:
            raise DecodeError("the evidence is not that of the header")
        return block


def tx_root(wire_hashes: Sequence[bytes]) -> Hash:
    """Returns the RFC 6962 root over wire hashes, in block order."""
    return rfc6962.root(wire_hashes)


def receipts_root(receipts: Sequence[bytes]) -> Hash:
    """Returns the RFC 6962 root over encoded receipts, in block order."""
    return rfc6962.root(receipts)


def evidence_hash(evidence: Sequence[bytes]) -> Hash:
    """Returns the hash of the list of evidence items."""
    return tagged(TAG_EVIDENCE, encode(tuple(evidence)))


def vote_preimage(genesis_hash: Hash, validators_hash: Hash, kind: int, height: int, view: int, digest: Hash) -> bytes:
    """Returns what a consensus message's signature signs: tag | [genesis, validators, kind, height, view, digest].

    For PREPARE (kind 1) and COMMIT (kind 2) `digest` is the block hash.
    """
    return TAG_VOTE + encode((genesis_hash, validators_hash, kind, height, view, digest))


def verify_certificate(
    certificate: Certificate,
    genesis_hash: Hash,
    validators: ValidatorSet,
    verify: Callable[[bytes, bytes, bytes], bool] = verify_ed25519,
) -> None:
    """Proves that a quorum of `validators`, the set in force at its height, signed these very votes.

    `verify` tells whether (key, preimage, signature) belong together: Ed25519, but for a simulator that has no forger.
    Raises Rejected("certificate_invalid") saying why.
    """
    if len(certificate.signatures) < validators.quorum:
        raise Rejected(
            "certificate_invalid",
            f"{len(certificate.signatures)} signatures are fewer than the quorum of {validators.quorum}",
        )
    preimage = vote_preimage(
        genesis_hash,
        validators.hash,
        certificate.kind,
        certificate.height,
        certificate.view,
        certificate.block_hash,
    )
    last = -1
    for index, signature in certificate.signatures:
        if not last < index < validators.n:
            raise Rejected("certificate_invalid", f"validator index {index} is out of order or not in the set")
        last = index
        if not verify(validators.validators[index].key, preimage, signature):
            name = validators.validators[index].name
            raise Rejected("certificate_invalid", f"the signature of validator {name} does not match")
