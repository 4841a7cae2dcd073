"""Gathering everything that committing a block writes into one batch, and writing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from state.execution import ExecutedBlock
from state.hashing import Hash
from state.slices import Slices
from state.store import chain, index
from state.store.database import Database
from state.store.keys import NODE, STATE, TRANSACTION, place_bytes, seal
from state.store.pruning import garbage_record
from state.types import Certificate, Header, ValidatorSet

_SLICE_PUTS: Final = 512
"""About half a millisecond."""


@dataclass(slots=True, eq=False)
class PreparedCommit:
    """One block's batch, gathered but not written. `write` may be called in a worker thread.

    `dropped` are the blocks of its height that were stored and lost; `garbage_bytes` is about what it overwrites.
    """

    header: Header
    certificate: Certificate
    validators_next: ValidatorSet
    dropped: tuple[Hash, ...]
    garbage_bytes: int
    database: Database = field(repr=False)
    batch: Any = field(repr=False)
    written: bool = False

    def write(self) -> None:
        """Writes it, atomically and synced; raises StorageFailed, upon which nothing of it is there."""
        self.database.write(self.batch)
        self.written = True


def gather(
    database: Database,
    batch: Any,
    executed: ExecutedBlock,
    certificate: Certificate,
    *,
    bodies: Mapping[Hash, int],
    indexed: bool,
    garbage_bytes: int,
) -> Slices[PreparedCommit]:
    """Puts a block and all that follows from it into `batch`.

    Args:
        bodies: the blocks that are stored and not committed, hash -> height: the block itself is not put again if it
            is among them, and others of its height or below go.
        indexed: whether the index of accounts is kept.
        garbage_bytes: what was overwritten before this block.
    """
    header = executed.block.header
    if header.hash not in bodies:
        chain.put_block(batch, executed.block)
        yield
    dropped = [(lost, at) for lost, at in bodies.items() if at <= header.height and lost != header.hash]
    for lost, at in dropped:
        chain.delete_block(batch, at, lost)
    chain.put_receipts(batch, header.height, executed.receipt_bytes)
    yield
    yield from _put_places(batch, executed)
    if indexed:
        yield from index.put_entries(batch, header.height, executed.touched)
    overwritten = yield from _put_state(batch, executed)
    chain.put_stale(batch, header.height, executed.tree.stale)
    chain.put_head(batch, header, certificate)
    batch.put(*garbage_record(garbage_bytes + overwritten))
    gone = tuple([lost for lost, _ in dropped])
    return PreparedCommit(header, certificate, executed.validators_next, gone, overwritten, database, batch)


def _put_places(batch: Any, executed: ExecutedBlock) -> Slices[None]:
    put = batch.put
    height = executed.block.header.height
    for place, tx in enumerate(executed.transactions):
        key = TRANSACTION + tx.id
        put(key, seal(key, place_bytes(height, place)))
        if place % _SLICE_PUTS == _SLICE_PUTS - 1:
            yield


def _put_state(batch: Any, executed: ExecutedBlock) -> Slices[int]:
    """Puts the changed records and rows; returns about how many bytes they overwrite."""
    put = batch.put
    overwritten = 0
    for count, (state_key, value) in enumerate(executed.changes.items(), 1):
        key = STATE + state_key
        if value is None:
            batch.delete(key)
            overwritten += len(key)
        else:
            put(key, seal(key, value))
            overwritten += len(key) + len(value)
        if count % _SLICE_PUTS == 0:
            yield
    for count, (node_key, row) in enumerate(executed.tree.puts, 1):
        put(NODE + node_key, row)
        if count % _SLICE_PUTS == 0:
            yield
    return overwritten
