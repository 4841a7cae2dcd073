"""Transactions that proposals name and this node lacks: who waits for which, and when each wait is over.

Several proposals may want the same transaction at once; each is told when it comes. What a wire hash stands for never
changes, so a named transaction that turns out bad settles the question: its block is not valid, and waiting ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from state.errors import Rejected
from state.limits import BLOCK_BYTES_MAX
from state.transaction import Transaction
from state.types import WireHash


@dataclass(slots=True, eq=False)
class Fetch:
    """One wait: what is still missing, what came, and `ended`, set when all is there or `refused` says why not."""

    missing: dict[WireHash, None]
    found: dict[WireHash, Transaction] = field(default_factory=dict)
    bytes: int = 0
    refused: Rejected | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    def refuse(self, rule: str, why: str) -> None:
        """Ends the wait: the block that is waited for breaks a rule of validity."""
        self.refused = Rejected("block_invalid", why, {"rule": rule})
        self.ended.set()


class Wanted:
    """All waits under way, by wire hash."""

    def __init__(self) -> None:
        self._fetches: dict[WireHash, list[Fetch]] = {}
        self._queued: set[WireHash] = set()

    def __contains__(self, wire_hash: WireHash) -> bool:
        return wire_hash in self._fetches

    def __len__(self) -> int:
        return len(self._fetches)

    def begin(self, hashes: Iterable[WireHash]) -> Fetch:
        """Begins to wait for these; `end` must follow."""
        fetch = Fetch(dict.fromkeys(hashes))
        for wire_hash in fetch.missing:
            self._fetches.setdefault(wire_hash, []).append(fetch)
        if not fetch.missing:
            fetch.ended.set()
        return fetch

    def end(self, fetch: Fetch) -> None:
        """Ends a wait, whether all came or not; other waits for the same go on."""
        for wire_hash in (*fetch.missing, *fetch.found):
            fetches = self._fetches.get(wire_hash, [])
            if fetch in fetches:
                fetches.remove(fetch)
            if not fetches:
                self._fetches.pop(wire_hash, None)
                self._queued.discard(wire_hash)

    def enqueue(self, wire_hash: WireHash) -> bool:
        """Notes that a wanted transaction came and waits to be checked; returns False if a copy of it does already."""
        if wire_hash in self._queued:
            return False
        self._queued.add(wire_hash)
        return True

    def to_ask_for(self, fetch: Fetch) -> list[WireHash]:
        """Returns what a wait still lacks and nobody has sent."""
        return [wire_hash for wire_hash in fetch.missing if wire_hash not in self._queued]

    def came(self, tx: Transaction) -> None:
        """Hands a transaction with proved signatures to all who wait for it."""
        self._queued.discard(tx.wire_hash)
        for fetch in self._fetches.get(tx.wire_hash, ()):
            if tx.wire_hash not in fetch.missing:
                continue
            del fetch.missing[tx.wire_hash]
            fetch.found[tx.wire_hash] = tx
            fetch.bytes += len(tx.wire)
            if fetch.bytes > BLOCK_BYTES_MAX:
                fetch.refuse("bytes", "its transactions are more bytes than a block may hold")
            elif not fetch.missing:
                fetch.ended.set()

    def bad(self, wire_hash: WireHash, error: Rejected) -> None:
        """Ends all waits for a transaction whose form or signatures are bad."""
        for fetch in self._fetches.get(wire_hash, ()):
            fetch.refuse("transaction", f"it names a transaction that is bad: {error}")
