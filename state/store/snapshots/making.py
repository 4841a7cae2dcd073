"""Makes a snapshot of a database as it is at one moment, while the node goes on.

The state's records stand in the database by state key, a snapshot needs them by the key's hash. One pass over a view
of the database sorts them roughly into files by the first nibbles of that hash, and counts what each holds; then each
is put in order, hashed and cut into chunks. Memory is bounded by the largest of these files and one buffer. What was
read is proved in the end: all folds into the header's state root, or nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from state.errors import InvariantError, Rejected
from state.hashing import Hash, sha256
from state.store.database import View
from state.store.errors import Damaged
from state.store.keys import STATE, after, unseal
from state.store.snapshots.directory import Draft, path_of
from state.store.snapshots.manifest import (
    CHUNK_BYTES_MAX,
    Leaf,
    Manifest,
    bucket_of,
    encode_chunk,
    extended,
    fits_chunk,
    part_of,
    weight_of,
)
from state.store.snapshots.work import Blocking, Work, elsewhere
from state.tree.fold import NIBBLE_BITS, fold
from state.tree.hashes import HASH_BYTES, leaf_hash
from state.tree.node import nibble_at
from state.types import Certificate, Header, ValidatorSet

if TYPE_CHECKING:
    from state.store.store import Store

BUCKET_NIBBLES_MAX: Final = 4
_BUCKET_BYTES_AIM: Final = CHUNK_BYTES_MAX
_BUFFER_BYTES: Final = 16 * 1024 * 1024
_SLICE_RECORDS: Final = 256
_LENGTH_BYTES: Final = 4


def snapshot_head(store: Store, root: Path) -> Work[Path]:
    """Returns the work of making the snapshot of the store's head as it is now; see `make_snapshot`.

    Raises Rejected("snapshot_empty") at height 0, which everyone makes from the genesis document.
    """
    header, certificate = store.head, store.head_certificate
    if certificate is None:
        raise Rejected("snapshot_empty", "the chain has no block yet: there is nothing to make a snapshot of")
    return make_snapshot(
        store.database.view(),
        root,
        header,
        certificate,
        store.validators_at(header.height),
        store.validators,
        state_bytes=store.database.approximate_bytes(STATE, after(STATE)),
    )


def make_snapshot(
    view: View,
    root: Path,
    header: Header,
    certificate: Certificate,
    validators: ValidatorSet,
    validators_next: ValidatorSet,
    *,
    state_bytes: int,
) -> Work[Path]:
    """Makes the snapshot of the head that `view` shows and returns its directory; closes the view.

    `state_bytes` is about how large the state's records are. Raises Damaged if the records are not those that the
    header commits to, OSError where the disk refuses; nothing is left behind then.
    """
    draft = Draft.to_make(root, header.height)
    try:
        buckets = _Buckets(draft.path, _nibbles_for(state_bytes))
        try:
            yield from buckets.fill(view)
        finally:
            view.close()
        parts = yield from _Cutter(draft, buckets).cut()
        manifest = _manifest(header, validators, validators_next, parts)

        def finish() -> None:
            buckets.remove()
            draft.put_manifest(manifest, certificate)
            draft.finish(header.height)

        yield finish
    except BaseException:
        draft.remove()
        raise
    return path_of(root, header.height)


def _manifest(
    header: Header, validators: ValidatorSet, validators_next: ValidatorSet, parts: Sequence[bytes | None]
) -> Manifest:
    try:
        return Manifest.of(header, validators, validators_next, parts)
    except Rejected as error:
        why = f"is not what its header says: {error.message}"
        raise Damaged(f"the state of height {header.height}", why) from error


def _nibbles_for(state_bytes: int) -> int:
    """Returns how many nibbles to sort by so that a file comes to about a chunk."""
    nibbles = 1
    while state_bytes >> NIBBLE_BITS * nibbles > _BUCKET_BYTES_AIM and nibbles < BUCKET_NIBBLES_MAX:
        nibbles += 1
    return nibbles


class _Buckets:
    """Files of records, one for each prefix of a fixed number of nibbles, and what the records in each weigh."""

    def __init__(self, path: Path, nibbles: int) -> None:
        self.nibbles = nibbles
        self.weights = [0] * (1 << NIBBLE_BITS * nibbles)
        self._directory = path / "sorting"
        self._waiting = self._nothing()

    def _nothing(self) -> list[list[bytes]]:
        return [[] for _ in self.weights]

    def fill(self, view: View) -> Work[None]:
        """Sorts all state records of a view into the files."""
        self._directory.mkdir()
        buffered = 0
        weights, nibbles = self.weights, self.nibbles
        for count, (key, sealed) in enumerate(view.scan(STATE, after(STATE)), 1):
            state_key, value = key[len(STATE) :], unseal(key, sealed)
            bucket = bucket_of(sha256(state_key), nibbles)
            weights[bucket] += weight_of(state_key, value)
            lengths = len(state_key).to_bytes(_LENGTH_BYTES, "big") + len(value).to_bytes(_LENGTH_BYTES, "big")
            record = b"".join((lengths, state_key, value))
            self._waiting[bucket].append(record)
            buffered += len(record)
            if buffered > _BUFFER_BYTES:
                yield self._flush()
                buffered = 0
            elif count % _SLICE_RECORDS == 0:
                yield None
        yield self._flush()

    def _flush(self) -> Blocking:
        """Returns what writes the buffer out; the next records go to another."""
        filled, self._waiting = self._waiting, self._nothing()

        def write() -> None:
            for bucket, records in enumerate(filled):
                if records:
                    with self._file(bucket).open("ab") as stream:
                        stream.write(b"".join(records))
                    records.clear()

        return write

    def read(self, bucket: int) -> Work[list[Leaf]]:
        """Returns the records of a file in order of the hashes of their keys."""
        if not self.weights[bucket]:
            return []
        data = yield from elsewhere(self._file(bucket).read_bytes)
        leaves: list[Leaf] = []
        for count, (state_key, value) in enumerate(_records(data), 1):
            leaves.append((sha256(state_key), state_key, value))
            if count % _SLICE_RECORDS == 0:
                yield None
        leaves.sort()
        return leaves

    def remove(self) -> None:
        """Removes the files."""
        for bucket, weight in enumerate(self.weights):
            if weight:
                self._file(bucket).unlink()
        self._directory.rmdir()

    def _file(self, bucket: int) -> Path:
        return self._directory / f"{bucket:04x}"


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        key_at = at + 2 * _LENGTH_BYTES
        value_at = key_at + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        at = value_at + int.from_bytes(data[at + _LENGTH_BYTES : key_at], "big")
        yield data[key_at:value_at], data[value_at:at]


class _Cutter:
    """Cuts the tree into chunks and writes them, in order."""

    def __init__(self, draft: Draft, buckets: _Buckets) -> None:
        self._draft = draft
        self._buckets = buckets
        self._parts: list[bytes | None] = []
        self._chunks = 0

    def cut(self) -> Work[list[bytes | None]]:
        """Writes all chunks and returns the parts of the manifest."""
        pending: list[tuple[int, bytes]] = [(0, bytes(HASH_BYTES))]
        while pending:
            nibbles, prefix = pending.pop()
            first = bucket_of(prefix, self._buckets.nibbles)
            span = range(first, first + (1 << NIBBLE_BITS * (self._buckets.nibbles - nibbles)))
            if fits_chunk(sum(self._buckets.weights[span.start : span.stop])):
                leaves: list[Leaf] = []
                for bucket in span:
                    leaves += yield from self._buckets.read(bucket)
                yield from self._put(leaves, nibbles)
            elif nibbles < self._buckets.nibbles:
                self._parts.append(None)
                pending += [(nibbles + 1, extended(prefix, nibbles, nibble)) for nibble in range(15, -1, -1)]
            else:
                yield from self._split((yield from self._buckets.read(first)), nibbles)
        return self._parts

    def _split(self, leaves: list[Leaf], nibbles: int) -> Work[None]:
        """Cuts what is too large for one chunk although it stands in one file."""
        if fits_chunk(sum(weight_of(key, value) for _, key, value in leaves)):
            yield from self._put(leaves, nibbles)
            return
        self._parts.append(None)
        children: list[list[Leaf]] = [[] for _ in range(16)]
        for leaf in leaves:
            children[nibble_at(leaf[0], nibbles)].append(leaf)
        for child in children:
            yield from self._split(child, nibbles + 1)

    def _put(self, leaves: Sequence[Leaf], nibbles: int) -> Work[None]:
        """Adds a part and, unless it is empty, writes its chunk."""
        hashed: list[tuple[bytes, Hash]] = []
        value_hash = Hash(b"")
        for count, (key_hash, _, value) in enumerate(leaves, 1):
            value_hash = sha256(value)
            hashed.append((key_hash, leaf_hash(key_hash, value_hash)))
            if count % _SLICE_RECORDS == 0:
                yield None
        subtree = yield from fold(hashed, nibbles * NIBBLE_BITS)
        self._parts.append(part_of(subtree, (leaves[0][0], value_hash) if len(leaves) == 1 else None))
        if not leaves:
            return
        data = encode_chunk(leaves)
        if len(data) > CHUNK_BYTES_MAX:
            raise InvariantError(f"a chunk of {len(data)} bytes was made, at most {CHUNK_BYTES_MAX} are allowed")
        number = self._chunks
        self._chunks += 1
        yield lambda: self._draft.put_chunk(number, data)
