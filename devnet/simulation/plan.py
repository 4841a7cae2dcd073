"""Draws a run's settings from its seed: how many validators, who is faulty, how links are, what fails and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from devnet.simulation.faults import LOSSES, LoseQuorum, end_of
from devnet.simulation.network import WIDE_MS
from devnet.simulation.plan_adversaries import draw_conducts, halves, hidden_commit, schemed
from devnet.simulation.plan_attacks import attacker, border, hostile, liars, too_many_twins, twins
from devnet.simulation.plan_faults import STORM_US, faults, links, losses, reforms, timing
from devnet.simulation.schedule import SECOND
from devnet.simulation.settings import CORRECT, TWIN, Settings
from devnet.simulation.world import world_of

EXACT: Final = 17
WIDE_TIMEOUT_MS: Final = 600


def draw(seed: int) -> Settings:
    """Returns the settings of a seed, with at most f faulty validators: every law must hold in this run."""
    if seed % 3 == 2:
        return replace(schemed(seed), exact=seed % 100 == EXACT)
    rng = random.Random(f"{seed} plan")
    return _storm(seed, rng, draw_conducts(rng, rng.choice((4, 4, 4, 5, 6, 7))))


def large(seed: int) -> Settings:
    """Returns the same with more validators than most networks have."""
    rng = random.Random(f"{seed} large")
    return _storm(seed, rng, draw_conducts(rng, rng.randint(8, 16)))


def quorum_lost(seed: int) -> Settings:
    """Returns a storm in which more than f validators lose their vote records, though fewer than a quorum."""
    rng = random.Random(f"{seed} quorum lost")
    n = rng.choice((4, 4, 5, 6, 7))
    settings = _storm(seed, rng, [CORRECT] * n)
    validators = world_of(n, 0).validators
    lost = rng.sample(range(n), rng.randint(validators.f + 1, validators.quorum - 1))
    # What else a disk could lose beside that would be more than anybody can bear.
    bearable = tuple(fault for fault in settings.faults if not isinstance(fault, LOSSES))
    return replace(settings, faults=(*bearable, LoseQuorum(rng.randrange(STORM_US), tuple(lost))))


def mixed(seed: int) -> Settings:
    """Returns a storm or, in two of five seeds, one against an attacker, twins or liars, or what else is rare."""
    chosen = random.Random(f"{seed} mix").choice(MIX)
    return replace(chosen(seed), exact=seed % 100 == EXACT)


def _storm(seed: int, rng: random.Random, conducts: list[str]) -> Settings:
    n = len(conducts)
    spares = rng.choice((0, 0, 0, 1, 2))
    followers = rng.choice((0, 0, 0, 0, 1))
    changes = reforms(rng, conducts, spares) if spares or rng.random() < 0.1 else ()
    machines = n + conducts.count(TWIN) + spares + followers
    wrong = (*faults(rng, machines, (hidden_commit, hidden_commit)), *losses(rng, conducts))
    wide = rng.random() < 0.15
    settings = Settings(
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
        regions=tuple(rng.randrange(len(WIDE_MS)) for _ in range(5)) if wide else (),
        hasty=rng.choice((0, 0, 3, 8)),
        reforms=changes,
        exact=seed % 100 == EXACT,
    )
    if not wide:
        return settings
    # Where a round takes longer than the timeout, each height costs views until that has doubled: no harm, but time.
    slower = replace(settings.timing, progress_timeout_ms=WIDE_TIMEOUT_MS)
    return replace(settings, timing=slower, recovery_us=2 * settings.recovery_us)


MIX: Final = (
    *(draw,) * 60,
    *(attacker,) * 15,
    *(twins,) * 10,
    *(liars,) * 5,
    *(border,) * 5,
    *(quorum_lost,) * 4,
    large,
)

PLANS: Final[dict[str, Callable[[int], Settings]]] = {
    "storm": draw,
    "large": large,
    "quorum-lost": quorum_lost,
    "mixed": mixed,
    "halves": halves,
    "attacker": attacker,
    "border": border,
    "hostile": hostile,
    "liars": liars,
    "twins": twins,
    "too-many-twins": too_many_twins,
}
"""How settings are drawn from a seed, by name."""
