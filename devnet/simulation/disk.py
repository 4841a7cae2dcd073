"""A machine's disk: it outlives the process, and what was written but not synced may be lost with the power.

Writes reach the disk in the order in which they were issued, each whole or not at all, as LevelDB's log has it: after
a loss of power the first few of those not yet synced may be there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeAlias

from consensus.interface import KnownBlock
from devnet.simulation.chain import Body, Chain
from devnet.simulation.world import World
from state.execution import ExecutedBlock
from state.hashing import Hash
from state.types import Certificate


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """Vote records and bodies of proposed blocks, in one batch."""

    puts: tuple[tuple[bytes, bytes], ...]
    deletes: tuple[bytes, ...]
    bodies: tuple[Body, ...]
    bodies_dropped: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class CommitWrite:
    """A committed block with everything that belongs to it, in one batch."""

    executed: ExecutedBlock
    certificate: Certificate


Write: TypeAlias = RecordWrite | CommitWrite


class Disk:
    """What is durable: the chain, the vote records, the bodies; and the writes on their way there."""

    def __init__(self, world: World) -> None:
        self.chain = Chain(world)
        self.records: dict[bytes, bytes] = {}
        self.bodies: dict[Hash, Body] = {}
        self._issued: list[Write] = []

    def issue(self, write: Write) -> None:
        """Begins a write."""
        self._issued.append(write)

    def sync(self) -> None:
        """Makes all issued writes durable."""
        for write in self._issued:
            self._apply(write)
        self._issued.clear()

    def lose_power(self, rng: random.Random) -> None:
        """Keeps as many of the unsynced writes, from the first on, as chance will have it."""
        for write in self._issued[: rng.randrange(len(self._issued) + 1)]:
            self._apply(write)
        self._issued.clear()

    def known_block(self, block_hash: Hash) -> KnownBlock | None:
        """Returns a stored block, proposed or committed, as a core is told of it."""
        body = self.bodies.get(block_hash) or self.chain.body(block_hash)
        return None if body is None else body.known

    def _apply(self, write: Write) -> None:
        if isinstance(write, CommitWrite):
            self.chain.append(write.executed, write.certificate)
            return
        for key in write.deletes:
            self.records.pop(key, None)
        self.records.update(write.puts)
        for body in write.bodies:
            self.bodies[body.header.hash] = body
        for block_hash in write.bodies_dropped:
            self.bodies.pop(block_hash, None)
