"""What governance keeps in the state, under the namespace "governance".

["chain"]             the genesis hash, which proofs of possession are bound to
["agenda"]            what blocks begin and end by: see Agenda
["proposal", number]  a proposal: see Proposal
["validator", key]    who has, or had, this consensus key: see ValidatorRecord
["name", name]        the newest consensus key of that name
["used", key]         the name that used this consensus or node key: nobody else ever may
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from state.codec import decode, encode
from state.genesis import Genesis
from state.keys import ED25519, Policy, PublicKey
from state.ledger.context import RECORD_BYTES_MAX
from state.ledger.overlay import StateReader
from state.ledger.validators import FIRST_HEIGHT
from state.types import Address, Validator

NAMESPACE: Final = "governance"
AGENDA_KEY: Final = encode((NAMESPACE, "agenda"))
"""The state key of the agenda: what is accepted and to come changes only with it."""

OPEN: Final = "open"
ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
IN_FORCE: Final = "in_force"
FAILED: Final = "failed"
STATUSES: Final = (OPEN, ACCEPTED, REJECTED, EXPIRED, IN_FORCE, FAILED)

ADD: Final = "add"
REMOVE: Final = "remove"
REPLACE: Final = "replace"
CHANGES: Final = (ADD, REMOVE, REPLACE)

Get = Callable[..., Any]
"""Returns the canonical value under a key of the namespace, or None: `Context.get`, or a reader's (`reading`)."""


class Change(NamedTuple):
    """What a proposal does to one validator; None where nothing is said."""

    kind: str
    name: str
    key: bytes | None
    node_key: bytes | None
    operator: Address | None


class Proposal(NamedTuple):
    """A proposal. Approvals and rejections are consensus keys; `height` is when it was closed, `reason` why it failed.

    `from_height` 0 stands for the height after its acceptance.
    """

    number: int
    proposer: bytes
    change: Change
    from_height: int
    expires_ms: int
    approvals: tuple[bytes, ...]
    rejections: tuple[bytes, ...]
    status: str
    height: int
    reason: str


class Pending(NamedTuple):
    """What the agenda holds of an open or accepted proposal, so that blocks need not read each."""

    number: int
    from_height: int
    expires_ms: int
    proposer: bytes


class Agenda(NamedTuple):
    """What is to be done, in one record: `accepted` and `suspensions` wait to take force, `closed` to be forgotten.

    `suspensions` are consensus keys in the order of their evidence; `closed` are numbers in the order of closing.
    """

    next_number: int
    open: tuple[Pending, ...]
    accepted: tuple[Pending, ...]
    suspensions: tuple[bytes, ...]
    closed: tuple[int, ...]


class Offence(NamedTuple):
    """An equivocation that is on record; `kind` is 1 for PREPAREs, 2 for COMMITs, 3 for PRE-PREPAREs."""

    height: int
    view: int
    kind: int


class ValidatorRecord(NamedTuple):
    """A validator, present or former, by its consensus key.

    `operator` is the account that acts for it. `since` is the first height of its present or last membership, `until`
    the first height after that, 0 while it lasts. `suspended` says that evidence ended it. `evidence_count` counts all
    evidence ever, `offences` are those that may still be shown again.
    """

    name: str
    node_key: bytes
    operator: Address
    since: int
    until: int
    suspended: bool
    evidence_count: int
    offences: tuple[Offence, ...]


def reading(reader: StateReader) -> Get:
    """Returns how queries read what rules read through their context."""

    def get(*key: Any) -> Any:
        data = reader.get(encode((NAMESPACE, *key)))
        return None if data is None else decode(data, bytes_max=RECORD_BYTES_MAX)

    return get


def read_agenda(get: Get) -> Agenda:
    """Returns the agenda."""
    number, opened, accepted, suspensions, closed = get("agenda")
    return Agenda(
        number,
        tuple(Pending(*item) for item in opened),
        tuple(Pending(*item) for item in accepted),
        suspensions,
        closed,
    )


def read_proposal(get: Get, number: int) -> Proposal | None:
    """Returns a proposal, or None."""
    value = get("proposal", number)
    if value is None:
        return None
    proposer, change, *rest = value
    return Proposal(number, proposer, Change(*change), *rest)


def accepted_node_keys(reader: StateReader) -> tuple[tuple[str, bytes], ...]:
    """Returns names and new node keys of the validators whose change is accepted and not yet in force."""
    get = reading(reader)
    proposals = [read_proposal(get, pending.number) for pending in read_agenda(get).accepted]
    changes = [proposal.change for proposal in proposals if proposal is not None]
    return tuple((change.name, change.node_key) for change in changes if change.node_key is not None)


def proposal_value(proposal: Proposal) -> tuple[Any, ...]:
    """Returns the record of a proposal: its fields without the number."""
    return tuple(proposal[1:])


def read_validator(get: Get, key: bytes) -> ValidatorRecord | None:
    """Returns the record of a consensus key, or None."""
    value = get("validator", key)
    if value is None:
        return None
    record = ValidatorRecord(*value)
    return record._replace(offences=tuple(Offence(*item) for item in record.offences))


def operator_of(key: bytes) -> Address:
    """Returns the account that acts for a validator unless another is named: that of its consensus key alone."""
    return Policy.single(PublicKey(ED25519, key)).address


def genesis_pairs(genesis: Genesis) -> Iterator[tuple[bytes, bytes]]:
    """Yields the records that a chain is born with."""

    def pair(*key: Any, value: Any) -> tuple[bytes, bytes]:
        return encode((NAMESPACE, *key)), encode(value)

    yield pair("chain", value=genesis.hash)
    yield pair("agenda", value=Agenda(1, (), (), (), ()))
    used: dict[bytes, str] = {}
    for validator in genesis.validators.validators:
        yield pair("validator", validator.key, value=born(validator, operator_of(validator.key), FIRST_HEIGHT))
        yield pair("name", validator.name, value=validator.key)
        used.setdefault(validator.key, validator.name)
        used.setdefault(validator.node_key, validator.name)
    for key, name in used.items():
        yield pair("used", key, value=name)


def born(validator: Validator, operator: Address, since: int) -> ValidatorRecord:
    """Returns the record of a validator that nothing is known of yet."""
    return ValidatorRecord(validator.name, validator.node_key, operator, since, 0, False, 0, ())
