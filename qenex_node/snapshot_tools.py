"""What `qenex snapshot` does with a stopped node's home: make, list, prove and restore snapshots.

A running node makes snapshots itself, and restores one when it is far behind (qenex_node/snapshots.py, statesync.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import LightBlock, TrustedHeader, verify_skipping
from qenex_node.homes import NodeHome
from qenex_node.options import store_options
from state import slices
from state.errors import Rejected
from state.genesis import Genesis
from state.ledger import Ledger
from state.store import Store
from state.store.snapshots import (
    Snapshot,
    carry_votes,
    check_certificate,
    path_of,
    prove_chunk,
    run,
    snapshot_head,
    snapshots_in,
    write_database,
)
from state.store.snapshots.restoring import Progress


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the snapshot, where the database stood before, and whether it has vote records."""

    snapshot: Snapshot
    head_before: int
    votes_exist: bool


def create(node_home: NodeHome) -> Snapshot:
    """Makes the snapshot of a stopped node's newest state, unless it is there; raises Rejected, StoreError."""
    home = node_home.home
    store = Store.open(home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        path = path_of(home.snapshots, store.head.height)
        if not path.exists():
            path = run(snapshot_head(store, home.snapshots))
    finally:
        store.close()
    return Snapshot.open(path)


def find(node_home: NodeHome, which: str) -> Snapshot:
    """Returns the snapshot that is meant: a height, or a directory. Raises Rejected("snapshot_missing")."""
    path = path_of(node_home.home.snapshots, int(which)) if which.isdecimal() else Path(which)
    if not path.is_dir():
        raise Rejected("snapshot_missing", f"there is no snapshot {which}: `qenex snapshot list` shows those there are")
    return Snapshot.open(path)


def listed(node_home: NodeHome) -> list[Snapshot | tuple[Path, Rejected]]:
    """Returns the snapshots of a home, the newest first; for one that cannot be read, why not."""
    found: list[Snapshot | tuple[Path, Rejected]] = []
    for path in snapshots_in(node_home.home.snapshots):
        try:
            found.append(Snapshot.open(path))
        except Rejected as error:
            found.append((path, error))
    return found


def prove(snapshot: Snapshot, genesis: Genesis, block_hash: bytes | None, progress: Progress) -> None:
    """Proves all of a snapshot: header, certificate and every chunk.

    Raises Rejected: "header_unproved", "certificate_invalid", "snapshot_damaged", "chunk_invalid" ...
    """
    prove_header(snapshot, TrustedHeader.of_genesis(genesis), genesis, block_hash)
    chunks = snapshot.manifest.chunks
    for chunk in chunks:
        slices.run(prove_chunk(chunk, snapshot.read_chunk(chunk.number)))
        progress(chunk.number + 1, len(chunks))


def prove_header(snapshot: Snapshot, trusted: TrustedHeader, genesis: Genesis, block_hash: bytes | None) -> None:
    """Proves a snapshot's header in one step from a trusted one, or by the block hash that a trusted source gave.

    Raises Rejected: "header_unproved", and what `check_certificate` raises.
    """
    manifest = snapshot.manifest
    check_certificate(manifest, snapshot.certificate, genesis)
    if block_hash is not None:
        if block_hash != manifest.header.hash:
            found = f"0x{manifest.header.hash.hex()}"
            raise Rejected("header_unproved", f"the snapshot is of the block {found}, not of the one given")
        return
    block = LightBlock(manifest.header, snapshot.certificate, manifest.validators)
    try:
        reached = verify_skipping(genesis.context, trusted, block)
    except VerificationFailed as error:
        raise Rejected("header_unproved", f"the snapshot's header does not hold: {error}") from error
    if reached is None:
        raise Rejected(
            "header_unproved",
            f"too few of the validators known here signed height {manifest.header.height}: give its block hash, from a "
            "source that you trust, with --block-hash (`qenex light` proves one)",
        )


def restore(node_home: NodeHome, snapshot: Snapshot, block_hash: bytes | None, progress: Progress) -> Restored:
    """Puts the state of a snapshot in the place of a stopped node's database, keeping its vote records.

    Raises Rejected: "snapshot_behind", "header_unproved", what opening the database and reading the snapshot raise;
    the database is then as it was.
    """
    options = store_options(node_home.config)
    store = Store.open(node_home.home.data, node_home.genesis, Ledger(), options=options)
    try:
        head = store.head
        if snapshot.height <= head.height:
            raise Rejected(
                "snapshot_behind",
                f"the snapshot is of height {snapshot.height}, the database is at {head.height} already",
            )
        trusted = TrustedHeader.of_genesis(node_home.genesis)
        if head.height:
            known = store.validators_at(head.height)
            trusted = TrustedHeader(head.height, head.hash, head.time_ms, known, head.next_validators_hash)
        prove_header(snapshot, trusted, node_home.genesis, block_hash)
        work = write_database(
            node_home.home.data,
            node_home.genesis,
            snapshot.manifest,
            snapshot.certificate,
            snapshot,
            options,
            progress,
        )
        run(work)
        carry_votes(store.database)
        votes_exist = store.votes_exist
    except BaseException:
        store.close()
        raise
    store.give_way()
    return Restored(snapshot, head.height, votes_exist)
