"""The transactions that wait at one machine: a mempool of the simplest kind, lost with the process.

It answers the two questions that matter here: what could stand in the next block, and is there anything that could.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from state.transaction import Transaction
from state.types import Address, WireHash

LEFT_OUT_MAX: Final = 3

Lane: TypeAlias = tuple[Address, int]


class Pool:
    """Waiting transactions by wire hash, in order of arrival, and by their places in their senders' lanes."""

    def __init__(self, sequences: Mapping[Lane, int]) -> None:
        """Takes the next sequence number of each lane that has sent something."""
        self._waiting: dict[WireHash, Transaction] = {}
        self._lanes: dict[Lane, dict[int, Transaction]] = {}
        self._next = dict(sequences)
        self._left_out: dict[WireHash, int] = {}

    def add(self, tx: Transaction, now_ms: int) -> bool:
        """Takes a transaction in, unless it is known, too late, or its place taken; returns whether it was taken."""
        lane = (tx.sender, tx.lane)
        places = self._lanes.setdefault(lane, {})
        if tx.sequence < self._next.get(lane, 0) or tx.sequence in places or tx.not_after_ms < now_ms:
            return False
        places[tx.sequence] = self._waiting[tx.wire_hash] = tx
        return True

    def get(self, wire_hash: WireHash) -> Transaction | None:
        """Returns a waiting transaction, or None."""
        return self._waiting.get(wire_hash)

    def has_work(self, now_ms: int) -> bool:
        """Returns whether a transaction waits that could stand in a valid next block by itself."""
        return any(self._is_next(tx) and tx.not_after_ms >= now_ms for tx in self._waiting.values())

    def candidates(self, now_ms: int) -> list[Transaction]:
        """Returns what could stand in the next block, each lane's in order, what came first before the rest."""
        ready: list[tuple[int, Transaction]] = []
        for first in self._waiting.values():
            if self._is_next(first):
                places = self._lanes[first.sender, first.lane]
                sequence, after = first.sequence, 0
                while (tx := places.get(sequence + after)) is not None and tx.not_after_ms >= now_ms:
                    ready.append((after, tx))
                    after += 1
        return [tx for _, tx in sorted(ready, key=lambda item: item[0])]

    def oldest(self, count: int) -> tuple[Transaction, ...]:
        """Returns the transactions that have waited longest."""
        return tuple(list(self._waiting.values())[:count])

    def committed(self, transactions: Sequence[Transaction], time_ms: int, had_room: bool) -> None:
        """Drops what a block has in it, and what it made void; notes what it left out, if it had room."""
        if had_room:
            for wire_hash, tx in self._waiting.items():
                if self._is_next(tx) and tx.not_after_ms >= time_ms:
                    self._left_out[wire_hash] = self._left_out.get(wire_hash, 0) + 1
        for tx in transactions:
            self._next[tx.sender, tx.lane] = tx.sequence + 1
        gone = [tx for tx in self._waiting.values() if tx.sequence < self._next_of(tx) or tx.not_after_ms < time_ms]
        for tx in gone:
            del self._waiting[tx.wire_hash], self._lanes[tx.sender, tx.lane][tx.sequence]
            self._left_out.pop(tx.wire_hash, None)

    def left_out(self) -> bool:
        """Returns whether a transaction waits that several blocks with room for it left out."""
        return any(count >= LEFT_OUT_MAX for count in self._left_out.values())

    def _next_of(self, tx: Transaction) -> int:
        return self._next.get((tx.sender, tx.lane), 0)

    def _is_next(self, tx: Transaction) -> bool:
        return tx.sequence == self._next_of(tx)
