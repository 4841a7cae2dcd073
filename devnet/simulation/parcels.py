"""What machines send each other beside consensus messages: transactions, bodies, and committed blocks.

This stands for gossip and sync of a node, in as few kinds as will do. All of it may be lost: whoever wants asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from consensus.messages import Message
from devnet.simulation.chain import Body
from state.hashing import Hash
from state.transaction import Transaction
from state.types import Certificate, WireHash


@dataclass(frozen=True, slots=True)
class Spoken:
    """A consensus message."""

    message: Message


@dataclass(frozen=True, slots=True)
class Transactions:
    """Transactions, sent unasked or for the asking."""

    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class WantTransactions:
    """A request for transactions by wire hash."""

    wire_hashes: tuple[WireHash, ...]


@dataclass(frozen=True, slots=True)
class WantBody:
    """A request for a block, committed or not."""

    block_hash: Hash


@dataclass(frozen=True, slots=True)
class BodySent:
    """A block that was asked for by hash."""

    body: Body


@dataclass(frozen=True, slots=True)
class WantBlocks:
    """A request for committed blocks from this height on."""

    height: int


@dataclass(frozen=True, slots=True)
class BlocksSent:
    """Committed blocks of successive heights, each with its certificate."""

    blocks: tuple[tuple[Body, Certificate], ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """The greeting of a process that has just begun."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer to a greeting: the latest vote seen of whoever greets."""

    message: Message


@dataclass(frozen=True, slots=True)
class At:
    """The height that a machine is at, as it says: worth a question."""

    height: int


@dataclass(frozen=True, slots=True)
class Garbled:
    """Bytes that are said to be a consensus message."""

    data: bytes


Asked: TypeAlias = WantTransactions | WantBody | WantBlocks
Answered: TypeAlias = Transactions | BodySent | BlocksSent | Shown
Parcel: TypeAlias = Spoken | Garbled | Asked | Answered | Hello | At
