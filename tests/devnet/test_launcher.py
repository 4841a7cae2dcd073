"""The launcher with fake nodes: it brings all up, takes commands, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from devnet_support import FAKE_NODE, Recorder, fake_fleet, runs, wait_until

from devnet import control, procfs
from devnet.fleet import Fleet, State
from devnet.launcher import Launcher
from state.errors import Rejected

Scenario = Callable[[Callable[..., Awaitable[dict[str, object]]], Fleet], Awaitable[None]]


def drive(fleet: Fleet, scenario: Scenario, grace_s: float = 5.0) -> Recorder:
    """Runs a launcher, the scenario once all are ready, and ends the launcher as Ctrl-C does."""
    show = Recorder()
    home = fleet.network.directory

    async def ask(op: str, name: str = "", **more: object) -> dict[str, object]:
        return await trio.to_thread.run_sync(lambda: control.ask(home, op, name=name, **more))  # type: ignore[arg-type]

    async def main() -> None:
        launcher = Launcher(fleet, show, grace_s=grace_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launcher.run)
            with trio.fail_after(20):
                while "ready" not in show.names():
                    await trio.sleep(0.02)
                await scenario(ask, fleet)
                os.kill(os.getpid(), signal.SIGINT)

    trio.run(main)
    return show


def test_all_nodes_are_started_published_and_ended(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path)
    published: dict[str, object] = {}

    async def scenario(ask: object, _: Fleet) -> None:
        published.update(json.loads((tmp_path / "devnet.json").read_text()))

    show = drive(fleet, scenario)
    nodes = published["nodes"]
    assert isinstance(nodes, list)
    assert [set(node) for node in nodes] == [{"name", "role", "pid", "rpc", "metrics", "p2p", "home"}] * 2
    assert not any(runs(node["pid"]) for node in nodes)
    assert [member.state for member in fleet.members.values()] == [State.STOPPED] * 2
    assert show.names() == ["starting", "ready", "stopping", "node_ended", "node_ended", "stopped"]
    after = json.loads((tmp_path / "devnet.json").read_text())
    assert [node["pid"] for node in after["nodes"]] == [None, None]
    assert not (tmp_path / "control.sock").exists()


def test_a_killed_node_stays_dead_until_it_is_started(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path)

    async def scenario(ask: Callable[..., Awaitable[dict[str, object]]], _: Fleet) -> None:
        first = fleet.member("validator-01").pid
        told = await ask("kill", "validator-01")
        assert (told["state"], told["exit_code"], told["pid"]) == ("killed", -signal.SIGKILL, None)
        nodes = json.loads((tmp_path / "devnet.json").read_text())["nodes"]
        assert nodes[0]["pid"] is None
        assert nodes[1]["pid"] == fleet.member("validator-02").pid
        with pytest.raises(Rejected) as refused:
            await ask("kill", "validator-01")
        assert refused.value.code == "node_not_running"
        started = await ask("start", "validator-01")
        assert started["state"] == "running"
        assert started["pid"] != first
        assert json.loads((tmp_path / "devnet.json").read_text())["nodes"][0]["pid"] == started["pid"]

    drive(fleet, scenario)


def test_a_paused_node_is_stopped_in_its_tracks_and_goes_on(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path)

    async def scenario(ask: Callable[..., Awaitable[dict[str, object]]], _: Fleet) -> None:
        pid = fleet.member("validator-02").pid
        assert pid is not None
        assert (await ask("pause", "validator-02"))["state"] == "paused"
        wait_until(lambda: procfs.state(pid) == "T", "the process is stopped")
        assert (await ask("resume", "validator-02"))["state"] == "running"
        wait_until(lambda: procfs.state(pid) != "T", "the process goes on")
        assert (await ask("pause", "validator-02"))["pid"] == pid
        stopped = await ask("stop", "validator-02")
        assert (stopped["state"], stopped["exit_code"]) == ("stopped", 0)

    drive(fleet, scenario)


def test_a_node_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path, n1="deaf")

    async def scenario(ask: Callable[..., Awaitable[dict[str, object]]], _: Fleet) -> None:
        pass

    drive(fleet, scenario, grace_s=0.3)
    assert fleet.member("validator-01").state is State.KILLED
    assert fleet.member("validator-02").state is State.STOPPED


def test_an_end_that_nobody_asked_for_is_told_with_the_last_lines(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path)
    show = Recorder()

    async def scenario(ask: Callable[..., Awaitable[dict[str, object]]], _: Fleet) -> None:
        pid = fleet.member("validator-01").pid
        assert pid is not None
        os.kill(pid, signal.SIGSEGV)
        while fleet.member("validator-01").state is not State.ENDED:
            await trio.sleep(0.01)

    show = drive(fleet, scenario)
    told = show.data("node_ended")
    assert (told["name"], told["exit_code"], told["wanted"]) == ("validator-01", -signal.SIGSEGV, False)
    assert told["log"] == ["validator-01: started"]


def test_a_node_that_dies_at_its_start_ends_the_launch_and_is_quoted(tmp_path: Path) -> None:
    fleet = fake_fleet(tmp_path, n2="die")
    show = Recorder()
    with pytest.raises(Rejected) as refused:
        trio.run(Launcher(fleet, show).run)
    assert refused.value.code == "node_ended"
    assert "the database is damaged" in refused.value.message
    assert fleet.alive() == []
    assert not (tmp_path / "devnet.json").exists()


def test_unknown_commands_and_names_are_refused(tmp_path: Path) -> None:
    async def scenario(ask: Callable[..., Awaitable[dict[str, object]]], _: Fleet) -> None:
        for op, name, code in (
            ("explode", "", "op_unknown"),
            ("kill", "validator-09", "node_unknown"),
            ("start", "validator-01", "node_running"),
            ("resume", "validator-01", "node_not_paused"),
        ):
            with pytest.raises(Rejected) as refused:
                await ask(op, name)
            assert refused.value.code == code
        with pytest.raises(Rejected) as refused:
            await ask("clock", "validator-01", offset_ms=5)
        assert refused.value.code == "clock_fixed"

    drive(fake_fleet(tmp_path), scenario)


LAUNCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from devnet_support import fake_fleet
from devnet.launcher import launch
from devnet.show import JsonShow
home = Path(sys.argv[1])
launch(home, lambda: fake_fleet(home, n2="deaf"), JsonShow(sys.stdout))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl: on other systems a killed launcher leaves its nodes")
def test_a_killed_launcher_leaves_no_orphan_not_even_a_paused_or_deaf_one(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LAUNCH, str(tmp_path), str(FAKE_NODE.parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as launcher:
        try:
            wait_until((tmp_path / "control.sock").exists, "the launcher answers")
            wait_until((tmp_path / "devnet.json").exists, "the network is published")
            pids = [node["pid"] for node in json.loads((tmp_path / "devnet.json").read_text())["nodes"]]
            control.ask(tmp_path, "pause", name="validator-01")
            assert all(runs(pid) for pid in pids)
        finally:
            launcher.kill()
        launcher.wait(10)
        try:
            wait_until(lambda: not any(runs(pid) for pid in pids), "all nodes are gone")
        finally:
            for pid in filter(runs, pids):
                os.kill(pid, signal.SIGKILL)
