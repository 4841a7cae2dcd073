"""The contract of a ledger domain: what a plug-in declares, and how it says that an operation fails.

A domain is one `Plugin` value. The ledger takes everything it knows of operations from such values, in registry order;
remote procedures, their description, the command line and client builders are generated from the same declarations.
Rules are plain functions that see the state only through their `Context`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from state.errors import Rejected
from state.evidence import Offence
from state.genesis import Genesis
from state.ledger.fields import FieldType, Record, Values
from state.slices import Slices
from state.types import Address, Height, Validator, View

if TYPE_CHECKING:
    from state.ledger.context import BlockView, Context
    from state.ledger.overlay import StateReader


class OperationFailed(Rejected):
    """An operation cannot be done: the whole transaction fails with this stable code and changes nothing."""


@dataclass(frozen=True, slots=True)
class Role:
    """A right beyond that of the sender: an account that holds it must be among those that authorised.

    `held_by(context, values, address)` tells whether `address` has the right for this operation.
    """

    name: str
    held_by: Callable[[Context, Values, Address], bool]


def sender_only(sender: Address, values: Values) -> tuple[Address, ...]:
    """The authorisers of an operation that only the sender answers for."""
    return (sender,)


def no_check(values: Values) -> None:
    """The check of an operation whose fields say it all."""


def one_unit(values: Values) -> int:
    """The weight of an operation that writes a record or two."""
    return 1


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of an operation's rules.

    `authorisers(sender, values)` are the accounts that must have authorised; `role` is needed besides.
    `check(values)` sees no state and raises Rejected: what it refuses never enters a block.
    `apply(context, values)` does it, or raises OperationFailed by `context.fail`.
    `units(values)` is the worst-case weight, about 100 microseconds of one core each.
    """

    fields: Record
    apply: Callable[[Context, Values], None]
    authorisers: Callable[[Address, Values], tuple[Address, ...]] = sender_only
    role: Role | None = None
    check: Callable[[Values], None] = no_check
    units: Callable[[Values], int] = one_unit


@dataclass(frozen=True, slots=True)
class OperationType:
    """A kind of operation with all versions of its rules that this node knows."""

    kind: str
    summary: str
    versions: Mapping[int, Rules]

    @property
    def newest(self) -> int:
        """The version that builders use."""
        return max(self.versions)


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event and its fields."""

    kind: str
    summary: str
    fields: Record


@dataclass(frozen=True, slots=True)
class Query:
    """A question that a domain answers from a state: served as ledger_<domain>_<name>.

    `run(reader, values)` returns a value of type `result`, and raises Rejected("not_found") where there is no answer.
    """

    name: str
    summary: str
    params: Record
    result: FieldType
    run: Callable[[StateReader, Values], Any]


@dataclass(frozen=True, slots=True)
class Extension:
    """What a domain keeps in each account: fields under a tag, at most 1024 bytes."""

    tag: str
    fields: Record


@dataclass(frozen=True, slots=True)
class Accusation:
    """What a piece of evidence in a block proves: the validator of that height who signed two blocks there."""

    offender: Validator
    offence: Offence
    height: Height
    view: View


@dataclass(frozen=True, slots=True)
class Plugin:
    """One domain of the ledger.

    `namespace` is the first item of the state keys of its own records. `errors` maps each code that its rules fail
    with to its meaning. The hooks are optional, and called in registry order:

    - genesis(genesis): yields (state key, value) of its records at the chain's birth;
    - block_begin(context): at the start of each block, without a transaction and without events;
    - evidence(context, accusation): for each piece of evidence, before the transactions and without events; raises
      Rejected for one that may not enter a block;
    - before_move(context, source or None, target or None, asset, amount): before each change of balances between
      accounts, None where money is minted or burned; may fail the transaction;
    - transaction_end(context): after the last operation; may fail the transaction;
    - block_end(context): after the last transaction, without events; here alone the validator set may be changed;
    - block_invariant(view): in slices, when all is applied; raises InvariantError if a rule of the whole is broken.
    """

    name: str
    summary: str
    operations: tuple[OperationType, ...] = ()
    queries: tuple[Query, ...] = ()
    events: tuple[EventType, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    extension: Extension | None = None
    genesis: Callable[[Genesis], Iterable[tuple[bytes, bytes]]] | None = None
    block_begin: Callable[[Context], None] | None = None
    evidence: Callable[[Context, Accusation], None] | None = None
    before_move: Callable[[Context, Address | None, Address | None, str, int], None] | None = None
    transaction_end: Callable[[Context], None] | None = None
    block_end: Callable[[Context], None] | None = None
    block_invariant: Callable[[BlockView], Slices[None]] | None = None
