"""The Python interface for tests, with fake nodes: it waits within bounds and says why it waited in vain."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from devnet_support import FAKE_NODE, runs

from devnet.fleet import State
from devnet.network import Devnet, WaitedInVain
from devnet.processes import NodeProcess
from qenex_node.testnet import NetworkNode
from state.errors import InvariantError, Rejected


def fake_command(*manners: str) -> Callable[[NetworkNode, bool], tuple[str, ...]]:
    def command(node: NetworkNode, _: bool) -> tuple[str, ...]:
        return (sys.executable, str(FAKE_NODE), node.name, str(node.ports.rpc), str(node.ports.metrics), *manners)

    return command


def test_nodes_are_broken_and_brought_back_by_calls(tmp_path: Path) -> None:
    home = tmp_path / "net"
    with Devnet(home, command=fake_command()) as net:
        assert net.names == [f"validator-{n:02}" for n in range(1, 5)]
        assert net.readiness("validator-01") == (True, [])
        pids = [member.pid for member in net.fleet.members.values()]
        net.kill("validator-01", "validator-02")
        assert net.running == ["validator-03", "validator-04"]
        assert net.readiness("validator-01") == (False, ["unreachable"])
        net.start("validator-01")
        net.wait_ready()
        assert net.stop("validator-03") == 0
        net.pause("validator-04")
        assert net.running == ["validator-01"]
        net.resume("validator-04")
        published = json.loads((home / "devnet.json").read_text())["nodes"]
        assert [node["pid"] is not None for node in published] == [True, False, False, True]
        assert net.account_key("alice").address in {account.address for account in net.network.accounts}
    assert not any(pid is not None and runs(pid) for pid in pids)
    assert net.fleet.alive() == []


def test_a_condition_that_does_not_come_true_ends_with_what_the_nodes_said(tmp_path: Path) -> None:
    with Devnet(tmp_path / "net", command=fake_command("unready"), autostart=False) as net:
        net.start_all()
        net.wait_unready("validator-01", "no_quorum")
        with pytest.raises(WaitedInVain) as vain:
            net.wait_ready(timeout_s=0.2)
        assert "are ready" in str(vain.value)
        assert "no_quorum" in str(vain.value)
        assert "validator-04: started" in str(vain.value)


def test_waiting_for_a_node_ends_when_the_node_ends(tmp_path: Path) -> None:
    with Devnet(tmp_path / "net", command=fake_command("die"), autostart=False) as net:
        with pytest.raises(WaitedInVain, match="validator-02 ended") as vain:
            net.start("validator-02")
        assert "the database is damaged" in str(vain.value)
        assert net.fleet.member("validator-02").exit_code == 20
        assert net.fleet.member("validator-02").state is State.ENDED


def test_a_network_that_fails_to_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(WaitedInVain), Devnet(tmp_path / "net", command=fake_command("die")):
        pass
    # The lock is free again, so that the next attempt may come.
    with Devnet(tmp_path / "net", command=fake_command(), autostart=False) as net, pytest.raises(Rejected):
        net.height("validator-01")


def test_nodes_are_started_by_the_main_thread_alone(tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def start() -> None:
        try:
            NodeProcess((sys.executable, "-c", ""), tmp_path / "log")
        except InvariantError as error:
            refused.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(refused) == 1
