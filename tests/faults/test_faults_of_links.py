"""Links between real nodes break in every way: a workload runs on, and whatever it is told stays true.

A relay between the nodes does it, so this runs everywhere. QENEX_FAULT_SECONDS says how long each fault holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_support import ACCOUNTS, ALL, HOLD_SECONDS, flawless, hold, primary_of

from devnet.network import Devnet
from devnet.relay import Conduct
from devnet.ways import both


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with Devnet(tmp_path_factory.mktemp("links") / "net", accounts=ACCOUNTS, relayed=True) as network:
        yield network


@pytest.fixture(autouse=True)
def _whole_again(net: Devnet) -> Iterator[None]:
    yield
    net.relay.heal()


def test_two_halves_decide_nothing_and_go_on_together(net: Devnet) -> None:
    with flawless(net):
        net.relay.part(ALL[:2], ALL[2:])
        hold(0.3)
        height = max(net.heights().values())
        hold()
        assert max(net.heights().values()) == height, "half of the validators made a block"
        net.relay.heal()


def test_the_primary_cut_off_is_replaced_and_comes_back(net: Devnet) -> None:
    primary = primary_of(net)
    with flawless(net) as work:
        net.relay.part([primary], [name for name in ALL if name != primary])
        work.wait_committed(5, timeout_s=15)
        hold()
        net.relay.heal()


def test_a_primary_that_hears_and_is_not_heard_is_replaced(net: Devnet) -> None:
    primary = primary_of(net)
    others = [name for name in ALL if name != primary]
    with flawless(net) as work:
        net.relay.cut(*((primary, other) for other in others))
        work.wait_committed(5, timeout_s=15)
        hold()
        net.relay.heal()


def test_a_validator_that_is_heard_and_hears_nothing_stops_nobody(net: Devnet) -> None:
    deaf = next(name for name in ALL if name != primary_of(net))
    with flawless(net) as work:
        net.relay.cut(*((other, deaf) for other in ALL if other != deaf))
        work.wait_committed(5, timeout_s=15)
        hold()
        net.relay.heal()


def test_links_that_make_a_ring_or_a_chain_are_enough(net: Devnet) -> None:
    """Not every pair reaches each other: what is said to one is passed on by it."""
    with flawless(net) as work:
        net.relay.cut(*both((ALL[0], ALL[2]), (ALL[1], ALL[3])))
        work.wait_committed(20, timeout_s=15)
        net.relay.cut(*both((ALL[0], ALL[3])))
        work.wait_committed(10, timeout_s=15)
        hold()
        net.relay.heal()


def test_a_flapping_partition_ends_in_progress(net: Devnet) -> None:
    halves = (ALL[0], ALL[2]), (ALL[1], ALL[3])
    with flawless(net):
        for turn in range(max(3, round(HOLD_SECONDS / 0.4))):
            # Of each two times bytes only wait, so that connections outlive it, and half-way states meet whole ones.
            net.relay.part(*halves, conduct=Conduct(held=True) if turn % 2 else Conduct(cut=True))
            hold(0.25)
            net.relay.heal()
            hold(0.15)


def test_slow_uneven_and_stalling_links_only_cost_time(net: Devnet) -> None:
    view = max(net.call(name, "qenex_status")["view"] for name in ALL)
    with flawless(net) as work:
        net.relay.set_all(Conduct(delay_ms=50, jitter_ms=20))
        work.wait_committed(10)
        hold()
        net.relay.set_all(Conduct(delay_ms=50, stall_share=0.01, stall_ms=200))
        work.wait_committed(10)
        hold()
        # It costs no view (devnet/trials/wide_area.py); one is left to a machine that is busy with other things.
        assert max(net.call(name, "qenex_status")["view"] for name in ALL) <= view + 1
        net.relay.set_all(Conduct(rate_bytes=40_000))
        work.wait_committed(10, timeout_s=15)
        net.relay.heal()


def test_connections_that_are_reset_again_and_again_are_made_anew(net: Devnet) -> None:
    with flawless(net) as work:
        for _ in range(max(2, round(HOLD_SECONDS))):
            net.relay.close(net.relay.ways)
            work.wait_committed(3, timeout_s=15)
        net.relay.set_all(Conduct(refused=True))
        net.relay.close(net.relay.ways)
        hold(0.3)
        net.relay.heal()
