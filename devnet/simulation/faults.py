"""What can go wrong outside the protocol, as data: a plan of faults is a tuple of these values.

Machines go by their number, links by (from, to). What a fault does to a running cluster is said in `arm`; when and
how often faults come is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from consensus.messages import Kind
from devnet.simulation.schedule import Schedule

Link: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """These links carry nothing for a while; one-way unless both directions are named."""

    at_us: int
    until_us: int
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Hush:
    """These links drop these kinds of consensus message for a while."""

    at_us: int
    until_us: int
    links: tuple[Link, ...]
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Crash:
    """These machines lose power at one moment, and each starts again after its own time in `down_us`."""

    at_us: int
    machines: tuple[int, ...]
    down_us: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CrashAtEffect:
    """A machine loses power once it has performed so many more effects, each single send counted."""

    at_us: int
    machine: int
    effects: int
    down_us: int


@dataclass(frozen=True, slots=True)
class LoseRecords:
    """A machine loses power and its vote records, and starts after `down_us`.

    It is recovered by the book: before that start, or, unless `recovered`, only once it runs and says that it cannot
    sign.
    """

    at_us: int
    machine: int
    down_us: int
    recovered: bool = True


@dataclass(frozen=True, slots=True)
class LoseQuorum:
    """Machines lose power and vote records at one moment, more than f of them: all operators act together."""

    at_us: int
    machines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoseDisk:
    """A machine loses power and all that it holds; it begins anew, recovered, after `down_us`."""

    at_us: int
    machine: int
    down_us: int


@dataclass(frozen=True, slots=True)
class Damage:
    """What a disk holds is not what was written: a record of the `chain`'s state, read while the process runs, or else
    of the votes, read when it starts again after `down_us`. The process stops by name; its operator goes by the book.
    """

    at_us: int
    machine: int
    down_us: int
    chain: bool


@dataclass(frozen=True, slots=True)
class Restore:
    """A machine is backed up, and set back to that later, while it loses power: what it signed since is forgotten."""

    at_us: int
    restored_us: int
    machine: int
    down_us: int


@dataclass(frozen=True, slots=True)
class FullDisk:
    """A disk has no room: a process that writes stops, and starts again once there is room."""

    at_us: int
    until_us: int
    machine: int


@dataclass(frozen=True, slots=True)
class Slow:
    """All of a machine's own work takes `factor` times as long."""

    at_us: int
    until_us: int
    machine: int
    factor: int


@dataclass(frozen=True, slots=True)
class Pause:
    """A machine stands still and later goes on as if nothing had been: what was sent to it meanwhile waits."""

    at_us: int
    until_us: int
    machine: int


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A machine's wall clock jumps; its monotonic clock does not."""

    at_us: int
    machine: int
    by_ms: int


Loss: TypeAlias = LoseRecords | LoseQuorum | LoseDisk | Damage | Restore
"""What makes a validator forget what it signed."""

LOSSES: Final = (LoseRecords, LoseQuorum, LoseDisk, Damage, Restore)

Fault: TypeAlias = Cut | Hush | Crash | CrashAtEffect | Loss | FullDisk | Slow | Pause | ClockStep


class Victims(Protocol):
    """What a cluster offers to faults."""

    schedule: Schedule

    def cut(self, links: tuple[Link, ...], by: int) -> None:
        """Blocks links once more (+1) or once less (-1)."""

    def crash(self, machine: int, down_us: int) -> None:
        """Takes a machine's power and gives it back after `down_us`."""

    def crash_after(self, machine: int, effects: int, down_us: int) -> None:
        """Takes a machine's power after so many effects."""

    def hush(self, links: tuple[Link, ...], kinds: tuple[Kind, ...], by: int) -> None:
        """Drops these kinds of message on links, once more (+1) or once less (-1)."""

    def lose_records(self, machine: int, down_us: int, recovered: bool) -> None:
        """Takes a machine's power and its vote records."""

    def lose_quorum(self, machines: tuple[int, ...]) -> None:
        """Takes these machines' power and vote records."""

    def lose_disk(self, machine: int, down_us: int) -> None:
        """Takes a machine's power and all that it holds."""

    def damage(self, machine: int, down_us: int, chain: bool) -> None:
        """Damages what a machine's disk holds."""

    def back_up(self, machine: int) -> None:
        """Copies a machine's disk."""

    def restore(self, machine: int, down_us: int) -> None:
        """Sets a machine back to its backup."""

    def fill_disk(self, machine: int, full: bool) -> None:
        """Lets a machine's disk have no room, or room again."""

    def slow(self, machine: int, factor: int) -> None:
        """Makes all of a machine's own work take so many times as long."""

    def pause(self, machine: int, until_us: int) -> None:
        """Stops a machine until a time."""

    def step_clock(self, machine: int, by_ms: int) -> None:
        """Moves a machine's wall clock."""


def arm(fault: Fault, victims: Victims) -> None:
    """Schedules a fault and its end."""
    at = victims.schedule.at
    match fault:
        case Cut(at_us, until_us, links):
            at(at_us, lambda: victims.cut(links, +1))
            at(until_us, lambda: victims.cut(links, -1))
        case Crash(at_us, machines, down_us):

            def fall() -> None:
                for machine, down in zip(machines, down_us, strict=True):
                    victims.crash(machine, down)

            at(at_us, fall)
        case CrashAtEffect(at_us, machine, effects, down):
            at(at_us, lambda: victims.crash_after(machine, effects, down))
        case Hush(at_us, until_us, links, kinds):
            at(at_us, lambda: victims.hush(links, kinds, +1))
            at(until_us, lambda: victims.hush(links, kinds, -1))
        case LoseRecords(at_us, machine, down, recovered):
            at(at_us, lambda: victims.lose_records(machine, down, recovered))
        case LoseQuorum(at_us, machines):
            at(at_us, lambda: victims.lose_quorum(machines))
        case LoseDisk(at_us, machine, down):
            at(at_us, lambda: victims.lose_disk(machine, down))
        case Damage(at_us, machine, down, chain):
            at(at_us, lambda: victims.damage(machine, down, chain))
        case Restore(at_us, restored_us, machine, down):
            at(at_us, lambda: victims.back_up(machine))
            at(restored_us, lambda: victims.restore(machine, down))
        case FullDisk(at_us, until_us, machine):
            at(at_us, lambda: victims.fill_disk(machine, True))
            at(until_us, lambda: victims.fill_disk(machine, False))
        case Slow(at_us, until_us, machine, factor):
            at(at_us, lambda: victims.slow(machine, factor))
            at(until_us, lambda: victims.slow(machine, 1))
        case Pause(at_us, until_us, machine):
            at(at_us, lambda: victims.pause(machine, until_us))
        case ClockStep(at_us, machine, by_ms):
            at(at_us, lambda: victims.step_clock(machine, by_ms))


def end_of(fault: Fault) -> int:
    """Returns when a fault is over, in us; a crash at an effect counts from its arming."""
    match fault:
        case Cut() | Hush() | Pause() | FullDisk() | Slow():
            return fault.until_us
        case Restore():
            return fault.restored_us + fault.down_us
        case Crash():
            return fault.at_us + max(fault.down_us)
        case CrashAtEffect() | LoseRecords() | LoseDisk() | Damage():
            return fault.at_us + fault.down_us
        case ClockStep() | LoseQuorum():
            return fault.at_us
