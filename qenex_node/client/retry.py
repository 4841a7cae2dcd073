"""When a request may be sent again after its connection was lost, and how long to wait before that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from state.errors import Rejected

_SAFE: Final = ("qenex_get", "qenex_status", "qenex_simulate", "qenex_subscribe", "ledger_", "mempool_", "net_")
_SAFE_TOO: Final = ("consensus_", "rpc.", "qenex_sendTransaction")


def is_safe(method: str) -> bool:
    """Returns whether sending it twice does no more than sending it once.

    Reading is safe. So is submitting, because a transaction has a sequence number and an id: the same bytes are
    answered with what became of them. Of a method that is unknown here nothing is assumed.
    """
    return method.startswith(_SAFE + _SAFE_TOO)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is sent at most, and the wait before each repeat: doubling from `delay_ms` up to a cap."""

    attempts: int = 4
    delay_ms: int = 50
    delay_ms_max: int = 2_000

    def __post_init__(self) -> None:
        """Raises Rejected("retry_invalid")."""
        if self.attempts < 1 or not 0 < self.delay_ms <= self.delay_ms_max:
            raise Rejected("retry_invalid", "attempts are at least 1, and 0 < delay_ms <= delay_ms_max")

    def delay_s(self, attempt: int, chance: float) -> float:
        """Returns the wait after the failed attempt number `attempt` (from 1), in seconds.

        `chance` from 0 to 1 spreads clients that lost the same node over half the wait.
        """
        delay_ms = min(self.delay_ms << min(attempt - 1, 20), self.delay_ms_max)
        return delay_ms * (1 - chance / 2) / 1000
