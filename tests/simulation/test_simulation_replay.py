"""A seed is all that a run depends on: the same one gives the same run, anywhere, and its report says how."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from devnet.simulation.__main__ import main
from devnet.simulation.cluster import run
from devnet.simulation.plan import draw
from devnet.simulation.plan_adversaries import halves

DIGEST = """
import hashlib
from devnet.simulation.cluster import run
from devnet.simulation.plan import draw
lines = []
for seed in {seeds}:
    run(draw(seed), write=lines.append)
print(hashlib.sha256("\\n".join(lines).encode()).hexdigest())
"""
SEEDS = (2, 12, 35)


def test_a_seed_gives_the_same_trace_whatever_the_seed_of_hashes():
    lines: list[str] = []
    for seed in SEEDS:
        run(draw(seed), write=lines.append)
    here = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", DIGEST.format(seeds=SEEDS)]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert there.stdout.strip() == here


def test_a_trace_changes_nothing():
    assert run(draw(8), write=lambda line: None) == run(draw(8))


def test_different_seeds_give_different_runs():
    runs = {(result.time_us, result.counts["sent"]) for result in map(run, map(draw, range(8)))}
    assert len(runs) == 8


def test_a_failure_prints_its_seed_its_settings_and_a_command_that_shows_it_again():
    shown = CliRunner().invoke(main, ["--plan", "halves", "--seed", "3"])
    assert shown.exit_code == 1
    assert "seed 3: VIOLATION of agreement" in shown.output
    assert str(halves(3)) in shown.output
    command = next(line.strip() for line in shown.output.splitlines() if "replay:" in line)
    assert command == "replay: python -m devnet.simulation --seed 3 --plan halves --trace"
    again = CliRunner().invoke(main, command.split()[4:])
    assert "VIOLATION: agreement" in again.output
    assert "commits" in again.output


@pytest.mark.parametrize("arguments", [["--seed", "0"], ["--seed", "0", "--count", "2", "--quiet"]])
def test_a_run_in_which_all_is_well_ends_with_zero(arguments):
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0
    assert "0 failed" in shown.output
