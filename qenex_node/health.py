"""What the node says about its own state: may it vote, is it ready. Plain decisions over plain readings.

Ready means: a client that sends here gets its transaction decided and reads a fresh head. Each reason against has a
stable code, and all of them are listed, the most important first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qenex_node.rpc.view import Reason
from state.errors import JsonValue, Rejected

HEAD_BEHIND_MAX: Final = 8
STALLED_MS: Final = 10_000
CLOCK_OFFSET_MS_MAX: Final = 2_000
DISK_RESUME_PERCENT: Final = 110


@dataclass(frozen=True, slots=True)
class Readings:
    """Where a node stands.

    `validators_reachable` counts this node too if it is a validator in force. `target_height` is the highest height
    that is proved to exist. `work_waiting_ms` is how long the oldest executable transaction has waited while no block
    was committed, 0 without one. `clock_offset_ms` is the peers' median clock minus ours, None without peers.
    `vote_refusal` is why a validator does not vote (`disk_low`, `votes_missing`, `recovering` ...), None if it may.
    """

    head_height: int
    target_height: int
    validators_reachable: int
    quorum: int
    work_waiting_ms: int
    clock_offset_ms: float | None
    vote_refusal: Reason | None = None


def not_ready(readings: Readings) -> tuple[Reason, ...]:
    """Returns all reasons why /ready answers 503, the most important first; nothing when the node is ready."""
    reasons: list[Reason] = []
    if readings.validators_reachable < readings.quorum:
        reasons.append(
            _reason(
                "no_quorum",
                f"{readings.validators_reachable} validators are within reach, a quorum is {readings.quorum}: "
                "no block can be made",
                reachable=readings.validators_reachable,
                quorum=readings.quorum,
            )
        )
    behind = readings.target_height - readings.head_height
    if behind > HEAD_BEHIND_MAX:
        reasons.append(
            _reason(
                "head_behind",
                f"the head is {behind} blocks behind {readings.target_height}; it is catching up",
                head_height=readings.head_height,
                target_height=readings.target_height,
            )
        )
    if readings.vote_refusal is not None:
        reasons.append(readings.vote_refusal)
    if readings.work_waiting_ms > STALLED_MS:
        reasons.append(
            _reason(
                "stalled",
                f"a transaction has waited {readings.work_waiting_ms} ms and no block was committed",
                waiting_ms=readings.work_waiting_ms,
            )
        )
    offset = readings.clock_offset_ms
    if offset is not None and abs(offset) > CLOCK_OFFSET_MS_MAX:
        reasons.append(
            _reason(
                "clock_off",
                f"this node's clock differs by {round(offset)} ms from its peers': set it by NTP",
                offset_ms=round(offset),
            )
        )
    return tuple(reasons)


def recovering(recovers_at: int | None, signed_at_most: int | None, head_height: int) -> Reason:
    """Returns why a validator that lost its vote records does not vote, and how many blocks that lasts at least.

    A height that is not known yet is None: it is as soon as blocks come whose time is later than the recovery's start.
    """
    return _reason(
        "recovering",
        "it lost its vote records, and signs again after some blocks that the others make without it",
        signed_at_most=signed_at_most,
        recovers_at=recovers_at,
        blocks_left=None if recovers_at is None else max(1, recovers_at - head_height),
    )


class DiskGuard:
    """Says when free disk space is too low to vote, and when there is enough again (with some slack)."""

    def __init__(self, free_bytes_min: int) -> None:
        """Takes the bound in bytes."""
        self._free_bytes_min = free_bytes_min
        self._low = False

    def refusal(self, free_bytes: int) -> Reason | None:
        """Returns the reason not to vote with this much free space, None if there is enough."""
        bound = self._free_bytes_min * DISK_RESUME_PERCENT // 100 if self._low else self._free_bytes_min
        self._low = free_bytes < bound
        if not self._low:
            return None
        return _reason(
            "disk_low",
            f"{free_bytes} bytes of disk are free, at least {bound} are needed to vote: make room",
            free_bytes=free_bytes,
            needed_bytes=bound,
        )


def check_disk(free_bytes: int, free_bytes_min: int) -> None:
    """Raises Rejected("disk_low") unless there is room to start."""
    reason = DiskGuard(free_bytes_min).refusal(free_bytes)
    if reason is not None:
        raise Rejected(reason.code, reason.message, dict(reason.data))


def _reason(code: str, message: str, **data: JsonValue) -> Reason:
    return Reason(code, message, tuple(data.items()))
