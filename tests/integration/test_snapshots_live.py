"""Real processes: a new node and a wiped validator come back with a snapshot and peers, while the chain goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integration_support import assert_nothing_lost, load, pay, same_chain, trusting_client

from devnet.network import Devnet
from devnet.prepare import Wish
from qenex_node.config import Config
from state.genesis import ChainParameters

ALL = ["validator-01", "validator-02", "validator-03", "validator-04"]
INTERVAL = 60


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Devnet]:
    """A network that makes snapshots often, and whose validators recover soon: that takes twice the drift bound."""
    config = Config()
    config = replace(
        config,
        snapshots=replace(config.snapshots, interval_heights=INTERVAL),
        sync=replace(config.sync, snapshot_gap_heights=INTERVAL),
    )
    wish = Wish(validators=4, accounts=300, config=config, parameters=ChainParameters(drift_ms=1000))
    with Devnet(tmp_path / "net", wish=wish) as network:
        yield network


def newest_snapshot(net: Devnet, name: str) -> int:
    (line,) = [line for line in net.metrics(name).splitlines() if line.startswith("qenex_snapshot_height ")]
    return int(float(line.split()[1]))


def base_height(net: Devnet, name: str) -> int:
    """Where a node's chain begins: it says so when it is asked for a block below."""
    answer = net.call(name, "qenex_getBlock", 1)
    return int(answer["error"]["data"]["base_height"]) if "error" in answer else 0


def qenex(*arguments: object) -> None:
    command = [sys.executable, "-P", "-m", "cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def join(net: Devnet) -> str:
    """Adds a full node and returns its name once it was restored from a snapshot and is ready."""
    began = time.monotonic()
    name = net.add()
    net.wait_for(lambda: "beginning anew" in net.log(name), f"{name} was restored from a snapshot", 60)
    net.wait_ready([name], timeout_s=60)
    print(f"the new node was ready {time.monotonic() - began:.1f} s after it was asked for")
    return name


def wipe_and_restore(net: Devnet, victim: str) -> None:
    """Loses a validator's disk, and brings it back by the steps of docs/operations.md until it votes."""
    net.kill(victim)
    home = net.node(victim).home
    began = time.monotonic()
    shutil.rmtree(home / "data")
    shutil.rmtree(home / "snapshots")
    state_file = net.home / "genesis.state"
    qenex("init", "--home", home, "--genesis", net.home / "genesis.json", "--state-file", state_file)
    qenex("recover", "--home", home, "--yes")
    net.start(victim)
    net.wait_for(lambda: "beginning anew" in net.log(victim), "it was restored from a snapshot", 60)
    net.wait_height(net.height(ALL[0]), [victim], timeout_s=60)
    follows_s = time.monotonic() - began
    with trusting_client(net, ALL[0]) as client:
        # It votes again above blocks that were made without it: the load may have ended by now.
        def pays_and_is_ready() -> bool:
            pay(client, net.account_key("carol"), net.account_key("dave").address)
            return net.readiness(victim)[0]

        net.wait_for(pays_and_is_ready, "it votes again", 60)
    votes_s = time.monotonic() - began
    print(f"RTO: it follows the chain {follows_s:.1f} s, votes {votes_s:.1f} s after its disk was lost")


def test_a_new_node_and_a_wiped_validator_come_back_with_a_snapshot_while_the_chain_goes_on(net: Devnet) -> None:
    victim = ALL[3]
    with load(net, "--rate", "80", "--seconds", "20", "--accounts", "200") as under_way:
        net.wait_height(2 * INTERVAL)
        net.wait_for(lambda: all(newest_snapshot(net, name) for name in ALL), "all have made a snapshot")
        joined = join(net)
        wipe_and_restore(net, victim)
        result = under_way.result()
    print(f"RPO: {result['lost']} of {result['committed']} transactions lost")
    assert_nothing_lost(result)
    for name in (joined, victim):
        base = base_height(net, name)
        assert base > 0
        assert base % INTERVAL == 0
        assert newest_snapshot(net, name) >= base
    # The vote of the one that was wiped is needed again: with another one down a block is made with it alone.
    net.kill(ALL[0])
    with trusting_client(net, joined) as client:
        pay(client, net.account_key("alice"), net.account_key("bob").address)
        assert client.balance(net.account_key("bob").address, "QNX").available > 0
    net.start(ALL[0])
    same_chain(net, [*ALL, joined])
    # It begins from there again, and its database stands the audit.
    net.stop(joined)
    qenex("verify", "--home", net.node(joined).home)
    net.start(joined)
    same_chain(net, [*ALL, joined])
