"""What operators do to a stopped validator's vote records: `qenex recover`, a lost quorum's reports, `qenex rollback`.

The rules that follow from what is written are the core's (docs/consensus.md, "Lost records" and "A lost quorum"). Up to
f validators that lost their records follow the chain and sign again only above a height that the others have committed
without them. Where more than f lost them, all validators report, and one statement of all reports binds each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from consensus.records import (
    Signing,
    SigningState,
    decode_records,
    recovery_records,
    rollback_records,
    signing_record,
)
from consensus.statement import (
    RecordsChange,
    Report,
    Statement,
    check_statement,
    make_report,
    report_change,
    statement_change,
    statement_of,
    withdrawal,
)
from qenex_node.homes import NodeHome
from qenex_node.keystore import inspect_key
from qenex_node.options import store_options
from qenex_node.restored import core_config, restored_from
from state.errors import DecodeError, Rejected
from state.keys import SigningKey
from state.ledger import Ledger
from state.store import Store, VoteBatch
from state.store.rollback import RolledBack, rollback
from state.types import Height, ValidatorSet

BARRED: Final = signing_record(Signing(SigningState.BARRED))
"""Among the first records of a home that lost its own: without it they would be those of a key that never signed."""


@dataclass(frozen=True, slots=True)
class RecoveryBegun:
    """What was noted. `votes_created` says that there were no vote records at all, `records_dropped` how many could
    not be read; `signed_at_most` is None where only the chain's time will tell what it can have signed.
    """

    head_height: int
    signed_at_most: int | None
    started_ms: int
    votes_created: bool
    records_dropped: int


@contextmanager
def _opened(node_home: NodeHome) -> Iterator[Store]:
    """Opens a stopped validator's database; from now on its key counts as one that has signed."""
    if not node_home.is_validator:
        raise Rejected("not_a_validator", "only a validator signs votes: a full node needs no recovery")
    store = Store.open(node_home.home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        node_home.home.unused_marker.unlink(missing_ok=True)
        yield store
    finally:
        store.close()


def begin_recovery(node_home: NodeHome, *, chain_intact: bool, now_ms: int) -> RecoveryBegun:
    """Begins recovery in a stopped validator's database; begun again, it starts anew from now.

    `chain_intact` says that the database has every block that this validator ever held: neither lost nor restored.
    Raises Rejected("not_a_validator"), and whatever opening the database raises.
    """
    with _opened(node_home) as store:
        head = store.head.height
        records = recovery_records(head if chain_intact else None, now_ms)
        owner = inspect_key(node_home.home.validator_key_file).public.data
        created = store.votes_owner != owner
        unreadable: tuple[bytes, ...] = ()
        if created:
            store.create_votes(owner, records)
        else:
            unreadable = _unreadable(store.votes())
            written = {key for key, _ in records}
            store.write_votes(VoteBatch(puts=records, deletes=tuple(key for key in unreadable if key not in written)))
    return RecoveryBegun(head, head + 1 if chain_intact else None, now_ms, created, len(unreadable))


def _unreadable(records: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """Returns the keys of the records that the core could not read at its start."""
    found: list[bytes] = []
    for key, value in records.items():
        try:
            decode_records({key: value})
        except Rejected:
            found.append(key)
    return tuple(found)


def roll_back(node_home: NodeHome) -> RolledBack:
    """Takes the newest block of a stopped node's database back; see state/store/rollback.py."""
    options = store_options(node_home.config)
    return rollback(node_home.home.data, node_home.genesis, Ledger(), rollback_records, options)


# More than f validators lost their records.


@dataclass(frozen=True, slots=True)
class Reported:
    """A home's report, and the name of the validator that it is of."""

    report: Report
    name: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Stated:
    """The statement that all reports make. `applied` is False where this home had applied it already."""

    head_height: int
    head_hash: bytes
    view: int
    digest: bytes
    kept: tuple[str, ...]
    wiped: tuple[str, ...]
    applied: bool


def report_home(node_home: NodeHome, key: SigningKey) -> Reported:
    """Makes a stopped validator's report, which bars its home from signing until a statement is applied.

    Made again it takes the place of the one before. Raises Rejected: "not_a_validator", "not_in_force",
    "report_behind".
    """
    with _opened(node_home) as store:
        config = core_config(node_home.config, node_home.genesis, key.public.data)
        report = make_report(config, restored_from(store, key.public.data), key.sign)
        change = report_change(report)
        if store.votes_owner == key.public.data:
            _write(store, change)
        else:
            store.create_votes(key.public.data, (BARRED, *change.puts))
        name = store.validators.validators[report.sender].name
    return Reported(report, name, report.encode())


def withdraw_report(node_home: NodeHome) -> None:
    """Takes a stopped validator's report back: it signs as it did before, and no statement with that report counts."""
    with _opened(node_home) as store:
        if not store.votes_exist or decode_records(store.votes()).report is None:
            raise Rejected("report_missing", "this home has no report to take back")
        _write(store, withdrawal())


def read_statement(node_home: NodeHome, reports: Sequence[bytes]) -> tuple[Statement, Stated]:
    """Returns the statement of these encoded reports, proved against a stopped validator's chain; writes nothing.

    Raises Rejected: "report_twice", "report_unreadable" and whatever `check_statement` raises.
    """
    with _opened(node_home) as store:
        statement = _checked(store, node_home, reports)
        return statement, _stated(statement, store.validators, applied=False)


def apply_statement(node_home: NodeHome, key: bytes, statement: Statement, *, now_ms: int) -> Stated:
    """Applies a proved statement to a stopped validator's records; again it changes nothing.

    `key` is the validator's public key, `now_ms` the time of day. Raises Rejected: "statement_not_ours",
    "statement_older".
    """
    with _opened(node_home) as store:
        config = core_config(node_home.config, node_home.genesis, key)
        change = statement_change(statement, config, restored_from(store, key), now_ms)
        _write(store, change)
        return _stated(statement, store.validators, applied=bool(change.puts))


def _checked(store: Store, node_home: NodeHome, encoded: Sequence[bytes]) -> Statement:
    try:
        statement = statement_of([Report.decode(data) for data in encoded])
    except DecodeError as error:
        raise Rejected("report_unreadable", f"a report cannot be read: {error.message}") from None
    senders = [report.sender for report in statement.reports]
    twice = sorted({_name(store.validators, sender) for sender in senders if senders.count(sender) > 1})
    if twice:
        raise Rejected(
            "report_twice",
            f"there are two reports of {', '.join(twice)}: take the newest of each validator, which is the one that "
            "its home remembers",
            {"validators": [*twice]},
        )

    def validators_at(height: Height) -> ValidatorSet | None:
        # A home that is behind knows no later set than its own, and the reports must be of that one.
        return store.validators_at(height) if height <= store.head.height else store.validators

    check_statement(statement, node_home.genesis.hash, store.validators, store.validators_since, validators_at)
    return statement


def _stated(statement: Statement, validators: ValidatorSet, *, applied: bool) -> Stated:
    return Stated(
        statement.head.head_height,
        statement.head.head_hash,
        statement.view,
        statement.digest,
        tuple(_name(validators, index) for index in statement.kept),
        tuple(_name(validators, index) for index in statement.wiped),
        applied,
    )


def _name(validators: ValidatorSet, index: int) -> str:
    return validators.validators[index].name if index < validators.n else f"index {index}"


def _write(store: Store, change: RecordsChange) -> None:
    if change.puts or change.deletes:
        store.write_votes(VoteBatch(puts=change.puts, deletes=change.deletes))
