"""Draws what goes wrong around the machines from a seed's generator: links, timing, and a handful of faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from consensus.messages import Kind
from devnet.simulation.faults import (
    ClockStep,
    Crash,
    CrashAtEffect,
    Cut,
    Damage,
    Fault,
    FullDisk,
    Hush,
    Link,
    LoseDisk,
    LoseRecords,
    Pause,
    Restore,
    Slow,
)
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import ADD, CORRECT, REMOVE, REPLACE, Links, Reform, Timing
from state.ledger.domains.governance.change import VALIDATORS_KEPT_MIN

Drawer: TypeAlias = Callable[[random.Random, int], list[Fault]]

STORM_US: Final = 4 * SECOND
KINDS: Final = (
    (Kind.PRE_PREPARE,),
    (Kind.PREPARE,),
    (Kind.COMMIT,),
    (Kind.COMMIT, Kind.DECIDED, Kind.STATUS),
    (Kind.VIEW_CHANGE,),
    (Kind.NEW_VIEW,),
    (Kind.SUSPECT, Kind.STATUS),
)


def links(rng: random.Random) -> Links:
    """Returns how links are during the storm."""
    if rng.random() < 0.25:
        return Links()
    return Links(
        delay_us=rng.choice((1, 5, 20)) * MS,
        jitter_us=rng.choice((1, 10, 60)) * MS,
        loss=rng.choice((0.0, 0.02, 0.1, 0.25)),
        duplication=rng.choice((0.0, 0.05, 0.2)),
        straying=rng.choice((0.0, 0.02, 0.1)),
        stray_us=rng.choice((200, 1_500)) * MS,
    )


def timing(rng: random.Random) -> Timing:
    """Returns how long work takes and which timeouts are set."""
    return Timing(
        write_us=rng.choice((300, 2 * MS, 15 * MS)),
        build_us=rng.choice((500, 5 * MS)),
        execute_us=rng.choice((500, 5 * MS, 30 * MS)),
        progress_timeout_ms=rng.choice((150, 300, 500)),
        silence_heights=rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 2)),
    )


def faults(rng: random.Random, machines: int, schemes: tuple[Drawer, ...]) -> tuple[Fault, ...]:
    """Returns one to six faults or schemes; `schemes` are drawn as often as the kinds here."""
    kinds: tuple[Drawer, ...] = (
        _partition,
        _flapping,
        _one_way,
        _hush,
        _hush,
        *schemes,
        _crash,
        _crash_of_all,
        _crash_at_effect,
        _crash_at_effect,
        _pause,
        _clock,
        _clock,
        _full_disk,
        _slow,
        _absence,
    )
    return tuple(fault for _ in range(rng.randint(1, 6)) for fault in rng.choice(kinds)(rng, machines))


def when(rng: random.Random) -> int:
    """Returns a moment of the storm."""
    return rng.randrange(STORM_US)


def between(groups: tuple[list[int], list[int]]) -> tuple[Link, ...]:
    """Returns the links of both directions between two groups of machines."""
    one, other = groups
    return tuple((a, b) for a in one for b in other) + tuple((b, a) for a in one for b in other)


def split(rng: random.Random, machines: int) -> tuple[list[int], list[int]]:
    """Parts the machines into two groups, neither empty."""
    numbers = list(range(machines))
    rng.shuffle(numbers)
    at = rng.randint(1, machines - 1)
    return numbers[:at], numbers[at:]


def _partition(rng: random.Random, machines: int) -> list[Fault]:
    at_us = when(rng)
    return [Cut(at_us, at_us + rng.randrange(2 * SECOND), between(split(rng, machines)))]


def _flapping(rng: random.Random, machines: int) -> list[Fault]:
    at_us, links = when(rng), between(split(rng, machines))
    period_us = rng.choice((30, 100, 300)) * MS
    return [Cut(start, start + period_us // 2, links) for start in range(at_us, at_us + SECOND, period_us)]


def _one_way(rng: random.Random, machines: int) -> list[Fault]:
    at_us = when(rng)
    until_us = at_us + rng.randrange(2 * SECOND)
    one, other = split(rng, machines)
    return [Cut(at_us, until_us, tuple((a, b) for a in one for b in other))]


def _hush(rng: random.Random, machines: int) -> list[Fault]:
    at_us = when(rng)
    one, other = split(rng, machines)
    links = tuple((a, b) for a in one for b in other)
    return [Hush(at_us, at_us + rng.randrange(2 * SECOND), links, rng.choice(KINDS))]


def losses(rng: random.Random, conducts: Sequence[str]) -> list[Fault]:
    """Correct validators lose what they must not lose, no more of them than the faulty leave to f, each once."""
    correct = [index for index, conduct in enumerate(conducts) if conduct == CORRECT]
    bearable = (len(conducts) - 1) // 3 - (len(conducts) - len(correct))
    if bearable < 1 or rng.random() < 0.6:
        return []
    kinds: tuple[Callable[[random.Random, int], Fault], ...] = (
        lambda rng, victim: LoseRecords(when(rng), victim, rng.randrange(SECOND)),
        lambda rng, victim: LoseRecords(when(rng), victim, rng.randrange(SECOND), recovered=False),
        lambda rng, victim: LoseDisk(when(rng), victim, rng.randrange(SECOND)),
        lambda rng, victim: Damage(when(rng), victim, rng.randrange(SECOND), chain=rng.random() < 0.3),
        _restore,
        _restore,
    )
    victims = rng.sample(correct, rng.randint(1, bearable))
    return [rng.choice(kinds)(rng, victim) for victim in victims]


def _restore(rng: random.Random, victim: int) -> Fault:
    at_us = when(rng)
    return Restore(at_us, at_us + rng.randrange(50 * MS, 2 * SECOND), victim, rng.randrange(SECOND // 2))


def _full_disk(rng: random.Random, machines: int) -> list[Fault]:
    at_us = when(rng)
    return [FullDisk(at_us, at_us + rng.randrange(SECOND), number) for number in _some(rng, machines)]


def _slow(rng: random.Random, machines: int) -> list[Fault]:
    at_us, until_us = when(rng), when(rng)
    factor = rng.choice((5, 20, 100))
    return [Slow(min(at_us, until_us), max(at_us, until_us) + 1, rng.randrange(machines), factor)]


def _absence(rng: random.Random, machines: int) -> list[Fault]:
    """A machine is away for most of the storm, without power or without a link."""
    at_us, number = rng.randrange(SECOND), rng.randrange(machines)
    long_us = rng.randrange(2 * SECOND, STORM_US)
    if rng.random() < 0.5:
        return [Crash(at_us, (number,), (long_us,))]
    others = [other for other in range(machines) if other != number]
    return [Cut(at_us, at_us + long_us, between(([number], others)))]


def _some(rng: random.Random, machines: int) -> list[int]:
    """Returns one machine, or now and then several."""
    return rng.sample(range(machines), 1 if rng.random() < 0.8 else rng.randint(2, machines))


def reforms(rng: random.Random, conducts: Sequence[str], spares: int) -> tuple[Reform, ...]:
    """Returns changes of the validator set that leave the faulty at most f, whichever of them come about."""
    n, faulty = len(conducts), sum(conduct != CORRECT for conduct in conducts)
    left, fresh = n, list(range(n, n + spares))
    targets = rng.sample(range(n), n)
    found = []
    for _ in range(rng.randint(1, 3)):
        change = rng.choice((ADD, REPLACE, REMOVE))
        at_us, ahead = rng.randrange(STORM_US * 3 // 4), rng.choice((0, 0, 2, 5))
        if change == REMOVE and left > VALIDATORS_KEPT_MIN and faulty <= (left - 2) // 3:
            left -= 1
            found.append(Reform(at_us, REMOVE, targets.pop(), ahead=ahead))
        elif fresh:
            taken = fresh.pop(0)
            if change == REPLACE:
                found.append(Reform(at_us, REPLACE, targets.pop(), by=taken, ahead=ahead))
            else:
                found.append(Reform(at_us, ADD, taken, ahead=ahead))
    return tuple(found)


def _crash(rng: random.Random, machines: int) -> list[Fault]:
    return [Crash(when(rng), (rng.randrange(machines),), (rng.randrange(2 * SECOND),))]


def _crash_of_all(rng: random.Random, machines: int) -> list[Fault]:
    downs = tuple(rng.randrange(SECOND // 2) for _ in range(machines))
    return [Crash(when(rng), tuple(range(machines)), downs)]


def _crash_at_effect(rng: random.Random, machines: int) -> list[Fault]:
    return [CrashAtEffect(when(rng), rng.randrange(machines), rng.randrange(40), rng.randrange(SECOND))]


def _pause(rng: random.Random, machines: int) -> list[Fault]:
    at_us = when(rng)
    return [Pause(at_us, at_us + rng.randrange(SECOND), rng.randrange(machines))]


def _clock(rng: random.Random, machines: int) -> list[Fault]:
    at_us, machine, by_ms = when(rng), rng.randrange(machines), rng.choice((-8_000, -500, 500, 8_000))
    return [ClockStep(at_us, machine, by_ms), ClockStep(at_us + rng.randrange(2 * SECOND), machine, -by_ms)]
