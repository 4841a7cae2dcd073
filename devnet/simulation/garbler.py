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
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            value = changed(self.rng, value)
        data = encode(value)
        try:
            read = decode_message(data)
        except DecodeError:
            return data
        if not isinstance(read, Decided | Evidence) and read.sender == machine.member:
            return encode_message(signed(machine, read))
        return data


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
