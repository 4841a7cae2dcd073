"""Draws a run's settings from its seed: how many validators, who is faulty, how links are, what fails and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from devnet.simulation.faults import end_of
from devnet.simulation.network import WIDE_MS
from devnet.simulation.plan_adversaries import draw_conducts, halves, hidden_commit, schemed
from devnet.simulation.plan_attacks import attacker, hostile, liars, too_many_twins, twins
from devnet.simulation.plan_faults import STORM_US, faults, links, losses, reforms, timing
from devnet.simulation.schedule import SECOND
from devnet.simulation.settings import TWIN, Settings

EXACT: Final = 17


def draw(seed: int) -> Settings:
    """Returns the settings of a seed, with at most f faulty validators: every law must hold in this run."""
    if seed % 3 == 2:
        return replace(schemed(seed), exact=seed % 100 == EXACT)
    rng = random.Random(f"{seed} plan")
    return _storm(seed, rng, rng.choice((4, 4, 4, 5, 6, 7)))


def large(seed: int) -> Settings:
    """Returns the same with more validators than most networks have."""
    rng = random.Random(f"{seed} large")
    return _storm(seed, rng, rng.randint(8, 16))


def mixed(seed: int) -> Settings:
    """Returns a storm, and each fiftieth time one of a large network."""
    return large(seed) if seed % 50 == 49 else draw(seed)


def _storm(seed: int, rng: random.Random, n: int) -> Settings:
    conducts = draw_conducts(rng, n)
    spares = rng.choice((0, 0, 0, 1, 2))
    followers = rng.choice((0, 0, 0, 0, 1))
    changes = reforms(rng, conducts, spares) if spares or rng.random() < 0.1 else ()
    machines = n + conducts.count(TWIN) + spares + followers
    wrong = (*faults(rng, machines, (hidden_commit, hidden_commit)), *losses(rng, conducts))
    return Settings(
        seed=seed,
        conducts=tuple(conducts),
        leader_term=rng.choice((0, 0, 0, 1, 3)),
        drift_ms=rng.choice((1_000, 5_000)),
        links=links(rng),
        timing=timing(rng),
        faults=wrong,
        heal_us=max([STORM_US, *map(end_of, wrong)]) + SECOND // 2,
        transactions=rng.randint(14, 26),
        block_transactions_max=rng.choice((1, 2, 2, 3, 6)),
        submit_until_us=STORM_US,
        skews_ms=tuple(rng.randint(-400, 400) for _ in range(machines)),
        spares=spares,
        followers=followers,
        regions=tuple(rng.randrange(len(WIDE_MS)) for _ in range(5)) if rng.random() < 0.15 else (),
        hasty=rng.choice((0, 0, 3, 8)),
        reforms=changes,
        exact=seed % 100 == EXACT,
    )


PLANS: Final[dict[str, Callable[[int], Settings]]] = {
    "storm": draw,
    "large": large,
    "mixed": mixed,
    "halves": halves,
    "attacker": attacker,
    "hostile": hostile,
    "liars": liars,
    "twins": twins,
    "too-many-twins": too_many_twins,
}
"""How settings are drawn from a seed, by name."""
