"""One run: machines, network, clients and checks, made from settings, until all is final or something is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from consensus.interface import Report, ReportKind
from consensus.messages import Decided, Kind, Message, decode_message, encode_message
from consensus.verify import verify_message
from devnet.simulation.attacker import Attacker
from devnet.simulation.chain import Chain
from devnet.simulation.checks import ALL_CHECKS, Check, CheckType, Violation
from devnet.simulation.clients import Clients
from devnet.simulation.conducts import Conduct
from devnet.simulation.council import Council
from devnet.simulation.disk import Disk
from devnet.simulation.durable import Promises, Records
from devnet.simulation.faults import Link, arm
from devnet.simulation.garbler import Garbler
from devnet.simulation.liars import CONDUCTS
from devnet.simulation.machine import Machine
from devnet.simulation.network import Network
from devnet.simulation.operators import Operators
from devnet.simulation.schedule import SECOND, Schedule
from devnet.simulation.schemes import play
from devnet.simulation.settings import CALM, CORRECT, GARBLER, Settings
from devnet.simulation.signatures import STAND_IN, Scheme, real
from devnet.simulation.trace import Trace, describe, describe_end, describe_message
from devnet.simulation.twins import RoundGate
from devnet.simulation.variants import SOUND, Variant
from devnet.simulation.work import Executions
from devnet.simulation.world import world_of
from state.errors import DecodeError, InvariantError, Rejected
from state.execution import ExecutedBlock
from state.store.errors import StoreError
from state.types import Certificate, ValidatorSet

WORLD: Final = -1
LAWS: Final[tuple[CheckType, ...]] = (*ALL_CHECKS, Records, Promises)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `violation` is None when every law held and everything became final in time."""

    settings: Settings
    variant: str
    violation: Violation | None
    time_us: int
    height: int
    view: int
    counts: dict[str, int] = field(default_factory=dict)


def run(
    settings: Settings,
    variant: Variant = SOUND,
    write: Callable[[str], None] | None = None,
    checks: tuple[CheckType, ...] = LAWS,
) -> Result:
    """Runs a simulation to its end; `write` gets the lines of its trace, if given."""
    cluster = Cluster(settings, variant, write, checks)
    try:
        return cluster.run()
    finally:
        cluster.close()


class Cluster:
    """All machines of a run and what they share."""

    def __init__(
        self,
        settings: Settings,
        variant: Variant,
        write: Callable[[str], None] | None,
        checks: tuple[CheckType, ...],
    ) -> None:
        self.settings = settings
        self.variant = variant
        self.world = world_of(settings.n, settings.leader_term, settings.drift_ms)
        self.scheme: Scheme = real(self.world.secrets) if settings.exact else STAND_IN
        self.schedule = Schedule()
        self.counts: dict[str, int] = {}
        self._trace = None if write is None else Trace(write, lambda: self.schedule.now_us)
        self.traced = write is not None
        self._correct = frozenset(settings.correct())
        self._proved: dict[tuple[int, int], tuple[Message, bool]] = {}
        self._said: dict[int, Message] = {}
        self._last_left: tuple[Machine | None, Message | None] = (None, None)
        self._view = 0
        self.network = Network(self.schedule, self._rng("network"), settings.links, settings.regions)
        who = settings.machines()
        self.identities = tuple(sorted(set(who)))
        self.machines_of: dict[int, tuple[int, ...]] = {
            one: tuple(number for number, of in enumerate(who) if of == one) for one in self.identities
        }
        self._whose = {key: one for one, key in enumerate(self.world.keys)}
        self._sets: list[tuple[int, ValidatorSet]] = [(1, self.world.validators)]
        self._believed = {1: variant.believed(self.world.validators)}
        self._voters = self._correct - {who[number] for number in settings.excused()}
        self.operators = Operators(self)
        self.machines = [Machine(self, number, one, self._rng(f"machine {number}")) for number, one in enumerate(who)]
        self.network.join([machine.arrived for machine in self.machines])
        self._judged = [machine for machine in self.machines if machine.who in self._correct]
        for machine, skew_ms in zip(self.machines, settings.skews_ms, strict=False):
            machine.skew_ms = skew_ms
        self.attacker: Attacker | None = None
        self._checks: list[Check] = [check(self) for check in checks]
        self._leavers = [check for check in self._checks if type(check).left is not Check.left]
        self._provers = [check for check in self._checks if type(check).proved is not Check.proved]
        self._hearers = [check for check in self._checks if type(check).heard is not Check.heard]
        self._reporters = [check for check in self._checks if type(check).reported is not Check.reported]
        self.clients = Clients(self, self._rng("clients"), self._judged)
        self.council = Council(self)
        self._backups: dict[int, Disk] = {}
        self.executions = Executions(settings.exact)

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.settings.seed} {purpose}")

    # ---- the run ----

    def run(self) -> Result:
        """Runs until all is final, a law is broken, or the time is up."""
        settings = self.settings
        violation: Violation | None = None
        try:
            self._begin()
            if not self.schedule.run(settings.heal_us + settings.recovery_us):
                raise Violation("progress", self._what_is_missing())
        except Violation as broken:
            violation = broken
            self._trace_ends()
            self.trace(WORLD, "VIOLATION: {}", broken)
        height = max(machine.disk.chain.head.height for machine in self._judged)
        self.counts["sent"] = self.network.sent
        self.counts["actions"] = self.schedule.actions_done
        return Result(settings, self.variant.name, violation, self.schedule.now_us, height, self._view, self.counts)

    def close(self) -> None:
        """Lets go of everything: all that refers back does so through these, and to find that out later costs a fifth
        of a run's time.
        """
        self.schedule.clear()
        for machine in self.machines:
            vars(machine).clear()
        vars(self).clear()

    def _begin(self) -> None:
        self.clients.begin()
        for reform in self.settings.reforms:
            self.schedule.at(reform.at_us, partial(self.council.propose, reform))
        for fault in self.settings.faults:
            arm(fault, self)
        self.schedule.at(self.settings.heal_us, self._heal)
        for machine in self.machines:
            self.schedule.after(0, machine.start)
        if self.settings.rounds:
            self.network.gate = RoundGate(self.settings.rounds)
        if self.settings.schemes:
            self.attacker = self.network.gate = Attacker(self, self._rng("attacker"))
            self.schedule.after(0, self._attack)

    def _attack(self) -> None:
        if self.attacker is not None:
            self.attacker.play(play(self.attacker, self.settings.schemes))

    def _heal(self) -> None:
        self.trace(WORLD, "heals")
        self.network.links = CALM
        self.network.gate = None
        if self.attacker is not None:
            self.attacker.stop()

    def _what_is_missing(self) -> str:
        places = ", ".join(
            f"machine {machine.number}{'' if machine.up else ' (down)'} at height {machine.disk.chain.head.height} "
            f"lacking {self.clients.missing(machine.disk.chain)}"
            for machine in self._judged
        )
        after = self.settings.recovery_us // SECOND
        return f"not all transactions are final {after} s after healing: {places}"

    # ---- what machines tell ----

    def key_of(self, who: int) -> bytes | None:
        """Returns an identity's public consensus key; followers have none."""
        return self.world.keys[who] if who < self.settings.n + self.settings.spares else None

    def who_of(self, key: bytes) -> int:
        """Returns whose consensus key this is."""
        return self._whose[key]

    def conduct_of(self, who: int, rng: random.Random) -> Conduct:
        """Returns how an identity behaves as a validator."""
        conducts = self.settings.conducts
        name = conducts[who] if who < len(conducts) else CORRECT
        return Garbler(rng) if name == GARBLER else CONDUCTS[name](rng)

    def is_correct(self, who: int) -> bool:
        """Returns whether an identity does what its core says."""
        return who in self._correct

    def newest_chain(self) -> Chain:
        """Returns the longest chain of all correct machines."""
        return max((machine.disk.chain for machine in self._judged), key=lambda chain: chain.head.height)

    @property
    def sets_changed(self) -> bool:
        """Whether the validators are no longer those of genesis."""
        return len(self._sets) > 1

    def kept_records(self, machine: Machine) -> bool:
        """Returns whether a machine is a correct validator's that never lost a vote record."""
        return machine.who in self._voters and not machine.disk.harmed

    def since(self, height: int) -> int:
        """Returns the first height of the validator set of a height."""
        return self._rule(height)[0]

    def set_at(self, height: int) -> ValidatorSet:
        """Returns the validator set in force at a height, as far as anybody correct has come."""
        return self._rule(height)[1]

    def believed_at(self, height: int) -> ValidatorSet:
        """Returns the same set, with the quorum that the variant under test holds for enough."""
        return self._believed[self._rule(height)[0]]

    def _rule(self, height: int) -> tuple[int, ValidatorSet]:
        for rule in reversed(self._sets):
            if rule[0] <= height:
                return rule
        return self._sets[0]

    def proved(self, machine: Machine, message: Message) -> bool:
        """Returns whether a message is true for a machine; what says no to one of a correct validator is broken.

        Everyone who knows the same sets says the same, so that it is proved once for all of them.
        """
        height = message.certificate.height if isinstance(message, Decided) else message.height
        known_to = min(height, machine.disk.chain.head.height + 1)
        key = (id(message), self.since(known_to) if self.sets_changed else 1)
        known = self._proved.get(key)
        if known is None:
            known = self._proved[key] = (message, self._prove(message, height, known_to))
        return known[1]

    def _prove(self, message: Message, height: int, known_to: int) -> bool:
        try:
            read = decode_message(encode_message(message))
            verify_message(
                read,
                self.world.genesis.hash,
                lambda height: self.believed_at(min(height, known_to)),
                self.scheme.verify,
            )
        except (DecodeError, Rejected) as error:
            for check in (
                self._checks if id(message) in self._said and self.since(height) == self.since(known_to) else ()
            ):
                check.refused(message, error)
            return False
        if read != message:
            raise Violation("messages", f"{describe_message(message)} is read as another message")
        for check in self._provers:
            check.proved(message)
        return True

    def left(self, machine: Machine, message: Message) -> None:
        """A consensus message leaves a machine; each is looked at once for all whom it goes to."""
        last = self._last_left
        if machine.who in self._voters and (last[0] is not machine or last[1] is not message):
            self._last_left = (machine, message)
            if machine.own(message):
                self._said[id(message)] = message
            for check in self._leavers:
                check.left(machine, message)

    def started(self, machine: Machine) -> None:
        """A machine's process begins."""
        if machine.who in self._correct:
            for check in self._checks:
                check.started(machine)

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """A block became a machine's durable head."""
        if machine.who not in self._correct:
            return
        height = executed.block.header.height
        if executed.validators_next.hash != self._sets[-1][1].hash and height >= self._sets[-1][0]:
            self._sets.append((height + 1, executed.validators_next))
            self.count("sets changed")
            self._believed[height + 1] = self.variant.believed(executed.validators_next)
            names = [validator.name for validator in executed.validators_next.validators]
            self.trace(WORLD, "from height {} on the validators are {}", height + 1, names)
        for check in self._checks:
            check.committed(machine, executed, certificate)
        if self.settings.reforms:
            self.council.committed(machine.disk.chain)
        self._view = max(self._view, certificate.view)
        self.schedule.finished = self.clients.all_final()

    def halted(self, machine: Machine, error: InvariantError) -> None:
        """A machine stopped for good because an invariant is broken there."""
        self.trace(machine.number, "halts: {}", error)
        if isinstance(error, StoreError) and (machine.disk.harmed or machine.disk.full):
            self.count(f"stopped {error.code}")
            self.operators.stopped(machine, error)
            return
        for check in self._checks if machine.who in self._correct else ():
            check.halted(machine, error)

    def heard(self, machine: Machine, message: Message) -> None:
        """A machine's core has taken a message in."""
        if machine.who in self._correct:
            for check in self._hearers:
                check.heard(machine, message)

    def reported(self, machine: Machine, report: Report) -> None:
        """A core reports: counted. Operators act on one report alone."""
        if machine.who not in self._correct:
            return
        self.count(report.kind.value if report.kind is ReportKind.REJECTED else f"{report.kind.value} {report.code}")
        for check in self._reporters:
            check.reported(machine, report)
        if report.kind is ReportKind.SIGNING and report.code == "records_lost":
            self.operators.cannot_sign(machine, chain_intact=False)

    def count(self, name: str) -> None:
        """Counts something that happened."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def forgets(self, machine: Machine) -> None:
        """A machine's disk was lost or set back: what it held before counts no more."""
        for check in self._checks:
            check.forgets(machine)

    # ---- trace ----

    def trace(self, machine: int, text: str, *values: object) -> None:
        """Adds a line to the trace, if one is kept."""
        if self._trace is not None:
            self._trace.line(machine, text.format(*values))

    def _trace_ends(self) -> None:
        """Tells where each machine stands, as the last word before what went wrong."""
        for machine in self.machines if self._trace is not None else ():
            self.trace(machine.number, "{}", describe_end(machine.core.snapshot()) if machine.up else "is down")

    def trace_core(self, machine: int, value: object) -> None:
        """Adds an input or effect of a core to the trace, if one is kept."""
        if self._trace is not None:
            self._trace.line(machine, describe(value))

    # ---- what faults do ----

    def cut(self, links: tuple[Link, ...], by: int) -> None:
        """Blocks links once more or once less."""
        self.trace(WORLD, "{} links {}", "cuts" if by > 0 else "mends", links)
        self.network.cut(links, by)

    def crash(self, machine: int, down_us: int) -> None:
        """Takes a machine's power for a while."""
        self.machines[machine].lose_power(down_us)

    def crash_after(self, machine: int, effects: int, down_us: int) -> None:
        """Takes a machine's power after so many effects."""
        self.machines[machine].die_after(effects, down_us)

    def lose_records(self, machine: int, down_us: int, recovered: bool) -> None:
        """Takes a machine's power and its vote records."""
        self.trace(machine, "loses its vote records")
        self.machines[machine].lose_records(down_us, recovered=recovered)

    def lose_quorum(self, machines: tuple[int, ...]) -> None:
        """Takes these machines' power and vote records."""
        self.trace(WORLD, "machines {} lose their vote records", machines)
        for number in machines:
            self.machines[number].stop()
            self.machines[number].disk.lose_records()
        self.operators.lost_quorum([self.machines[number] for number in machines])

    def lose_disk(self, machine: int, down_us: int) -> None:
        """Takes a machine's power and all that it holds."""
        self.trace(machine, "loses its disk")
        self.machines[machine].lose_disk(down_us)

    def damage(self, machine: int, down_us: int, chain: bool) -> None:
        """Damages what a machine's disk holds."""
        self.trace(machine, "has its {} damaged", "state" if chain else "vote records")
        self.machines[machine].damage(down_us, chain=chain)

    def back_up(self, machine: int) -> None:
        """Copies a machine's disk."""
        self.trace(machine, "is backed up")
        self._backups[machine] = self.machines[machine].disk.backup()

    def restore(self, machine: int, down_us: int) -> None:
        """Sets a machine back to its backup."""
        self.trace(machine, "is restored from its backup")
        self.machines[machine].restore(self._backups[machine], down_us)

    def fill_disk(self, machine: int, full: bool) -> None:
        """Lets a machine's disk have no room, or room again."""
        self.trace(machine, "has {} its disk", "no room on" if full else "room again on")
        self.machines[machine].disk.full = full

    def slow(self, machine: int, factor: int) -> None:
        """Makes all of a machine's own work take so many times as long."""
        self.trace(machine, "works {} times as slowly", factor)
        self.machines[machine].slowness = factor

    def hush(self, links: tuple[Link, ...], kinds: tuple[Kind, ...], by: int) -> None:
        """Drops these kinds of message on links, or no longer."""
        self.trace(WORLD, "{} {} on {}", "drops" if by > 0 else "lets pass", [kind.name for kind in kinds], links)
        self.network.hush(links, kinds, by)

    def pause(self, machine: int, until_us: int) -> None:
        """Stops a machine until a time."""
        self.trace(machine, "pauses")
        self.machines[machine].pause(until_us)

    def step_clock(self, machine: int, by_ms: int) -> None:
        """Moves a machine's wall clock."""
        self.trace(machine, "has its clock moved by {} ms", by_ms)
        self.machines[machine].skew_ms += by_ms


def correct_only(n: int) -> tuple[str, ...]:
    """Returns the conducts of `n` correct validators."""
    return (CORRECT,) * n
