"""What a client remembers between its calls: the chain, what it trusts of it, and the sequence numbers it used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from qenex_node.client.operations import Operations
from qenex_node.client.sequences import Sequences
from qenex_node.client.verify import Freshness, TrustedChain
from state.types import ChainContext

VALID_MS_DEFAULT: Final = 60_000


def wall_clock_ms() -> int:
    """Returns ms since 1970 UTC."""
    return time.time_ns() // 1_000_000


@dataclass
class Session:
    """The memory of one client; several clients of one chain may share it within a thread or event loop.

    With `trusted` every query is answered with a proof, which is checked, and what cannot be proved is refused. Without
    it the node is believed, and asked once which chain it is on. `age_ms_max` bounds how old the newest block may be
    (None: unbounded, because an idle chain makes no blocks). `valid_ms` is how long a transaction may wait for a block.
    """

    trusted: TrustedChain | None = None
    age_ms_max: int | None = None
    valid_ms: int = VALID_MS_DEFAULT
    operations: Operations = field(default_factory=Operations)
    sequences: Sequences = field(default_factory=Sequences)
    now_ms: Callable[[], int] = wall_clock_ms
    context: ChainContext | None = None
    head_time_ms: int = 0

    def __post_init__(self) -> None:
        if self.trusted is not None:
            self.context = self.trusted.context

    @property
    def freshness(self) -> Freshness:
        """How old an answer about the newest state may be."""
        return Freshness(age_ms_max=self.age_ms_max, now_ms=self.now_ms())

    def deadline_ms(self, valid_ms: int | None) -> int:
        """Returns the not-after of a transaction that is made now.

        It is compared with block time. The newest block says what that was, our clock what it will be: on an idle chain
        the newest block may be days old. The later of the two counts, so that a clock that is late does no harm.
        """
        return max(self.head_time_ms, self.now_ms()) + (self.valid_ms if valid_ms is None else valid_ms)
