"""What `qenex recover` does: notes durably, in the vote records, that this validator does not know what it has signed.

The rule that follows from it is the core's (docs/consensus.md, "Lost records"): the validator follows the chain, and
signs again only above a height that the others have committed without it and that lies above whatever it can have
signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.records import decode_records, recovery_records
from qenex_node.homes import NodeHome
from qenex_node.options import store_options
from state.errors import Rejected
from state.ledger import Ledger
from state.store import Store, VoteBatch


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


def begin_recovery(node_home: NodeHome, *, chain_intact: bool, now_ms: int) -> RecoveryBegun:
    """Begins recovery in a stopped validator's database; begun again, it starts anew from now.

    `chain_intact` says that the database has every block that this validator ever held: neither lost nor restored.
    Raises Rejected("not_a_validator"), and whatever opening the database raises.
    """
    if not node_home.is_validator:
        raise Rejected("not_a_validator", "only a validator signs votes: a full node needs no recovery")
    store = Store.open(node_home.home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        # From now on this key counts as one that has signed, whatever happened before.
        node_home.home.unused_marker.unlink(missing_ok=True)
        created = not store.votes_exist
        if created:
            store.create_votes()
        unreadable = _unreadable(store.votes())
        head = store.head.height
        records = recovery_records(head if chain_intact else None, now_ms)
        written = {key for key, _ in records}
        store.write_votes(VoteBatch(puts=records, deletes=tuple(key for key in unreadable if key not in written)))
    finally:
        store.close()
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
