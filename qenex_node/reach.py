"""Which validators this node hears, and whose connection it has lost: plain bookkeeping over times passed in.

A connection that ends says at once what silence says only after a while: whoever ran at its other end has died, or the
link has. Which of the two it was nobody can tell alone, so a loss is only a reason to suspect a primary, and counts
after a short grace, within which a broken connection is made again. Whoever is still heard through others afterwards
is not lost.
"""

from __future__ import annotations

from typing import Final

from state.types import ValidatorSet

REACHABLE_SECONDS: Final = 3.0
LOST_SECONDS: Final = 0.25
IN_FLIGHT_SECONDS: Final = 0.1
"""What a validator said before its connection ended may come through others for so long."""


class Reach:
    """When each validator, by its consensus key, was last heard, and when its connection ended."""

    def __init__(self) -> None:
        self._heard: dict[bytes, float] = {}
        self._lost: dict[bytes, float] = {}

    def heard(self, key: bytes, now: float) -> None:
        """Notes a sign of life of a validator, direct or through others."""
        self._heard[key] = now
        lost = self._lost.get(key)
        if lost is not None and now - lost > IN_FLIGHT_SECONDS:
            del self._lost[key]

    def joined(self, key: bytes) -> None:
        """Notes that a validator is connected."""
        self._lost.pop(key, None)

    def lost(self, key: bytes, now: float) -> None:
        """Notes that a validator's connection ended: it is out of reach until it is heard again."""
        self._heard.pop(key, None)
        self._lost[key] = now

    def keep(self, validators: ValidatorSet) -> None:
        """Forgets who is not in this set, which is in force now."""
        keys = {validator.key for validator in validators.validators}
        self._heard = {key: at for key, at in self._heard.items() if key in keys}
        self._lost = {key: at for key, at in self._lost.items() if key in keys}

    def is_lost(self, key: bytes | None, now: float) -> bool:
        """Returns whether a validator's connection ended, has not come back, and nothing was heard of it since."""
        lost = None if key is None else self._lost.get(key)
        return lost is not None and now - lost >= LOST_SECONDS

    @property
    def any_lost(self) -> bool:
        """Whether any connection of a validator ended and has not come back."""
        return bool(self._lost)

    def count(self, validators: ValidatorSet, own_key: bytes | None, now: float) -> int:
        """Returns how many of these validators were heard lately, counting the one with `own_key`."""
        since = now - REACHABLE_SECONDS
        return sum(v.key == own_key or self._heard.get(v.key, -1.0) > since for v in validators.validators)
