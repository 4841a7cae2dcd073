"""Checking a node's answers against validators that are trusted, so that the node itself need not be.

What is trusted is the genesis document (by its hash) and with it the first validator set. From there on:

    set: light.py leads from the first set to that of any height
    certificate: a quorum of the trusted set signed COMMIT for this height and block hash (PBFT: then it is final)
    header:      its hash is the one in the certificate, so every root in it is what the quorum agreed on
    proof:       the value stands, or the key is absent, under the header's state root
    transaction, receipt: they stand in the lists whose roots the header has

A truthful answer can still be an old one. Against that a `TrustedChain` remembers the highest block that it verified
and refuses to go back, and a caller may bound the age of a block by its own clock. Each way to lie is refused by a
name of its own: `VerificationFailed.LIES`. Nothing here knows a connection, a clock or a database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import LightBlock, LightClient
from state import rfc6962
from state.block import evidence_hash, receipts_root, tx_root
from state.errors import Rejected
from state.genesis import Genesis
from state.hashing import ZERO_HASH, sha256
from state.ledger import Ledger
from state.transaction import Transaction, decode_transaction, wire_hash_of
from state.tree.hashes import root_of
from state.tree.proof import Proof, verify
from state.types import HEADER_VERSION, Certificate, ChainContext, Header, Height, ValidatorSet


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old an answer may be: at least `height_min`; block time at most `age_ms_max` before `now_ms`.

    An idle chain makes no blocks, so its newest block is as old as its last transaction: bound the age only where
    transactions are frequent. None leaves the age unbounded.
    """

    height_min: int = 0
    age_ms_max: int | None = None
    now_ms: int = 0


ANY_AGE = Freshness()


@dataclass(frozen=True, slots=True)
class Proven:
    """What a node says about a state key: value (None: absent), proof, and the block whose state it is of."""

    value: bytes | None
    proof: Proof
    header: Header
    certificate: Certificate | None


class TrustedChain:
    """A chain as far as it is trusted: genesis, the headers proved so far, and the highest block answered for."""

    def __init__(self, genesis: Genesis, expected_hash: bytes | None = None, light: LightClient | None = None) -> None:
        """Takes the genesis document, which must come from a source that is trusted.

        With `expected_hash` the document may come from anywhere: raises VerificationFailed("chain") if it is another.
        `light` holds headers of this chain that are trusted already; several chains may share it.
        """
        if expected_hash is not None and genesis.hash != expected_hash:
            raise VerificationFailed("chain", f"the genesis document has the hash 0x{genesis.hash.hex()}")
        self.genesis = genesis
        self.context: ChainContext = genesis.context
        self.height = 0
        self.light = light or LightClient(genesis)

    def validators_at(self, height: int) -> ValidatorSet:
        """Returns the trusted set in force at a height, as far as this chain was followed."""
        return self.light.nearest(height).validators

    def leads_to(self, header: Header) -> bool:
        """Whether a header's set is the one that is trusted next below it; else `light.bisect` must lead to it."""
        return header.height == 0 or header.validators_hash == self.validators_at(header.height).hash

    def check_header(self, header: Header, certificate: Certificate | None) -> None:
        """Proves that a block of the trusted chain is final; says nothing about how new it is."""
        if header.chain_id != self.context.chain_id:
            raise VerificationFailed(
                "chain", f"the block is of chain {header.chain_id!r}, trusted is {self.context.chain_id!r}"
            )
        if header.height == 0:
            self._check_first(header)
            return
        validators = self.validators_at(header.height)
        if header.validators_hash != validators.hash:
            raise VerificationFailed("validators", "the block names another validator set than the trusted one")
        if certificate is None:
            raise VerificationFailed("certificate", "the answer has no certificate")
        # Its set is the trusted one, so that a quorum of it is overlap enough: this is never undecided.
        self.light.verify(LightBlock(header, certificate, validators))

    def _check_first(self, header: Header) -> None:
        """Checks block 0, which nobody signs: it follows from the genesis document alone."""
        genesis = self.genesis
        if header.parent_hash != genesis.hash:
            raise VerificationFailed("chain", "block 0 follows from another genesis document")
        if genesis.state_file is not None:
            raise Rejected(
                "proof_unavailable", "block 0 has no certificate, and its state is in a file: wait for the first block"
            )
        if header != first_header(genesis):
            raise VerificationFailed("header", "block 0 is not what the genesis document makes of it")

    def accept(self, header: Header, certificate: Certificate | None, freshness: Freshness, at: int | None) -> None:
        """Proves that a block is final, of the height `at` if one was asked for, and fresh enough if none was."""
        self.check_header(header, certificate)
        if at is not None:
            if header.height != at:
                raise VerificationFailed("height", f"asked for height {at}, answered for {header.height}")
            return
        height_min = max(self.height, freshness.height_min)
        if header.height < height_min:
            raise VerificationFailed("stale", f"answered for height {header.height}, known is {height_min}")
        age_ms = freshness.now_ms - header.time_ms
        if freshness.age_ms_max is not None and age_ms > freshness.age_ms_max:
            raise VerificationFailed("stale", f"the block is {age_ms} ms old, allowed are {freshness.age_ms_max}")
        self.height = header.height

    def value(self, key: bytes, answer: Proven, freshness: Freshness = ANY_AGE, at: int | None = None) -> bytes | None:
        """Returns the value under a state key (None: absent), proved; raises VerificationFailed by the lie's name."""
        self.accept(answer.header, answer.certificate, freshness, at)
        leaf = answer.proof.leaf
        if leaf is not None and answer.value is not None:
            if leaf.key_hash != sha256(key):
                raise VerificationFailed("key", "the proof is for another key than the one that was asked for")
            if leaf.value_hash != sha256(answer.value):
                raise VerificationFailed("value", "the proof is for another value than the one that was given")
        if leaf is not None and answer.value is None and leaf.key_hash == sha256(key):
            raise VerificationFailed("value", "the key has a value, which the answer hides")
        try:
            verify(answer.proof, answer.header.state_root, key, answer.value)
        except Rejected as why:
            raise VerificationFailed("proof", why.message) from None
        return answer.value


def first_header(genesis: Genesis) -> Header:
    """Returns block 0's header, which follows from the genesis document; it must name no state file."""
    validators_hash = genesis.validators.hash
    return Header(
        version=HEADER_VERSION,
        chain_id=genesis.chain_id,
        height=Height(0),
        time_ms=genesis.time_ms,
        parent_hash=genesis.hash,
        tx_root=tx_root(()),
        receipts_root=receipts_root(()),
        state_root=root_of(dict(Ledger().genesis_pairs(genesis))),
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
        proposer=bytes(ZERO_HASH),
        evidence_hash=evidence_hash(()),
        units_used=0,
    )


def check_content(header: Header, wires: Sequence[bytes], evidence: Sequence[bytes]) -> None:
    """Proves that these are all transactions (wire bytes) and evidence of a block whose header was proved."""
    if tx_root([wire_hash_of(wire) for wire in wires]) != header.tx_root:
        raise VerificationFailed("transaction", "the transactions are not those of the block")
    if evidence_hash(evidence) != header.evidence_hash:
        raise VerificationFailed("evidence", "the evidence is not that of the block")


def check_receipts(header: Header, receipts: Sequence[bytes]) -> None:
    """Proves that these are all encoded receipts of a block whose header was proved."""
    if receipts_root(receipts) != header.receipts_root:
        raise VerificationFailed("receipt", "the receipts are not those of the block")


def check_transaction(
    header: Header, context: ChainContext, tx_id: bytes, wire: bytes, index: int, size: int, path: Sequence[bytes]
) -> Transaction:
    """Returns the transaction with this id, proved to stand at `index` of the `size` transactions of a block."""
    try:
        tx = decode_transaction(wire, context)
        rfc6962.verify_path(tx.wire_hash, index, size, path, header.tx_root)
    except Rejected as why:
        raise VerificationFailed("transaction", why.message) from None
    if tx.id != tx_id:
        raise VerificationFailed("transaction", "the transaction has another id than the one that was asked for")
    return tx


def check_receipt(header: Header, receipt: bytes, index: int, size: int, path: Sequence[bytes]) -> None:
    """Proves that an encoded receipt stands at `index` of the `size` receipts of a block."""
    try:
        rfc6962.verify_path(receipt, index, size, path, header.receipts_root)
    except Rejected as why:
        raise VerificationFailed("receipt", why.message) from None


def check_links(headers: Sequence[Header]) -> None:
    """Proves that each header is the parent of the next; with the last one proved, all are."""
    for parent, child in pairwise(headers):
        if child.height != parent.height + 1 or child.parent_hash != parent.hash:
            raise VerificationFailed("link", f"height {child.height} does not follow the block before it")
