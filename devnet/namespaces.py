"""A network namespace for each node, joined by a bridge: real routes to break, real interfaces to slow down.

    with Namespaces(["validator-01", "validator-02"]) as places:
        with Devnet(home, validators=2, hosts=places.hosts, command=places.command) as net:
            places.blackhole(("validator-01", "validator-02"))
            places.rate("validator-01", bits_per_second=2_000_000)

Theory of operation. Nothing here is registered anywhere: a namespace lives as long as a process in it, an interface as
long as its namespace, and a pair of interfaces as long as both. Each namespace is held by a sleeping process that the
kernel kills when its parent dies. So whatever way a test ends, nothing is left behind. The bridge stands in a namespace
of its own, whose one link to ours (which is how a test reaches the nodes) has a name and a subnet that nobody else has.

It needs root and iproute2, and no more of the kernel than namespaces, veth, bridge and sch_tbf; not netem.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from itertools import permutations
from typing import Final

from devnet.fleet import start_command
from devnet.processes import death_signal
from devnet.ways import Way, between
from qenex_node.testnet import NetworkNode
from state.errors import Rejected

SUBNETS: Final = 250
NODES_MAX: Final = 200
BURST_BYTES: Final = 32 * 1024
QUEUE_MS: Final = 500
_OURS: Final = 254
_TOOLS: Final = ("ip", "tc", "unshare", "nsenter")

"""From whom to whom packets go."""


def missing() -> str | None:
    """Returns why there can be no namespaces here, None if there can be."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    tools = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if tools:
        return f"network namespaces need {', '.join(tools)} (iproute2, util-linux)"
    try:
        with Namespaces(["probe"]):
            return None
    except Rejected as error:
        return f"no network namespace can be made here: {error.message}"


class Holder:
    """A process that does nothing but keep the namespaces that it was given."""

    def __init__(self, *unshared: str, first: str = "true") -> None:
        """Takes what unshare(1) is to make, and a shell command that is carried out there first; raises Rejected."""
        script = f"{first} && echo ready && exec sleep infinity"
        self._process = subprocess.Popen(
            ("unshare", *unshared, "--", "sh", "-c", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=death_signal(),
        )
        out, err = self._process.stdout, self._process.stderr
        if out is None or err is None or out.readline() != b"ready\n":
            why = b"" if err is None else err.read()
            self.close()
            raise Rejected("namespace_refused", why.decode(errors="replace").strip() or "unshare failed")

    @property
    def pid(self) -> int:
        """The process whose namespaces these are."""
        return self._process.pid

    def close(self) -> None:
        """Lets the namespaces go, unless others live in them."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def run(*command: str, given: str | None = None) -> str:
    """Runs a command to its end and returns what it said; raises Rejected("command_failed")."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Rejected("command_failed", f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespaces:
    """The namespaces of a network's nodes; leaving the `with` block lets them go."""

    def __init__(self, names: Sequence[str]) -> None:
        """Takes the nodes' names."""
        if not 1 <= len(names) <= NODES_MAX:
            raise Rejected("namespace_refused", f"1 to {NODES_MAX} nodes can be given a namespace, not {len(names)}")
        self._names = list(names)
        self._stack = ExitStack()
        self._holders: dict[str, Holder] = {}
        self.hosts: dict[str, str] = {}

    def __enter__(self) -> Namespaces:
        with ExitStack() as stack:
            hub = Holder("--net")
            stack.callback(hub.close)
            for name in self._names:
                holder = self._holders[name] = Holder("--net")
                stack.callback(holder.close)
            subnet = self._join_ours(hub)
            self.hosts = {name: f"{subnet}.{number}" for number, name in enumerate(self._names, start=1)}
            self._join_nodes(hub)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _join_ours(self, hub: Holder) -> str:
        """Makes the link between the hub and us; returns the subnet (three numbers) that its name stands for."""
        ip(hub, "link add hub type bridge", "link set hub up", "link set lo up")
        first = os.getpid() % SUBNETS
        for step in range(SUBNETS):
            number = (first + step) % SUBNETS
            # Two networks can share neither the name nor, as it follows from it, the subnet (RFC 2544, for tests).
            name, subnet = f"qx{number}", f"198.18.{number}"
            try:
                run("ip", "link", "add", name, "type", "veth", "peer", "name", "ours", "netns", str(hub.pid))
            except Rejected as error:
                if "exists" in error.message:
                    continue
                raise
            ip(hub, "link set ours master hub", "link set ours up")
            run("ip", "address", "add", f"{subnet}.{_OURS}/24", "dev", name)
            run("ip", "link", "set", name, "up")
            return subnet
        raise Rejected("namespace_refused", f"all {SUBNETS} subnets are taken")

    def _join_nodes(self, hub: Holder) -> None:
        joined: list[str] = []
        for number, name in enumerate(self._names, start=1):
            joined += [
                f"link add n{number} type veth peer name eth0 netns {self._holders[name].pid}",
                f"link set n{number} master hub",
                f"link set n{number} up",
            ]
        ip(hub, *joined)
        for name, holder in self._holders.items():
            ip(holder, "link set lo up", f"address add {self.hosts[name]}/24 dev eth0", "link set eth0 up")

    def inside(self, name: str) -> tuple[str, ...]:
        """Returns what a command that is to run in a node's namespace begins with."""
        return ("nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", "--")

    def command(self, node: NetworkNode, own_clock: bool) -> tuple[str, ...]:
        """Returns how a node is run in its namespace."""
        return (*self.inside(node.name), *start_command(node, own_clock))

    def blackhole(self, *ways: Way) -> None:
        """Drops the packets of these ways where they leave."""
        for source, sink in ways:
            ip(self._holders[source], f"route replace blackhole {self.hosts[sink]}/32")

    def open(self, *ways: Way) -> None:
        """Lets the packets of these ways pass again."""
        for source, sink in ways:
            ip(self._holders[source], f"route delete blackhole {self.hosts[sink]}/32")

    def part(self, *groups: Collection[str]) -> list[Way]:
        """Drops all packets between groups of nodes; returns the ways, for `open`."""
        ways = between(permutations(self._names, 2), groups)
        self.blackhole(*ways)
        return ways

    def heal(self) -> None:
        """Lets the packets of all ways pass again."""
        for name in self._names:
            run(*self.inside(name), "ip", "route", "flush", "type", "blackhole")

    def rate(self, name: str, bits_per_second: int) -> None:
        """Bounds what a node can send, to anybody."""
        run(
            *self.inside(name),
            *("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf"),
            *("rate", f"{bits_per_second}bit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"),
        )

    def unbounded(self, name: str) -> None:
        """Takes the bound away."""
        run(*self.inside(name), "tc", "qdisc", "delete", "dev", "eth0", "root")


def ip(holder: Holder, *commands: str) -> None:
    """Carries out commands of ip(8) in a namespace; raises Rejected("command_failed")."""
    batch = "".join(f"{command}\n" for command in commands)
    run("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", "ip", "-batch", "-", given=batch)
