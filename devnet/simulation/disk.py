"""A machine's disk: it outlives the process, and what was written but not synced may be lost with the power.

Writes reach the disk in the order in which they were issued, each whole or not at all: a loss of power cuts their log
anywhere. The vote records are the real ones (state/store/votes.py) on a database in memory, so that what is damaged is
noticed by the code that will have to notice it. A disk can also be full, be set back to a backup, or be lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias

from consensus.interface import KnownBlock
from devnet.simulation.chain import Body, Chain
from devnet.simulation.memory import MemoryBatch, MemoryDatabase, Row, frame, read_log
from devnet.simulation.world import World
from state.execution import ExecutedBlock
from state.hashing import Hash
from state.store import VoteBatch
from state.store.errors import StorageFailed
from state.store.keys import CHECK_BYTES, META_VOTES, VOTE
from state.store.votes import VoteRecords
from state.types import Certificate

_TORN: Final = 0.3
"""How often the place where a log was cut is followed by bytes that nobody wrote."""


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


OWNER: Final = b"whose disk it is"
"""The key that a disk's vote records belong to: no two machines swap theirs here."""


class Disk:
    """What is durable: the chain, the vote records, the bodies; and the writes on their way there."""

    def __init__(self, world: World, *, votes: bool) -> None:
        """Makes the disk of a new home; `votes` says that `init` created vote records, as it does with a key."""
        self._world = world
        self.full = False
        self.harmed = False
        self._clear()
        if votes:
            self.open()
            self.votes.create(OWNER)

    def _clear(self) -> None:
        self.chain = Chain(self._world)
        self.database = MemoryDatabase()
        self.bodies: dict[Hash, Body] = {}
        self._issued: list[tuple[Write, tuple[Row, ...]]] = []

    def open(self) -> None:
        """Reads the vote records, as a process does when it starts; raises Damaged."""
        self.votes = VoteRecords(self.database)

    # ---- writing ----

    def issue(self, write: Write) -> None:
        """Begins a write; raises StorageFailed if the disk is full."""
        if self.full:
            raise StorageFailed("writing", "no space left on device")
        if isinstance(write, CommitWrite):
            rows: list[Row] = [(write.executed.block.header.hash, b"")]
        else:
            batch = MemoryBatch()
            if write.puts or write.deletes:
                self.votes.written(self.votes.stage(batch, VoteBatch(write.puts, write.deletes)))
            rows = batch.rows
        self._issued.append((write, tuple(rows)))

    def sync(self) -> None:
        """Makes all issued writes durable."""
        for write, rows in self._issued:
            self._apply(write, rows)
        self._issued.clear()

    def lose_power(self, rng: random.Random) -> None:
        """Keeps what is whole of the log of the unsynced writes, which ends anywhere, perhaps in rubbish."""
        frames = [frame(rows) for _, rows in self._issued]
        log = b"".join(frames)
        ends = list(accumulate(map(len, frames), initial=0))
        cut = rng.choice(ends) if rng.random() < 0.5 else rng.randrange(len(log) + 1)
        log = log[:cut] + (rng.randbytes(len(log) - cut) if rng.random() < _TORN else b"")
        for (write, _), rows in zip(self._issued, read_log(log), strict=False):
            self._apply(write, rows)
        self._issued.clear()

    def _apply(self, write: Write, rows: tuple[Row, ...]) -> None:
        if isinstance(write, CommitWrite):
            self.chain.append(write.executed, write.certificate)
            return
        self.database.apply(rows)
        for body in write.bodies:
            self.bodies[body.header.hash] = body
        for block_hash in write.bodies_dropped:
            self.bodies.pop(block_hash, None)

    # ---- reading ----

    @property
    def records(self) -> dict[bytes, bytes]:
        """All durable vote records, as they are."""
        rows = self.database.rows
        return {key[len(VOTE) :]: rows[key][:-CHECK_BYTES] for key in sorted(rows) if key.startswith(VOTE)}

    def record(self, key: bytes) -> bytes | None:
        """Returns a durable vote record, or None."""
        value = self.database.rows.get(VOTE + key)
        return None if value is None else value[:-CHECK_BYTES]

    def known_block(self, block_hash: Hash) -> KnownBlock | None:
        """Returns a stored block, proposed or committed, as a core is told of it."""
        body = self.bodies.get(block_hash) or self.chain.body(block_hash)
        return None if body is None else body.known

    # ---- what befalls it, while no process runs ----

    def lose_records(self) -> None:
        """Loses all vote records with their summary, and the bodies."""
        self.harmed = True
        self.bodies.clear()
        self.database.rows.clear()

    def damage(self, rng: random.Random) -> None:
        """Changes, drops or writes in part what stands on it: one record, or half of the last batch."""
        self.harmed = True
        rows = self.database.rows
        names = sorted(key for key in rows if key.startswith(VOTE)) or [META_VOTES]
        name = rng.choice(names)
        match rng.randrange(4):
            case 0:
                value = bytearray(rows.get(name, b"\0"))
                value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
                rows[name] = bytes(value)
            case 1:
                rows.pop(name, None)
            case 2:
                rows[VOTE + b"stray"] = rows.get(name, b"\0")
            case _:
                rows.pop(META_VOTES, None)

    def wipe(self) -> None:
        """Loses everything: an empty home."""
        self.harmed = True
        self._clear()

    def backup(self) -> Disk:
        """Returns a copy of what is durable now."""
        copy = Disk(self._world, votes=False)
        copy.restore(self)
        return copy

    def restore(self, source: Disk) -> None:
        """Holds what another disk holds, and nothing else."""
        self.harmed = True
        self._clear()
        self.chain = source.chain.copy()
        self.database.rows = dict(source.database.rows)
        self.bodies = dict(source.bodies)
