"""When the bytes of one direction of one connection leave: delay, jitter, stalls, rate, holding back and losing.

A pure machine without sockets: bytes and times go in, bytes that are due come out, in their order, because TCP keeps
it. Times are seconds of one clock that never goes back.

A network that loses packets does not take bytes out of a connection: TCP sends them again. So a fault that is to pass
like a lost route is `held` (the bytes wait), and `cut` (the bytes are gone) is a fault after which the connection can
never be used again: whoever drives this closes it once it is whole again (`lost`).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from state.errors import Rejected

BUFFER_BYTES_MAX: Final = 8 * 1024 * 1024
"""What waits in one direction of one connection; beyond it nothing more is read, and the sender feels it."""

_JOIN_SECONDS: Final = 0.0005


@dataclass(frozen=True, slots=True)
class Conduct:
    """What becomes of the bytes of one direction.

    They arrive `delay_ms` and up to `jitter_ms` more after they were sent, `rate_bytes` a second at most (0: any). A
    share `stall_share` of the pieces (what one read brings) is `stall_ms` later than that, and all that is behind them
    waits. `held`: nothing passes until that ends. `cut`: bytes vanish. `refused`: connections that are dialed this way
    are closed at once.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    stall_share: float = 0.0
    stall_ms: float = 0.0
    rate_bytes: int = 0
    held: bool = False
    cut: bool = False
    refused: bool = False

    def __post_init__(self) -> None:
        """Raises Rejected("conduct_invalid")."""
        if min(self.delay_ms, self.jitter_ms, self.stall_ms, self.rate_bytes) < 0 or not 0 <= self.stall_share <= 1:
            raise Rejected("conduct_invalid", "times and rates are at least 0, a share is from 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """Returns the conduct by the names of its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Conduct:
        """Returns the conduct of `to_json`'s form."""
        return cls(**{field.name: value[field.name] for field in fields(cls)})


PASSING: Final = Conduct()


class Schedule:
    """The bytes of one direction of one connection that have not left yet."""

    __slots__ = ("_conduct", "_ends", "_free_at", "_last_due", "_pieces", "_random", "bytes", "lost")

    def __init__(self, conduct: Conduct, chance: random.Random) -> None:
        """Takes how the direction behaves from now on, and what its jitter and stalls are drawn from."""
        self.lost = False
        self.bytes = 0
        self._conduct = conduct
        self._random = chance
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0
        self._free_at = 0.0
        self._ends = False

    def change(self, conduct: Conduct) -> None:
        """Puts another conduct in force, for what comes from now on; holding back takes what waits already too."""
        self._conduct = conduct
        if conduct.cut and self._pieces:
            self._lose()

    def take(self, data: bytes, now: float) -> None:
        """Takes bytes that were sent now."""
        conduct = self._conduct
        if conduct.cut:
            self._lose()
            return
        due = now + conduct.delay_ms / 1000
        if conduct.jitter_ms:
            due += self._random.uniform(0, conduct.jitter_ms) / 1000
        if conduct.stall_share and self._random.random() < conduct.stall_share:
            due += conduct.stall_ms / 1000
        if conduct.rate_bytes:
            due = self._free_at = max(due, self._free_at) + len(data) / conduct.rate_bytes
        self._last_due = due = max(due, self._last_due)
        self._pieces.append((due, data))
        self.bytes += len(data)

    def finish(self) -> None:
        """Takes note that the sender closed its end: that arrives behind its last byte."""
        self._ends = True

    def due(self, now: float) -> bytes:
        """Removes and returns the bytes that arrive now."""
        if self._conduct.held or not self._pieces:
            return b""
        taken: list[bytes] = []
        while self._pieces and self._pieces[0][0] <= now + _JOIN_SECONDS:
            taken.append(self._pieces.popleft()[1])
        data = taken[0] if len(taken) == 1 else b"".join(taken)
        self.bytes -= len(data)
        return data

    @property
    def next_at(self) -> float | None:
        """When the next bytes are due; None if nothing waits, or nothing may pass."""
        if self._conduct.held or not self._pieces:
            return None
        return self._pieces[0][0]

    @property
    def ended(self) -> bool:
        """Whether the sender closed its end and all that it sent has left."""
        return self._ends and not self._pieces and not self._conduct.held and not self._conduct.cut

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read."""
        return self.bytes >= BUFFER_BYTES_MAX

    def _lose(self) -> None:
        self.lost = True
        self._pieces.clear()
        self.bytes = 0
