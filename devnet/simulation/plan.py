"""Draws a run's settings from its seed: how many validators, who is faulty, how links are, what fails and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from consensus.messages import Kind
from devnet.simulation.faults import ClockStep, Crash, CrashAtEffect, Cut, Fault, Hush, Link, LoseRecords, Pause, end_of
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import CORRECT, TWIN, Links, Settings, Timing

STORM_US: Final = 4 * SECOND
FAULTY: Final = (TWIN, "mute", "selective", "liar", "liar", "censor")
KINDS: Final = (
    (Kind.PRE_PREPARE,),
    (Kind.PREPARE,),
    (Kind.COMMIT,),
    (Kind.COMMIT, Kind.DECIDED, Kind.STATUS),
    (Kind.VIEW_CHANGE,),
    (Kind.NEW_VIEW,),
    (Kind.SUSPECT, Kind.STATUS),
)


def draw(seed: int) -> Settings:
    """Returns the settings of a seed, with at most f faulty validators: every law must hold in this run."""
    rng = random.Random(f"{seed} plan")
    if seed % 3 == 2:
        return _schemed(seed, rng)
    n = rng.choice((4, 4, 4, 5, 6, 7))
    conducts = [CORRECT] * n
    if rng.random() < 0.5:
        for index in rng.sample(range(n), rng.randint(1, (n - 1) // 3)):
            conducts[index] = rng.choice(FAULTY)
    machines = n + conducts.count(TWIN)
    faults = (*_faults(rng, machines), *_lost_records(rng, conducts))
    return Settings(
        seed=seed,
        conducts=tuple(conducts),
        leader_term=rng.choice((0, 0, 0, 1, 3)),
        links=_links(rng),
        timing=_timing(rng),
        faults=faults,
        heal_us=max([STORM_US, *map(end_of, faults)]) + SECOND // 2,
        transactions=rng.randint(6, 24),
        block_transactions_max=rng.randint(1, 6),
        submit_until_us=STORM_US,
        skews_ms=tuple(rng.randint(-400, 400) for _ in range(machines)),
    )


def _schemed(seed: int, rng: random.Random) -> Settings:
    """Returns a run on good links where little but one scheme after the other is played, and there is always work."""
    n = rng.choice((4, 4, 4, 6, 7))
    conducts = [CORRECT] * n
    if rng.random() < 0.4:
        conducts[rng.randrange(n)] = rng.choice(("liar", "liar", TWIN, "selective"))
    machines = n + conducts.count(TWIN)
    faults = tuple(fault for _ in range(rng.randint(1, 2)) for fault in _hidden_commit(rng, machines))
    return Settings(
        seed=seed,
        conducts=tuple(conducts),
        timing=replace(_timing(rng), execute_us=MS),
        faults=faults,
        heal_us=max([STORM_US, *map(end_of, faults)]) + SECOND // 2,
        transactions=36,
        block_transactions_max=2,
        submit_until_us=STORM_US,
    )


def halves(seed: int) -> Settings:
    """Returns a run with f + 1 twins, each with one machine in either half of a cut network: it must fork."""
    rng = random.Random(f"{seed} halves")
    n = 4
    twins = rng.sample(range(n), 2)
    conducts = tuple(TWIN if index in twins else CORRECT for index in range(n))
    correct = [index for index in range(n) if index not in twins]
    left, right = [*twins, correct[0]], [n, n + 1, correct[1]]
    links = tuple((a, b) for one, other in ((left, right), (right, left)) for a in one for b in other)
    return Settings(
        seed=seed, conducts=conducts, faults=(Cut(0, 5 * SECOND, links),), recovery_us=5 * SECOND, transactions=12
    )


def _links(rng: random.Random) -> Links:
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


def _timing(rng: random.Random) -> Timing:
    return Timing(
        write_us=rng.choice((300, 2 * MS, 15 * MS)),
        build_us=rng.choice((500, 5 * MS)),
        execute_us=rng.choice((500, 5 * MS, 30 * MS)),
        progress_timeout_ms=rng.choice((150, 300, 500)),
    )


def _faults(rng: random.Random, machines: int) -> tuple[Fault, ...]:
    kinds: tuple[Callable[[random.Random, int], list[Fault]], ...] = (
        _partition,
        _flapping,
        _one_way,
        _hush,
        _hush,
        _hidden_commit,
        _hidden_commit,
        _crash,
        _crash_of_all,
        _crash_at_effect,
        _crash_at_effect,
        _pause,
        _clock,
        _clock,
    )
    return tuple(fault for _ in range(rng.randint(0, 6)) for fault in rng.choice(kinds)(rng, machines))


def _when(rng: random.Random) -> int:
    return rng.randrange(STORM_US)


def _between(groups: tuple[list[int], list[int]]) -> tuple[Link, ...]:
    one, other = groups
    return tuple((a, b) for a in one for b in other) + tuple((b, a) for a in one for b in other)


def _split(rng: random.Random, machines: int) -> tuple[list[int], list[int]]:
    numbers = list(range(machines))
    rng.shuffle(numbers)
    at = rng.randint(1, machines - 1)
    return numbers[:at], numbers[at:]


def _partition(rng: random.Random, machines: int) -> list[Fault]:
    at_us = _when(rng)
    return [Cut(at_us, at_us + rng.randrange(2 * SECOND), _between(_split(rng, machines)))]


def _flapping(rng: random.Random, machines: int) -> list[Fault]:
    at_us, links = _when(rng), _between(_split(rng, machines))
    period_us = rng.choice((30, 100, 300)) * MS
    return [Cut(start, start + period_us // 2, links) for start in range(at_us, at_us + SECOND, period_us)]


def _one_way(rng: random.Random, machines: int) -> list[Fault]:
    at_us = _when(rng)
    until_us = at_us + rng.randrange(2 * SECOND)
    one, other = _split(rng, machines)
    return [Cut(at_us, until_us, tuple((a, b) for a in one for b in other))]


def _hush(rng: random.Random, machines: int) -> list[Fault]:
    at_us = _when(rng)
    one, other = _split(rng, machines)
    links = tuple((a, b) for a in one for b in other)
    return [Hush(at_us, at_us + rng.randrange(2 * SECOND), links, rng.choice(KINDS))]


def _hidden_commit(rng: random.Random, machines: int) -> list[Fault]:
    """COMMITs reach one machine only, which then vanishes; often the others lose power or their primary too."""
    at_us, witness = _when(rng), rng.randrange(machines)
    others = [number for number in range(machines) if number != witness]
    vanishes_us = at_us + rng.randrange(50 * MS, SECOND // 2)
    shows_us = vanishes_us + rng.randrange(SECOND // 4, 3 * SECOND // 2)
    returns_us = shows_us + rng.randrange(SECOND)
    hidden = tuple((a, b) for a in range(machines) for b in others if a != b)
    faults: list[Fault] = [
        Hush(at_us, shows_us, hidden, (Kind.COMMIT, Kind.DECIDED)),
        Cut(vanishes_us, returns_us, _between(([witness], others))),
    ]
    falling = rng.choice(([], [rng.choice(others)], others))
    if falling:
        faults.append(Crash(vanishes_us, tuple(falling), tuple(rng.randrange(SECOND) for _ in falling)))
    return faults


def _lost_records(rng: random.Random, conducts: list[str]) -> list[Fault]:
    """Correct validators lose their vote records, no more of them than the faulty leave to f."""
    correct = [index for index, conduct in enumerate(conducts) if conduct == CORRECT]
    bearable = (len(conducts) - 1) // 3 - (len(conducts) - len(correct))
    if bearable < 1 or rng.random() < 0.7:
        return []
    victims = rng.sample(correct, bearable)
    return [LoseRecords(_when(rng), victim, rng.randrange(SECOND)) for victim in victims]


def _crash(rng: random.Random, machines: int) -> list[Fault]:
    return [Crash(_when(rng), (rng.randrange(machines),), (rng.randrange(2 * SECOND),))]


def _crash_of_all(rng: random.Random, machines: int) -> list[Fault]:
    downs = tuple(rng.randrange(SECOND // 2) for _ in range(machines))
    return [Crash(_when(rng), tuple(range(machines)), downs)]


def _crash_at_effect(rng: random.Random, machines: int) -> list[Fault]:
    return [CrashAtEffect(_when(rng), rng.randrange(machines), rng.randrange(40), rng.randrange(SECOND))]


def _pause(rng: random.Random, machines: int) -> list[Fault]:
    at_us = _when(rng)
    return [Pause(at_us, at_us + rng.randrange(SECOND), rng.randrange(machines))]


def _clock(rng: random.Random, machines: int) -> list[Fault]:
    at_us, machine, by_ms = _when(rng), rng.randrange(machines), rng.choice((-8_000, -500, 500, 8_000))
    return [ClockStep(at_us, machine, by_ms), ClockStep(at_us + rng.randrange(2 * SECOND), machine, -by_ms)]
