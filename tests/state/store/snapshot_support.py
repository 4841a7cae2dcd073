"""Snapshots of a small chain, and states of any shape with a header that commits to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from store_support import VALIDATORS, Chain, certify, genesis_of

from state import slices
from state.hashing import Hash, sha256
from state.slices import run as run_slices
from state.store.database import Database
from state.store.genesis import genesis_header
from state.store.keys import STATE, seal
from state.store.snapshots import Snapshot, carry_votes, make_snapshot, run, snapshot_head, write_database
from state.tree.fold import fold
from state.tree.hashes import leaf_hash
from state.types import Header, Height

__all__ = ["GENESIS", "Chain", "header_of", "put_in_place", "replay", "restore", "snapshot_of", "snapshot_of_chain"]

GENESIS = genesis_of()


def header_of(pairs: Iterable[tuple[bytes, bytes]], height: int = 7) -> Header:
    """A header that commits to a state of these (state key, value)."""
    leaves = sorted((sha256(key), leaf_hash(sha256(key), sha256(value))) for key, value in pairs)
    root = run_slices(fold(leaves, 0)).hash
    return replace(genesis_header(GENESIS, root), height=Height(height), parent_hash=Hash(sha256(b"parent")))


def snapshot_of(path: Path, state: dict[bytes, bytes], state_bytes: int = 0) -> Snapshot:
    """The snapshot of a state of any shape, made from a database that holds its records and nothing else."""
    database = Database.create(path / "records", durable=False)
    batch = database.batch()
    for key, value in state.items():
        batch.put(STATE + key, seal(STATE + key, value))
    database.write(batch)
    header = header_of(state.items())
    work = make_snapshot(
        database.view(),
        path / "snapshots",
        header,
        certify(GENESIS, header),
        VALIDATORS,
        VALIDATORS,
        state_bytes=state_bytes,
    )
    try:
        return Snapshot.open(run(work))
    finally:
        database.close()


def snapshot_of_chain(chain: Chain, root: Path) -> Snapshot:
    """The snapshot of a chain's head."""
    return Snapshot.open(run(snapshot_head(chain.store, root)))


def write(chain: Chain, snapshot: Snapshot) -> None:
    """Makes the new database of a snapshot beside that of a chain."""
    run(write_database(chain.path, chain.genesis, snapshot.manifest, snapshot.certificate, snapshot, chain.options))


def put_in_place(snapshot: Snapshot, target: Chain) -> None:
    """Restores a snapshot in the place of a closed chain's database."""
    old = Database.open(target.path)
    try:
        write(target, snapshot)
        carry_votes(old)
    except BaseException:
        old.close()
        raise
    old.give_way()


def restore(snapshot: Snapshot, target: Chain) -> Chain:
    """Restores a snapshot in the place of a closed chain's database, and opens it."""
    put_in_place(snapshot, target)
    return Chain(target.path, target.genesis, new=False)


def replay(source: Chain, target: Chain) -> None:
    """Executes on `target` all blocks of `source` that it lacks."""
    from state.transaction import decode_transaction

    for height in range(target.store.head.height + 1, source.store.head.height + 1):
        block = source.store.block_at(height)
        assert block is not None
        transactions = [decode_transaction(wire, source.genesis.context) for wire in block.transactions]
        target.commit(slices.run(target.executor.execute(block.header, transactions, block.evidence)))
