"""What the clients of a workload did and were told, and what the chain came to be: the checker's two sides.

Plain values. Times are seconds of one clock of the one process that all clients run in, so their order is real.
Accounts are numbers: the first `banks` are bank accounts, which pay each other; each further one is a register, into
which one bank account alone pays 1 at a time, so that its balance counts the writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """What a client knows of its transfer in the end."""

    COMMITTED = "committed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Transfer:
    """One transfer: what was asked for, and once answered, by whom and where it stands in the chain.

    `code` is the receipt's: "ok", or why it failed and changed nothing. `refusal` is the last error, for people.
    """

    id: str
    payer: int
    payee: int
    amount: int
    invoked: float
    outcome: Outcome = Outcome.UNKNOWN
    answered: float = 0.0
    node: str = ""
    height: int = 0
    index: int = 0
    code: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A balance as a node told it, at the height that it said; `block_hash` is known if the answer was proved."""

    node: str
    account: int
    balance: int
    height: int
    invoked: float
    answered: float
    block_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A node's head as it told it."""

    node: str
    height: int
    block_hash: str
    invoked: float
    answered: float


@dataclass(frozen=True, slots=True)
class Lie:
    """An answer whose proof does not hold."""

    node: str
    at: float
    what: str


@dataclass(slots=True)
class History:
    """All that was done and told."""

    banks: int
    transfers: list[Transfer] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    heads: list[Seen] = field(default_factory=list)
    lies: list[Lie] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its hash and the ids of its transactions, in order."""

    height: int
    hash: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain from the block after `base` on, as the nodes have it once all is over.

    `before` and `after` are the accounts' balances at `base` (by one node) and at the last block (by each node),
    `hashes` the block hashes of all heights after `base`, and `supply` that of the asset, both by node.
    """

    base: int
    before: tuple[int, ...]
    supply_before: int
    blocks: tuple[Block, ...]
    hashes: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[int, ...]]
    supply_after: Mapping[str, int]
