"""Which sequence number comes next, lane by lane, for transactions that were sent and are not committed yet.

The chain knows what is committed; what this client sent since is counted here. It asks for nothing itself: whoever uses
it learns the chain's number and enters it.
"""

from __future__ import annotations

from state.types import Address


class Sequences:
    """The next sequence number of each (account, lane) that this client sends from."""

    def __init__(self) -> None:
        self._next: dict[tuple[bytes, int], int] = {}

    def known(self, address: Address, lane: int) -> bool:
        """Whether the lane's number is known, so that `take` can be called."""
        return (address, lane) in self._next

    def learn(self, address: Address, lane: int, sequence: int) -> None:
        """Enters what the chain says; numbers that were taken here beyond it stay taken."""
        self._next[address, lane] = max(sequence, self._next.get((address, lane), 0))

    def take(self, address: Address, lane: int) -> int:
        """Returns the next number and counts it as used."""
        sequence = self._next[address, lane]
        self._next[address, lane] = sequence + 1
        return sequence

    def give_back(self, address: Address, lane: int, sequence: int) -> None:
        """Frees a number whose transaction was certainly refused.

        If later ones were taken meanwhile the lane is forgotten instead: they wait for a number that never comes,
        so the next one must be asked for.
        """
        if self._next.get((address, lane)) == sequence + 1:
            self._next[address, lane] = sequence
        else:
            self.forget(address, lane)

    def forget(self, address: Address, lane: int) -> None:
        """Forgets the lane, so that its number is asked for again."""
        self._next.pop((address, lane), None)
