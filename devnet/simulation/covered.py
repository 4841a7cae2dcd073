"""Measures how much of the core the simulator reaches by itself: `python -m devnet.simulation.covered`.

Counts branches of consensus/ over seeds of several plans, and lists those that no run took. coverage.py comes with the
tests' dependencies; nothing else here needs it. The core is imported only once the count has begun.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import click
import coverage

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS: Final = {"storm": 300, "large": 10, "attacker": 40, "hostile": 40, "twins": 40, "quorum-lost": 60}
BRANCHES_MIN: Final = 95.0


def measure(seeds: dict[str, int]) -> coverage.Coverage:
    """Runs the first so many seeds of each plan, and returns what was reached."""
    counter = coverage.Coverage(branch=True, data_file=None, source=[str(ROOT / "consensus")], config_file=False)
    counter.exclude(r"if TYPE_CHECKING:")
    counter.start()
    try:
        run = import_module("devnet.simulation.cluster").run
        plans = import_module("devnet.simulation.plan").PLANS
        for plan, count in seeds.items():
            for seed in range(count):
                run(plans[plan](seed))
    finally:
        counter.stop()
    return counter


def branches(counter: coverage.Coverage) -> tuple[int, int, list[str]]:
    """Returns how many branches there are, how many were taken, and where the others are."""
    total = taken = 0
    missed: list[str] = []
    for path in sorted((ROOT / "consensus").glob("*.py")):
        numbers = counter._analyze(str(path))
        total += numbers.numbers.n_branches
        taken += numbers.numbers.n_branches - numbers.numbers.n_missing_branches
        for line, ends in sorted(numbers.missing_branch_arcs().items()):
            where = ", ".join("the end" if end < 0 else f"line {end}" for end in sorted(ends))
            missed.append(f"consensus/{path.name}:{line} never goes to {where}")
    return total, taken, missed


@click.command()
@click.option("--scale", type=click.FloatRange(0, min_open=True), default=1.0, help="So many times the usual seeds.")
def main(scale: float) -> None:
    """Say how many branches of the core the simulator takes, and which it does not."""
    total, taken, missed = branches(measure({plan: max(1, int(count * scale)) for plan, count in SEEDS.items()}))
    for place in missed:
        click.echo(place)
    share = 100 * taken / total
    click.echo(f"{taken} of {total} branches: {share:.1f} %")
    sys.exit(0 if share >= BRANCHES_MIN else 1)


if __name__ == "__main__":
    main()
