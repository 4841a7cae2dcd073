"""Snapshots as they lie on the disk: one directory each, named for its height, that is whole or not there.

    <root>/000000020000/        a snapshot of height 20000
        manifest                the manifest
        certificate             the certificate of its header, as this node has it
        chunks/000000 ...       the chunks in order
    <root>/.making-...          one that is being made; gone when the node starts
    <root>/.fetching-<hash>     one that is being fetched; chunks that are there need not be fetched again

Each file ends in a CRC-32 of its content: what a disk has damaged is never passed on as somebody's lie. Everything in
a directory is durable before it gets its name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from state.errors import Rejected
from state.limits import CERTIFICATE_BYTES_MAX
from state.store.files import sync_directory
from state.store.snapshots.manifest import CHUNK_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest
from state.types import Certificate, Hash

_CHECK_BYTES: Final = 4
_NAME: Final = re.compile(r"[0-9]{12}\Z")
_MAKING: Final = ".making-"
_FETCHING: Final = ".fetching-"
_GOING: Final = ".going-"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A snapshot on the disk. Its manifest is checked when it is opened, its chunks when they are used."""

    path: Path
    manifest: Manifest
    certificate: Certificate

    @property
    def height(self) -> int:
        """The height whose state it holds."""
        return self.manifest.header.height

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """Reads a snapshot's manifest and certificate, not proving the signatures.

        Raises Rejected: "snapshot_missing", "snapshot_damaged", and what `Manifest.decode` raises.
        """
        manifest = Manifest.decode(read_checked(path / "manifest", MANIFEST_BYTES_MAX))
        certificate = Certificate.decode(read_checked(path / "certificate", CERTIFICATE_BYTES_MAX))
        header = manifest.header
        if certificate.block_hash != header.hash or certificate.height != header.height:
            raise Rejected("snapshot_invalid", f"{path} holds the certificate of another block")
        return cls(path, manifest, certificate)

    def read_chunk(self, number: int) -> bytes:
        """Returns the bytes of a chunk, not proved; raises Rejected: "snapshot_missing", "snapshot_damaged"."""
        return read_checked(_chunk_file(self.path, number), CHUNK_BYTES_MAX)

    def size_bytes(self) -> int:
        """Returns what it takes on the disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


class Draft:
    """A snapshot that is not whole yet: chunks may be put in any order, `finish` makes it a snapshot."""

    def __init__(self, root: Path, path: Path) -> None:
        """Use `to_make` or `to_fetch`."""
        self.path = path
        self._root = root

    @classmethod
    def to_make(cls, root: Path, height: int) -> Draft:
        """Begins one that is made here, anew if it was begun before."""
        path = root / f"{_MAKING}{height}"
        shutil.rmtree(path, ignore_errors=True)
        (path / "chunks").mkdir(parents=True)
        return cls(root, path)

    @classmethod
    def to_fetch(cls, root: Path, manifest: Manifest, certificate: Certificate) -> Draft:
        """Begins one that is fetched, or goes on with it, and lets go of all others that were begun."""
        path = root / f"{_FETCHING}{manifest.hash.hex()}"
        (path / "chunks").mkdir(parents=True, exist_ok=True)
        draft = cls(root, path)
        draft.put_manifest(manifest, certificate)
        for other in root.glob(f"{_FETCHING}*"):
            if other != path:
                shutil.rmtree(other, ignore_errors=True)
        return draft

    def put_manifest(self, manifest: Manifest, certificate: Certificate) -> None:
        """Writes manifest and certificate."""
        _write_checked(self.path / "manifest", manifest.encoded)
        _write_checked(self.path / "certificate", certificate.encode())

    def put_chunk(self, number: int, data: bytes) -> None:
        """Writes a chunk, which the caller has proved."""
        _write_checked(_chunk_file(self.path, number), data)

    def present(self) -> set[int]:
        """Returns the numbers of the chunks that are there; each is still to be read and proved."""
        return {int(name) for name in os.listdir(self.path / "chunks") if name.isdecimal()}

    def read_chunk(self, number: int) -> bytes:
        """Returns the bytes of a chunk that is there; raises Rejected: "snapshot_missing", "snapshot_damaged"."""
        return read_checked(_chunk_file(self.path, number), CHUNK_BYTES_MAX)

    def finish(self, height: int) -> Path:
        """Makes everything durable and gives it its name, unless there is a snapshot of that height; returns it."""
        for file in self.path.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        sync_directory(self.path / "chunks")
        sync_directory(self.path)
        named = path_of(self._root, height)
        if named.exists():
            shutil.rmtree(self.path)
        else:
            self.path.rename(named)
            sync_directory(self._root)
        return named

    def remove(self) -> None:
        """Lets go of all of it."""
        shutil.rmtree(self.path, ignore_errors=True)


def path_of(root: Path, height: int) -> Path:
    """Returns where the snapshot of a height lies."""
    return root / f"{height:012}"


def snapshots_in(root: Path) -> Iterator[Path]:
    """Yields the snapshots there, the newest first; whether they are whole is told by opening them."""
    if root.is_dir():
        yield from sorted((path for path in root.iterdir() if _NAME.match(path.name)), reverse=True)


def newest_fetched(root: Path) -> tuple[Manifest, Certificate] | None:
    """Returns manifest and certificate of a snapshot whose fetching was broken off, None if there is none."""
    for path in sorted(root.glob(f"{_FETCHING}*")):
        try:
            begun = Snapshot.open(path)
        except Rejected:
            shutil.rmtree(path, ignore_errors=True)
            continue
        return begun.manifest, begun.certificate
    return None


def tidy(root: Path) -> None:
    """Removes what a crash left half made or half removed; nobody may be making a snapshot."""
    for prefix in (_MAKING, _GOING):
        for path in root.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def remove(root: Path, path: Path) -> None:
    """Removes a snapshot: its name goes first, so that none is ever there in part."""
    going = root / f"{_GOING}{path.name}"
    path.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def read_checked(file: Path, bytes_max: int) -> bytes:
    """Returns a file's content; raises Rejected: "snapshot_missing", "snapshot_damaged"."""
    try:
        with file.open("rb") as stream:
            data = stream.read(bytes_max + _CHECK_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Rejected("snapshot_missing", f"{file} is not there") from None
    content, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(content) > bytes_max or crc32(content).to_bytes(_CHECK_BYTES, "big") != check:
        raise Rejected("snapshot_damaged", f"{file} is not what was written")
    return content


def _write_checked(file: Path, content: bytes) -> None:
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_bytes(content + crc32(content).to_bytes(_CHECK_BYTES, "big"))
    temporary.replace(file)


def _chunk_file(path: Path, number: int) -> Path:
    return path / "chunks" / f"{number:06}"


def manifest_of(data: bytes, wanted: Hash) -> Manifest:
    """Returns the manifest of bytes that are said to be the one with this hash; raises Rejected."""
    manifest = Manifest.decode(data)
    if manifest.hash != wanted:
        raise Rejected("snapshot_invalid", "it is another manifest than the one asked for")
    return manifest
