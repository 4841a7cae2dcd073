"""Runs simulations from the command line: `python -m devnet.simulation --seed 7 --trace` shows one, `--count` many."""

from __future__ import annotations

import sys
import time

import click

from devnet.simulation.cluster import Result, run
from devnet.simulation.plan import PLANS
from devnet.simulation.schedule import SECOND
from devnet.simulation.variants import VARIANTS


def replay_command(result: Result, plan: str) -> str:
    """Returns the command that shows a run again, line by line."""
    extra = ("" if result.variant == "sound" else f" --variant {result.variant}") + (
        "" if plan == "storm" else f" --plan {plan}"
    )
    return f"python -m devnet.simulation --seed {result.settings.seed}{extra} --trace"


def report(result: Result, plan: str = "storm") -> str:
    """Returns what to print of a run: one line if all went well; settings and replay command if not."""
    verdict = "ok" if result.violation is None else f"VIOLATION of {result.violation}"
    line = (
        f"seed {result.settings.seed}: {verdict}; height {result.height}, view {result.view}, "
        f"{result.time_us / SECOND:.1f} s, {result.counts.get('sent', 0)} messages"
    )
    if result.violation is None:
        return line
    return f"{line}\n  {result.settings}\n  replay: {replay_command(result, plan)}"


@click.command()
@click.option("--seed", default=0, help="The first seed.")
@click.option("--count", default=1, help="How many seeds, one after the other.")
@click.option("--plan", type=click.Choice(sorted(PLANS)), default="storm", help="How settings are drawn from a seed.")
@click.option("--variant", type=click.Choice(sorted(VARIANTS)), default="sound", help="Break a rule on purpose.")
@click.option("--trace", is_flag=True, help="Show what each machine does.")
@click.option("--quiet", is_flag=True, help="Show failures and the sum only.")
def main(seed: int, count: int, plan: str, variant: str, trace: bool, quiet: bool) -> None:
    """Simulates networks of validators under faults, and checks that they agree and go on."""
    began = time.perf_counter()
    failed = 0
    for number in range(seed, seed + count):
        result = run(PLANS[plan](number), VARIANTS[variant], click.echo if trace else None)
        failed += result.violation is not None
        if result.violation is not None or not quiet:
            click.echo(report(result, plan))
    seconds = time.perf_counter() - began
    click.echo(f"{count} seeds, {failed} failed, {count / seconds:.1f} seeds/s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
