"""How large a block the primary proposes: by the time that blocks take from proposal to commit, not by a fixed count.

The slowest of a quorum decides how long a block takes, so the measure is the whole way to the commit. Growth is slow
and shrinking quick, as in TCP's congestion avoidance (RFC 5681 section 3.1): additive increase, multiplicative
decrease. Work is counted in units; a payment to one account with one Ed25519 signature weighs two.

What the network takes for the three phases is not the block's doing, and is added to its time: far apart, validators
would otherwise make ever smaller blocks, each of which waits as long as the large ones did.

Local policy only: a block of any size within the chain's parameters is valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

TARGET_MS: Final = 500
UNITS_MIN: Final = 128
UNITS_START: Final = 2_000
UNITS_STEP: Final = 500
SHRINK_PERCENT: Final = 70
USED_PERCENT: Final = 80


def phases_ms(round_trips_ms: Iterable[float | None], others: int) -> int:
    """Returns how long the three phases travel, one way each, with the nearest `others` validators, in ms.

    `round_trips_ms` are the measured round trips to validators, None where there is none yet; 0 if too few are known.
    """
    known = sorted(trip for trip in round_trips_ms if trip is not None)
    return round(known[others - 1] * 1.5) if 0 < others <= len(known) else 0


class BlockBudget:
    """The units that the next block may use, adapted from block to block."""

    def __init__(self, units_max: int, *, target_ms: int = TARGET_MS) -> None:
        """Takes the chain's bound on a block's units and how long a block may take from proposal to commit.

        Half as much again is given to the network at most: the sum must stay below the progress timeout.
        """
        self._units_max = units_max
        self._target_ms = target_ms
        self.units = min(UNITS_START, units_max)

    def committed(self, units: int, elapsed_ms: int, travel_ms: int = 0) -> None:
        """Learns from a block of ours: the units it used, how long its commit took, and its messages' way of that."""
        spent_ms = elapsed_ms - min(travel_ms, self._target_ms // 2)
        if spent_ms > self._target_ms:
            by_time = units * self._target_ms // spent_ms
            self.units = max(UNITS_MIN, min(self.units * SHRINK_PERCENT // 100, max(by_time, UNITS_MIN)))
        elif units * 100 >= self.units * USED_PERCENT:
            self.units = min(self._units_max, self.units + UNITS_STEP)

    def failed(self) -> None:
        """Learns that a proposal of ours did not get through in its view: the next one is half as large."""
        self.units = max(UNITS_MIN, self.units // 2)
