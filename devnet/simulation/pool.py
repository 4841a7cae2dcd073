"""The transactions that wait at one machine: a mempool of the simplest kind, lost with the process.

It answers the two questions that matter here: what could stand in the next block, and is there anything that could.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from state.transaction import Transaction
from state.types import Address, WireHash

LEFT_OUT_MAX: Final = 3


class Pool:
    """Waiting transactions by wire hash, in order of arrival."""

    def __init__(self, sequences: Mapping[Address, int]) -> None:
        """Takes the next sequence number of each account that has sent something."""
        self._waiting: dict[WireHash, Transaction] = {}
        self._sequences = dict(sequences)
        self._left_out: dict[WireHash, int] = {}

    def add(self, tx: Transaction) -> bool:
        """Takes a transaction in, unless it is known or its sequence number used; returns whether it was taken."""
        if tx.wire_hash in self._waiting or tx.sequence < self._sequences.get(tx.sender, 0):
            return False
        self._waiting[tx.wire_hash] = tx
        return True

    def get(self, wire_hash: WireHash) -> Transaction | None:
        """Returns a waiting transaction, or None."""
        return self._waiting.get(wire_hash)

    def has_work(self) -> bool:
        """Returns whether a transaction waits that could stand in a valid next block by itself."""
        return any(tx.sequence == self._sequences.get(tx.sender, 0) for tx in self._waiting.values())

    def candidates(self) -> list[Transaction]:
        """Returns what waits, each account's in order of sequence."""
        return sorted(self._waiting.values(), key=lambda tx: tx.sequence)

    def oldest(self, count: int) -> tuple[Transaction, ...]:
        """Returns the transactions that have waited longest."""
        return tuple(list(self._waiting.values())[:count])

    def committed(self, transactions: Sequence[Transaction], had_room: bool) -> None:
        """Drops what a block has in it, and what it made void; notes what it left out, if it had room."""
        if had_room:
            for wire_hash, tx in self._waiting.items():
                if tx.sequence == self._sequences.get(tx.sender, 0):
                    self._left_out[wire_hash] = self._left_out.get(wire_hash, 0) + 1
        for tx in transactions:
            self._sequences[tx.sender] = tx.sequence + 1
        self._waiting = {
            wire_hash: tx for wire_hash, tx in self._waiting.items() if tx.sequence >= self._sequences.get(tx.sender, 0)
        }
        self._left_out = {key: count for key, count in self._left_out.items() if key in self._waiting}

    def left_out(self) -> bool:
        """Returns whether a transaction waits that several blocks with room for it left out."""
        return any(count >= LEFT_OUT_MAX for count in self._left_out.values())
