"""A committed chain in memory: what a store's disk holds of it, and the state source that the real executor reads."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.interface import KnownBlock
from devnet.simulation.world import World
from state.errors import InvariantError
from state.execution import ExecutedBlock
from state.hashing import Hash
from state.transaction import Transaction
from state.types import Certificate, Header, ValidatorSet, WireHash


@dataclass(frozen=True, slots=True)
class Body:
    """A block as machines hand it on: its header and its decoded transactions."""

    header: Header
    transactions: tuple[Transaction, ...]

    @property
    def known(self) -> KnownBlock:
        """What a core is told of it."""
        return KnownBlock(self.header, self.wire_hashes)

    @property
    def wire_hashes(self) -> tuple[WireHash, ...]:
        """The wire hash of each transaction, in order."""
        return tuple([tx.wire_hash for tx in self.transactions])


class Chain:
    """Blocks with their certificates from height 1 on, the newest state, and all rows of its tree."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.head = world.header
        self.pairs = dict(world.pairs)
        self.nodes = dict(world.rows)
        self.blocks: list[tuple[Body, Certificate]] = []
        self.transactions: dict[WireHash, Transaction] = {}
        self.heights: dict[Hash, int] = {}

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at the height after the head."""
        return self.world.validators

    @property
    def certificate(self) -> Certificate | None:
        """The head's certificate; None at genesis."""
        return self.blocks[-1][1] if self.blocks else None

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key after the head, or None."""
        return self.pairs.get(state_key)

    def body(self, block_hash: Hash) -> Body | None:
        """Returns a committed block, or None."""
        height = self.heights.get(block_hash)
        return None if height is None else self.blocks[height - 1][0]

    def append(self, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Makes an executed block the head."""
        header = executed.block.header
        if header.parent_hash != self.head.hash:
            raise InvariantError(f"block {header.height} does not stand on the head")
        for state_key, value in executed.changes.items():
            if value is None:
                del self.pairs[state_key]
            else:
                self.pairs[state_key] = value
        self.nodes.update(executed.tree.puts)
        self.head = header
        self.blocks.append((Body(header, executed.transactions), certificate))
        self.heights[header.hash] = header.height
        for tx in executed.transactions:
            self.transactions[tx.wire_hash] = tx
