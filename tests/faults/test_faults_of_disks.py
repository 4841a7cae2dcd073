"""The disks of real nodes fail: full, swapped between homes, damaged. The node says so and stops; the others go on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from faults_support import ACCOUNTS, ALL, flawless, hold

from devnet.disks import SmallDisk
from devnet.fleet import State, start_command
from devnet.namespaces import missing
from devnet.network import Devnet
from devnet.prepare import Wish
from qenex_node.config import MIB, Config
from qenex_node.exitcodes import ExitCode
from qenex_node.testnet import NetworkNode

WHY_NOT = missing()
LAST = ALL[3]


class Disks:
    """Small disks by node; a node that has one is started on it."""

    def __init__(self) -> None:
        self.by_node: dict[str, SmallDisk] = {}

    def command(self, node: NetworkNode, own_clock: bool) -> tuple[str, ...]:
        disk = self.by_node.get(node.name)
        return (*(() if disk is None else disk.inside()), *start_command(node, own_clock))


@pytest.fixture(scope="module")
def disks() -> Disks:
    return Disks()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, disks: Disks) -> Iterator[Devnet]:
    config = Config()
    storage = replace(config.storage, min_free_bytes=16 * MIB, write_buffer_bytes=MIB)
    wish = Wish(validators=4, accounts=ACCOUNTS, seed="devnet", config=replace(config, storage=storage))
    with Devnet(tmp_path_factory.mktemp("disks") / "net", wish=wish, command=disks.command) as network:
        yield network


def exit_code_of_a_start(net: Devnet, name: str) -> int:
    """Starts a node that is to refuse, and returns with which code it ended."""
    net.start(name, wait=False)
    net.wait_for(lambda: net.fleet.member(name).state is State.ENDED, f"{name} ends", 15)
    code = net.fleet.member(name).exit_code
    assert code is not None
    return code


def kept_copy(data: Path) -> Path:
    """Copies a stopped node's database, as it is, to its side."""
    copy = data.with_name("data.kept")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    return copy


def qenex(*arguments: str) -> str:
    """Runs a command as an operator would; it must succeed."""
    command = (sys.executable, "-P", "-m", "cli.main", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(WHY_NOT is not None, reason=f"runs as root on Linux: {WHY_NOT}")
def test_a_full_disk_stops_its_node_and_room_brings_it_back(net: Devnet, disks: Disks) -> None:
    with ExitStack() as stack:
        stack.callback(lambda: net.start(LAST))
        net.stop(LAST)
        disk = SmallDisk(net.node(LAST).home / "data", 64 * MIB)
        # Leaving it, the node has the database from before again: it must know better than to vote by that.
        stack.callback(qenex, "recover", "--yes", "--home", str(net.node(LAST).home))
        stack.callback(disk.close)
        stack.callback(disks.by_node.clear)
        disks.by_node[LAST] = disk
        net.start(LAST)
        stack.callback(net.stop, LAST)
        with flawless(net) as work:
            for _ in range(5):
                net.wait_ready([LAST])
                disk.fill()
                net.wait_for(lambda: LAST not in net.running or "disk_low" in net.readiness(LAST)[1], "it notices")
                if LAST not in net.running:
                    break
                # It looked at its disk before it had anything to write and stopped voting: as good, but not this test.
                disk.free()
            assert net.fleet.member(LAST).exit_code == ExitCode.DISK_ERROR
            work.wait_committed(10)
            assert exit_code_of_a_start(net, LAST) == ExitCode.DISK_LOW
            disk.free()
            net.start(LAST)
            net.wait_ready([LAST])
            # It votes again: with another one down, a block needs its vote.
            net.pause(ALL[0])
            work.wait_committed(5)
            net.resume(ALL[0])


def test_a_validator_signs_nothing_by_the_records_of_another(net: Devnet) -> None:
    """Two databases change places: with two of four that sign nothing, no block is made until they are back."""
    one, other = ALL[1:3]
    homes = [net.node(name).home for name in (one, other)]

    def swap() -> None:
        for name in (one, other):
            net.stop(name)
        aside = homes[0] / "aside"
        (homes[0] / "data").rename(aside)
        (homes[1] / "data").rename(homes[0] / "data")
        aside.rename(homes[1] / "data")
        for name in (one, other):
            net.start(name, wait=False)

    with flawless(net):
        swap()
        for name in (one, other):
            net.wait_unready(name, "votes_missing")
        height = max(net.heights().values())
        hold()
        assert max(net.heights().values()) == height
        swap()


def test_damage_is_named_and_a_resync_mends_it(net: Devnet) -> None:
    home = net.node(LAST).home
    data = home / "data"
    with flawless(net) as work:
        net.kill(LAST)
        copy = kept_copy(data)
        for pattern, step in (("CURRENT", 1), ("MANIFEST-*", 97), ("*.log", 97), ("*.ldb", 97)):
            damaged = max((data / "leveldb").glob(pattern), key=lambda file: file.stat().st_size)
            content = bytearray(damaged.read_bytes())
            for place in range(0, len(content), step):
                content[place] ^= 0x55
            damaged.write_bytes(content)
            said = len(net.log(LAST))
            assert exit_code_of_a_start(net, LAST) == ExitCode.STORE_DAMAGED, pattern
            assert "damage" in net.log(LAST)[said:], pattern
            shutil.rmtree(data)
            shutil.copytree(copy, data)
        work.wait_committed(5)
    # Made anew it begins at height 0, which a client that knew it must take for a lie: here begin others.
    with flawless(net):
        shutil.rmtree(data)
        qenex("init", "--home", str(home), "--genesis", str(home / "genesis.json"))
        qenex("recover", "--yes", "--home", str(home))
        net.start(LAST)
        # Its votes count again once the others are far enough ahead without it, and that is up to them.
        net.wait_for(lambda: net.readiness(LAST)[1] in ([], ["recovering"]), "it has caught up")
