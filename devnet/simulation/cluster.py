"""One run: machines, network, clients and checks, made from settings, until all is final or something is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from consensus.interface import Report, ReportKind
from consensus.messages import Kind, Message, decode_message, encode_message
from consensus.verify import verify_message
from devnet.simulation.attacker import Attacker
from devnet.simulation.chain import Chain
from devnet.simulation.checks import ALL_CHECKS, Check, CheckType, Violation
from devnet.simulation.conducts import CONDUCTS, Conduct
from devnet.simulation.durable import Promises, Records
from devnet.simulation.faults import Link, arm
from devnet.simulation.machine import Machine
from devnet.simulation.network import Network
from devnet.simulation.pool import Lane
from devnet.simulation.schedule import SECOND, Schedule
from devnet.simulation.schemes import play
from devnet.simulation.settings import CALM, CORRECT, Settings
from devnet.simulation.signatures import STAND_IN, Scheme, real
from devnet.simulation.trace import Trace, describe, describe_message
from devnet.simulation.twins import RoundGate
from devnet.simulation.variants import SOUND, Variant
from devnet.simulation.work import Executions
from devnet.simulation.world import world_of
from state.errors import DecodeError, InvariantError, Rejected
from state.execution import ExecutedBlock
from state.transaction import Transaction
from state.types import Certificate

WORLD: Final = -1


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
    checks: tuple[CheckType, ...] = (*ALL_CHECKS, Records, Promises),
) -> Result:
    """Runs a simulation to its end; `write` gets the lines of its trace, if given."""
    return Cluster(settings, variant, write, checks).run()


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
        self.world = world_of(settings.n, settings.leader_term)
        self.scheme: Scheme = real(self.world.secrets) if settings.exact else STAND_IN
        self.believed = variant.believed(self.world.validators)
        self.schedule = Schedule()
        self.counts: dict[str, int] = {}
        self._trace = None if write is None else Trace(write, lambda: self.schedule.now_us)
        self._correct = frozenset(settings.correct())
        self._proved: dict[int, tuple[Message, bool]] = {}
        self._last_left: tuple[Machine | None, Message | None] = (None, None)
        self._finished = False
        self._view = 0
        self.network = Network(self.schedule, self._rng("network"), settings.links, self._deliver)
        indexes = settings.machines()
        self.machines_of: dict[int, tuple[int, ...]] = {
            index: tuple(number for number, of in enumerate(indexes) if of == index) for index in range(settings.n)
        }
        self.machines = [
            Machine(self, number, index, self._rng(f"machine {number}")) for number, index in enumerate(indexes)
        ]
        self._judged = [machine for machine in self.machines if machine.index in self._correct]
        for machine, skew_ms in zip(self.machines, settings.skews_ms, strict=False):
            machine.skew_ms = skew_ms
        self.attacker: Attacker | None = None
        self._checks: list[Check] = [check(self) for check in checks]
        self._transactions: list[Transaction] = []
        self._unsent = [list(transfers) for transfers in self.world.transfers]
        self._clients = self._rng("clients")
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
            if not self.schedule.run(settings.heal_us + settings.recovery_us, lambda: self._finished):
                raise Violation("progress", self._what_is_missing())
        except Violation as broken:
            violation = broken
            self.trace(WORLD, "VIOLATION: {}", broken)
        height = max(machine.disk.chain.head.height for machine in self._judged)
        self.counts["sent"] = self.network.sent
        self.counts["actions"] = self.schedule.actions_done
        return Result(settings, self.variant.name, violation, self.schedule.now_us, height, self._view, self.counts)

    def _begin(self) -> None:
        self._submit_all()
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
        total = len(self._transactions)
        places = ", ".join(
            f"machine {machine.number}{'' if machine.up else ' (down)'} at height {machine.disk.chain.head.height} "
            f"with {len(machine.disk.chain.transactions)}"
            for machine in self._judged
        )
        after = self.settings.recovery_us // SECOND
        return f"of {total} transactions not all are final {after} s after healing: {places}"

    # ---- clients ----

    def _submit_all(self) -> None:
        for _ in range(self.settings.transactions):
            self._submit_at(self._clients.randrange(self.settings.submit_until_us))

    def _submit_at(self, time_us: int) -> None:
        """A client submits to anyone, asks anyone correct later on, and submits again while it is not final there."""
        rng = self._clients
        tx = rng.choice([transfers for transfers in self._unsent if transfers]).pop(0)
        self._transactions.append(tx)

        def submit() -> None:
            if tx.wire_hash in rng.choice(self._judged).disk.chain.transactions:
                return
            rng.choice(self.machines).submitted(tx)
            self.schedule.after(self.settings.resubmit_us, submit)

        self.schedule.at(time_us, submit)

    def _all_final(self) -> bool:
        """Whether all is final everywhere and the chain long enough; submits more if only that lacks."""
        total = len(self._transactions)
        if any(len(judged.disk.chain.transactions) != total for judged in self._judged):
            return False
        if max(judged.disk.chain.head.height for judged in self._judged) >= self.settings.heights_min:
            return True
        self._submit_at(self.schedule.now_us)
        return False

    def sequences(self, chain: Chain) -> dict[Lane, int]:
        """Returns the next sequence number of each lane of each account, as a chain has it."""
        accounts = ((address, self.world.ledger.read_account(chain, address)) for address in self.world.accounts)
        return {
            (address, lane): sequence
            for address, account in accounts
            if account is not None
            for lane, sequence in enumerate(account.lanes)
        }

    # ---- what machines tell ----

    def conduct_of(self, index: int, rng: random.Random) -> Conduct:
        """Returns how a validator behaves."""
        return CONDUCTS[self.settings.conducts[index]](rng)

    def _deliver(self, source: int, target: int, parcel: Any) -> None:
        self.machines[target].arrived(source, parcel)

    def proved(self, message: Message) -> bool:
        """Returns whether a message is true; what says no to a message of a correct validator is broken."""
        known = self._proved.get(id(message))
        if known is None:
            known = self._proved[id(message)] = (message, self._prove(message))
        return known[1]

    def _prove(self, message: Message) -> bool:
        try:
            read = decode_message(encode_message(message))
            verify_message(read, self.world.genesis.hash, lambda height: self.believed, self.scheme.verify)
        except (DecodeError, Rejected) as error:
            for check in self._checks if getattr(message, "sender", None) in self._correct else ():
                check.refused(message, error)
            return False
        if read != message:
            raise Violation("messages", f"{describe_message(message)} is read as another message")
        for check in self._checks:
            check.proved(message)
        return True

    def left(self, machine: Machine, message: Message) -> None:
        """A consensus message leaves a machine; each is looked at once for all whom it goes to."""
        last = self._last_left
        if machine.index in self._correct and (last[0] is not machine or last[1] is not message):
            self._last_left = (machine, message)
            for check in self._checks:
                check.left(machine, message)

    def started(self, machine: Machine) -> None:
        """A machine's process begins."""
        if machine.index in self._correct:
            for check in self._checks:
                check.started(machine)

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """A block became a machine's durable head."""
        if machine.index not in self._correct:
            return
        for check in self._checks:
            check.committed(machine, executed, certificate)
        self._view = max(self._view, certificate.view)
        self._finished = self._all_final()

    def halted(self, machine: Machine, error: InvariantError) -> None:
        """A machine stopped for good because an invariant is broken there."""
        self.trace(machine.number, "halts: {}", error)
        for check in self._checks if machine.index in self._correct else ():
            check.halted(machine, error)

    def reported(self, machine: Machine, report: Report) -> None:
        """A core reports: counted, never acted on."""
        name = report.kind.value if report.kind is ReportKind.REJECTED else f"{report.kind.value} {report.code}"
        if machine.index in self._correct:
            self.counts[name] = self.counts.get(name, 0) + 1

    # ---- trace ----

    def trace(self, machine: int, text: str, *values: object) -> None:
        """Adds a line to the trace, if one is kept."""
        if self._trace is not None:
            self._trace.line(machine, text.format(*values))

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

    def lose_records(self, machine: int, down_us: int) -> None:
        """Takes a machine's power and its vote records."""
        self.trace(machine, "loses its vote records")
        self.machines[machine].lose_records(down_us)

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
