"""An attacker that sees every message and owns the network, and with it the keys of up to f validators: its puppets.

Here is what it can do; what it does with that is a script, one of `schemes`. It cannot forge a signature, look into a
disk or a core, nor keep a message from coming again once the network heals. Puppets follow their cores while no scheme
is played, and say what the attacker says while one is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from consensus.messages import Kind, Message, NewView, PrePrepare, Suspect, ViewChange, Vote
from consensus.rules import Rules
from devnet.simulation.conducts import signed
from devnet.simulation.parcels import Parcel, Spoken
from devnet.simulation.schedule import MS
from devnet.simulation.settings import PUPPET
from state.hashing import Hash
from state.types import Certificate, Height, TimeMs, View

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster

SPEED_US: Final = 300
HELD_MAX: Final = 2_000
SOUND_RULES: Final = Rules()

Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Until:
    """What a script waits for: until `holds`, looked at with each message (and each `poll_us`), or the time is up."""

    holds: Callable[[], bool]
    timeout_us: int
    poll_us: int = 0


Script: TypeAlias = Generator[Until, bool, None]


class Attacker:
    """The gate of a run with schemes. Machine i is validator i's: an attacker and twins are not mixed."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        conducts = cluster.settings.conducts
        self.puppets = tuple(index for index, conduct in enumerate(conducts) if conduct == PUPPET)
        self.correct = tuple(index for index in range(len(conducts)) if index not in self.puppets)
        self.validators = cluster.world.validators
        self.rule: Callable[[int, int, Any, Kind | None], bool] | None = None
        self.speaks = False
        self.heard: Callable[[Message], None] | None = None
        self.proposals: dict[Place, list[PrePrepare]] = {}
        self.votes: dict[tuple[Kind, int, int, Hash], dict[int, Vote]] = {}
        self.changes: dict[int, dict[int, dict[int, ViewChange]]] = {}
        self.opened: dict[int, NewView] = {}
        self._held: list[tuple[int, int, Parcel]] = []
        self._last: Message | None = None
        self._script: Script | None = None
        self._waits: Until | None = None
        self._serial = 0
        self._woken = False

    # ---- the script ----

    def play(self, script: Script) -> None:
        """Plays a script from its first line on."""
        self._script = script
        self._advance(None)

    def stop(self) -> None:
        """Ends the script, wherever it is, and lets everything pass."""
        self._serial += 1
        self._waits = self._script = None
        self.rest()

    def _advance(self, result: bool | None) -> None:
        self._serial += 1
        self._waits = None
        if self._script is None:
            return
        try:
            self._waits = wait = next(self._script) if result is None else self._script.send(result)
        except StopIteration:
            self._script = None
            self.rest()
            return
        serial, schedule = self._serial, self.cluster.schedule
        schedule.after(wait.timeout_us, lambda: self._advance(False) if serial == self._serial else None)
        if wait.poll_us:
            schedule.after(wait.poll_us, lambda: self._poll(serial))
        self._wake()

    def _poll(self, serial: int) -> None:
        if serial != self._serial or self._waits is None:
            return
        self.cluster.schedule.after(self._waits.poll_us, lambda: self._poll(serial))
        self._look()

    def _wake(self) -> None:
        if not self._woken and self._waits is not None:
            self._woken = True
            self.cluster.schedule.after(0, self._look)

    def _look(self) -> None:
        self._woken = False
        if self._waits is not None and self._waits.holds():
            self._advance(True)

    # ---- what it sees, and whether it lets it pass ----

    def takes(self, source: int, target: int, message: Any, kind: Kind | None) -> bool:
        """Notes what is said; keeps what its rule does not let pass."""
        if isinstance(message, Spoken):
            self._note(message.message)
        if self.rule is None or self.rule(source, target, message, kind):
            return False
        if len(self._held) < HELD_MAX:
            self._held.append((source, target, message))
        return True

    def _note(self, message: Message) -> None:
        if message is self._last:
            return
        self._last = message
        match message:
            case Vote():
                key = (message.kind, int(message.height), int(message.view), message.block_hash)
                self.votes.setdefault(key, {})[message.sender] = message
            case PrePrepare():
                known = self.proposals.setdefault((message.height, message.view), [])
                if all(other.block_hash != message.block_hash for other in known):
                    known.append(message)
            case ViewChange():
                self.changes.setdefault(message.view, {}).setdefault(message.sender, {})[message.height] = message
            case NewView():
                self.opened[message.view] = message
                for change in message.view_changes:
                    self._note(change)
            case _:
                return
        if self.heard is not None:
            self.heard(message)
        self._wake()

    def rest(self, late_us: int = 0) -> None:
        """Lets everything pass again and the puppets follow their cores; what was held is lost, or only late."""
        self.rule = self.heard = None
        self.speaks = False
        held, self._held = self._held, []
        if late_us:
            for source, target, parcel in held:
                if self.rng.random() < 0.5:
                    self.cluster.network.carry(source, target, parcel, self.rng.randrange(late_us))

    # ---- what it knows ----

    def head(self, machine: int) -> int:
        """Returns the height that a machine has reached: its STATUS tells."""
        return self.cluster.machines[machine].disk.chain.head.height

    def view(self) -> int:
        """Returns the greatest view that a correct machine is in: their STATUS tells."""
        machines = [self.cluster.machines[number] for number in self.correct]
        return max((machine.core.snapshot().view for machine in machines if machine.up), default=0)

    def level(self) -> bool:
        """Returns whether all correct machines stand at one height."""
        machines = [self.cluster.machines[number] for number in self.correct]
        return all(machine.up for machine in machines) and len({self.head(number) for number in self.correct}) == 1

    def primary(self, height: int, view: int) -> int:
        """Returns the primary of a place."""
        return self.validators.primary(height, view, self.cluster.settings.leader_term)

    def promised(self, view: int, among: Iterable[int]) -> int:
        """Returns how many of these have promised a view."""
        said = self.changes.get(view, {})
        return sum(1 for number in among if number in said)

    def has_said(self, kind: Kind, height: int, view: int, among: Iterable[int]) -> bool:
        """Returns whether all of these gave such a vote."""
        missing = set(among)
        for (given, at, within, _), votes in self.votes.items():
            if (given, at, within) == (kind, height, view):
                missing -= votes.keys()
        return not missing

    def certificate_below(self, height: int) -> Certificate | None:
        """Returns a commit certificate of the height below, as some machine holds it; None at height 1."""
        if height == 1:
            return None
        for machine in self.cluster.machines:
            blocks = machine.disk.chain.blocks
            if len(blocks) >= height - 1:
                return blocks[height - 2][1]
        return None

    # ---- what it says ----

    def tell(self, puppet: int, message: Message, to: Iterable[int]) -> None:
        """Lets a puppet say something to some machines."""
        self._note(message)
        for target in to:
            if target != puppet:
                self.cluster.network.carry(puppet, target, Spoken(message), SPEED_US)

    def pass_on(self, message: Vote | PrePrepare | ViewChange, to: Iterable[int]) -> None:
        """Brings a message that was held to some machines."""
        for target in to:
            if target != message.sender:
                self.cluster.network.carry(message.sender, target, Spoken(message), SPEED_US)

    def suspect(self, height: int, view: int, to: Sequence[int]) -> None:
        """Lets all puppets suspect a view, towards those who shall leave it."""
        for puppet in self.puppets:
            machine = self.cluster.machines[puppet]
            self.tell(puppet, signed(machine, Suspect(Height(height), View(view), puppet)), to)

    def vote(self, proposal: PrePrepare, kind: Kind, to: Sequence[int]) -> None:
        """Lets all puppets vote for a proposal, whatever they voted for before."""
        for puppet in self.puppets:
            vote = Vote(kind, proposal.height, proposal.view, proposal.block_hash, puppet)
            self.tell(puppet, signed(self.cluster.machines[puppet], vote), to)

    def promise(self, height: int, view: int) -> None:
        """Lets all puppets promise a view, and hold nothing."""
        below = self.certificate_below(height)
        if height > 1 and below is None:
            return
        for puppet in self.puppets:
            change = ViewChange(Height(height), View(view), below, None, puppet)
            self.tell(puppet, signed(self.cluster.machines[puppet], change), self.correct)

    def open(self, puppet: int, view: int, changes: tuple[ViewChange, ...], to: Sequence[int]) -> NewView:
        """Lets a puppet open a view with VIEW-CHANGEs of the attacker's choice."""
        highest = SOUND_RULES.highest_proved(changes)
        message = signed(self.cluster.machines[puppet], NewView(highest, View(view), changes, puppet))
        self.tell(puppet, message, to)
        return message

    def other_block(self, puppet: int, height: int, view: int) -> PrePrepare | None:
        """Returns a puppet's proposal for a place: a valid block that nobody proposed at this height before."""
        seen = [proposal for place, known in self.proposals.items() if place[0] == height for proposal in known]
        if not seen:
            return None
        model = seen[-1]
        time_ms = TimeMs(max(proposal.header.time_ms for proposal in seen) + 1)
        header = replace(model.header, proposer=self.validators.validators[puppet].key, time_ms=time_ms)
        return self._proposal(puppet, PrePrepare(model.height, View(view), header, model.wire_hashes, None, puppet))

    def same_block(self, puppet: int, view: int, demanded: Certificate) -> PrePrepare | None:
        """Returns a puppet's proposal of a block that must be proposed again."""
        for place, known in self.proposals.items():
            for proposal in known:
                if place[0] == demanded.height and proposal.block_hash == demanded.block_hash:
                    again = replace(proposal, view=View(view), certificate=demanded, sender=puppet)
                    return self._proposal(puppet, again)
        return None

    def _proposal(self, puppet: int, proposal: PrePrepare) -> PrePrepare:
        return signed(self.cluster.machines[puppet], proposal)

    # ---- which VIEW-CHANGEs make a NEW-VIEW ----

    def choices(self, view: int, senders: Iterable[int], quorum: int) -> list[tuple[ViewChange, ...]]:
        """Returns all quorums of VIEW-CHANGEs of these senders, each sender with any that it ever sent."""
        said = self.changes.get(view, {})
        found = []
        for group in combinations(sorted(sender for sender in senders if sender in said), quorum):
            found += [tuple(chosen) for chosen in product(*([*said[sender].values()] for sender in group))]
        return found

    # ---- other powers ----

    def take_power(self, machines: Iterable[int]) -> None:
        """Takes the power of some machines; each comes back within moments."""
        for number in machines:
            self.cluster.crash(number, self.rng.randrange(5 * MS, 60 * MS))
