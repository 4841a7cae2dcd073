"""Campaigns over many seeds: what is finished counts once, whatever ends them, and a failure names its replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cli.main import run
from devnet.simulation.campaign import Campaign, Results, Tally, run_campaign, run_chunk, sources_tag
from state.errors import Rejected

TAG = "a1b2c3"


def quiet(tally, failures):
    """Tells nobody."""


def test_what_was_not_run_is_what_lies_between_the_ranges_that_were():
    tally = Tally(done=[[3, 5], [8, 8]])
    assert list(tally.missing(0, 10)) == [(0, 2), (6, 7), (9, 10)]
    assert list(tally.missing(4, 8)) == [(6, 7)]
    assert list(tally.missing(3, 5)) == []
    assert list(Tally().missing(1, 2)) == [(1, 2)]


def test_tallies_add_up_and_ranges_that_touch_become_one():
    tally = Tally(done=[[0, 4]], heights=50, heights_least=10, faults={"Cut": 2})
    tally.merge(Tally(done=[[5, 9]], heights=60, heights_least=11, faults={"Cut": 1, "Crash": 3}))
    tally.merge(Tally(done=[[20, 20]]))
    assert tally.done == [[0, 9], [20, 20]]
    assert (tally.seeds, tally.heights, tally.heights_least) == (11, 110, 10)
    assert tally.faults == {"Cut": 3, "Crash": 3}


def test_a_chunk_counts_what_it_ran_and_ends_when_it_is_told_to():
    whole = run_chunk("storm", 0, 1, lambda: False)
    assert (whole.done, whole.failed) == ([[0, 1]], 0)
    assert whole.heights_least >= 10
    assert whole.simulated_us > 2_000_000
    assert sum(whole.sizes.values()) == 2
    answers = iter((False, True))
    assert run_chunk("storm", 0, 5, lambda: next(answers)).done == [[0, 0]]


def test_a_campaign_goes_on_where_the_last_one_ended(tmp_path):
    path = tmp_path / "results.json"
    first = run_campaign(Campaign("halves", 0, 2, 1), Results(path), TAG, quiet)
    assert (first.done, first.failed) == ([[0, 2]], 3)
    told: list[str] = []
    again = run_campaign(
        Campaign("halves", 1, 3, 2), Results(path), TAG, lambda _, new: told.extend(item["replay"] for item in new)
    )
    assert again.done == [[0, 3]]
    assert told == ["qenex devnet simulate --plan halves --replay 3"]
    assert Results(path).tally(TAG, "halves") == again
    assert Results(path).tally("other sources", "halves") == Tally()
    assert Results(path).tally(TAG, "storm") == Tally()


def test_a_campaign_ends_when_its_time_is_up(tmp_path):
    began = time.monotonic()
    tally = run_campaign(Campaign("storm", 0, 10**6, 1, seconds=2.0), Results(tmp_path / "results.json"), TAG, quiet)
    assert time.monotonic() - began < 30
    assert tally.seeds < 10**5


def test_results_that_cannot_be_read_are_named_and_kept(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"format": 99}')
    with pytest.raises(Rejected, match="99"):
        Results(path)
    assert path.read_text() == '{"format": 99}'


def test_the_sources_have_one_name_that_is_theirs():
    assert sources_tag() == sources_tag()
    assert len(sources_tag()) == 12


def test_ctrl_c_ends_the_command_with_all_that_is_finished_counted(tmp_path):
    path = tmp_path / "results.json"
    arguments = ["devnet", "simulate", "--seeds", "0..999999", "--workers", "1", "--results", str(path), "--json"]
    command = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    told = json.loads(output)
    assert process.returncode == 0
    assert told["seeds"] > 0
    assert Results(path).tally(told["sources"], told["plan"]).seeds == told["seeds"]


def test_the_command_shows_a_violation_and_replays_it_by_one_command(tmp_path, capsys):
    path = str(tmp_path / "results.json")
    arguments = ["devnet", "simulate", "--plan", "halves", "--seeds", "4", "--results", path, "--workers", "1"]
    assert run(arguments) == 45
    told = capsys.readouterr()
    assert "seed 4: VIOLATION of agreement" in told.err
    replay = next(line.strip() for line in told.err.splitlines() if "replay:" in line)
    assert replay == "replay: qenex devnet simulate --plan halves --replay 4"
    assert run(replay.split()[2:]) == 45
    again = capsys.readouterr().out
    assert "VIOLATION: agreement" in again
    assert "ends at height" in again
