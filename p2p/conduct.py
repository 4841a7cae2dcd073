"""How a peer behaves: receive budgets, a misbehaviour score that decays, and bans that end.

Pure arithmetic over the `now` (seconds of a steady clock) that the caller passes in.
"""

from __future__ import annotations

from p2p.limits import BAN_SECONDS, SCORE_BAN, SCORE_HALF_LIFE_SECONDS
from p2p.wire import KINDS, Budget, Kind


class Bucket:
    """A token bucket: `rate` per second, at most `burst` at once, full at the start."""

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Takes rate per second, burst, and the time of its start."""
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._updated = now

    def take(self, amount: float, now: float) -> bool:
        """Takes `amount` if that much is there and returns whether it was."""
        self._level = min(self._burst, self._level + (now - self._updated) * self._rate)
        self._updated = now
        if amount > self._level:
            return False
        self._level -= amount
        return True


class Budgets:
    """One peer's receive budgets, a pair of buckets (messages, bytes) for each kind that it has used."""

    def __init__(self, now: float) -> None:
        """Takes the time at which all budgets are full."""
        self._started = now
        self._buckets: dict[Kind, tuple[Bucket, Bucket]] = {}

    def allow(self, kind: Kind, size: int, now: float) -> bool:
        """Charges one message of `size` bytes; returns False if the kind's budget does not cover it."""
        pair = self._buckets.get(kind)
        if pair is None:
            budget: Budget = KINDS[kind].budget
            pair = (
                Bucket(budget.messages_per_second, budget.messages_burst, self._started),
                Bucket(budget.bytes_per_second, budget.bytes_burst, self._started),
            )
            self._buckets[kind] = pair
        messages_ok = pair[0].take(1, now)
        return pair[1].take(size, now) and messages_ok


class Conduct:
    """One node's record across its connections: a score that halves every minute, and the end of its ban if any."""

    __slots__ = ("_banned_until", "_score", "_updated")

    def __init__(self) -> None:
        self._score = 0.0
        self._updated = 0.0
        self._banned_until = 0.0

    def score(self, now: float) -> float:
        """Returns the score as it has decayed to by `now`; 0 is spotless, SCORE_BAN bans."""
        return float(self._score * 0.5 ** ((now - self._updated) / SCORE_HALF_LIFE_SECONDS))

    def add(self, points: float, now: float) -> bool:
        """Adds points; returns True if this passed the bound: the node is banned and its score starts anew."""
        self._score = self.score(now) + points
        self._updated = now
        if self._score < SCORE_BAN:
            return False
        self._score = 0.0
        self._banned_until = now + BAN_SECONDS
        return True

    def ban_seconds_left(self, now: float) -> float:
        """Returns how long the node stays banned, 0 if it is not."""
        return max(0.0, self._banned_until - now)
