"""What the RPC methods read of the committed chain: the part of the store that they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from state.block import Block
from state.ledger.receipt import Receipt
from state.tree.proof import Proof
from state.types import Certificate, Hash, Header, ValidatorSet


class ChainReads(Protocol):
    """The committed chain and its states, as of the head."""

    @property
    def head(self) -> Header:
        """The newest committed header."""

    @property
    def oldest_state_height(self) -> int:
        """The lowest height whose state can still be read and proved."""

    @property
    def base_height(self) -> int:
        """The height that the chain begins with here: 0, or that of the snapshot that the node was restored from."""

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the newest committed value under a state key."""

    def header_at(self, height: int) -> Header | None:
        """Returns the header of a height, None above the head."""

    def block_at(self, height: int) -> Block | None:
        """Returns the block of a height, None above the head."""

    def height_of(self, block_hash: Hash) -> int | None:
        """Returns the height of a committed block."""

    def certificate_at(self, height: int) -> Certificate | None:
        """Returns the certificate of a height; height 0 has none."""

    @property
    def accounts_indexed_from(self) -> int | None:
        """The first height of the account index, None where none is kept."""

    def transaction_at(self, height: int, index: int) -> bytes | None:
        """Returns the wire bytes of one transaction of a committed height, None beyond the last."""

    def receipt_at(self, height: int, index: int) -> Receipt | None:
        """Returns one receipt of a committed height, None beyond the last."""

    def receipt_bytes_at(self, height: int) -> Sequence[bytes]:
        """Returns the encoded receipts of a committed height."""

    def locate(self, tx_id: bytes) -> tuple[int, int] | None:
        """Returns height and index of a committed transaction."""

    def account_transactions(
        self, address: bytes, before: tuple[int, int] | None, limit: int
    ) -> Sequence[tuple[int, int]]:
        """Returns places (height, index) of an account's transactions below `before`, newest first.

        Raises Rejected("index_off") where the node keeps no such index.
        """

    def validators_at(self, height: int) -> ValidatorSet:
        """Returns the set in force at a height, at most the one after the head."""

    def get_at(self, height: int, state_key: bytes) -> bytes | None:
        """Returns the value under a state key at a height; raises Rejected("height_pruned")."""

    def prove(self, height: int, state_key: bytes) -> Proof:
        """Returns the proof of what a state key holds at a height; raises Rejected("height_pruned")."""
