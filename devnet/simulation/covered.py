"""Measures how much of the core the simulator reaches by itself: `python -m devnet.simulation.covered`.

Counts branches of consensus/ over seeds of several plans, and lists those that no run took. coverage.py comes with the
tests' dependencies; nothing else here needs it. The core is imported only once the count has begun.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
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
    with TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        counter.json_report(outfile=str(report))
        document = json.loads(report.read_bytes())
    missed: list[str] = []
    for path, file in sorted(document["files"].items()):
        for line, end in file["missing_branches"]:
            where = "the end" if end < 0 else f"line {end}"
            missed.append(f"consensus/{Path(path).name}:{line} never goes to {where}")
    totals = document["totals"]
    return totals["num_branches"], totals["covered_branches"], missed


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
