"""Validators that lie, each in one way: what a Byzantine validator can say by itself, with its own key alone.

Each is a filter around a real core, so that it lies amid true messages. What it sends in vain, as nobody believes it,
must change nothing; what is believed must not be able to break a law.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

from consensus.messages import (
    Decided,
    Kind,
    Message,
    NewView,
    PrePrepare,
    Status,
    Suspect,
    ViewChange,
    Vote,
)
from consensus.rules import Rules
from devnet.simulation.conducts import Censor, Conduct, Liar, Mute, Puppet, Said, Selective, signed
from devnet.simulation.parcels import BlocksSent, BodySent, Parcel, Transactions
from devnet.simulation.schedule import MS
from devnet.simulation.settings import CORRECT, PUPPET, TWIN
from state import rfc6962
from state.block import tx_root
from state.hashing import sha256
from state.transaction import Transaction
from state.types import Certificate, Header, Height, TimeMs, View, WireHash

if TYPE_CHECKING:
    from devnet.simulation.machine import Machine

KEPT_MAX: Final = 64
BEYOND_MS: Final = 60_000
FLOOD_EACH_US: Final = 40 * MS
FLOOD: Final = 12
RACE_EACH_US: Final = 5 * MS
_SOUND: Final = Rules()

Content = tuple[Header, tuple[WireHash, ...]]


def _others(machine: Machine) -> list[int]:
    return [who for who in machine.cluster.identities if who != machine.who]


class Racer(Conduct):
    """Wants to leave every view as soon as it hears of it, and promises the next ones, holding nothing."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._again_us = 0

    def hear(self, machine: Machine, message: Message) -> Iterator[Said]:
        """Yields suspicion of the greatest view heard of, and promises of greater ones."""
        now_us = machine.cluster.schedule.now_us
        if now_us < self._again_us or not isinstance(message, Status | ViewChange | NewView | PrePrepare):
            return
        self._again_us = now_us + RACE_EACH_US
        view = message.promised if isinstance(message, Status) else message.view
        head = machine.disk.chain
        height = Height(head.head.height + 1)
        suspicion = signed(machine, Suspect(height, view, machine.member))
        ahead = View(view + self.rng.choice((1, 1, 2, 1_000)))
        promise = signed(machine, ViewChange(height, ahead, head.certificate, None, machine.member))
        alone = self.rng.random() < 0.3
        for to in _others(machine)[: 1 if alone else None]:
            yield to, suspicion
            yield to, promise


class Forger(Conduct):
    """Makes certificates of too little: of others' signatures on other things, of its own many times, of too few."""

    def hear(self, machine: Machine, message: Message) -> Iterator[Said]:
        """Yields forged certificates, alone and inside messages, when it hears of a true one."""
        if isinstance(message, Vote):
            if self.rng.random() < 0.05:
                own = signed(machine, replace(message, sender=machine.member))
                lone = tuple((index, own.signature) for index in range(machine.cluster.world.validators.quorum))
                yield from self._spread(
                    machine, Certificate(int(message.kind), message.height, message.view, message.block_hash, lone)
                )
        elif isinstance(message, Decided):
            yield from self._spread(machine, self._forged(message.certificate))
        elif isinstance(message, ViewChange):
            for certificate in (message.committed, message.prepared):
                if certificate is not None:
                    yield from self._spread(machine, self._forged(certificate))

    def say(self, machine: Machine, to: int, message: Message) -> Iterator[Said]:
        """Yields its VIEW-CHANGEs and proposals with a forged certificate for some."""
        if isinstance(message, ViewChange) and message.sender == machine.member and message.committed is not None:
            forged = self._forged(message.committed)
            yield to, signed(machine, replace(message, committed=forged))
        yield to, message

    def _forged(self, true: Certificate) -> Certificate:
        signatures = true.signatures
        first = signatures[0]
        return self.rng.choice(
            (
                replace(true, signatures=signatures[1:]),
                replace(true, signatures=(first,) * len(signatures)),
                replace(true, signatures=tuple((index, first[1]) for index, _ in signatures)),
                replace(true, block_hash=sha256(true.block_hash)),
                replace(true, view=View(true.view + 1)),
                replace(true, height=Height(true.height + 1)),
                replace(true, kind=int(Kind.PREPARE if true.kind == Kind.COMMIT else Kind.COMMIT)),
            )
        )

    def _spread(self, machine: Machine, forged: Certificate) -> Iterator[Said]:
        to = self.rng.choice(_others(machine))
        if forged.kind == Kind.COMMIT:
            yield to, Decided(forged)
        below = machine.disk.chain.certificate
        change = ViewChange(forged.height, View(forged.view + 1), below, forged, machine.member)
        yield to, signed(machine, change)


class Stale(Conduct):
    """Says again what it and others said long ago, in any order."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._kept: deque[Message] = deque(maxlen=KEPT_MAX)

    def say(self, machine: Machine, to: int, message: Message) -> Iterator[Said]:
        """Yields the message, and sometimes an old one after it."""
        yield to, message
        self._keep(message)
        if self.rng.random() < 0.15:
            yield to, self.rng.choice(self._kept)

    def hear(self, machine: Machine, message: Message) -> Iterator[Said]:
        """Yields an old message instead of an answer."""
        self._keep(message)
        if self.rng.random() < 0.05:
            yield self.rng.choice(_others(machine)), self.rng.choice(self._kept)

    def _keep(self, message: Message) -> None:
        lasting = isinstance(message, ViewChange | NewView | PrePrepare)
        if lasting or self.rng.random() < 0.05 or not self._kept:
            self._kept.append(message)


class Misproposer(Conduct):
    """Proposes invalid blocks, each wrong in another way, to all or to some."""

    HONEST = 0.15

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._wrong: dict[tuple[int, int], PrePrepare] = {}

    def say(self, machine: Machine, to: int, message: Message) -> Iterator[Said]:
        """Yields an invalid proposal in the place of a valid one, with votes for it."""
        if not isinstance(message, PrePrepare) or message.sender != machine.member or message.certificate is not None:
            yield to, message
            return
        place = (message.height, message.view)
        if place not in self._wrong:
            self._wrong = {place: self._spoilt(machine, message)}
        if self.rng.random() < self.HONEST:
            yield to, message
            return
        wrong = self._wrong[place]
        yield to, wrong
        for kind in (Kind.PREPARE, Kind.COMMIT):
            yield to, signed(machine, Vote(kind, wrong.height, wrong.view, wrong.block_hash, machine.member))

    def _spoilt(self, machine: Machine, message: PrePrepare) -> PrePrepare:
        header, wire_hashes = self.rng.choice(WRONGS)(message.header, message.wire_hashes)
        return signed(machine, replace(message, header=header, wire_hashes=wire_hashes))


def _with(header: Header, wire_hashes: tuple[WireHash, ...]) -> Content:
    return replace(header, tx_root=tx_root(wire_hashes)), wire_hashes


def _later(header: Header, wires: tuple[WireHash, ...], by_ms: int) -> Content:
    return replace(header, time_ms=TimeMs(header.time_ms + by_ms)), wires


WRONGS: Final[tuple[Callable[[Header, tuple[WireHash, ...]], Content], ...]] = (
    lambda header, wires: (replace(header, parent_hash=sha256(header.parent_hash)), wires),
    lambda header, wires: (replace(header, height=Height(header.height + 1)), wires),
    lambda header, wires: (replace(header, chain_id="simulated-2"), wires),
    lambda header, wires: (replace(header, version=header.version + 1), wires),
    lambda header, wires: (replace(header, validators_hash=sha256(header.validators_hash)), wires),
    lambda header, wires: (replace(header, next_validators_hash=sha256(header.validators_hash)), wires),
    lambda header, wires: (replace(header, proposer=sha256(header.proposer)), wires),
    lambda header, wires: (replace(header, tx_root=sha256(header.tx_root)), wires),
    lambda header, wires: (replace(header, receipts_root=sha256(header.receipts_root)), wires),
    lambda header, wires: (replace(header, state_root=sha256(header.state_root)), wires),
    lambda header, wires: (replace(header, evidence_hash=sha256(header.evidence_hash)), wires),
    lambda header, wires: (replace(header, units_used=header.units_used + 1), wires),
    lambda header, wires: _later(header, wires, BEYOND_MS),
    lambda header, wires: _later(header, wires, -BEYOND_MS),
    lambda header, wires: _with(header, ()),
    lambda header, wires: _with(replace(header, receipts_root=rfc6962.root(())), ()),
    lambda header, wires: _with(header, (*wires, wires[-1])),
    lambda header, wires: _with(header, wires[::-1]) if len(wires) > 1 else _with(header, wires * 2),
    lambda header, wires: _with(header, wires[:-1]),
    lambda header, wires: _with(header, (*wires, WireHash(sha256(wires[0])))),
)


class Flooder(Conduct):
    """Sends votes, suspicions and claims without number: for other heights, other views, blocks that are none."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._again_us = 0

    def hear(self, machine: Machine, message: Message) -> Iterator[Said]:
        """Yields a burst of them, some times in each second."""
        now_us = machine.cluster.schedule.now_us
        if now_us < self._again_us or not isinstance(message, Vote | Status):
            return
        self._again_us = now_us + FLOOD_EACH_US
        others = _others(machine)
        for _ in range(FLOOD):
            height = Height(max(1, message.height + self.rng.choice((-1, 0, 0, 0, 1, 1, 2, 10**9))))
            view = View(max(0, message.view + self.rng.choice((-1, 0, 0, 1, 2, 3, 10**6))))
            yield self.rng.choice(others), self._flotsam(machine, message, height, view)

    def _flotsam(self, machine: Machine, message: Vote | Status, height: Height, view: View) -> Message:
        drawn = self.rng.random()
        if drawn < 0.1:
            return signed(machine, Suspect(height, view, machine.member))
        if drawn < 0.2:
            return signed(machine, Status(height, view, view, None, 2**70, 2**70, machine.member))
        block_hash = sha256(self.rng.randbytes(4))
        if isinstance(message, Vote) and self.rng.random() < 0.3:
            block_hash = message.block_hash
        return signed(
            machine, Vote(self.rng.choice((Kind.PREPARE, Kind.COMMIT)), height, view, block_hash, machine.member)
        )


class FalseStatus(Conduct):
    """Claims to be at other places than it is, and to hold other votes than it does."""

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns a STATUS that is not so; whatever else it says is true."""
        if not isinstance(message, Status) or self.rng.random() < 0.2:
            return ((to, message),)
        lie = self.rng.choice(
            (
                replace(message, height=Height(10**9), view=View(0), promised=View(0)),
                replace(message, height=Height(message.height + 1)),
                replace(message, height=Height(max(1, message.height - 2))),
                replace(message, promised=View(message.promised + 10**6)),
                replace(message, view=View(message.view + 10**6), promised=View(message.view + 10**6)),
                replace(message, view=View(0), promised=View(0)),
                replace(message, proposal=sha256(b"nothing"), prepares=0, commits=0),
                replace(message, prepares=2**70 - 1, commits=2**70 - 1),
            )
        )
        return ((to, signed(machine, lie)),)


class Withholder(Conduct):
    """Keeps to itself what others need: bodies, blocks, transactions, certificates, and the way into a view."""

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message, but no certificate for one who asks, and VIEW-CHANGEs that hold nothing."""
        if isinstance(message, Decided) or (isinstance(message, NewView) and message.sender != machine.member):
            return ()
        if isinstance(message, ViewChange) and message.sender == machine.member:
            return ((to, signed(machine, replace(message, prepared=None))),)
        return ((to, message),)

    def gives(self, parcel: Parcel) -> bool:
        """Returns whether it sends what is no consensus message: only what it asks for itself."""
        return not isinstance(parcel, Transactions | BodySent | BlocksSent)


class Chooser(Conduct):
    """Opens its views with another NEW-VIEW for each: valid ones, of whichever VIEW-CHANGEs it likes."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._changes: dict[int, dict[int, ViewChange]] = {}

    def hear(self, machine: Machine, message: Message) -> Iterable[Said]:
        """Keeps the VIEW-CHANGEs that it hears."""
        if isinstance(message, ViewChange):
            self._changes.setdefault(message.view, {})[message.sender] = message
        return ()

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message; of its own NEW-VIEWs one of other VIEW-CHANGEs, and its promises holding nothing."""
        if isinstance(message, ViewChange) and message.sender == machine.member:
            blank = signed(machine, replace(message, prepared=None))
            self._changes.setdefault(message.view, {})[machine.member] = blank
            return ((to, blank),)
        if not isinstance(message, NewView) or message.sender != machine.member:
            return ((to, message),)
        held = self._changes.get(message.view, {})
        held.update({change.sender: change for change in message.view_changes if change.sender not in held})
        quorums = [
            tuple(held[sender] for sender in group) for group in combinations(sorted(held), len(message.view_changes))
        ]
        fitting = [changes for changes in quorums if _fits(changes)]
        if not fitting:
            return ((to, message),)
        chosen = self.rng.choice(fitting)
        opened = replace(message, height=_SOUND.highest_proved(chosen), view_changes=chosen)
        return ((to, signed(machine, opened)),)


def _fits(changes: tuple[ViewChange, ...]) -> bool:
    highest = _SOUND.highest_proved(changes)
    return all(_SOUND.counts_in_new_view(change, highest, Height(1)) for change in changes)


class SilentCensor(Censor):
    """Leaves one sender out of its blocks, and passes nothing of it on."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._place = rng.random()

    def choose(self, candidates: list[Transaction]) -> list[Transaction]:
        """Returns the transactions of all senders but one."""
        return [tx for tx in candidates if tx.sender != self._disliked(candidates)]

    def gives(self, parcel: Parcel) -> bool:
        """Returns whether it passes something on: no transaction, unless it is alone in a parcel by chance."""
        return not isinstance(parcel, Transactions) or self.rng.random() < 0.2

    def _disliked(self, candidates: list[Transaction]) -> bytes:
        senders = sorted({tx.sender for tx in candidates})
        return senders[int(self._place * len(senders))] if senders else b""


LIARS: Final = (
    "racer",
    "forger",
    "stale",
    "misproposer",
    "flooder",
    "false-status",
    "withholder",
    "chooser",
    "silent-censor",
    "liar",
)

CONDUCTS: Final[dict[str, type[Conduct]]] = {
    CORRECT: Conduct,
    TWIN: Conduct,
    PUPPET: Puppet,
    "censor": Censor,
    "mute": Mute,
    "selective": Selective,
    "liar": Liar,
    "racer": Racer,
    "forger": Forger,
    "stale": Stale,
    "misproposer": Misproposer,
    "flooder": Flooder,
    "false-status": FalseStatus,
    "withholder": Withholder,
    "chooser": Chooser,
    "silent-censor": SilentCensor,
}
