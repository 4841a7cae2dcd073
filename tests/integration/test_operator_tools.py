"""The operators' tools on a real network: each does on a stopped node, or against a running one, what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration_support import pay, same_chain

from devnet.network import Devnet
from qenex_node.client import Client, Session, TrustedChain
from qenex_node.client.errors import NotReady
from qenex_node.exitcodes import ExitCode

ALL = ["validator-01", "validator-02", "validator-03", "validator-04"]
VICTIM = "validator-04"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with Devnet(tmp_path_factory.mktemp("tools") / "net", accounts=50) as network:
        with network.client() as client:
            for amount in range(1, 9):
                pay(client, network.account_key("alice"), network.account_key("bob").address, amount)
        network.wait_same_head(ALL)
        yield network


@pytest.fixture
def stopped(net: Devnet) -> Iterator[Path]:
    """The home of a validator that is stopped meanwhile; afterwards it is on the same chain again."""
    assert net.stop(VICTIM) == 0
    yield net.node(VICTIM).home
    net.start(VICTIM)
    same_chain(net, ALL)


def command_of(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "cli.main", *map(str, arguments), "--json"]


def tool(*arguments: object) -> tuple[int, Any]:
    """Runs a command to its end; returns its exit code and what it answered."""
    done = subprocess.run(command_of(*arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_light_client_finds_all_nodes_on_one_chain_and_goes_on_from_what_it_saw(net: Devnet, tmp_path: Path) -> None:
    kept = tmp_path / "light.json"
    named = ("--account", "alice", "--balance", "bob:QNX", "--trust-file", kept)
    for _ in range(2):
        code, told = tool("light", "--home", net.home, *named)
        assert code == 0, told
        assert len(told["nodes"]) == 4
        assert len({node["hash"] for node in told["nodes"]}) == 1
    assert json.loads(kept.read_text())["height"] == told["nodes"][0]["height"]


def test_a_stopped_node_serves_what_it_has_for_reading_and_nothing_else(net: Devnet, stopped: Path) -> None:
    serving = subprocess.Popen(
        command_of("inspect", "--home", stopped, "--listen", "127.0.0.1:0"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        started = json.loads(serving.stdout.readline())
        with Client(started["rpc"], session=Session(TrustedChain(net.genesis))) as client:
            assert client.status().height == started["head"] >= 8
            assert client.status().raw["role"] == "inspection"
            bob = net.account_key("bob").address
            with net.client(ALL[0], session=Session(TrustedChain(net.genesis))) as other:
                assert client.balance(bob, "QNX") == other.balance(bob, "QNX")
            assert client.light_block(2).header.height == 2
            with pytest.raises(NotReady) as refused:
                pay(client, net.account_key("alice"), bob)
            assert refused.value.reason == "read_only"
        code, told = tool("start", "--home", stopped)
        assert (code, told["error"]["code"]) == (ExitCode.STORE_LOCKED, "store_locked")
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(20) == 0


def test_blocks_are_exported_gone_on_with_and_proved(net: Devnet, stopped: Path, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    code, told = tool("export", "--home", stopped, "--output", stream, "--to", "3", "--format", "json")
    assert (code, told["blocks"]) == (0, 3), told
    stream.write_bytes(stream.read_bytes()[:-5])
    code, told = tool("export", "--home", stopped, "--output", stream, "--resume")
    assert (code, told["from"]) == (0, 3), told
    code, checked = tool("export", "--check", stream, "--genesis", stopped / "genesis.json")
    assert (code, checked["from"], checked["to"]) == (0, 1, told["to"]), checked
    assert checked["transactions"] >= 8
    damaged = bytearray(stream.read_bytes())
    place = len(damaged) // 2
    damaged[place] = ord("0") if damaged[place] != ord("0") else ord("1")
    stream.write_bytes(damaged)
    code, told = tool("export", "--check", stream, "--genesis", stopped / "genesis.json")
    assert code == ExitCode.AUDIT_FAILED, told


def test_blocks_that_are_taken_back_are_committed_again_and_no_vote_is_contradicted(net: Devnet, stopped: Path) -> None:
    for _ in range(3):
        code, told = tool("rollback", "--home", stopped, "--yes")
        assert code == 0, told
        assert told["head"] == told["taken_back"] - 1
    code, audited = tool("verify", "--home", stopped)
    assert (code, audited["head"]) == (0, told["head"]), audited
    net.start(VICTIM)
    same_chain(net, ALL)
    with net.client(VICTIM) as client:
        height = pay(client, net.account_key("alice"), net.account_key("bob").address)
    net.wait_height(height)
    # All four sign again, and none of them twice.
    net.wait_ready(ALL)
    for name in ALL:
        assert net.call(name, "consensus_evidence")["evidence"] == []
    assert net.stop(VICTIM) == 0


def test_tools_for_stopped_nodes_refuse_a_running_one(net: Devnet, tmp_path: Path) -> None:
    home = net.node(VICTIM).home
    commands: list[tuple[object, ...]] = [
        ("rollback", "--yes"),
        ("export", "--output", tmp_path / "stream"),
        ("inspect", "--listen", "127.0.0.1:0"),
        ("recover", "--yes"),
        ("verify",),
    ]
    for command in commands:
        code, told = tool(*command, "--home", home)
        assert (code, told["error"]["code"]) == (ExitCode.STORE_LOCKED, "store_locked"), command


def test_a_database_is_open_once_by_whatever_path_it_is_reached(net: Devnet, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(net.node(VICTIM).home)
    moved = tmp_path / "moved"
    moved.mkdir()
    for part in net.node(VICTIM).home.iterdir():
        (moved / part.name).symlink_to(part)
    for home in (link, moved):
        for command in (("start",), ("rollback", "--yes")):
            code, told = tool(*command, "--home", home)
            assert (code, told["error"]["code"]) == (ExitCode.STORE_LOCKED, "store_locked"), (command, home)
    same_chain(net, ALL)


def test_all_tools_lead_through_a_change_of_the_validator_set(net: Devnet, tmp_path: Path) -> None:
    """Last, for it changes the network: a fifth validator comes, and the victim goes back to before that."""
    before = net.height(ALL[0])
    joined = net.add_validator()
    with net.client(ALL[0]) as client:
        headers = client.headers(before, 100)
        for _ in range(3):
            pay(client, net.account_key("alice"), net.account_key("bob").address)
    changed = next(header.height for header in headers if header.next_validators_hash != header.validators_hash)
    head = same_chain(net, [*ALL, joined])["height"]
    code, told = tool("light", "--rpc", net.url(joined), "--home", net.home, "--trust-file", tmp_path / "light.json")
    assert (code, told["nodes"][0]["validators"]) == (0, 5), told

    assert net.stop(VICTIM) == 0
    home = net.node(VICTIM).home
    code, told = tool("export", "--home", home, "--output", tmp_path / "stream")
    assert (code, told["to"]) == (0, head), told
    code, told = tool("export", "--check", tmp_path / "stream", "--genesis", home / "genesis.json")
    assert (code, told["validators"]) == (0, 5), told

    for height in range(head, changed - 1, -1):
        code, told = tool("rollback", "--home", home, "--yes")
        assert (code, told["taken_back"]) == (0, height), told
    code, told = tool("verify", "--home", home)
    assert (code, told["head"], told["findings"]) == (0, changed - 1, []), told
    net.start(VICTIM)
    same_chain(net, [*ALL, joined])
    net.wait_ready([VICTIM])
    # Its vote is needed now: with five validators four make a quorum.
    net.kill(joined)
    with net.client(VICTIM) as client:
        pay(client, net.account_key("alice"), net.account_key("bob").address)
    for name in ALL:
        assert net.call(name, "consensus_evidence")["evidence"] == []
