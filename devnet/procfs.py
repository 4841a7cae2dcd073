"""What the system says of a process: CPU time and memory, with all its descendants. Elsewhere than Linux: nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the start, and memory: `rss` with mapped files, `rss_anon` without; bytes."""

    cpu_s: float
    rss: int
    rss_anon: int


def usage(pid: int) -> Usage | None:
    """Returns what a process and its descendants use, None if it is gone or the system does not tell."""
    total: Usage | None = None
    for member in (pid, *_descendants(pid)):
        one = _usage(member)
        if one is None:
            continue
        total = one if total is None else _sum(total, one)
    return total


def state(pid: int) -> str | None:
    """Returns the letter of a process's state (R, S, T for stopped, Z ...), None if it is gone."""
    fields = _stat_fields(pid)
    return None if fields is None else fields[0]


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(a.cpu_s + b.cpu_s, a.rss + b.rss, a.rss_anon + b.rss_anon)


def _stat_fields(pid: int) -> list[str] | None:
    """Returns the fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _usage(pid: int) -> Usage | None:
    fields = _stat_fields(pid)
    if fields is None:
        return None
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    lines = [line.split() for line in status.splitlines() if line.startswith(("VmRSS:", "RssAnon:"))]
    sizes = {words[0]: int(words[1]) * 1024 for words in lines}
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, sizes.get("VmRSS:", 0), sizes.get("RssAnon:", 0))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        tasks = list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found.append(int(child))
            found += _descendants(int(child))
    return found
