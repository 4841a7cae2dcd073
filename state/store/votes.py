"""Vote records: what the consensus core must find again after a crash, kept as opaque bytes under opaque keys.

They exist only where `init` created them, with the validator's key: a home without them must not sign. A record that
is damaged or gone is named, for a node that has forgotten a vote may fork the chain: besides each record's own
checksum there is one over all of them, so that none can go missing unseen. They belong to one key, their owner: another
validator's records, in a directory that was swapped or copied, are no records of ours.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from state.block import Block
from state.codec import decode, encode, expect_array, expect_blob, expect_int, expect_tuple
from state.errors import DecodeError, InvariantError, Rejected
from state.store.errors import Damaged
from state.store.keys import META_VOTES, VOTE, after, check_of, name_of, seal, unseal

VOTES_VERSION: Final = 2
_CHECK_LIMIT: Final = 1 << 32
_OWNER_BYTES_MAX: Final = 64
_SUMMARY_BYTES_MAX: Final = 128

Records = tuple[tuple[bytes, bytes], ...]
"""Keys with their values."""


class VoteDatabase(Protocol):
    """What vote records need of a database (database.py)."""

    def get(self, key: bytes) -> bytes | None:
        """Returns the content under a key, or None; raises Damaged."""

    def scan(self, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, whole value) of start <= key < stop, in order."""

    def batch(self) -> Any:
        """Returns an empty batch."""

    def write(self, batch: Any) -> None:
        """Writes a batch, whole or not at all."""


@dataclass(frozen=True, slots=True)
class VoteBatch:
    """What one synced write makes durable: records (key, value), keys that go, and bodies of proposed blocks."""

    puts: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()
    bodies: tuple[Block, ...] = ()


class VoteRecords:
    """The vote records of a database. Values stay on disk; their checksums are held here."""

    def __init__(self, database: VoteDatabase) -> None:
        """Reads what is there and proves it; raises Damaged, Rejected("version_unknown")."""
        self._database = database
        self._checks: dict[bytes, int] = {}
        self.lock = threading.Lock()
        """Held from staging a batch until it is written: the checksum over all must follow the order of writes."""
        content = database.get(META_VOTES)
        self.owner: bytes | None = None
        for key, value in self._stored():
            unseal(key, value)
            self._checks[key] = int.from_bytes(check_of(key, unseal(key, value)), "big")
        if content is None:
            if self._checks:
                raise Damaged(name_of(META_VOTES), "is missing, though there are vote records")
            return
        self.owner, count, total = _read_summary(content)
        if (count, total) != (len(self._checks), _xor(self._checks)):
            raise Damaged("the vote records", f"are not all there: {count} were written, {len(self._checks)} found")

    @property
    def exist(self) -> bool:
        """Whether there are records here, of whatever key."""
        return self.owner is not None

    def create(self, owner: bytes, first: Records = ()) -> None:
        """Makes the set of a key's records, in the place of another key's, with its first ones in one write.

        Whoever may not sign says so among the first: an empty set is that of a key that never signed. Raises
        Rejected("votes_exist") if the key has records here.
        """
        with self.lock:
            if self.owner == owner:
                raise Rejected("votes_exist", "this database has vote records already: nothing was changed")
            batch = self._database.batch()
            others = tuple(key.removeprefix(VOTE) for key in self._checks)
            checks = self._stage(batch, owner, VoteBatch(puts=first, deletes=others))
            self._database.write(batch)
            self.owner = owner
            self.written(checks)

    def stage(self, batch: Any, votes: VoteBatch) -> dict[bytes, int]:
        """Puts the records of `votes` into a batch; returns the checksums that hold once it is written."""
        if self.owner is None:
            raise InvariantError("vote records were to be written where `init` created none")
        return self._stage(batch, self.owner, votes)

    def _stage(self, batch: Any, owner: bytes, votes: VoteBatch) -> dict[bytes, int]:
        checks = dict(self._checks)
        for name in votes.deletes:
            key = VOTE + name
            if checks.pop(key, None) is not None:
                batch.delete(key)
        for name, content in votes.puts:
            key = VOTE + name
            check = check_of(key, content)
            batch.put(key, content + check)
            checks[key] = int.from_bytes(check, "big")
        batch.put(META_VOTES, seal(META_VOTES, _summary(owner, checks)))
        return checks

    def written(self, checks: dict[bytes, int]) -> None:
        """Takes over the checksums of a staged batch that is durable."""
        self._checks = checks

    def all(self) -> dict[bytes, bytes]:
        """Returns every record, key -> value, in order of key."""
        return {key[len(VOTE) :]: unseal(key, value) for key, value in self._stored()}

    def _stored(self) -> Iterator[tuple[bytes, bytes]]:
        return self._database.scan(VOTE, after(VOTE))


def _xor(checks: Mapping[bytes, int]) -> int:
    total = 0
    for check in checks.values():
        total ^= check
    return total


def _summary(owner: bytes, checks: Mapping[bytes, int]) -> bytes:
    return encode((VOTES_VERSION, len(checks), _xor(checks), owner))


def _read_summary(content: bytes) -> tuple[bytes, int, int]:
    """Returns the owner, the number of records and their checksum."""
    try:
        summary = expect_array(decode(content, bytes_max=_SUMMARY_BYTES_MAX), 4, "summary")
        version = summary[0] if summary else None
        if type(version) is not int or version != VOTES_VERSION:
            raise Rejected("version_unknown", f"vote records have version {version!r}; this node reads {VOTES_VERSION}")
        _, count, total, owner = expect_tuple(summary, 4, "summary")
        return (
            expect_blob(owner, _OWNER_BYTES_MAX, "owner"),
            expect_int(count, "count"),
            expect_int(total, "checksum", limit=_CHECK_LIMIT),
        )
    except DecodeError as error:
        raise Damaged(name_of(META_VOTES), f"is malformed: {error.message}") from error
