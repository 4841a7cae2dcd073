"""When progress is owed, how long it may take, and when the next Tick is needed. Ticks are the only clock.

The progress timer runs while there is work (PBFT 4.4), or while a quorum has promised a view that nobody opens (PBFT
4.5.2). It doubles per failed view and halves per commit; its end is a suspicion, never a vote withheld.
"""

from __future__ import annotations

from typing import Final

from consensus.core import Core
from consensus.interface import SetTimer
from consensus.view_change import UNANSWERED, suspect_primary, unanswered

NO_PROGRESS: Final = "no_progress"


def works(core: Core) -> bool:
    """Whether progress is owed at the height being decided."""
    return core.rules.has_work(core.has_work, core.accepted is not None, core.prepared is not None)


def expire(core: Core) -> None:
    """Suspects the view if the progress timer has run out."""
    if core.progress_at is not None and core.now >= core.progress_at:
        core.progress_at = None
        suspect_primary(core, stall=NO_PROGRESS if core.promised == core.view else UNANSWERED)


def shorten(core: Core) -> None:
    """After a commit the timeout is halved, not below the configured one: a slow time leaves no long shadow."""
    core.timeout_ms = max(core.timeout_ms // 2, core.config.progress_timeout_ms)


def settle(core: Core) -> None:
    """Starts or stops the progress timer, and asks for the next Tick if it is another than before."""
    may_sign = core.may_sign
    if may_sign and _progress_is_owed(core):
        key = (core.height, core.view, core.promised)
        if key != core.progress_key:
            core.progress_key = key
            core.progress_at = core.now + core.timeout_ms
    else:
        core.progress_key = core.progress_at = None
        if core.promised == core.view:
            core.stall = None if core.stall == NO_PROGRESS else core.stall
    at = _next(core, may_sign)
    if at != core.timer_at:
        core.timer_at = at
        core.emit(SetTimer(at))


def status_interval(core: Core) -> int:
    """How long after the last STATUS the next is due: sooner while a height with work does not move."""
    busy = core.status_height == core.height and works(core)
    return core.config.status_busy_ms if busy else core.config.status_interval_ms


def _progress_is_owed(core: Core) -> bool:
    if core.decided is not None:
        return False
    if core.promised > core.view:
        return core.rules.unanswered_timer_runs(unanswered(core), core.quorum)
    return works(core)


def _next(core: Core, may_sign: bool) -> int:
    times = [core.repeat_at]
    if core.silence_left > 0:
        times.append(core.silence_until)
    if may_sign:
        times.append(core.status_sent_at + status_interval(core))
    if core.progress_at is not None:
        times.append(core.progress_at)
    if core.accepted is not None:
        state = core.blocks.get(core.accepted.block_hash)
        if state is not None and state.retry_at is not None:
            times.append(state.retry_at)
    return min(times)
