"""A validator's home is copied to a second machine while the first goes on: the second finds out, and ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hostile_support import Load, metric
from integration_support import same_chain

from devnet.network import Devnet
from devnet.ports import free_ports
from qenex_node.config import load
from qenex_node.configfile import render
from qenex_node.exitcodes import ExitCode

TWIN = "validator-04"
OTHERS = ["validator-01", "validator-02", "validator-03"]
PROGRAM = Path(__file__).with_name("unlocked_start.py")


def moved(home: Path, to: Path) -> Path:
    """Copies a stopped node's home as an operator does for a new machine: other ports, and silence at the start."""
    shutil.copytree(home, to)
    config = load(to / "config.toml")
    (place,) = free_ports(1)
    config = replace(
        config,
        p2p=replace(config.p2p, listen_port=place.p2p),
        rpc=replace(config.rpc, port=place.rpc),
        metrics=replace(config.metrics, port=place.metrics),
        consensus=replace(config.consensus, silence_heights=10),
    )
    (to / "config.toml").write_text(render(config))
    return to


def votes(net: Devnet, name: str) -> bool:
    """Whether a validator's vote for the height being decided is there at another one."""
    seen = net.call(OTHERS[0], "consensus_state")["votes"]
    return name in seen["prepare"] or name in seen["commit"]


def test_the_second_of_two_homes_with_one_key_stops_and_the_first_votes_on(tmp_path: Path) -> None:
    with Devnet(tmp_path / "net", accounts=20) as net:
        with Load(net, OTHERS) as payer:
            net.wait_height(3)
            net.stop(TWIN)
            copied = moved(net.node(TWIN).home, tmp_path / "copied")
            net.start(TWIN)
            net.wait_ready([TWIN])
            # It has come back only once it votes: until then there is nothing for the second to see.
            net.wait_for(lambda: votes(net, TWIN), "the first votes again")
            command = [sys.executable, "-P", str(PROGRAM), str(copied)]
            said = tmp_path / "second.log"
            with said.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as second:
                try:
                    ended = second.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    second.kill()
                    ended = -1
            assert ended == ExitCode.OWN_VOTE_SEEN, said.read_text()[-3000:]
            assert "own_vote_seen" in said.read_text()
        assert payer.errors == []
        net.wait_ready()
        assert metric(net, TWIN, "qenex_consensus_voting") == 1
        assert all(net.call(name, "consensus_evidence")["evidence"] == [] for name in net.names)
        same_chain(net, net.names)
