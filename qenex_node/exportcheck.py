"""Checking a stream of blocks (export.py), trusting only the genesis document.

Each block must follow the one before (hash, height, time, validator set) and be certified by a quorum of the set in
force, which itself must be the one that the block before names; transactions must have the header's root and good
signatures, receipts the header's root. What a stream cannot show is that the state roots are what executing the blocks
gives: `qenex verify` on a node does that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import LightBlock, TrustedHeader, verify_adjacent, verify_skipping
from qenex_node.client.verify import check_receipts, first_header
from qenex_node.export import Entry
from state.errors import Rejected
from state.genesis import Genesis
from state.transaction import decode_transaction, verify_signatures
from state.types import Hash, Height, ValidatorSet


@dataclass(frozen=True, slots=True)
class Checked:
    """What held: heights, the hash of the last block, and what was in the blocks."""

    first: Height
    last: Height
    last_hash: Hash
    blocks: int
    transactions: int
    validators: ValidatorSet


class StreamCheck:
    """Checks entry after entry; several files may be checked one after the other as one stream."""

    def __init__(self, genesis: Genesis) -> None:
        """Takes the genesis document, which must come from a source that is trusted."""
        self._context = genesis.context
        trusted = TrustedHeader.of_genesis(genesis)
        # The root of a state in a file cannot be made from the document: then block 1 names its parent unchecked.
        self._last = trusted if genesis.state_file is not None else replace(trusted, hash=first_header(genesis).hash)
        self._first: Height | None = None
        self._blocks = 0
        self._transactions = 0

    def take(self, entries: Iterable[Entry]) -> None:
        """Checks all of them; raises Rejected("audit_failed") with the height, and as reading them does."""
        for entry in entries:
            height = entry.block.header.height
            try:
                self._take(entry)
            except (VerificationFailed, Rejected) as error:
                lie = error.lie if isinstance(error, VerificationFailed) else error.code
                raise Rejected(
                    "audit_failed", f"height {height}: {error.message}", {"height": height, "lie": lie}
                ) from None

    def _take(self, entry: Entry) -> None:
        header = entry.block.header
        validators = entry.validators or self._last.validators
        light = LightBlock(header, entry.certificate, validators)
        if self._first is None and header.height > 1:
            reached = verify_skipping(self._context, self._last, light)
            if reached is None:
                raise Rejected(
                    "validators",
                    "too few validators of genesis signed the first block: give the streams from height 1 on, in order",
                )
        else:
            reached = verify_adjacent(self._context, self._last, light)
        check_receipts(header, entry.receipts)
        for wire in entry.block.transactions:
            verify_signatures(decode_transaction(wire, self._context))
        self._last = reached
        self._first = self._first or header.height
        self._blocks += 1
        self._transactions += len(entry.block.transactions)

    def result(self) -> Checked:
        """Returns what held; raises Rejected("audit_failed") for a stream without a block."""
        last, last_hash = self._last, self._last.hash
        if self._first is None or last_hash is None:
            raise Rejected("audit_failed", "the stream has no block")
        return Checked(self._first, last.height, last_hash, self._blocks, self._transactions, last.validators)
