"""A network for tests: started and broken by function calls, with bounded waits for conditions instead of sleeps.

    with Devnet(tmp_path / "net", validators=4) as net:
        net.kill("validator-01")
        net.wait_height(net.height("validator-02") + 1, names=["validator-02"])
        net.start("validator-01")
        net.wait_ready()

All of it blocks, and belongs to the main thread, which is the nodes' parent (processes.py). What a node says is in
`node.log` of its home; a wait that ends in vain quotes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, TypeVar

from devnet import procfs
from devnet.council import Changed, Council
from devnet.files import held_lock, rpc_url
from devnet.fleet import ALIVE, Command, Fleet, Member, State, start_command
from devnet.prepare import Wish, add_node, prepare, reroute
from devnet.relay import Link, Relay
from qenex_node.client.blocking import Client
from qenex_node.config import load
from qenex_node.homes import read_genesis
from qenex_node.keystore import read_key
from qenex_node.testnet import Network, NetworkNode, bulk_key
from state.errors import Rejected
from state.genesis import Genesis
from state.keys import SigningKey

READY_SECONDS: Final = 60.0
WAIT_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 10.0
KILL_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.02

T = TypeVar("T")


class WaitedInVain(Exception):
    """A condition did not become true in time; the text has what each node said at last."""


class Devnet:
    """A network in a home of its own; leaving the `with` block ends all of its nodes."""

    def __init__(
        self,
        home: Path,
        *,
        validators: int = 4,
        full_nodes: int = 0,
        accounts: int = 0,
        seed: str | None = None,
        wish: Wish | None = None,
        clock_offsets_ms: Mapping[str, int] | None = None,
        autostart: bool = True,
        command: Command = start_command,
        hosts: Mapping[str, str] | None = None,
        relayed: bool = False,
    ) -> None:
        """Takes what network is wanted (`wish` instead of the four before it gives parameters and configuration too).

        `home` is made, or resumed if it holds that network. Without `seed` its keys are its own: two networks with one
        seed have the same keys, and one machine runs a key once. Without `autostart` no node is started on entering.
        `hosts` gives nodes an address of their own (with `command` that runs them where they have it). `relayed` leads
        all their connections through `relay`.
        """
        self.home = home
        self._wish = wish or Wish(validators=validators, full_nodes=full_nodes, accounts=accounts, seed=seed)
        self._clock_offsets_ms = clock_offsets_ms
        self._autostart = autostart
        self._command = command
        self._hosts = hosts or {}
        self._relayed = relayed
        self._relay: Relay | None = None
        self._stack = ExitStack()
        self._fleet: Fleet | None = None

    def __enter__(self) -> Devnet:
        with ExitStack() as stack:
            stack.enter_context(held_lock(self.home))
            network = self._laid(prepare(self.home, self._wish), stack)
            self._fleet = Fleet(network, command=self._command, clock_offsets_ms=self._clock_offsets_ms)
            stack.callback(self.stop_all)
            self._fleet.unpublish()
            if self._autostart:
                self.start_all()
                self.wait_ready()
                self.publish()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _laid(self, network: Network, stack: ExitStack) -> Network:
        """Returns the network with its nodes' addresses, and has them reach each other as wished until the end."""
        if not self._hosts and not self._relayed:
            return network
        stack.callback(reroute, network)
        nodes = tuple(replace(node, host=self._hosts.get(node.name, node.host)) for node in network.nodes)
        network = replace(network, nodes=nodes)
        if not self._relayed:
            reroute(network)
            return network
        by_name = {node.name: node for node in nodes}
        dialed = [(node.name, by_name[peer.who]) for node in nodes for peer in load(node.home / "config.toml").peers]
        links = [Link(dialer, target.name, target.host, target.ports.p2p) for dialer, target in dialed]
        relay = self._relay = stack.enter_context(Relay(links))
        reroute(network, lambda dialer, target: f"127.0.0.1:{relay.port(dialer.name, target.name)}")
        return network

    # What there is

    @property
    def fleet(self) -> Fleet:
        """The nodes with their processes; raises Rejected("devnet_down") outside of the `with` block."""
        if self._fleet is None:
            raise Rejected("devnet_down", "the network is there within its `with` block only")
        return self._fleet

    @property
    def network(self) -> Network:
        """The network as it lies on the disk."""
        return self.fleet.network

    @property
    def relay(self) -> Relay:
        """What the nodes' connections lead through; raises Rejected("relay_down") without `relayed`."""
        if self._relay is None:
            raise Rejected("relay_down", "the nodes are joined directly: ask for `relayed`")
        return self._relay

    @property
    def genesis(self) -> Genesis:
        """The chain's genesis document."""
        return read_genesis(self.home / "genesis.json")

    @property
    def names(self) -> list[str]:
        """All nodes, validators first."""
        return list(self.fleet.members)

    @property
    def running(self) -> list[str]:
        """The nodes that run and are not paused."""
        self.fleet.reap()
        return [name for name, member in self.fleet.members.items() if member.state is State.RUNNING]

    def node(self, name: str) -> NetworkNode:
        """Returns a node's home and ports."""
        return self.fleet.member(name).node

    def url(self, name: str) -> str:
        """Returns where a node serves JSON-RPC."""
        return rpc_url(self.node(name))

    def client(self, *names: str, **options: Any) -> Client:
        """Returns a client of these nodes, of all that run if none is named; to be closed by its user."""
        return Client(*(self.url(name) for name in names or self.running), **options)

    def account_key(self, name: str) -> SigningKey:
        """Returns the key of a named account: treasury, alice, bob, carol or dave."""
        for account in self.network.accounts:
            if account.name == name:
                return read_key(account.key_file, None)
        raise Rejected("account_unknown", f"there is no account {name!r}")

    def bulk_key(self, index: int) -> SigningKey:
        """Returns the key of a further account, of which there are `accounts`."""
        return bulk_key(self.network.seed, index)

    def log(self, name: str) -> str:
        """Returns all that a node said."""
        return (self.node(name).home / "node.log").read_text(errors="replace")

    def usage(self, name: str) -> procfs.Usage | None:
        """Returns what a running node takes of CPU and memory."""
        return self.fleet.usage(name)

    # What it says

    def call(self, name: str, method: str, *params: Any) -> Any:
        """Returns the result of one RPC method; raises OSError or HTTPException if the node does not answer.

        An error answer is returned as {"error": ...}.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        answer = json.loads(self._http(name, "POST", "/", body)[1])
        return answer["result"] if "result" in answer else {"error": answer["error"]}

    def status(self, name: str) -> dict[str, Any] | None:
        """Returns a node's qenex_status, None if it does not answer."""
        try:
            told: dict[str, Any] = self.call(name, "qenex_status")
        except (OSError, HTTPException):
            return None
        return told

    def height(self, name: str) -> int:
        """Returns a node's height; raises Rejected("node_unreachable")."""
        status = self.status(name)
        if status is None:
            raise Rejected("node_unreachable", f"{name} does not answer")
        return int(status["head"]["height"])

    def heights(self) -> dict[str, int]:
        """Returns the heights of the nodes that answer."""
        told = {name: self.status(name) for name in self.running}
        return {name: status["head"]["height"] for name, status in told.items() if status is not None}

    def readiness(self, name: str) -> tuple[bool, list[str]]:
        """Returns whether a node is ready, and the codes of the reasons why not; not answering is one."""
        try:
            code, body = self._http(name, "GET", "/ready", None)
        except (OSError, HTTPException):
            return False, ["unreachable"]
        return code == 200, [reason["code"] for reason in json.loads(body)["reasons"]]

    def metrics(self, name: str) -> str:
        """Returns a node's metrics; raises OSError or HTTPException."""
        return self._http(name, "GET", "/metrics", None, self.node(name).ports.metrics)[1].decode()

    def _http(self, name: str, verb: str, target: str, body: str | None, port: int | None = None) -> tuple[int, bytes]:
        node = self.node(name)
        connection = HTTPConnection(node.host, port or node.ports.rpc, timeout=ANSWER_SECONDS)
        try:
            connection.request(verb, target, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    # What is done to it

    def start_all(self) -> None:
        """Starts all nodes that do not run, at once, and does not wait for them."""
        for name, member in self.fleet.members.items():
            if member.state not in ALIVE:
                self.fleet.start(name)

    def publish(self) -> None:
        """Writes devnet.json, from now on at each change, so that `qenex devnet load` and others find the nodes."""
        self.fleet.publish()

    def start(self, name: str, *, wait: bool = True) -> Member:
        """Starts a node and waits until it answers."""
        self.fleet.reap()
        member = self.fleet.start(name)
        if wait:
            self.wait_for(lambda: self.status(name) is not None, f"{name} answers", alive=[name])
        return member

    def stop(self, name: str) -> int:
        """Ends a node cleanly and returns its exit code; kills one that takes too long."""
        member = self.fleet.terminate(name)
        if not self._wait_end([member], GRACE_SECONDS):
            self.fleet.kill(name)
            self._wait_end([member], KILL_SECONDS)
        return -1 if member.exit_code is None else member.exit_code

    def kill(self, *names: str) -> None:
        """Ends nodes at once (SIGKILL), all before it waits for any of them."""
        members = [self.fleet.kill(name) for name in names]
        self._wait_end(members, KILL_SECONDS)

    def kill_all(self) -> None:
        """Ends all nodes at once."""
        self.kill(*(member.node.name for member in self.fleet.alive()))

    def stop_all(self) -> None:
        """Ends all nodes cleanly, at the same time; kills those that take too long."""
        fleet = self.fleet
        fleet.reap()
        for member in fleet.alive():
            fleet.terminate(member.node.name)
        if not self._wait_end(fleet.alive(), GRACE_SECONDS):
            self.kill_all()

    def pause(self, name: str) -> None:
        """Stops a node in its tracks (SIGSTOP)."""
        self.fleet.pause(name)

    def resume(self, name: str) -> None:
        """Lets a paused node go on."""
        self.fleet.resume(name)

    def reload(self, name: str) -> None:
        """Has a node read its configuration again (SIGHUP)."""
        self.fleet.reload(name)

    def set_clock(self, name: str, offset_ms: int) -> None:
        """Sets the clock of a node that `clock_offsets_ms` names."""
        self.fleet.set_clock(name, offset_ms)

    def add(self, *, wait: bool = True) -> str:
        """Adds a further full node, permitted by all that run, starts it, and returns its name."""
        return self._add("full", wait=wait)

    def _add(self, role: str, *, wait: bool) -> str:
        network = add_node(self.network, role=role)
        running = self.running
        (member,) = self.fleet.add(network)
        for other in running:
            self.fleet.reload(other)
        self.start(member.node.name, wait=wait)
        return member.node.name

    def add_validator(self, *, wait: bool = True) -> str:
        """Adds a node that follows until it has the chain, and has governance make it a validator; returns its name.

        With `wait` it is in force, by its own word, when this returns; else it follows and nothing is proposed yet.
        """
        name = self._add("validator", wait=True)
        if wait:
            self.wait_ready([name])
            self.seat(name)
        return name

    def seat(self, name: str) -> int:
        """Has governance make a node that follows a validator; returns the first height at which it is one."""
        return self._changed(name, "validator", lambda council: council.add(name))

    def remove_validator(self, name: str) -> int:
        """Has governance take a validator out of the set; returns the first height without it. The node goes on."""
        return self._changed(name, "full", lambda council: council.remove(name))

    def _changed(self, name: str, role: str, change: Callable[[Council], Changed]) -> int:
        with self.client() as client:
            from_height = change(Council(self.network, client)).from_height
        if name in self.running:
            self.wait_for(lambda: (self.status(name) or {}).get("role") == role, f"{name} is {role} by its own word")
        return from_height

    # Waiting

    def wait_for(
        self,
        condition: Callable[[], T],
        what: str,
        timeout_s: float = WAIT_SECONDS,
        *,
        alive: Iterable[str] = (),
    ) -> T:
        """Waits until `condition` returns something true, and returns that.

        Raises WaitedInVain after `timeout_s`, or as soon as one of the nodes in `alive` ends.
        """
        watched = list(alive)
        deadline = time.monotonic() + timeout_s
        while True:
            result = condition()
            if result:
                return result
            self.fleet.reap()
            dead = [name for name in watched if self.fleet.member(name).state not in ALIVE]
            if dead:
                raise WaitedInVain(self._report(f"{', '.join(dead)} ended while waiting until {what}"))
            if time.monotonic() > deadline:
                raise WaitedInVain(self._report(f"after {timeout_s:g} s it is not so that {what}"))
            time.sleep(POLL_SECONDS)

    def wait_ready(self, names: Sequence[str] | None = None, timeout_s: float = READY_SECONDS) -> None:
        """Waits until these nodes (all that run) are ready."""
        wanted = self.running if names is None else list(names)
        self.wait_for(
            lambda: all(self.readiness(name)[0] for name in wanted),
            f"{', '.join(wanted)} are ready",
            timeout_s,
            alive=wanted,
        )

    def wait_unready(self, name: str, reason: str, timeout_s: float = WAIT_SECONDS) -> None:
        """Waits until a node says that it is not ready for this reason."""
        self.wait_for(lambda: reason in self.readiness(name)[1], f"{name} is not ready for {reason}", timeout_s)

    def wait_height(self, height: int, names: Sequence[str] | None = None, timeout_s: float = WAIT_SECONDS) -> None:
        """Waits until these nodes (all that run) have a height or passed it."""
        wanted = self.running if names is None else list(names)

        def reached() -> bool:
            told = [self.status(name) for name in wanted]
            return all(status is not None and status["head"]["height"] >= height for status in told)

        self.wait_for(reached, f"{', '.join(wanted)} reach height {height}", timeout_s, alive=wanted)

    def wait_same_head(self, names: Sequence[str] | None = None, timeout_s: float = WAIT_SECONDS) -> dict[str, Any]:
        """Waits until these nodes (all that run) have the same head, and returns it; for a network without load."""
        wanted = self.running if names is None else list(names)
        head: dict[str, Any] = {}

        def same() -> bool:
            told = [self.status(name) for name in wanted]
            heads = [status["head"] for status in told if status is not None]
            head.update(heads[0] if heads else {})
            return len(heads) == len(wanted) and all(one == heads[0] for one in heads)

        self.wait_for(same, f"{', '.join(wanted)} have the same head", timeout_s, alive=wanted)
        return head

    def _wait_end(self, members: Sequence[Member], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while any(member.state in ALIVE for member in members):
            self.fleet.reap()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS / 4)
        return True

    def _report(self, text: str) -> str:
        lines = [text]
        for name, member in self.fleet.members.items():
            ready = self.readiness(name)[1] if member.state is State.RUNNING else ""
            lines.append(f"--- {name}: {member.state.value} {ready}, exit code {member.exit_code}; it said at last:")
            lines += [f"    {line}" for line in member.log[-10:]]
        return "\n".join(lines)
