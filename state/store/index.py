"""The index of each account's transactions, which an operator may switch on and off.

It begins at the height at which it was switched on: which accounts a block touched is known only when it is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from state.slices import Slices
from state.store.database import Database
from state.store.keys import ACCOUNT, META_INDEX, after, height_bytes, place_bytes, read_place, seal
from state.types import Address

_SLICE_TRANSACTIONS: Final = 512
_REMOVAL_ENTRIES: Final = 10_000
_BEING_REMOVED: Final = b""
"""Content of the index's record while its entries go, so that what a crash leaves is never taken for an index."""


def entry_key(address: bytes, height: int, index: int) -> bytes:
    """Returns the key of the entry of a transaction that touched an account."""
    return ACCOUNT + address + place_bytes(height, index)


def read_start(database: Database) -> int | None:
    """Returns the first height of the index; None where there is none."""
    content = database.get(META_INDEX)
    return int.from_bytes(content, "big") if content else None


def prepare(database: Database, wanted: bool, next_height: int) -> int | None:
    """Switches the index on from `next_height` or off, if that is not done; returns its first height."""
    content = database.get(META_INDEX)
    if content is not None and (content == _BEING_REMOVED or not wanted):
        _remove(database)
        content = None
    if content is None and wanted:
        batch = database.batch()
        database.put(batch, META_INDEX, height_bytes(next_height))
        database.write(batch)
    return read_start(database)


def _remove(database: Database) -> None:
    batch = database.batch()
    database.put(batch, META_INDEX, _BEING_REMOVED)
    for count, (key, _) in enumerate(database.scan(ACCOUNT, after(ACCOUNT)), 1):
        batch.delete(key)
        if count % _REMOVAL_ENTRIES == 0:
            database.write(batch)
            batch.clear()
    database.write(batch)
    batch.clear()
    batch.delete(META_INDEX)
    database.write(batch)


def put_entries(batch: Any, height: int, touched: Sequence[Sequence[Address]]) -> Slices[None]:
    """Puts the entries of a block: for each transaction, the accounts that it touched."""
    put = batch.put
    for index, addresses in enumerate(touched):
        for address in addresses:
            key = entry_key(address, height, index)
            put(key, seal(key, b""))
        if index % _SLICE_TRANSACTIONS == _SLICE_TRANSACTIONS - 1:
            yield


def places(database: Database, address: Address, before: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yields the places of an account's transactions below `before`, newest first."""
    start = ACCOUNT + address
    for key, _ in database.scan_back(start, start + place_bytes(*before)):
        yield read_place(key[len(start) :])
