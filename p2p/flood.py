"""How a message reaches all nodes when not all are joined: whom it is passed on to, and which copies are ignored.

A message is sent by its origin to all its direct peers under a fresh random *flood id*. Whoever receives it from S
passes the same bytes on to those of its own direct peers that are not direct neighbours of S, because S (or where S has
it from) serves these. So a full mesh passes on nothing, and a line everything. A copy with bytes seen before is neither
delivered nor passed on. A repeat of the same message by its origin has a new flood id and travels again: repair depends
on that.

A neighbourhood counts only if both ends state it: one lying node cannot cut off others by claiming to serve them.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Protocol, TypeVar

from p2p.identity import NodeId
from p2p.limits import SEEN_MAX


class Neighbour(Protocol):
    """What the relay rule looks at: a direct peer and whom it states as its own direct peers."""

    id: NodeId
    neighbours: frozenset[NodeId]


P = TypeVar("P", bound=Neighbour)


def relay_targets(peers: Iterable[P], received_from: P | None) -> list[P]:
    """Returns those of our direct `peers` to which a message received from `received_from` is passed on.

    None stands for a message of our own: it goes to all.
    """
    if received_from is None:
        return list(peers)
    sender = received_from.id
    served = received_from.neighbours
    return [peer for peer in peers if peer.id != sender and not (peer.id in served and sender in peer.neighbours)]


class SeenCache:
    """Remembers at least the last `entries_max / 2` and at most `entries_max` frames by a hash of their bytes."""

    def __init__(self, entries_max: int = SEEN_MAX) -> None:
        """Takes the bound on remembered frames."""
        self._generation_max = entries_max // 2
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, raw: bytes) -> bool:
        """Remembers a frame; returns False if it was known."""
        key = sha256(raw).digest()[:16]
        if key in self._recent or key in self._older:
            return False
        if len(self._recent) >= self._generation_max:
            self._older, self._recent = self._recent, set()
        self._recent.add(key)
        return True

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)
