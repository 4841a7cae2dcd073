"""Makes a database from a snapshot, and puts it in the place of the one that a node has.

The new database is made beside the old one, which may be in use meanwhile. Its chain begins with the snapshot's height:
header, certificate and validator sets are there, and no blocks up to it. It is right only if the tree that is built
from the chunks has the root that the header names: no chunk is taken on trust. What the old database knows and the
snapshot cannot, the votes that were given here with the blocks that they are for, is carried over last, when nobody
votes any more. Then one takes the other's place (replacement.py).

Whether the header itself is to be trusted is not judged here: only that a quorum of its own validator set signed it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from state.block import verify_certificate
from state.codec import encode
from state.errors import Rejected
from state.genesis import Genesis
from state.store import chain
from state.store.database import Database
from state.store.keys import (
    FORMAT_VERSION,
    META_CHAIN,
    META_FORMAT,
    META_INDEX,
    META_OLDEST,
    META_VOTES,
    NODE,
    STATE,
    VOTE,
    after,
    height_bytes,
    seal,
)
from state.store.replacement import new_path
from state.store.snapshots.manifest import Manifest, prove_chunk, read_leaves
from state.store.snapshots.work import Work, elsewhere
from state.store.store import StoreOptions
from state.tree.build import Builder
from state.types import VOTE_COMMIT, Certificate

Progress = Callable[[int, int], None]
"""Told (chunks done, of how many)."""

_SLICE_RECORDS: Final = 128
_BATCH_RECORDS: Final = 2048


class Source(Protocol):
    """Where chunks come from: a snapshot on the disk, or what was fetched of one."""

    def read_chunk(self, number: int) -> bytes:
        """Returns the bytes of a chunk, not proved."""


def check_certificate(manifest: Manifest, certificate: Certificate, genesis: Genesis) -> None:
    """Proves that a quorum of a snapshot's own validator set committed its header, on the chain of `genesis`.

    Raises Rejected: "wrong_chain", "snapshot_invalid", "certificate_invalid".
    """
    header = manifest.header
    if header.chain_id != genesis.chain_id:
        raise Rejected("wrong_chain", f"the snapshot is of chain {header.chain_id}, not {genesis.chain_id}")
    if (certificate.kind, certificate.height, certificate.block_hash) != (VOTE_COMMIT, header.height, header.hash):
        raise Rejected("snapshot_invalid", "the snapshot's certificate is not that of its header")
    verify_certificate(certificate, genesis.hash, manifest.validators)


def write_database(
    store: Path,
    genesis: Genesis,
    manifest: Manifest,
    certificate: Certificate,
    source: Source,
    options: StoreOptions,
    progress: Progress | None = None,
) -> Work[None]:
    """Makes the database beside the one at `store`, without vote records, sealed when it is complete.

    Raises Rejected: what `check_certificate` and reading chunks raise, "chunk_invalid" naming the first chunk that is
    not what the manifest says; StorageFailed. What was begun is then removed.
    """
    check_certificate(manifest, certificate, genesis)
    path = new_path(store)
    database = yield from elsewhere(lambda: _make_empty(path, options))
    try:
        yield from _write_state(database, manifest, source, progress or _silent)
        yield lambda: _write_frame(database, genesis, manifest, certificate, options)
        yield database.close
    except BaseException:
        database.close()
        shutil.rmtree(path, ignore_errors=True)
        raise


def _make_empty(path: Path, options: StoreOptions) -> Database:
    shutil.rmtree(path, ignore_errors=True)
    return Database.create(
        path,
        cache_bytes=options.cache_bytes,
        write_buffer_bytes=options.write_buffer_bytes,
        durable=options.durable,
    )


def _silent(done: int, total: int) -> None:
    """The progress of whoever does not want to know."""


def _write_state(database: Database, manifest: Manifest, source: Source, progress: Progress) -> Work[None]:
    header, chunks = manifest.header, manifest.chunks
    batch = database.batch(sync=False)
    put = batch.put
    builder = Builder(header.height, lambda node_key, row: put(NODE + node_key, row))
    waiting, last = 0, b""
    for chunk in chunks:
        data = yield from elsewhere(partial(source.read_chunk, chunk.number))
        leaves = yield from read_leaves(data)
        for count, (key_hash, state_key, value) in enumerate(leaves, 1):
            if key_hash <= last:
                yield from _name_wrong_chunk(manifest, source)
            last = key_hash
            key = STATE + state_key
            put(key, seal(key, value))
            builder.add(key_hash, value)
            if count % _SLICE_RECORDS == 0:
                yield None
        waiting += len(leaves)
        if waiting >= _BATCH_RECORDS:
            waiting = 0
            yield lambda: _write(database, batch)
        progress(chunk.number + 1, len(chunks))
    root = builder.finish()
    if root != header.state_root:
        yield from _name_wrong_chunk(manifest, source)
    yield lambda: _write(database, batch)


def _write(database: Database, batch: Any) -> None:
    database.write(batch)
    batch.clear()


def _name_wrong_chunk(manifest: Manifest, source: Source) -> Work[None]:
    """Raises Rejected("chunk_invalid") for the first chunk that is not the manifest's: together they did not fit."""
    for chunk in manifest.chunks:
        data = yield from elsewhere(partial(source.read_chunk, chunk.number))
        yield from prove_chunk(chunk, data)
    raise Rejected("chunk_invalid", "the chunks changed while they were read")


def _write_frame(
    database: Database, genesis: Genesis, manifest: Manifest, certificate: Certificate, options: StoreOptions
) -> None:
    """Writes what is there of the chain, and last what makes it a database."""
    header = manifest.header
    batch = database.batch()
    chain.put_header(batch, header)
    chain.put_head(batch, header, certificate)
    chain.put_base(batch, header.height)
    database.put(batch, META_CHAIN, genesis.hash)
    database.put(batch, META_OLDEST, height_bytes(header.height))
    if options.index_accounts:
        database.put(batch, META_INDEX, height_bytes(header.height + 1))
    database.put(batch, META_FORMAT, encode(FORMAT_VERSION))
    database.write(batch)


def carry_votes(old: Database) -> None:
    """Copies vote records, and the blocks that votes above the new head may be for, into the database beside `old`.

    Nobody may vote from here on until `old.give_way` was called. Raises Rejected("snapshot_behind") if the new chain
    begins below the old head: nothing that was committed here is given up.
    """
    head, _ = chain.read_head(old)
    new = Database.open(new_path(old.path))
    try:
        base = chain.read_base(new)
        if base < head:
            raise Rejected("snapshot_behind", f"the snapshot is of height {base}, the database is at {head} already")
        batch = new.batch()
        for key, value in old.scan(VOTE, after(VOTE)):
            batch.put(key, value)
        summary = old.get_raw(META_VOTES)
        if summary is not None:
            batch.put(META_VOTES, summary)
        for block_hash, height in chain.stored_bodies(old, head).items():
            if height > base:
                chain.put_block(batch, chain.read_block(old, chain.need_header(old, block_hash)))
        new.write(batch)
    finally:
        new.close()
