"""What the fault suite shares: how long a fault holds, and a workload whose history must be flawless."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from devnet.network import Devnet
from devnet.workload import Workload

ALL = ["validator-01", "validator-02", "validator-03", "validator-04"]
HOLD_SECONDS = float(os.environ.get("QENEX_FAULT_SECONDS", "0.7"))
"""How long each fault holds; minutes of it make a long run."""

ACCOUNTS = 16


@contextmanager
def flawless(net: Devnet, seed: int = 1) -> Iterator[Workload]:
    """Runs the workload around a fault. Once the fault is over, every node must agree and the history hold."""
    with Workload(net, seed=seed) as work:
        work.wait_committed(5)
        yield work
        # All is whole again: it must go on by itself.
        work.wait_committed(5)
        verdict = work.verdict()
        assert verdict.ok, verdict
        assert verdict.reads, "nobody could read anything"


def hold(seconds: float = HOLD_SECONDS) -> None:
    """Lets a fault last: what must happen meanwhile is asserted, what must not can only be waited for."""
    time.sleep(seconds)


def primary_of(net: Devnet, names: list[str] = ALL) -> str:
    """Returns who proposes now."""
    status = net.status(names[0])
    assert status is not None
    return str(status["primary"])
