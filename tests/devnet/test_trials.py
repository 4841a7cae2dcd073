"""The trials' figures: they accumulate, and a bound that is missed is told."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from devnet.trials.common import add_result, own_home, seed_of, spread
from devnet.trials.wide_area import _judge

WITHIN: dict[str, Any] = {
    "finality_ms": {"p50": 170.0},
    "share_delay": 0.8,
    "share_stalls": 0.5,
    "steady_delay": {"view_changes": 0},
    "steady_stalls": {"view_changes": 0},
}


def test_runs_accumulate_by_trial(tmp_path: Path) -> None:
    file = tmp_path / "trials.json"
    assert len(add_result(file, "kills", {"rounds": 5})) == 1
    add_result(file, "primary", {"runs": 1})
    runs = add_result(file, "kills", {"rounds": 7})
    assert sum(run["rounds"] for run in runs) == 12
    document = json.loads(file.read_text())
    assert {trial: len(kept) for trial, kept in document.items()} == {"kills": 2, "primary": 1}
    assert all("at" in run and "machine" in run for run in document["kills"])


def test_figures_within_all_bounds_pass_and_each_bound_counts() -> None:
    _judge(WITHIN)
    for path, value in (
        (("finality_ms", "p50"), 401.0),
        (("share_delay",), 0.69),
        (("share_stalls",), 0.29),
        (("steady_delay", "view_changes"), 1),
        (("steady_stalls", "view_changes"), 1),
    ):
        figures = deepcopy(WITHIN)
        place = figures
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        with pytest.raises(SystemExit):
            _judge(figures)


def fail(home: Path) -> None:
    home.mkdir()
    raise SystemExit(1)


def test_a_trials_network_goes_when_it_passed_and_stays_when_it_failed() -> None:
    with own_home("test") as home:
        (home / "validator-01").mkdir(parents=True)
        (home / "validator-01" / "node.log").write_text("said")
        (home / "link").symlink_to(home / "validator-01")
        passed = home
    assert not passed.parent.exists()
    with pytest.raises(SystemExit), own_home("test") as home:
        fail(home)
    assert home.is_dir()
    home.rmdir()
    home.parent.rmdir()


def test_a_seed_is_kept_or_drawn() -> None:
    assert seed_of(7) == 7
    assert seed_of(None) != seed_of(None)
    assert spread([0.1, 0.2])["max"] == 200.0
