"""The nodes of one network with their processes: start, signal, notice ends, and keep devnet.json true.

Nothing here waits and nothing is restarted: who drives it (the launcher, or a test) decides when to look and how long
to wait. All of it belongs to the main thread (processes.py says why).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from devnet import procfs
from devnet.clock import write_offset
from devnet.files import LOG_FILE, NETWORK_FILE, log_tail, write_network
from devnet.prepare import forget
from devnet.processes import NodeProcess
from qenex_node.testnet import Network, NetworkNode
from state.errors import Rejected

Command = Callable[[NetworkNode, bool], tuple[str, ...]]


class State(Enum):
    """What became of a node's process. `ENDED` is an end that nobody asked for."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    KILLED = "killed"
    ENDED = "ended"


ALIVE: Final = (State.RUNNING, State.PAUSED, State.STOPPING)


@dataclass(slots=True)
class Member:
    """One node: its place in the network, and the process that runs or last ran it."""

    node: NetworkNode
    process: NodeProcess | None = None
    state: State = State.NEW
    exit_code: int | None = None
    killing: bool = False
    own_clock: bool = False

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self.process.pid if self.process is not None and self.state in ALIVE else None

    @property
    def log(self) -> list[str]:
        """The last lines that it said."""
        return log_tail(self.node.home)


@dataclass(frozen=True, slots=True)
class End:
    """A process that ended: its exit code (negative: the signal), and whether that was asked for."""

    name: str
    exit_code: int
    wanted: bool


def start_command(node: NetworkNode, own_clock: bool) -> tuple[str, ...]:
    """Returns how a node is run: by this interpreter, whatever lies in the current directory (-P).

    It is the very `qenex start` of operators, unless the node's clock is to be set.
    """
    command = ("devnet", "run-node") if own_clock else ("start",)
    return (sys.executable, "-P", "-m", "cli.main", *command, "--home", str(node.home))


class Fleet:
    """All nodes of a network, by name."""

    def __init__(
        self,
        network: Network,
        *,
        command: Command = start_command,
        clock_offsets_ms: Mapping[str, int] | None = None,
    ) -> None:
        """Takes the network, how a node is run, and by how much which node's clock is set apart from the machine's.

        The clocks of the nodes named there, by 0 too, can be set while they run. Raises Rejected("node_unknown").
        """
        self.network = network
        self._command = command
        self.members = {node.name: Member(node) for node in network.nodes}
        self._published = False
        for name, offset_ms in (clock_offsets_ms or {}).items():
            member = self.member(name)
            member.own_clock = True
            write_offset(member.node.home, offset_ms)

    def member(self, name: str) -> Member:
        """Returns a node by name; raises Rejected("node_unknown")."""
        found = self.members.get(name)
        if found is None:
            raise Rejected("node_unknown", f"there is no node {name!r}; there are {', '.join(self.members)}")
        return found

    def alive(self) -> list[Member]:
        """Returns the nodes whose processes run, paused ones too."""
        return [member for member in self.members.values() if member.state in ALIVE]

    def add(self, network: Network) -> list[Member]:
        """Takes the network with more nodes; returns the new ones, which do not run yet."""
        self.network = network
        new = [Member(node) for node in network.nodes if node.name not in self.members]
        self.members |= {member.node.name: member for member in new}
        return new

    def start(self, name: str) -> Member:
        """Starts a node that does not run; raises Rejected("node_running")."""
        member = self.member(name)
        if member.state in ALIVE:
            raise Rejected("node_running", f"{name} runs already as process {member.pid}")
        log = member.node.home / LOG_FILE
        member.process = NodeProcess(self._command(member.node, member.own_clock), log)
        member.state, member.exit_code, member.killing = State.RUNNING, None, False
        self._update()
        return member

    def terminate(self, name: str) -> Member:
        """Asks a node to end cleanly; a paused one is let run for that."""
        member, process = self._running(name)
        paused = member.state is State.PAUSED
        process.send(signal.SIGTERM)
        if paused:
            process.send_to_all(signal.SIGCONT)
        member.state = State.STOPPING
        return member

    def kill(self, name: str) -> Member:
        """Ends a node at once, as a power failure would end the process."""
        member, process = self._running(name)
        member.killing = True
        process.send_to_all(signal.SIGKILL)
        return member

    def pause(self, name: str) -> Member:
        """Stops a node in its tracks; it keeps its connections and says nothing."""
        member, process = self._running(name)
        if member.state is State.RUNNING:
            process.send_to_all(signal.SIGSTOP)
            member.state = State.PAUSED
        return member

    def resume(self, name: str) -> Member:
        """Lets a paused node go on; raises Rejected("node_not_paused")."""
        member, process = self._running(name)
        if member.state is not State.PAUSED:
            raise Rejected("node_not_paused", f"{name} is not paused")
        process.send_to_all(signal.SIGCONT)
        member.state = State.RUNNING
        return member

    def reload(self, name: str) -> None:
        """Has a running node read its configuration again."""
        _, process = self._running(name)
        process.send(signal.SIGHUP)

    def set_clock(self, name: str, offset_ms: int) -> Member:
        """Sets a running node's clock apart from the machine's; raises Rejected("clock_fixed")."""
        member, process = self._running(name)
        if not member.own_clock:
            raise Rejected(
                "clock_fixed",
                f"{name} runs by the machine's clock: start the network with `devnet/up --clock-offset {name}=0`",
            )
        write_offset(member.node.home, offset_ms)
        process.send(signal.SIGUSR1)
        return member

    def _running(self, name: str) -> tuple[Member, NodeProcess]:
        member = self.member(name)
        if member.process is None or member.state not in ALIVE:
            raise Rejected("node_not_running", f"{name} does not run (it is {member.state.value})")
        return member, member.process

    def reap(self) -> list[End]:
        """Returns the processes that ended since the last look, and takes them out of devnet.json."""
        ends: list[End] = []
        for name, member in self.members.items():
            if member.process is None or member.state not in ALIVE:
                continue
            code = member.process.exit_code()
            if code is None:
                continue
            wanted = member.killing or member.state is State.STOPPING
            if member.killing:
                member.state = State.KILLED
            else:
                member.state = State.STOPPED if wanted else State.ENDED
            member.exit_code = code
            ends.append(End(name, code, wanted))
        if ends:
            self._update()
        return ends

    def usage(self, name: str) -> procfs.Usage | None:
        """Returns what a running node takes of CPU and memory."""
        pid = self.member(name).pid
        return None if pid is None else procfs.usage(pid)

    def publish(self) -> None:
        """Writes devnet.json, and from now on whenever something changes: all nodes have answered."""
        self._published = True
        self._update()

    def unpublish(self) -> None:
        """Takes back what an earlier run published: its processes are gone."""
        forget(self.network.directory, (NETWORK_FILE,))

    def _update(self) -> None:
        if self._published:
            write_network(self.network, {name: member.pid for name, member in self.members.items()})
