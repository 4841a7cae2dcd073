"""A database in memory, as far as vote records need one, and the log that its writes go through to the disk.

As in LevelDB, a write is one frame of a log, with a checksum: after a loss of power the log ends anywhere, and a frame
that is not whole counts as never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

from state.codec import decode, encode
from state.store.keys import unseal

Row: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value, None where it goes."""

FRAME_BYTES_MAX: Final = 1 << 24
_PREFIX_BYTES: Final = 8


class MemoryBatch:
    """Rows that are written together."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def put(self, key: bytes, value: bytes, /) -> None:
        """Sets a value, sealed by the caller."""
        self.rows.append((key, value))

    def delete(self, key: bytes, /) -> None:
        """Removes a key."""
        self.rows.append((key, None))


class MemoryDatabase:
    """What is durable, by key; values are sealed as in the real one."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Returns the content under a key, or None; raises Damaged."""
        value = self.rows.get(key)
        return None if value is None else unseal(key, value)

    def scan(self, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, whole value) of start <= key < stop, in order."""
        for key in sorted(self.rows):
            if key >= start and (stop is None or key < stop):
                yield key, self.rows[key]

    def batch(self) -> MemoryBatch:
        """Returns an empty batch."""
        return MemoryBatch()

    def write(self, batch: Any) -> None:
        """Makes a batch durable at once."""
        self.apply(batch.rows)

    def apply(self, rows: Sequence[Row]) -> None:
        """Makes rows durable."""
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


def frame(rows: Sequence[Row]) -> bytes:
    """Returns rows as they stand in the log."""
    content = encode(tuple(rows))
    return crc32(content).to_bytes(4, "big") + len(content).to_bytes(4, "big") + content


def read_log(log: bytes) -> Iterator[tuple[Row, ...]]:
    """Yields the rows of each whole frame, from the first on, up to one that is not."""
    place = 0
    while place + _PREFIX_BYTES <= len(log):
        check, size = log[place : place + 4], int.from_bytes(log[place + 4 : place + 8], "big")
        content = log[place + _PREFIX_BYTES : place + _PREFIX_BYTES + size]
        if len(content) < size or not size or crc32(content).to_bytes(4, "big") != check:
            return
        yield decode(content, bytes_max=FRAME_BYTES_MAX)
        place += _PREFIX_BYTES + size
