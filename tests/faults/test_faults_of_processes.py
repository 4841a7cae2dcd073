"""Real nodes are stopped in their tracks, killed at random and given wrong clocks, while a bank runs on them.

QENEX_FAULT_SECONDS says how long each fault holds, QENEX_FAULT_KILLS how many times nodes are killed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from faults_support import ACCOUNTS, ALL, flawless, hold, primary_of

from devnet.network import Devnet

KILLS = int(os.environ.get("QENEX_FAULT_KILLS", "4"))
SEED = int(os.environ.get("QENEX_FAULT_SEED", "1"))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    home = tmp_path_factory.mktemp("processes") / "net"
    with Devnet(home, accounts=ACCOUNTS, clock_offsets_ms=dict.fromkeys(ALL, 0)) as network:
        yield network


def test_a_primary_that_stands_still_is_replaced_and_goes_on_as_a_replica(net: Devnet) -> None:
    primary = primary_of(net)
    with flawless(net) as work:
        net.pause(primary)
        work.wait_committed(5, timeout_s=15)
        hold()
        net.resume(primary)
        work.wait_committed(5)
        # It is needed again: with another one down, a block needs its vote.
        other = next(name for name in ALL if name != primary)
        net.pause(other)
        work.wait_committed(5, timeout_s=15)
        net.resume(other)


def test_two_that_stand_still_stop_all_and_all_goes_on_with_them(net: Devnet) -> None:
    with flawless(net):
        net.pause(ALL[1])
        net.pause(ALL[3])
        hold()
        net.resume(ALL[1])
        net.resume(ALL[3])


def test_nodes_killed_at_random_moments_lose_nothing_that_was_final(net: Devnet) -> None:
    chance = random.Random(SEED)
    with flawless(net, seed=SEED) as work:
        for _ in range(KILLS):
            hold(chance.uniform(0, 0.4))
            killed = chance.sample(ALL, chance.choice((1, 1, 2, 3, 4)))
            net.kill(*killed)
            hold(chance.uniform(0, 0.3))
            for name in killed:
                net.start(name, wait=False)
            work.wait_committed(3, timeout_s=25)


def test_a_primary_with_a_wrong_clock_is_replaced_and_a_replica_with_one_stops_nobody(net: Devnet) -> None:
    primary = primary_of(net)
    replica = next(name for name in ALL if name != primary)
    with flawless(net) as work:
        net.set_clock(primary, 60_000)
        work.wait_committed(5, timeout_s=20)
        net.set_clock(primary, 0)
        net.set_clock(replica, -60_000)
        work.wait_committed(5, timeout_s=20)
        hold()
        net.set_clock(replica, 0)
