"""A faulty validator whose messages are none that the protocol knows: changed anywhere, and often signed again.

It finds what a node makes of arrays that are too long, numbers that are too great, certificates that do not belong, and
all else that no core would ever say. What it garbles is its own and what it heard.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from consensus.messages import (
    MESSAGE_BYTES_MAX,
    Decided,
    Evidence,
    Kind,
    Message,
    ViewChange,
    decode_message,
    encode_message,
)
from devnet.simulation.conducts import Conduct, Said, signed
from devnet.simulation.parcels import Garbled
from state.codec import decode, encode
from state.errors import DecodeError

if TYPE_CHECKING:
    from devnet.simulation.machine import Machine

GARBLED: Final = 0.25
NEARLY: Final = 0.25
NUMBERS: Final = (0, 1, 2, 3, 4, 7, 15, 63, 64, 10**6, 2**53, 2**64 - 1)


class Garbler(Conduct):
    """Says what its core says, and much besides that makes no sense."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._heard: dict[Kind, Message] = {}

    def say(self, machine: Machine, to: int, message: Message) -> Iterable[Said]:
        """Returns the message; something garbled goes out before it now and then."""
        self._heard[message.kind] = message
        if self.rng.random() < GARBLED:
            source = self.rng.choice(list(self._heard.values()))
            machine.send(to, Garbled(self._garbled(machine, source)))
        return ((to, message),)

    def hear(self, machine: Machine, message: Message) -> Iterable[Said]:
        """Keeps one message of each kind to garble it later."""
        self._heard[message.kind] = message
        return ()

    def _garbled(self, machine: Machine, message: Message) -> bytes:
        if isinstance(message, Decided | Evidence) or self.rng.random() < 0.5:
            value = decode(encode_message(message), bytes_max=MESSAGE_BYTES_MAX)
        else:
            # In its own name, so that its form and not its signature is what is looked at last.
            value = list(decode(encode_message(message), bytes_max=MESSAGE_BYTES_MAX))
            value[-2 if type(value[-2]) is int else 1] = machine.member
            value = tuple(value)
        if self.rng.random() < NEARLY:
            value = self._nearly(value)
        else:
            # Often nothing at all: a true NEW-VIEW of another, said in its own name.
            for _ in range(self.rng.choice((0, 1, 1, 1, 2, 3))):
                value = changed(self.rng, value)
        data = encode(value)
        try:
            read = decode_message(data)
        except DecodeError:
            return data
        if not isinstance(read, Decided | Evidence) and read.sender == machine.member:
            return encode_message(signed(machine, read))
        return data

    def _nearly(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns a message that is right but for one field, which is of the right form and says what cannot be."""
        kind, height = value[:2]
        match kind:
            case Kind.PRE_PREPARE:
                certificates = [
                    held.certificate if isinstance(held, Decided) else held.committed
                    for held in self._heard.values()
                    if isinstance(held, Decided | ViewChange)
                ]
                other = next((found.to_value() for found in certificates if found is not None), None)
                return self.rng.choice(((*value[:4], value[4] + b"\0", *value[5:]), (*value[:5], other, *value[6:])))
            case Kind.VIEW_CHANGE:
                return (kind, height, 0, *value[3:])
            case Kind.NEW_VIEW if value[3]:
                inner = (int(Kind.SUSPECT), *value[3][0][1:])
                return self.rng.choice(
                    (
                        (kind, height + 1, *value[2:]),
                        (*value[:3], value[3][1:], *value[4:]),
                        (*value[:3], (inner, *value[3][1:]), *value[4:]),
                    )
                )
        return value


def changed(rng: random.Random, value: Any) -> Any:
    """Returns a value that differs from this one in one place, wherever that is."""
    if isinstance(value, tuple) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return (*value[:place], changed(rng, value[place]), *value[place + 1 :])
    if isinstance(value, tuple):
        items = list(value)
        if items:
            match rng.randrange(4):
                case 0:
                    items.pop(rng.randrange(len(items)))
                case 1:
                    items.append(rng.choice(items))
                case 2:
                    items.reverse()
                case _:
                    return None
        return tuple(items)
    if isinstance(value, bytes) and value:
        cut = rng.randrange(len(value))
        return rng.choice((value[:cut], value[:cut] + bytes([value[cut] ^ 1]) + value[cut + 1 :], bytes(len(value))))
    if isinstance(value, int) and not isinstance(value, bool):
        return rng.choice((*NUMBERS, value + 1, max(0, value - 1), None))
    return rng.choice((None, 0, b"", ()))
