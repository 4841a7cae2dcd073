"""Draws who is faulty and what schemes are played against the protocol from a seed's generator."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from consensus.messages import Kind
from devnet.simulation.faults import Crash, Cut, Fault, Hush, end_of
from devnet.simulation.liars import LIARS
from devnet.simulation.plan_faults import STORM_US, between, timing, when
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import CORRECT, GARBLER, TWIN, Settings

FAULTY: Final = (TWIN, TWIN, GARBLER, "mute", "selective", "selective", "liar", "censor", *LIARS)


def draw_conducts(rng: random.Random, n: int) -> list[str]:
    """Returns each validator's conduct: in half of the runs up to f of them are faulty."""
    conducts = [CORRECT] * n
    if rng.random() < 0.5:
        for index in rng.sample(range(n), rng.randint(1, (n - 1) // 3)):
            conducts[index] = rng.choice(FAULTY)
    return conducts


def schemed(seed: int) -> Settings:
    """Returns a run on good links where little but one scheme after the other is played, and there is always work."""
    rng = random.Random(f"{seed} plan")
    n = rng.choice((4, 4, 4, 6, 7))
    conducts = [CORRECT] * n
    if rng.random() < 0.4:
        conducts[rng.randrange(n)] = rng.choice(("liar", "liar", TWIN, "selective"))
    machines = n + conducts.count(TWIN)
    faults = tuple(fault for _ in range(rng.randint(1, 2)) for fault in hidden_commit(rng, machines))
    return Settings(
        seed=seed,
        conducts=tuple(conducts),
        timing=replace(timing(rng), execute_us=MS),
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
        seed=seed, conducts=conducts, faults=(Cut(0, 5 * SECOND, links),), recovery_us=5 * SECOND, transactions=24
    )


def hidden_commit(rng: random.Random, machines: int) -> list[Fault]:
    """COMMITs reach one machine only, which then vanishes; often the others lose power or their primary too."""
    at_us, witness = when(rng), rng.randrange(machines)
    others = [number for number in range(machines) if number != witness]
    vanishes_us = at_us + rng.randrange(50 * MS, SECOND // 2)
    shows_us = vanishes_us + rng.randrange(SECOND // 4, 3 * SECOND // 2)
    returns_us = shows_us + rng.randrange(SECOND)
    hidden = tuple((a, b) for a in range(machines) for b in others if a != b)
    faults: list[Fault] = [
        Hush(at_us, shows_us, hidden, (Kind.COMMIT, Kind.DECIDED)),
        Cut(vanishes_us, returns_us, between(([witness], others))),
    ]
    falling = rng.choice(([], [rng.choice(others)], others))
    if falling:
        faults.append(Crash(vanishes_us, tuple(falling), tuple(rng.randrange(SECOND) for _ in falling)))
    return faults
