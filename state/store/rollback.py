"""Taking back the newest committed block of a stopped node's database, in one atomic write.

The state before is still there while its tree is kept: each record that the block changed is read from that version.
Which records those are is found by executing the block again on that version, which proves at the same time that the
block follows from it; a deleted record's key stands nowhere else. What the commit of the block wrote goes; the block
itself stays as one that is not committed, for a vote may rest on it. Vote records stay, and are added to, so that
nothing is signed anew up to the height that was the head. So the node stands as it did before the commit, contradicts
nothing that it signed, and takes the same certified block again.

This undoes nothing on the chain: the block is final, and the network goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from state import slices
from state.errors import InvariantError, Rejected
from state.execution import ExecutedBlock, Executor
from state.genesis import Genesis
from state.hashing import Hash, sha256
from state.ledger import Ledger
from state.store import chain, index
from state.store.database import Batch, Database, Rows
from state.store.errors import Damaged
from state.store.keys import (
    CHAIN,
    META_HEAD,
    NODE,
    RECEIPTS,
    STALE,
    STATE,
    TRANSACTION,
    height_bytes,
    name_of,
    seal,
)
from state.store.store import DEFAULT_OPTIONS, Store, StoreOptions
from state.store.votes import Records
from state.transaction import decode_transaction
from state.tree.read import read
from state.types import Header, Height, ValidatorSet


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What was taken back: the block's height and hash, and the head that the database has now."""

    height: int
    block_hash: Hash
    head: Header
    records: int


Binding = Callable[[dict[bytes, bytes], Height], Records]
"""Returns the vote records that keep a validator from signing anew up to a height, from those that it has."""


def rollback(
    path: Path, genesis: Genesis, ledger: Ledger, binding: Binding, options: StoreOptions = DEFAULT_OPTIONS
) -> RolledBack:
    """Takes the newest block of a closed database back, and proves the database that is left.

    The vote records of a height go once its block is committed, so that they bind nobody who goes back below it:
    `binding` says what does, and is written with the rest.

    Raises Rejected: "rollback_impossible" where there is no block or no state below it, "rollback_differs" if the
    block does not follow from the state before it; what `Store.open` raises; Damaged if the result does not hold.
    Nothing is written then, except in the last case.
    """
    store = Store.open(path, genesis, ledger, options)
    try:
        executed = _execute_again(store, genesis, ledger)
        below = _header_below(store)
        batch = store.database.batch()
        _put_records_back(batch, store, executed, below)
        _delete_commit(batch, executed)
        batch.put(META_HEAD, seal(META_HEAD, chain.head_content(below)))
        if store.votes_exist:
            store.stage_votes(batch, binding(store.votes(), store.head.height))
        store.database.write(batch)
    finally:
        store.close()
    _audit(path, genesis, ledger, options, executed)
    header = executed.block.header
    return RolledBack(header.height, header.hash, below, len(executed.changes))


class _Before:
    """The state before the newest block, as the executor reads it."""

    def __init__(self, store: Store, head: Header) -> None:
        self.head = head
        self.nodes = Rows(store.database)
        self.validators: ValidatorSet = store.validators_at(head.height + 1)

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key before the block."""
        return read(self.nodes, self.head.height, sha256(state_key))


def _header_below(store: Store) -> Header:
    """Returns the header of the height below the head; raises Rejected("rollback_impossible")."""
    height = store.head.height
    if height == 0:
        raise Rejected("rollback_impossible", "the database stands at genesis: there is no block to take back")
    if store.oldest_state_height > height - 1:
        raise Rejected(
            "rollback_impossible",
            f"the state of height {height - 1} is not kept here (storage.keep_heights): resync the node instead",
            {"height": height - 1, "oldest_state_height": store.oldest_state_height},
        )
    header = store.header_at(height - 1)
    if header is None:
        raise InvariantError(f"height {height - 1} has no header")
    return header


def _execute_again(store: Store, genesis: Genesis, ledger: Ledger) -> ExecutedBlock:
    below = _header_below(store)
    block = store.block_at(store.head.height)
    if block is None:
        raise InvariantError("the head has no block")
    executor = Executor(ledger, genesis.context, _Before(store, below))
    transactions = [decode_transaction(wire, genesis.context) for wire in block.transactions]
    try:
        return slices.run(executor.execute(block.header, transactions, block.evidence))
    except Rejected as error:
        raise Rejected(
            "rollback_differs",
            f"block {block.header.height} does not follow from the state before it ({error.message}): resync the node",
        ) from error


def _put_records_back(batch: Batch, store: Store, executed: ExecutedBlock, below: Header) -> None:
    """Puts the newest state's records as they were before the block."""
    before = _Before(store, below)
    for state_key in executed.changes:
        key, value = STATE + state_key, before.get(state_key)
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, seal(key, value))


def _delete_commit(batch: Batch, executed: ExecutedBlock) -> None:
    """Removes what the commit of the block wrote, beside the newest state; its block stays."""
    header = executed.block.header
    for letter in (CHAIN, RECEIPTS, STALE):
        batch.delete(letter + height_bytes(header.height))
    for tx in executed.transactions:
        batch.delete(TRANSACTION + tx.id)
    for place, addresses in enumerate(executed.touched):
        for address in addresses:
            batch.delete(index.entry_key(address, header.height, place))
    for node_key, _ in executed.tree.puts:
        batch.delete(NODE + node_key)


def _audit(path: Path, genesis: Genesis, ledger: Ledger, options: StoreOptions, executed: ExecutedBlock) -> None:
    """Proves the new head as every opening does, each record put back, and that nothing of the commit is left."""
    height = executed.block.header.height
    store = Store.open(path, genesis, ledger, options)
    try:
        for state_key in executed.changes:
            if store.get(state_key) != store.get_at(height - 1, state_key):
                raise Damaged(name_of(STATE + state_key), "is not what the state root commits to")
        if store.head.height != height - 1 or store.body(executed.block.header.hash) is None:
            raise Damaged("the record of the head", f"is not that of height {height - 1}")
        _check_gone(store.database, height)
    finally:
        store.close()


def _check_gone(database: Database, height: int) -> None:
    for letter in (CHAIN, RECEIPTS, STALE, NODE):
        start = letter + height_bytes(height)
        for key, _ in database.scan(start, letter + height_bytes(Height(height + 1))):
            raise Damaged(name_of(key), "is left of a block that was taken back")
