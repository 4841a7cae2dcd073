"""What waits to be written to one WebSocket: appended without waiting, bounded in bytes, written by one task."""

from __future__ import annotations

from typing import Final

import trio

WRITE_BYTES: Final = 64 * 1024
ROOM_BYTES: Final = 256 * 1024


class Outbox:
    """A bounded buffer of bytes between those who answer and the one who writes."""

    def __init__(self, bytes_max: int) -> None:
        """Takes the bound; whoever would exceed it learns so from `put`."""
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self.bytes = 0
        self._filled = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()

    def put(self, data: bytes) -> bool:
        """Adds bytes; returns False, adding nothing, if the reader is too slow for them."""
        if self.bytes + len(data) > self._bytes_max:
            return False
        self._parts.append(data)
        self.bytes += len(data)
        self._filled.unpark_all()
        return True

    async def take(self) -> bytes:
        """Waits for bytes and returns some of them, about WRITE_BYTES at most unless one part is larger."""
        while not self._parts:
            await self._filled.park()
        count = size = 0
        for part in self._parts:
            size += len(part)
            count += 1
            if size >= WRITE_BYTES:
                break
        data = b"".join(self._parts[:count])
        del self._parts[:count]
        return data

    def written(self, size: int) -> None:
        """Tells that `size` bytes, taken before, have left."""
        self.bytes -= size
        if self.bytes < ROOM_BYTES:
            self._emptied.unpark_all()

    async def drained(self) -> None:
        """Waits until all has left."""
        while self.bytes:
            await self._emptied.park()

    async def room(self) -> None:
        """Waits until little is waiting: for those who can produce as slowly as the reader reads."""
        while self.bytes >= ROOM_BYTES:
            await self._emptied.park()
