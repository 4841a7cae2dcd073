"""Latency percentiles, exact and by nearest rank: a sample that was measured, never one between two."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In ms; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    def to_json(self) -> dict[str, float | None]:
        """Returns the four by name."""
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99, "max": self.max}


def percentiles(seconds: Iterable[float]) -> Percentiles:
    """Returns the percentiles of latencies given in seconds."""
    ordered = sorted(seconds)
    if not ordered:
        return Percentiles(None, None, None, None)

    def rank(percent: float) -> float:
        return round(1000 * ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 2)

    return Percentiles(rank(50), rank(95), rank(99), round(1000 * ordered[-1], 2))
