"""The node's wall clock, which a test network may set apart from the machine's."""

from __future__ import annotations

import time


class WallClock:
    """Milliseconds since 1970 UTC, plus an offset that only test networks set."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        """Returns the time in ms since 1970 UTC."""
        return time.time_ns() // 1_000_000 + self.offset_ms
