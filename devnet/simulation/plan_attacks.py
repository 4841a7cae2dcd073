"""Draws runs against adversaries from a seed: twins in parted networks, and an attacker that owns the network.

In all of them at most f validators are faulty: every law must hold.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Final

from devnet.simulation.attacks import Fall, Groups, Ladder, OldPromise, Opening, Scheme, Starve, Step
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import CORRECT, PUPPET, TWIN, Links, Settings, Timing
from devnet.simulation.twins import partitions

ATTACK_US: Final = 6 * SECOND
TWINS_US: Final = 4 * SECOND
HEIGHTS_MIN: Final = 10
OPENINGS: Final = (Opening.PLAIN, Opening.PLAIN, Opening.PLAIN, Opening.FLOOR, Opening.FLOOR, Opening.OLD)


def attacker(seed: int) -> Settings:
    """Returns a run with an attacker, among 4 to 7 validators."""
    rng = random.Random(f"{seed} attacker")
    return _attacked(seed, rng, rng.choice((4, 4, 4, 5, 6, 7)))


def hostile(seed: int) -> Settings:
    """Returns a run with an attacker among four validators: what broken cores are measured by."""
    return _attacked(seed, random.Random(f"{seed} hostile"), 4)


def _attacked(seed: int, rng: random.Random, n: int) -> Settings:
    f = (n - 1) // 3
    puppets = {1} if rng.random() < 0.5 else {rng.randrange(n)}
    while len(puppets) < f:
        puppets.add(rng.randrange(n))
    return Settings(
        seed=seed,
        conducts=tuple(PUPPET if index in puppets else CORRECT for index in range(n)),
        leader_term=rng.choice((0, 0, 3)),
        links=Links(delay_us=rng.choice((300, 1_000)), jitter_us=rng.choice((300, 2_000))),
        timing=Timing(
            write_us=rng.choice((300, 2 * MS, 8 * MS)),
            build_us=500,
            execute_us=rng.choice((500, 2 * MS)),
            progress_timeout_ms=rng.choice((100, 150)),
            progress_timeout_max_ms=1_200,
        ),
        heal_us=ATTACK_US,
        transactions=48,
        block_transactions_max=2,
        heights_min=HEIGHTS_MIN,
        submit_until_us=ATTACK_US - SECOND,
        schemes=tuple(_scheme(rng) for _ in range(8)),
    )


def _scheme(rng: random.Random) -> Scheme:
    drawn = rng.random()
    if drawn < 0.1:
        return Starve(rng.randrange(SECOND // 5, SECOND), rng.choice((0.5, 0.8, 0.95)), 400 * MS)
    if drawn < 0.2:
        return OldPromise()
    return _ladder(rng)


def _ladder(rng: random.Random) -> Ladder:
    """Up to two views in which one or two see the votes, then one in which one decides."""
    teasing = [Step(rng.choice((1, 1, 2)), hide=rng.random() < 0.8) for _ in range(rng.choice((0, 0, 0, 1, 2, 2)))]
    late = not teasing and rng.random() < 0.3
    opening = rng.choice(OPENINGS)
    if opening is not Opening.PLAIN:
        falls: tuple[Fall, ...] = (Fall.ENTERED,)
    elif late:
        falls = (Fall.NEVER, Fall.PROMISED)
    else:
        falls = (Fall.NEVER, Fall.NEVER, Fall.VOTED, Fall.ENTERED)
    sight = rng.choice((1, 2)) if teasing else 2
    return Ladder((*teasing, Step(sight, decide=True, late=late, fall=rng.choice(falls))), opening)


def twins(seed: int) -> Settings:
    """Returns a run with twins: first every pair of partitions of four validators and one twin, then drawn ones."""
    rng = random.Random(f"{seed} twins")
    parted = partitions(5, 3)
    pairs = list(product(range(4), parted, parted))
    if seed < len(pairs):
        twin, first, second = pairs[seed]
        n, twinned, rounds = 4, {twin}, [Groups(first), Groups(second)]
        rounds += [_groups(rng, 5) for _ in range(rng.randint(0, 2))]
    else:
        n = rng.choice((4, 4, 4, 5, 6, 7))
        twinned = set(rng.sample(range(n), rng.randint(1, (n - 1) // 3)))
        rounds = [_groups(rng, n + len(twinned)) for _ in range(rng.randint(1, 8))]
    return Settings(
        seed=seed,
        conducts=tuple(TWIN if index in twinned else CORRECT for index in range(n)),
        leader_term=rng.choice((0, 0, 0, 1, 3)),
        links=Links(delay_us=500, jitter_us=rng.choice((500, 5_000))),
        timing=Timing(
            write_us=rng.choice((300, 2 * MS)),
            build_us=500,
            execute_us=500,
            progress_timeout_ms=rng.choice((100, 150)),
            progress_timeout_max_ms=600,
        ),
        rounds=tuple(rounds),
        heal_us=TWINS_US,
        transactions=30,
        block_transactions_max=2,
        heights_min=HEIGHTS_MIN,
        submit_until_us=TWINS_US - SECOND,
    )


def _groups(rng: random.Random, machines: int) -> Groups:
    """A partition in which often most are together, and in which the COMMITs sometimes reach one alone."""
    numbers = list(range(machines))
    rng.shuffle(numbers)
    apart = rng.choice((0, 1, 1, 2, machines // 2))
    groups = (tuple(sorted(numbers[apart:])), *((tuple(sorted(numbers[:apart])),) if apart else ()))
    return Groups(groups, (rng.randrange(machines),) if rng.random() < 0.3 else ())
