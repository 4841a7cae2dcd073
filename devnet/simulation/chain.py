"""A committed chain in memory: what a store's disk holds of it, and the state source that the real executor reads."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.interface import KnownBlock
from devnet.simulation.world import World
from state.errors import InvariantError
from state.execution import ExecutedBlock
from state.hashing import Hash
from state.store.errors import Damaged
from state.store.keys import STATE, name_of
from state.transaction import Transaction
from state.types import Certificate, Header, Height, ValidatorSet, WireHash


@dataclass(frozen=True, slots=True)
class Body:
    """A block as machines hand it on: its header, its decoded transactions and its evidence."""

    header: Header
    transactions: tuple[Transaction, ...]
    evidence: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, executed: ExecutedBlock) -> Body:
        """Returns the block that was executed."""
        return cls(executed.block.header, executed.transactions, executed.block.evidence)

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
        self.rules: list[tuple[Height, ValidatorSet]] = [(Height(1), world.validators)]
        self.blocks: list[tuple[Body, Certificate]] = []
        self.transactions: dict[WireHash, Transaction] = {}
        self.heights: dict[Hash, int] = {}
        self.damaged = False

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at the height after the head."""
        return self.rules[-1][1]

    @property
    def validators_since(self) -> Height:
        """The first height of its unbroken rule."""
        return self.rules[-1][0]

    def validators_at(self, height: int) -> ValidatorSet:
        """Returns the set in force at a height; the newest known for heights beyond the next."""
        return next(validators for since, validators in reversed(self.rules) if since <= max(height, 1))

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

    def copy(self) -> Chain:
        """Returns a chain that goes on by itself from here."""
        copy = Chain(self.world)
        copy.head, copy.damaged = self.head, self.damaged
        copy.pairs, copy.nodes = dict(self.pairs), dict(self.nodes)
        copy.rules, copy.blocks = list(self.rules), list(self.blocks)
        copy.transactions, copy.heights = dict(self.transactions), dict(self.heights)
        return copy

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
        if executed.validators_next.hash != self.validators.hash:
            self.rules.append((Height(header.height + 1), executed.validators_next))
        self.blocks.append((Body.of(executed), certificate))
        self.heights[header.hash] = header.height
        for tx in executed.transactions:
            self.transactions[tx.wire_hash] = tx


class Reading:
    """A chain as the executor reads it: a record may turn out not to be what was written."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    @property
    def head(self) -> Header:
        """The header of the newest committed block."""
        return self._chain.head

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at the height after the head."""
        return self._chain.validators

    @property
    def nodes(self) -> dict[bytes, bytes]:
        """The rows of the state's tree."""
        return self._chain.nodes

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key after the head, or None; raises Damaged."""
        if self._chain.damaged:
            raise Damaged(name_of(STATE + state_key), "does not match its checksum")
        return self._chain.get(state_key)
