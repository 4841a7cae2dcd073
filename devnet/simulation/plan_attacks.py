"""Draws runs against adversaries from a seed: twins in parted networks, and an attacker that owns the network.

In all of them at most f validators are faulty: every law must hold.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Final

from devnet.simulation.attacks import Border, Fall, Groups, Ladder, OldPromise, Opening, Scheme, Starve, Step
from devnet.simulation.liars import LIARS
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import CORRECT, PUPPET, REPLACE, TWIN, Links, Reform, Settings, Timing
from devnet.simulation.twins import Parted, partitions

ATTACK_US: Final = 6 * SECOND
TWINS_US: Final = 4 * SECOND
LIARS_US: Final = 4 * SECOND
HEIGHTS_MIN: Final = 10


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


def border(seed: int) -> Settings:
    """Returns a run in which a validator is replaced, and the border of the two sets is attacked."""
    rng = random.Random(f"{seed} border")
    settings = _attacked(seed, rng, 4)
    return replace(
        settings,
        conducts=(CORRECT, PUPPET, CORRECT, CORRECT),
        leader_term=0,
        spares=1,
        reforms=(Reform(rng.randrange(SECOND), REPLACE, rng.choice((2, 3)), by=4, ahead=rng.choice((0, 0, 2))),),
        schemes=(Border(), *settings.schemes[:1]),
    )


def _scheme(rng: random.Random) -> Scheme:
    return rng.choices(
        (_starve, _old_promise, _hidden, _floor, _late, _teased, _any_ladder), weights=(1, 3, 3, 3, 3, 3, 2)
    )[0](rng)


def _starve(rng: random.Random) -> Scheme:
    return Starve(rng.randrange(SECOND // 5, SECOND), rng.choice((0.5, 0.8, 0.95)), 400 * MS)


def _old_promise(rng: random.Random) -> Scheme:
    return OldPromise()


def _hidden(rng: random.Random) -> Scheme:
    """One decides and is hidden; the others may lose power before they leave the view, or as they enter the next."""
    fall = rng.choice((Fall.NEVER, Fall.VOTED, Fall.VOTED, Fall.ENTERED))
    return Ladder((Step(2, decide=True, fall=fall),), rng.choice((Opening.PLAIN, Opening.PLAIN, Opening.OLD)))


def _floor(rng: random.Random) -> Scheme:
    """The view is opened from above the height, and all lose power once they are in it: the decision is forgotten."""
    return Ladder((Step(2, decide=True, fall=Fall.ENTERED),), Opening.FLOOR)


def _late(rng: random.Random) -> Scheme:
    """Votes are shown to those who have promised the next view, and perhaps lost power since."""
    fall = rng.choice((Fall.NEVER, Fall.PROMISED))
    # Whoever lost power has lost the VIEW-CHANGEs of others too: only the attacker can open the view then.
    opening = Opening.PLAIN if fall is Fall.NEVER else Opening.OLD
    return Ladder((Step(2, decide=True, late=True, fall=fall),), opening)


def _teased(rng: random.Random) -> Scheme:
    """In one view after the other one alone is prepared, and is then left out."""
    teasing = [Step(1) for _ in range(rng.choice((1, 2, 2, 3)))]
    return Ladder((*teasing, Step(rng.choice((1, 1, 2)), decide=True)))


def _any_ladder(rng: random.Random) -> Scheme:
    steps = [
        Step(
            rng.choice((1, 2, 3)),
            decide=rng.random() < 0.5,
            late=rng.random() < 0.3,
            hide=rng.random() < 0.7,
            fall=rng.choice(tuple(Fall)),
        )
        for _ in range(rng.randint(1, 3))
    ]
    return Ladder(tuple(steps), rng.choice(tuple(Opening)))


def liars(seed: int) -> Settings:
    """Returns a run with up to f validators that lie to its end, and links that are bad at its beginning at most."""
    rng = random.Random(f"{seed} liars")
    n = rng.choice((4, 4, 4, 5, 6, 7))
    lying = set(rng.sample(range(n), rng.randint(1, (n - 1) // 3)))
    return Settings(
        seed=seed,
        conducts=tuple(rng.choice(LIARS) if index in lying else CORRECT for index in range(n)),
        leader_term=rng.choice((0, 0, 1, 3)),
        links=Links(delay_us=500, jitter_us=rng.choice((500, 20_000)), loss=rng.choice((0.0, 0.0, 0.05, 0.2))),
        timing=Timing(progress_timeout_ms=rng.choice((150, 300)), progress_timeout_max_ms=1_200),
        heal_us=rng.choice((SECOND // 2, LIARS_US // 2)),
        transactions=30,
        block_transactions_max=2,
        heights_min=HEIGHTS_MIN,
        submit_until_us=LIARS_US,
    )


def twins(seed: int) -> Settings:
    """Returns a run with twins: first every pair of partitions of four validators and one twin, then drawn ones."""
    rng = random.Random(f"{seed} twins")
    pairs = twin_pairs()
    if seed < len(pairs):
        twin, first, second = pairs[seed]
        n, twinned, rounds = 4, {twin}, [Groups(first), Groups(second)]
        rounds += [_groups(rng, 5) for _ in range(rng.randint(0, 2))]
    else:
        n = rng.choice((4, 4, 4, 5, 6, 7))
        twinned = set(rng.sample(range(n), rng.randint(1, (n - 1) // 3)))
        rounds = [_groups(rng, n + len(twinned)) for _ in range(rng.randint(1, 8))]
    return _parted(seed, rng, n, twinned, rounds)


@cache
def twin_pairs() -> tuple[tuple[int, Parted, Parted], ...]:
    """Returns all that can be said of two views of four validators: whose twin there is, and who hears whom in each."""
    parted = partitions(5, 3)
    return tuple(product(range(4), parted, parted))


def too_many_twins(seed: int) -> Settings:
    """Returns a run with f + 1 twins, often with one of each in either half: nothing is promised, and it must fork.

    Of five validators two quorums share three, so that two twins cannot fork them.
    """
    rng = random.Random(f"{seed} too many twins")
    n = rng.choice((4, 4, 6, 7))
    twinned = sorted(rng.sample(range(n), (n - 1) // 3 + 1))
    second = [n + place for place in range(len(twinned))]
    rounds = []
    for _ in range(rng.randint(1, 4)):
        others = [index for index in range(n) if index not in twinned]
        rng.shuffle(others)
        at = len(others) // 2
        halved = Groups((tuple(sorted((*twinned, *others[:at]))), tuple(sorted((*second, *others[at:])))))
        rounds.append(halved if rng.random() < 0.5 else _groups(rng, n + len(twinned)))
    return _parted(seed, rng, n, set(twinned), rounds)


def _parted(seed: int, rng: random.Random, n: int, twinned: set[int], rounds: list[Groups]) -> Settings:
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
