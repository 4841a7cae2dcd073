"""How a validator behaves: as its core says, or by turning what its core says against the others.

A faulty conduct is a filter around a real core with the validator's own key. What it sends is always truly signed. Up
to f validators may have any conduct, and the chain must stay one and go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from consensus.messages import (
    Kind,
    Message,
    NewView,
    PrePrepare,
    SignedMessage,
    Status,
    ViewChange,
    Vote,
    signing_preimage,
)
from devnet.simulation.parcels import Parcel
from devnet.simulation.schedule import SECOND
from state.hashing import Hash
from state.transaction import Transaction
from state.types import Height, TimeMs, View

if TYPE_CHECKING:
    from devnet.simulation.machine import Machine

Said: TypeAlias = tuple[int, Message]
S = TypeVar("S", bound=SignedMessage)

MOOD_US: Final = SECOND // 3


class Conduct:
    """The conduct of a correct validator: every message goes out as the core made it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns what really goes out when the core sends `message` to validator `to`."""
        return ((to, message),)

    def hear(self, machine: Machine, message: Message) -> Iterable[Said]:
        """Returns what goes out because of a message that came, beside what the core makes of it."""
        return ()

    def choose(self, candidates: list[Transaction]) -> list[Transaction]:
        """Returns what a block of its own is made from."""
        return candidates

    def gives(self, parcel: Parcel) -> bool:
        """Returns whether it sends something that is no consensus message."""
        return True


class Mute(Conduct):
    """Says nothing at all."""

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns nothing."""
        return ()


class Selective(Conduct):
    """Says some kinds of message to some validators only, and changes its mind a few times a second."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._mood = -1
        self._silences: dict[tuple[int, int], bool] = {}

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message, or nothing if this kind is not for that validator now."""
        mood = machine.cluster.schedule.now_us // MOOD_US
        if mood != self._mood:
            self._mood = mood
            self._silences.clear()
        silent = self._silences.setdefault((to, int(message.kind)), self.rng.random() < 0.5)
        return () if silent else ((to, message),)


class Puppet(Conduct):
    """Follows its core but for the times in which an attacker speaks for it."""

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message, or nothing while the attacker speaks."""
        attacker = machine.cluster.attacker
        return () if attacker is not None and attacker.speaks else ((to, message),)


class Censor(Conduct):
    """Leaves some accounts' transactions out of its blocks for ever."""

    def choose(self, candidates: list[Transaction]) -> list[Transaction]:
        """Returns those of the accounts that it likes."""
        return [tx for tx in candidates if tx.sender[0] % 2]


class Liar(Conduct):
    """Signs whatever contradicts itself: votes for all it hears of, two proposals, empty VIEW-CHANGEs, tall claims."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._others: dict[tuple[int, int], PrePrepare] = {}
        self._heard: dict[int, PrePrepare] = {}
        self._usurped: set[tuple[int, int]] = set()

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message or a lie in its place, as chance will have it."""
        if not machine.own(message):
            return ((to, message),)
        match message:
            case PrePrepare() if message.certificate is None:
                return self._proposal(machine, to, message)
            case ViewChange() if self.rng.random() < 0.5:
                return ((to, signed(machine, replace(message, prepared=None))),)
            case Status() if self.rng.random() < 0.3:
                claims = ((10**9, 0), (message.height + 1, message.view), (message.height, 10**6))
                height, view = self.rng.choice(claims)
                lie = replace(message, height=Height(height), view=View(view), promised=View(view))
                return ((to, signed(machine, lie)),)
            case NewView():
                return self._usurp(machine, to, message)
            case _:
                return ((to, message),)

    def hear(self, machine: Machine, message: Message) -> Iterator[Said]:
        """Yields a PREPARE and a COMMIT for any proposal, to whom chance will have it."""
        if isinstance(message, PrePrepare):
            self._heard[message.height] = message
            yield from self._votes(machine, message)

    def _usurp(self, machine: Machine, to: int, message: NewView) -> Iterator[Said]:
        """Opens its view and proposes there at once, at h* and below, blocks that no NEW-VIEW asked for."""
        yield to, message
        place = (message.view, to)
        if place in self._usurped:
            return
        self._usurped.add(place)
        key = machine.cluster.world.keys[machine.who]
        for height in (message.height - 1, message.height):
            heard = self._heard.get(height)
            if heard is None:
                continue
            header = replace(heard.header, proposer=key, time_ms=TimeMs(heard.header.time_ms + 2))
            forged = PrePrepare(
                heard.height, message.view, header, heard.wire_hashes, certificate=None, sender=machine.member
            )
            proposal = signed(machine, forged)
            yield to, proposal
            yield from self._votes(machine, proposal)

    def _proposal(self, machine: Machine, to: int, message: PrePrepare) -> Iterator[Said]:
        """Half of the validators get another block: the same content, one millisecond later."""
        key = (message.height, message.view)
        if key not in self._others:
            header = replace(message.header, time_ms=TimeMs(message.header.time_ms + 1))
            self._others = {key: signed(machine, replace(message, header=header))}
        chosen = message if (to + message.view) % 2 else self._others[key]
        yield to, chosen
        for other in (message, self._others[key]):
            yield from self._votes(machine, other)

    def _votes(self, machine: Machine, proposal: PrePrepare) -> Iterator[Said]:
        for kind in (Kind.PREPARE, Kind.COMMIT):
            vote = _vote(machine, kind, proposal.height, proposal.view, proposal.block_hash)
            for to in range(machine.cluster.settings.n):
                if to != machine.who and self.rng.random() < 0.5:
                    yield to, vote


def _vote(machine: Machine, kind: Kind, height: Height, view: View, block_hash: Hash) -> Vote:
    return signed(machine, Vote(kind, height, view, block_hash, machine.member))


def signed(machine: Machine, message: S) -> S:
    """Returns the message with this machine's signature, whatever it had before."""
    cluster = machine.cluster
    preimage = signing_preimage(message, cluster.world.genesis.hash, cluster.set_at(message.height).hash)
    return replace(message, signature=cluster.scheme.sign(cluster.world.keys[machine.who], preimage))
