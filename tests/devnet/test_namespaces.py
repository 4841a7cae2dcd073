"""Namespaces and small disks for nodes: they do what they say, and nothing of them is left, however their user ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from devnet_support import wait_until

from devnet.disks import SmallDisk
from devnet.namespaces import Namespaces, missing, run
from state.errors import Rejected

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"runs as root on Linux with iproute2: {WHY_NOT}")

HOLD = """
import sys
from devnet.namespaces import Namespaces
places = Namespaces(["a"])
places.__enter__()
print(places.hosts["a"], flush=True)
sys.stdin.read()
"""


def route(places: Namespaces, source: str, sink: str) -> bool:
    """Whether a node has a route to another."""
    try:
        run(*places.inside(source), "ip", "route", "get", places.hosts[sink])
    except Rejected:
        return False
    return True


def links() -> str:
    return run("ip", "-o", "link", "show")


def link_of(host: str) -> str:
    return f"qx{host.split('.')[2]}@"


def test_nodes_reach_each_other_until_a_route_is_taken_away() -> None:
    with Namespaces(["a", "b", "c"]) as places:
        assert route(places, "a", "b")
        places.blackhole(("a", "b"))
        assert not route(places, "a", "b")
        assert route(places, "b", "a")
        assert route(places, "a", "c")
        places.open(("a", "b"))
        ways = places.part(["a"], ["b", "c"])
        assert sorted(ways) == [("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")]
        assert not route(places, "b", "a")
        assert route(places, "b", "c")
        places.open(*ways)
        assert route(places, "a", "c")
        places.rate("a", 2_000_000)
        assert "tbf" in run(*places.inside("a"), "tc", "qdisc", "show", "dev", "eth0")
        places.unbounded("a")
        assert "tbf" not in run(*places.inside("a"), "tc", "qdisc", "show", "dev", "eth0")


def test_two_networks_at_a_time_have_names_and_subnets_of_their_own() -> None:
    with Namespaces(["a"]) as one, Namespaces(["a"]) as other:
        assert one.hosts["a"] != other.hosts["a"]
        assert link_of(one.hosts["a"]) in links()
        assert link_of(other.hosts["a"]) in links()
    wait_until(lambda: link_of(one.hosts["a"]) not in links(), "its link is gone")


def test_nothing_is_left_of_a_user_that_was_killed() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", HOLD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        link = link_of(user.stdout.readline().strip())
        assert link in links()
        user.kill()
        wait_until(lambda: link not in links(), "the kernel took the link away")


def test_a_small_disk_holds_what_was_there_and_is_full_when_it_is_told_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "CURRENT").write_text("before")
    disk = SmallDisk(data, 4 * 1024 * 1024)
    try:
        write = (*disk.inside(), "cp", str(data / "CURRENT"), str(data / "more"))
        assert run(*disk.inside(), "cat", str(data / "CURRENT")) == "before"
        disk.fill()
        with pytest.raises(Rejected, match="No space left"):
            run(*write)
        disk.free()
        run(*write)
    finally:
        disk.close()
    # The disk is gone with what was written there; what was beneath it was never touched.
    assert [path.name for path in data.iterdir()] == ["CURRENT"]
