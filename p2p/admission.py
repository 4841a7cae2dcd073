"""How many connections may be under way before they have proved who they are, and which goes when there are too many.

A newcomer is always let in; somebody else leaves for it: of the address (or node) with the most connections under way,
the one that has waited longest, those that have not said anything before all others. So thousands of idle
connections take a bounded amount of memory and cannot keep out a permitted peer, which needs but milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Slot:
    """One connection under way."""

    __slots__ = ("evicted", "heard", "key", "scope")

    def __init__(self, key: str) -> None:
        self.key = key
        self.scope = trio.CancelScope()
        self.heard = False
        self.evicted = False


class Pending:
    """The connections under way, at most `total_max` in all and `per_key_max` of one key (an address or a node)."""

    def __init__(self, total_max: int, per_key_max: int) -> None:
        """Takes the two bounds."""
        self._total_max = total_max
        self._per_key_max = per_key_max
        self._by_key: dict[str, dict[Slot, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def slot(self, key: str) -> Iterator[Slot]:
        """Holds a place for the time of a `with`, whose body runs in the slot's cancel scope.

        If the place is taken away for a newcomer, the body is cancelled and `slot.evicted` is true afterwards.
        """
        if len(self._by_key.get(key, ())) >= self._per_key_max:
            self._evict(key)
        elif self._count >= self._total_max:
            self._evict(max(self._by_key, key=lambda name: len(self._by_key[name])))
        slot = Slot(key)
        self._by_key.setdefault(key, {})[slot] = None
        self._count += 1
        try:
            with slot.scope:
                yield slot
        finally:
            self._remove(slot)

    def _evict(self, key: str) -> None:
        slots = self._by_key[key]
        victim = next((slot for slot in slots if not slot.heard), None) or next(iter(slots))
        victim.evicted = True
        victim.scope.cancel()
        self._remove(victim)

    def _remove(self, slot: Slot) -> None:
        slots = self._by_key.get(slot.key, {})
        if slot in slots:
            del slots[slot]
            self._count -= 1
            if not slots:
                del self._by_key[slot.key]
