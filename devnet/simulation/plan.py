"""Draws a run's settings from its seed: how many validators, who is faulty, how links are, what fails and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from devnet.simulation.faults import end_of
from devnet.simulation.plan_adversaries import draw_conducts, halves, hidden_commit, schemed
from devnet.simulation.plan_attacks import attacker, hostile, twins
from devnet.simulation.plan_faults import STORM_US, faults, links, lost_records, timing
from devnet.simulation.schedule import SECOND
from devnet.simulation.settings import TWIN, Settings

HEIGHTS_MIN: Final = 10
EXACT: Final = 17


def draw(seed: int) -> Settings:
    """Returns the settings of a seed, with at most f faulty validators: every law must hold in this run."""
    if seed % 3 == 2:
        return schemed(seed)
    rng = random.Random(f"{seed} plan")
    n = rng.choice((4, 4, 4, 5, 6, 7))
    conducts = draw_conducts(rng, n)
    machines = n + conducts.count(TWIN)
    wrong = (*faults(rng, machines, (hidden_commit, hidden_commit)), *lost_records(rng, conducts))
    return Settings(
        seed=seed,
        conducts=tuple(conducts),
        leader_term=rng.choice((0, 0, 0, 1, 3)),
        links=links(rng),
        timing=timing(rng),
        faults=wrong,
        heal_us=max([STORM_US, *map(end_of, wrong)]) + SECOND // 2,
        transactions=rng.randint(14, 26),
        block_transactions_max=rng.choice((1, 2, 2, 3, 6)),
        submit_until_us=STORM_US,
        skews_ms=tuple(rng.randint(-400, 400) for _ in range(machines)),
        heights_min=HEIGHTS_MIN,
        exact=seed % 100 == EXACT,
    )


PLANS: Final[dict[str, Callable[[int], Settings]]] = {
    "storm": draw,
    "halves": halves,
    "attacker": attacker,
    "hostile": hostile,
    "twins": twins,
}
"""How settings are drawn from a seed, by name."""
