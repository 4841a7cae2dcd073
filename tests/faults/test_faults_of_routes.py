"""Routes between real nodes in namespaces are blackholed and interfaces slowed: TCP sees a real network fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_support import ACCOUNTS, ALL, flawless, hold, primary_of

from devnet.namespaces import Namespaces, missing
from devnet.network import Devnet
from devnet.ways import both

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"runs as root on Linux with iproute2: {WHY_NOT}")


@pytest.fixture(scope="module")
def places() -> Iterator[Namespaces]:
    with Namespaces(ALL) as joined:
        yield joined


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, places: Namespaces) -> Iterator[Devnet]:
    home = tmp_path_factory.mktemp("routes") / "net"
    with Devnet(home, accounts=ACCOUNTS, hosts=places.hosts, command=places.command) as network:
        yield network


@pytest.fixture(autouse=True)
def _whole_again(places: Namespaces) -> Iterator[None]:
    yield
    places.heal()


def test_halves_without_routes_decide_nothing_and_go_on_together(net: Devnet, places: Namespaces) -> None:
    with flawless(net):
        cut = places.part(ALL[:2], ALL[2:])
        hold(0.3)
        height = max(net.heights().values())
        hold()
        assert max(net.heights().values()) == height, "half of the validators made a block"
        places.open(*cut)


def test_a_primary_without_routes_is_replaced_and_comes_back(net: Devnet, places: Namespaces) -> None:
    primary = primary_of(net)
    with flawless(net) as work:
        cut = places.part([primary], [name for name in ALL if name != primary])
        work.wait_committed(5, timeout_s=15)
        hold()
        places.open(*cut)


def test_a_primary_whose_packets_go_nowhere_is_replaced(net: Devnet, places: Namespaces) -> None:
    primary = primary_of(net)
    ways = [(primary, other) for other in ALL if other != primary]
    with flawless(net) as work:
        places.blackhole(*ways)
        work.wait_committed(5, timeout_s=15)
        hold()
        places.open(*ways)


def test_pairs_without_a_route_are_served_by_those_that_have_both(net: Devnet, places: Namespaces) -> None:
    pairs = ((ALL[0], ALL[2]), (ALL[1], ALL[3]))
    with flawless(net) as work:
        places.blackhole(*both(*pairs))
        work.wait_committed(20, timeout_s=20)
        hold()
        places.open(*both(*pairs))


def test_routes_that_flap_end_in_progress(net: Devnet, places: Namespaces) -> None:
    with flawless(net):
        for _ in range(3):
            cut = places.part([ALL[0], ALL[2]], [ALL[1], ALL[3]])
            hold(0.3)
            places.open(*cut)
            hold(0.2)


def test_narrow_interfaces_only_cost_time(net: Devnet, places: Namespaces) -> None:
    with flawless(net) as work:
        for name in ALL:
            places.rate(name, 1_000_000)
        work.wait_committed(20, timeout_s=20)
        hold()
        for name in ALL:
            places.unbounded(name)
