"""Everything that a run depends on, as one value: a seed's settings can be printed, changed and run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devnet.simulation.attacks import Groups, Scheme
from devnet.simulation.faults import ClockStep, Damage, Fault, LoseDisk, Restore
from devnet.simulation.schedule import MS, SECOND

HEIGHTS_MIN: Final = 10
CORRECT: Final = "correct"
TWIN: Final = "twin"
GARBLER: Final = "garbler"
PUPPET: Final = "puppet"


@dataclass(frozen=True, slots=True)
class Links:
    """How messages travel: each takes `delay_us` plus up to `jitter_us`; probabilities are per message."""

    delay_us: int = 1 * MS
    jitter_us: int = 2 * MS
    loss: float = 0.0
    duplication: float = 0.0
    straying: float = 0.0
    stray_us: int = 500 * MS


CALM: Final = Links()


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a machine's own work takes, and the core's timers."""

    write_us: int = 1 * MS
    build_us: int = 1 * MS
    execute_us: int = 1 * MS
    silence_heights: int = 0
    silence_quiet_ms: int = 1_000
    progress_timeout_ms: int = 300
    progress_timeout_max_ms: int = 2_400
    status_interval_ms: int = 500
    status_busy_ms: int = 150


ADD: Final = "add"
REMOVE: Final = "remove"
REPLACE: Final = "replace"


@dataclass(frozen=True, slots=True)
class Reform:
    """A change of the validator set that is proposed at a time: `who` is to come or to go, `by` takes over from it.

    It is to be in force `ahead` heights after the head of then, 0: as soon as it is accepted.
    """

    at_us: int
    change: str
    who: int
    by: int | None = None
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """One run.

    `conducts` names how each validator of genesis behaves. Machine i < n is that of identity i; twins' second machines
    have the next numbers, then come those of `spares`, who are no validators at genesis, and of `followers`, who have
    no key at all. `links` hold until `heal_us`, when the last fault is over too; from then on links are calm, and
    everything submitted must be final everywhere within `recovery_us`. Clients go on submitting until `heights_min`
    heights are reached; `hasty` transactions may expire. Machines stand in `regions`, in turn. Until `heal_us` too,
    `rounds` part the machines view by view, or an attacker plays `schemes`. In an `exact` run signatures are real ones,
    and every machine executes every block itself.
    """

    seed: int
    conducts: tuple[str, ...]
    leader_term: int = 0
    drift_ms: int = 5_000
    links: Links = CALM
    timing: Timing = Timing()
    faults: tuple[Fault, ...] = ()
    heal_us: int = 5 * SECOND
    recovery_us: int = 20 * SECOND
    transactions: int = 24
    block_transactions_max: int = 4
    submit_until_us: int = 4 * SECOND
    resubmit_us: int = 1_500 * MS
    skews_ms: tuple[int, ...] = ()
    spares: int = 0
    followers: int = 0
    regions: tuple[int, ...] = ()
    hasty: int = 0
    reforms: tuple[Reform, ...] = ()
    heights_min: int = HEIGHTS_MIN
    exact: bool = False
    rounds: tuple[Groups, ...] = ()
    schemes: tuple[Scheme, ...] = ()

    @property
    def n(self) -> int:
        """The number of validators at genesis."""
        return len(self.conducts)

    def machines(self) -> tuple[int, ...]:
        """Returns the identity of each machine, by the machine's number."""
        twins = [who for who, conduct in enumerate(self.conducts) if conduct == TWIN]
        return (*range(self.n), *twins, *range(self.n, self.n + self.spares + self.followers))

    def excused(self) -> frozenset[int]:
        """Returns the machines whose own votes may contradict each other through no fault of the protocol.

        A backup says nothing of what was signed since; and who lost the end of the chain goes by its clock.
        """
        restored = {fault.machine for fault in self.faults if isinstance(fault, Restore)}
        jumped = {fault.machine for fault in self.faults if isinstance(fault, ClockStep)}
        timed = {fault.machine for fault in self.faults if isinstance(fault, LoseDisk | Damage)}
        return frozenset(restored | (jumped & timed))

    def correct(self) -> tuple[int, ...]:
        """Returns the correct identities, spares and followers among them."""
        faithful = tuple(who for who, conduct in enumerate(self.conducts) if conduct == CORRECT)
        return (*faithful, *range(self.n, self.n + self.spares + self.followers))
