"""The foreground launcher: starts all nodes of a network at once, shows them, takes commands, and ends them at last.

It never starts a node by itself that ended: whoever tests a network must be able to see what a dead node does to it.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from devnet import control
from devnet.council import Changed, Council
from devnet.files import held_lock, rpc_url
from devnet.fleet import ALIVE, End, Fleet, Member, State
from devnet.http import HttpLink
from devnet.prepare import add_node
from devnet.show import Show
from devnet.watch import Watch, look_at_all, unready
from qenex_node.client.blocking import Client
from qenex_node.client.errors import TransportError
from state.errors import JsonValue, Rejected

READY_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 10.0
KILL_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05
STATUS_SECONDS: Final = 1.0

Handler = Callable[[str], Awaitable[dict[str, JsonValue]]]


class Launcher:
    """Runs one fleet from start to end; `run` is its whole life."""

    def __init__(self, fleet: Fleet, show: Show, *, grace_s: float = GRACE_SECONDS) -> None:
        """Takes nodes that do not run yet; `grace_s` is how long a node may take to end cleanly."""
        self._fleet = fleet
        self._show = show
        self._grace_s = grace_s
        self._home = fleet.network.directory
        self._watches: dict[str, Watch] = {}
        self._ended = trio.Event()
        self._hurry = trio.Event()
        self._handlers: dict[str, Handler] = {
            "stop": self._stop,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "start": self._start,
            "add": self._add,
            "add-validator": self._add_validator,
            "remove-validator": self._remove_validator,
        }

    async def run(self) -> None:
        """Starts all nodes and serves until SIGINT, SIGTERM or SIGHUP; then, or on failure, ends all nodes.

        Raises Rejected("node_ended") or Rejected("devnet_not_ready") if the network does not come up.
        """
        failure: Rejected | None = None
        with (
            trio.open_signal_receiver(signal.SIGCHLD) as deaths,
            trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stops,
        ):
            async with trio.open_nursery() as nursery:
                work = trio.CancelScope()
                nursery.start_soon(self._reap_on, deaths)
                nursery.start_soon(self._stop_on, stops, work)
                try:
                    with work:
                        await self._serve()
                except Rejected as error:
                    failure = error
                finally:
                    with trio.CancelScope(shield=True):
                        await self._end_all()
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _serve(self) -> None:
        fleet = self._fleet
        fleet.unpublish()
        self._show.event("starting", f"starting {len(fleet.members)} nodes in {self._home}", home=str(self._home))
        began = trio.current_time()
        for name in fleet.members:
            fleet.start(name)
        await self._until_ready()
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, self._home, self.handle)
            fleet.publish()
            seconds = trio.current_time() - began
            self._show.event("ready", f"all nodes are ready after {seconds:.1f} s", seconds=round(seconds, 2))
            while True:
                self._show.status(await look_at_all(self._watches, fleet))
                await trio.sleep(STATUS_SECONDS)

    async def _until_ready(self) -> None:
        """Waits until every node is ready; raises Rejected if one ends before, or none of it happens in time."""
        deadline = trio.current_time() + READY_SECONDS
        while True:
            await look_at_all(self._watches, self._fleet)
            dead = [member for member in self._fleet.members.values() if member.state not in ALIVE]
            if dead:
                raise _ended_at_start(dead[0])
            waiting = unready(self._watches.values())
            if not waiting:
                return
            if trio.current_time() > deadline:
                why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in waiting.items())
                raise Rejected(
                    "devnet_not_ready", f"after {READY_SECONDS:g} s not all nodes are ready ({why})", waiting
                )
            await trio.sleep(POLL_SECONDS)

    async def _reap_on(self, deaths: Any) -> None:
        async for _ in deaths:
            for end in self._fleet.reap():
                self._tell_end(end)
            ended, self._ended = self._ended, trio.Event()
            ended.set()

    def _tell_end(self, end: End) -> None:
        how = f"signal {-end.exit_code}" if end.exit_code < 0 else f"exit code {end.exit_code}"
        last = [] if end.wanted else self._fleet.member(end.name).log
        text = f"{end.name} ended ({how})"
        if last:
            text = "\n    ".join([f"{text}; it said at last:", *last[-6:]])
        self._show.event("node_ended", text, name=end.name, exit_code=end.exit_code, wanted=end.wanted, log=last)

    async def _stop_on(self, stops: Any, work: trio.CancelScope) -> None:
        async for _ in stops:
            if work.cancel_called:
                self._hurry.set()
            work.cancel()

    async def _end_all(self) -> None:
        """Ends all nodes: cleanly within the grace, else, or on a second signal, at once."""
        fleet = self._fleet
        for watch in self._watches.values():
            watch.close()
        if fleet.alive():
            self._show.event("stopping", "stopping all nodes")
        for member in fleet.alive():
            fleet.terminate(member.node.name)
        with trio.move_on_after(self._grace_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_on_hurry, nursery.cancel_scope)
                await self._until_ended(list(fleet.alive()))
                nursery.cancel_scope.cancel()
        for member in fleet.alive():
            fleet.kill(member.node.name)
        with trio.move_on_after(KILL_SECONDS):
            await self._until_ended(list(fleet.alive()))
        self._show.event("stopped", "all nodes have ended", left=[member.node.name for member in fleet.alive()])

    async def _cancel_on_hurry(self, scope: trio.CancelScope) -> None:
        await self._hurry.wait()
        scope.cancel()

    async def _until_ended(self, members: list[Member]) -> None:
        while any(member.state in ALIVE for member in members):
            await self._ended.wait()

    async def handle(self, request: dict[str, Any]) -> dict[str, JsonValue]:
        """Carries out one command of the control socket; raises Rejected."""
        op = request["op"]
        if op == "clock":
            return self._set_clock(request)
        if op == "nodes":
            return {"nodes": [watch.sample.to_json() for watch in self._watches.values()]}
        handler = self._handlers.get(op)
        if handler is None:
            known = ", ".join(["nodes", "clock", *self._handlers])
            raise Rejected("op_unknown", f"there is no command {op!r}; there are {known}")
        return await handler(request.get("name", ""))

    async def _stop(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.terminate(name)
        with trio.move_on_after(self._grace_s):
            await self._until_ended([member])
        if member.state in ALIVE:
            self._fleet.kill(name)
            await self._until_ended([member])
        return _told(member)

    async def _kill(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.kill(name)
        await self._until_ended([member])
        return _told(member)

    async def _pause(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.pause(name)
        self._show.event("node_paused", f"{name} is paused", name=name)
        return _told(member)

    async def _resume(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.resume(name)
        self._show.event("node_resumed", f"{name} goes on", name=name)
        return _told(member)

    def _set_clock(self, request: dict[str, Any]) -> dict[str, JsonValue]:
        name, offset_ms = request.get("name", ""), request.get("offset_ms")
        if type(offset_ms) is not int:
            raise Rejected("malformed", '"offset_ms" is a whole number')
        member = self._fleet.set_clock(name, offset_ms)
        self._show.event("clock_set", f"{name}'s clock is {offset_ms:+} ms off", name=name, offset_ms=offset_ms)
        return {**_told(member), "offset_ms": offset_ms}

    async def _start(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.start(name)
        self._show.event("node_started", f"{name} was started as process {member.pid}", name=name, pid=member.pid)
        await self._until_answering(member)
        return _told(member)

    async def _add(self, name: str) -> dict[str, JsonValue]:
        return await self._join(name, "full")

    async def _join(self, name: str, role: str) -> dict[str, JsonValue]:
        network = await trio.to_thread.run_sync(partial(add_node, role=role), self._fleet.network, name or None)
        running = self._fleet.alive()
        (member,) = self._fleet.add(network)
        added = member.node.name
        for other in running:
            self._fleet.reload(other.node.name)
        self._show.event("node_added", f"{added} joins", name=added)
        return await self._start(added)

    async def _add_validator(self, name: str) -> dict[str, JsonValue]:
        """Adds a node, lets it fetch the chain as a full node, and has governance make it a validator."""
        told = await self._join(name, "validator")
        added = str(told["name"])
        await self._until_synced(added)
        return told | await self._decide(added, "is a validator", lambda council: council.add(added))

    async def _remove_validator(self, name: str) -> dict[str, JsonValue]:
        member = self._fleet.member(name)
        return _told(member) | await self._decide(name, "is no validator", lambda council: council.remove(name))

    async def _decide(self, name: str, becomes: str, change: Callable[[Council], Changed]) -> dict[str, JsonValue]:
        """Has the validators decide on a change, told as what the node `becomes`; asks the running nodes in turn."""
        urls = [rpc_url(member.node) for member in self._fleet.alive() if member.state is State.RUNNING]

        def decide() -> Changed:
            with Client(*urls) as client:
                return change(Council(self._fleet.network, client))

        changed = await trio.to_thread.run_sync(decide, abandon_on_cancel=True)
        self._show.event(
            "validators_changed",
            f"{name} {becomes} from height {changed.from_height} on",
            name=name,
            from_height=changed.from_height,
        )
        return {"proposal": changed.proposal, "from_height": changed.from_height}

    async def _until_synced(self, name: str) -> None:
        """Waits until a node is ready; raises Rejected("timeout")."""
        link = HttpLink(self._fleet.member(name).node.ports.rpc)
        try:
            with trio.move_on_after(READY_SECONDS):
                while True:
                    with suppress(TransportError):
                        if (await link.get("/ready"))[0] == 200:
                            return
                    await trio.sleep(POLL_SECONDS)
        finally:
            link.close()
        raise Rejected("timeout", f"{name} has not caught up with the chain after {READY_SECONDS:g} s")

    async def _until_answering(self, member: Member) -> None:
        """Waits until a node answers; raises Rejected if it ends before or takes too long."""
        link = HttpLink(member.node.ports.rpc)
        name = member.node.name
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                while member.state in ALIVE:
                    try:
                        status, _ = await link.get("/health")
                        if status == 200:
                            return
                    except TransportError:
                        pass
                    await trio.sleep(POLL_SECONDS)
        finally:
            link.close()
        if member.state in ALIVE:
            raise Rejected("timeout", f"{name} runs but does not answer after {ANSWER_SECONDS:g} s")
        raise _ended_at_start(member)


def _told(member: Member) -> dict[str, JsonValue]:
    return {
        "name": member.node.name,
        "state": member.state.value,
        "pid": member.pid,
        "exit_code": member.exit_code,
    }


def _ended_at_start(member: Member) -> Rejected:
    lines: list[JsonValue] = list(member.log)
    said = "\n    ".join(["it said at last:", *map(str, lines)]) if lines else "it said nothing"
    return Rejected(
        "node_ended",
        f"{member.node.name} ended at its start (exit code {member.exit_code}); {said}",
        {"name": member.node.name, "exit_code": member.exit_code, "log": lines},
    )


def launch(home: Path, make_fleet: Callable[[], Fleet], show: Show) -> None:
    """Holds the home's lock, makes the network's fleet and runs it to its end."""
    with held_lock(home):
        fleet = make_fleet()
        try:
            trio.run(Launcher(fleet, show).run)
        finally:
            show.close()
