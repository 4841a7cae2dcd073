"""Positive controls: broken cores, and more liars than the protocol bears, against the plans that must catch them.

`python -m devnet.simulation.controls --seeds N` prints how often each is caught. A FORK is two final blocks at one
height: two commit certificates, or two blocks on disks. ANY counts every law of the simulator, progress among them.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

import click

from devnet.simulation.checks import Agreement, CheckType
from devnet.simulation.cluster import LAWS, run
from devnet.simulation.plan import PLANS
from devnet.simulation.variants import VARIANTS

FORK: Final[tuple[CheckType, ...]] = (Agreement,)
ANY: Final[tuple[CheckType, ...]] = LAWS
OF: Final = 5_000


@dataclass(frozen=True, slots=True)
class Control:
    """A variant (`sound` breaks nothing), the plan that shall catch it, and the laws by which it counts as caught.

    `seeds_max` bounds the seeds within which it must be caught wherever this is tested.
    """

    variant: str
    plan: str
    laws: tuple[CheckType, ...]
    seeds_max: int

    def caught(self, seed: int) -> str | None:
        """Returns the law that a seed breaks, or None; with FORK, nothing else counts."""
        violation = run(PLANS[self.plan](seed), VARIANTS[self.variant], checks=self.laws).violation
        if violation is None or (self.laws is FORK and violation.check != "agreement"):
            return None
        return violation.check


CONTROLS: Final = (
    Control("sound", "halves", FORK, 2),
    Control("sound", "too-many-twins", FORK, 20),
    Control("small-quorum", "hostile", FORK, 40),
    Control("empty-view-change", "hostile", FORK, 20),
    Control("no-floor", "hostile", FORK, 60),
    Control("volatile-prepared", "hostile", FORK, 40),
    Control("volatile-promise", "hostile", FORK, 150),
    Control("volatile-proposal", "hostile", ANY, 40),
    Control("no-memory", "hostile", FORK, 40),
    Control("no-promise", "hostile", FORK, 60),
    Control("free-new-view", "hostile", FORK, 30),
    Control("unchecked-new-view", "hostile", FORK, 40),
    Control("send-first", "hostile", FORK, 150),
    Control("mixed-views", "hostile", FORK, 300),
    Control("early-recovery", "hostile", FORK, 200),
    Control("lone-suspicion", "liars", ANY, 100),
    Control("one-view-for-all-sets", "border", FORK, 40),
    Control("strict-again", "storm", ANY, 400),
)


@click.command()
@click.option("--seeds", default=100, help="How many seeds for each control.")
@click.option("--first", default=0, help="The first of them.")
@click.option("--only", multiple=True, type=click.Choice(sorted(VARIANTS)), help="Only these variants.")
def main(seeds: int, first: int, only: tuple[str, ...]) -> None:
    """Counts how many of so many seeds catch each broken core; ends with 1 if one is never caught."""
    click.echo(f"{'broken core':<22} {'plan':<15} {'caught':>7} {'per 5,000':>10} {'mean seeds':>11} {'s':>6}  laws")
    missed = 0
    for control in CONTROLS:
        if only and control.variant not in only:
            continue
        began = time.perf_counter()
        laws = Counter(filter(None, map(control.caught, range(first, first + seeds))))
        caught = laws.total()
        missed += not caught
        mean = f"{seeds / caught:.1f}" if caught else "never"
        named = ", ".join(f"{law} {count}" for law, count in sorted(laws.items()))
        click.echo(
            f"{control.variant:<22} {control.plan:<15} {caught:>7} {caught * OF / seeds:>10.0f} {mean:>11} "
            f"{time.perf_counter() - began:>6.0f}  {named}"
        )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
