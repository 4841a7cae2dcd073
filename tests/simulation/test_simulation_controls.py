"""The simulator can fail: what is broken on purpose is found, by the law that it breaks."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from consensus.messages import Kind
from devnet.simulation.cluster import correct_only, run
from devnet.simulation.controls import CONTROLS, main
from devnet.simulation.faults import Crash, Cut, Hush
from devnet.simulation.plan_adversaries import halves
from devnet.simulation.schedule import MS, SECOND
from devnet.simulation.settings import CORRECT, Settings
from devnet.simulation.variants import SOUND, VARIANTS
from devnet.simulation.world import world_of


@pytest.mark.parametrize("control", CONTROLS, ids=[f"{control.variant} by {control.plan}" for control in CONTROLS])
def test_a_broken_core_is_caught_within_so_many_seeds(control):
    if not any(control.caught(seed) for seed in range(control.seeds_max)):
        pytest.fail(f"{control.seeds_max} seeds were not enough, though {VARIANTS[control.variant].breaks}")


def test_the_table_of_controls_tells_how_often_each_is_caught():
    shown = CliRunner().invoke(main, ["--seeds", "2", "--only", "empty-view-change", "--first", "0"])
    assert shown.exit_code in (0, 1)
    assert "empty-view-change      hostile" in shown.output


def cut_with_a_prepared_block(crash_us):
    """All have prepared a block when the network fails for longer than the drift bound, then power does, everywhere."""
    everyone = tuple((a, b) for a in range(4) for b in range(4) if a != b)
    return Settings(
        seed=1,
        conducts=correct_only(4),
        faults=(
            Hush(0, 10 * SECOND, everyone, (Kind.COMMIT,)),
            Cut(SECOND // 4, 8 * SECOND, everyone),
            Crash(8 * SECOND + crash_us, (0, 1, 2, 3), (SECOND,) * 4),
        ),
        heal_us=10 * SECOND,
        recovery_us=4 * SECOND,
        transactions=1,
        submit_until_us=SECOND // 20,
    )


def test_a_prepared_block_becomes_final_though_it_is_older_than_the_drift_bound():
    found = None
    for crash_us in range(0, 20 * MS, 2 * MS):
        settings = cut_with_a_prepared_block(crash_us)
        assert run(settings).violation is None
        found = found or run(settings, VARIANTS["strict-again"]).violation
    assert found is not None
    assert found.check in ("views", "progress")


@pytest.mark.parametrize("seed", range(5))
def test_f_plus_one_twins_fork(seed):
    violation = run(halves(seed)).violation
    assert violation is not None
    assert violation.check == "agreement"


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_f_silent_validators_change_nothing(n):
    assert run(_silent(n, (n - 1) // 3)).violation is None


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_more_silent_validators_than_a_quorum_can_spare_stop_the_chain_and_that_is_seen(n):
    quorum = SOUND.rules.quorum(world_of(n, 0).validators)
    violation = run(_silent(n, n - quorum + 1)).violation
    assert violation is not None
    assert violation.check == "progress"


def _silent(n, count):
    conducts = ("mute",) * count + (CORRECT,) * (n - count)
    return Settings(seed=n, conducts=conducts, transactions=6, heal_us=2_000_000, recovery_us=8_000_000)
