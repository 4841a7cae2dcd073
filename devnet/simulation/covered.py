"""Measures how much of the core the simulator reaches by itself: `python -m devnet.simulation.covered`.

Counts branches of consensus/ over seeds of several plans, and lists those that no run took. coverage.py comes with the
tests' dependencies; nothing else here needs it. The core is imported only once the count has begun.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import coverage

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS: Final = {
    "storm": 300,
    "large": 10,
    "attacker": 40,
    "hostile": 40,
    "twins": 40,
    "quorum-lost": 60,
    "liars": 40,
    "border": 20,
}
OWN_ERROR: Final = "raise InvariantError"
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


@dataclass(frozen=True, slots=True)
class Branches:
    """How many branches there are, how many were taken, and where the others are.

    `own_errors` are those of them that end at once in an InvariantError: only a fault of this program leads there.
    """

    total: int
    taken: int
    missed: tuple[str, ...]
    own_errors: tuple[str, ...]


def branches(counter: coverage.Coverage) -> Branches:
    """Returns what the counter found."""
    with TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        counter.json_report(outfile=str(report))
        document = json.loads(report.read_bytes())
    missed: list[str] = []
    own_errors: list[str] = []
    for path, file in sorted(document["files"].items()):
        lines = (ROOT / path).read_text().splitlines()
        for line, end in file["missing_branches"]:
            where = "the end" if end < 0 else f"line {end}"
            own = end > 0 and lines[end - 1].strip().startswith(OWN_ERROR)
            (own_errors if own else missed).append(f"consensus/{Path(path).name}:{line} never goes to {where}")
    totals = document["totals"]
    return Branches(totals["num_branches"], totals["covered_branches"], tuple(missed), tuple(own_errors))


@click.command()
@click.option("--scale", type=click.FloatRange(0, min_open=True), default=1.0, help="So many times the usual seeds.")
def main(scale: float) -> None:
    """Say how many branches of the core the simulator takes, and which it does not."""
    found = branches(measure({plan: max(1, int(count * scale)) for plan, count in SEEDS.items()}))
    for place in found.missed:
        click.echo(place)
    for place in found.own_errors:
        click.echo(f"{place}: an own error")
    reachable = found.total - len(found.own_errors)
    share = 100 * found.taken / reachable
    click.echo(f"{found.taken} of {found.total} branches: {100 * found.taken / found.total:.1f} %")
    click.echo(f"without the {len(found.own_errors)} that are own errors, {found.taken} of {reachable}: {share:.1f} %")
    sys.exit(0 if share >= BRANCHES_MIN else 1)


if __name__ == "__main__":
    main()
