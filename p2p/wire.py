"""Frames: the table of kinds, and the conversion between frames and a byte stream. No I/O, no clock.

A frame is a 4-byte big-endian length and that many bytes of canonical msgpack, either `[kind, body]` or, for a message
on its way through the whole network, `[kind, body, flood id]`. `kind` is below 128, so the first six bytes of a frame
tell its size and its kind, and one that is too large for its kind is refused before any more of it is held.

What a body means beyond the shape in the table is the receiver's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from p2p import limits
from state.codec import decode, encode
from state.errors import DecodeError, InvariantError, Rejected

PREFIX_BYTES: Final = 4
_PEEK_BYTES: Final = PREFIX_BYTES + 2
_PAYLOAD_BYTES_MIN: Final = 3
_ARRAY_PLAIN: Final = 0x92
ARRAY_WITH_FLOOD_ID: Final = 0x93
_DEPTH_MAX: Final = 8


class Lane(IntEnum):
    """The order in which queued frames leave: all of a lane before any of the next."""

    CONSENSUS = 0
    BLOCKS = 1
    TRANSACTIONS = 2
    SYNC = 3


class Kind(IntEnum):
    """What a frame is; the numbers are part of the protocol.

    - HELLO, HELLO_ACK: the greeting, p2p/hello.py. REJECT [code, message]: why the sender is about to hang up.
    - PING number: answered at once by PONG [the same number, the sender's wall clock in ms].
    - PEERS [node id ...]: the sender's direct peers, told on every change; the relay rule of p2p/flood.py needs it.
    - STATUS height: the sender's newest committed height.
    - CONSENSUS: one consensus message's bytes.
    - TRANSACTIONS [wire bytes ...]: transactions that the receiver may not have.
    - TX_ANNOUNCE [wire hash ...]: transactions that the sender has. TX_REQUEST [wire hash ...]: wanted, answered by
      TRANSACTIONS. TX_HELD: transactions that a validator holds from now on; the node's own value.
    - BODY_REQUEST block hash: answered by BODY, the block's bytes, if it is there.
    - BLOCK_REQUEST [first height, count]: answered by BLOCKS [[block, certificate] ...], as many as fit, in order.
    - SNAPSHOTS_REQUEST least height: answered by SNAPSHOTS [[height, manifest hash] ...], those that the sender has.
    - MANIFEST_REQUEST manifest hash: answered by MANIFEST [that hash, manifest, certificate], all bytes.
    - CHUNK_REQUEST [manifest hash, number]: answered by CHUNK [that hash, that number, chunk], the chunk as bytes.
    - LIGHT_REQUEST height: answered by LIGHT [that height, light block as bytes].
      What the answerer of these three has not is answered with empty bytes.
    """

    HELLO = 1
    HELLO_ACK = 2
    REJECT = 3
    PING = 4
    PONG = 5
    PEERS = 6
    STATUS = 7
    CONSENSUS = 8
    TRANSACTIONS = 9
    TX_ANNOUNCE = 10
    TX_REQUEST = 11
    TX_HELD = 12
    BODY_REQUEST = 13
    BODY = 14
    BLOCK_REQUEST = 15
    BLOCKS = 16
    SNAPSHOTS_REQUEST = 17
    SNAPSHOTS = 18
    MANIFEST_REQUEST = 19
    MANIFEST = 20
    CHUNK_REQUEST = 21
    CHUNK = 22
    LIGHT_REQUEST = 23
    LIGHT = 24


@dataclass(frozen=True, slots=True)
class Budget:
    """What a peer may send of one kind: a rate per second, and how much of it may come at once."""

    messages_per_second: float
    messages_burst: float
    bytes_per_second: float
    bytes_burst: float


@dataclass(frozen=True, slots=True)
class KindRule:
    """One row of the table: what p2p knows of a kind.

    `bytes_max` bounds the payload after the length prefix; `shape` raises DecodeError for a body of another shape;
    `flooded` says that frames of this kind may carry a flood id, and are then delivered and relayed once.
    """

    kind: Kind
    bytes_max: int
    lane: Lane
    budget: Budget
    shape: Callable[[Any], None]
    flooded: bool = False


def _any(body: Any) -> None:
    """Every value: its owner checks it."""


def _blob(body: Any) -> None:
    if type(body) is not bytes:
        raise DecodeError("the body must be a byte string")


def _integer(body: Any) -> None:
    if type(body) is not int:
        raise DecodeError("the body must be an integer")


def _two_integers(body: Any) -> None:
    if type(body) is not tuple or len(body) != 2 or type(body[0]) is not int or type(body[1]) is not int:
        raise DecodeError("the body must be two integers")


def _hash(body: Any) -> None:
    if not _is_hash(body):
        raise DecodeError("the body must be a hash of 32 bytes")


def _array(body: Any, items_max: int) -> None:
    if type(body) is not tuple or len(body) > items_max:
        raise DecodeError(f"the body must be an array of at most {items_max} items")


def _hashes(body: Any) -> None:
    _array(body, limits.HASHES_MAX)
    for item in body:
        if type(item) is not bytes or len(item) != 32:
            raise DecodeError("every item must be a hash of 32 bytes")


def _transactions(body: Any) -> None:
    _array(body, limits.TRANSACTIONS_PER_FRAME_MAX)
    for item in body:
        if type(item) is not bytes:
            raise DecodeError("every item must be a transaction's bytes")


def _blocks(body: Any) -> None:
    _array(body, limits.BLOCKS_PER_FRAME_MAX)
    for item in body:
        if type(item) is not tuple or len(item) != 2 or type(item[0]) is not bytes or type(item[1]) is not bytes:
            raise DecodeError("every item must be [block, certificate]")


def _snapshots(body: Any) -> None:
    _array(body, limits.SNAPSHOTS_PER_FRAME_MAX)
    for item in body:
        if type(item) is not tuple or len(item) != 2 or type(item[0]) is not int or not _is_hash(item[1]):
            raise DecodeError("every item must be [height, manifest hash]")


def _manifest(body: Any) -> None:
    if type(body) is not tuple or len(body) != 3 or not _is_hash(body[0]) or not _are_bytes(body[1:]):
        raise DecodeError("the body must be [manifest hash, manifest, certificate]")


def _chunk_request(body: Any) -> None:
    if type(body) is not tuple or len(body) != 2 or not _is_hash(body[0]) or type(body[1]) is not int:
        raise DecodeError("the body must be [manifest hash, number]")


def _chunk(body: Any) -> None:
    if type(body) is not tuple or len(body) != 3 or not _are_bytes(body[2:]):
        raise DecodeError("the body must be [manifest hash, number, chunk]")
    _chunk_request(body[:2])


def _light(body: Any) -> None:
    if type(body) is not tuple or len(body) != 2 or type(body[0]) is not int or type(body[1]) is not bytes:
        raise DecodeError("the body must be [height, light block]")


def _is_hash(value: Any) -> bool:
    return type(value) is bytes and len(value) == 32


def _are_bytes(values: tuple[Any, ...]) -> bool:
    return all(type(value) is bytes for value in values)


_KIB, _MIB = limits.KIB, limits.MIB
_RARE: Final = Budget(5, 20, 64 * _KIB, 256 * _KIB)
_VOTES: Final = Budget(5_000, 20_000, 16 * _MIB, 64 * _MIB)
_GOSSIP: Final = Budget(20_000, 100_000, 32 * _MIB, 64 * _MIB)
_HELD: Final = Budget(2_000, 8_000, 32 * _MIB, 64 * _MIB)
_ASK: Final = Budget(500, 2_000, 256 * _KIB, 1 * _MIB)
# An answer is read from disk and may be a megabyte: a correct asker waits for one before it asks for the next.
_ASK_BLOCKS: Final = Budget(16, 64, 4 * _KIB, 16 * _KIB)
_ANSWER: Final = Budget(500, 2_000, 128 * _MIB, 256 * _MIB)
# How fast chunks are read for all who ask is bounded where they are served.
_ASK_CHUNKS: Final = Budget(128, 256, 16 * _KIB, 32 * _KIB)

KINDS: Final = {
    rule.kind: rule
    for rule in (
        KindRule(Kind.HELLO, limits.HELLO_BYTES_MAX, Lane.CONSENSUS, _RARE, _any),
        KindRule(Kind.HELLO_ACK, limits.HELLO_ACK_BYTES_MAX, Lane.CONSENSUS, _RARE, _any),
        KindRule(Kind.REJECT, limits.REJECT_BYTES_MAX, Lane.CONSENSUS, _RARE, _any),
        KindRule(Kind.PING, limits.PING_BYTES_MAX, Lane.CONSENSUS, _RARE, _integer),
        KindRule(Kind.PONG, limits.PING_BYTES_MAX, Lane.CONSENSUS, _RARE, _two_integers),
        KindRule(Kind.PEERS, limits.PEERS_BYTES_MAX, Lane.CONSENSUS, Budget(20, 500, _MIB, 8 * _MIB), _hashes),
        KindRule(Kind.STATUS, limits.PING_BYTES_MAX, Lane.CONSENSUS, _RARE, _integer),
        KindRule(Kind.CONSENSUS, limits.CONSENSUS_BYTES_MAX, Lane.CONSENSUS, _VOTES, _blob, flooded=True),
        KindRule(Kind.TRANSACTIONS, limits.TRANSACTIONS_BYTES_MAX, Lane.TRANSACTIONS, _GOSSIP, _transactions),
        KindRule(Kind.TX_ANNOUNCE, limits.HASHES_BYTES_MAX, Lane.TRANSACTIONS, _GOSSIP, _hashes),
        KindRule(Kind.TX_REQUEST, limits.HASHES_BYTES_MAX, Lane.BLOCKS, _ASK, _hashes),
        KindRule(Kind.TX_HELD, limits.HASHES_BYTES_MAX, Lane.TRANSACTIONS, _HELD, _any, flooded=True),
        KindRule(Kind.BODY_REQUEST, limits.REQUEST_BYTES_MAX, Lane.BLOCKS, _ASK_BLOCKS, _hash),
        KindRule(Kind.BODY, limits.BODY_BYTES_MAX, Lane.BLOCKS, _ANSWER, _blob),
        KindRule(Kind.BLOCK_REQUEST, limits.REQUEST_BYTES_MAX, Lane.SYNC, _ASK_BLOCKS, _two_integers),
        KindRule(Kind.BLOCKS, limits.BLOCKS_BYTES_MAX, Lane.SYNC, _ANSWER, _blocks),
        KindRule(Kind.SNAPSHOTS_REQUEST, limits.REQUEST_BYTES_MAX, Lane.SYNC, _RARE, _integer),
        KindRule(Kind.SNAPSHOTS, limits.REJECT_BYTES_MAX, Lane.SYNC, _RARE, _snapshots),
        KindRule(Kind.MANIFEST_REQUEST, limits.REQUEST_BYTES_MAX, Lane.SYNC, _RARE, _hash),
        KindRule(Kind.MANIFEST, limits.MANIFEST_BYTES_MAX, Lane.SYNC, _ANSWER, _manifest),
        KindRule(Kind.CHUNK_REQUEST, limits.REQUEST_BYTES_MAX, Lane.SYNC, _ASK_CHUNKS, _chunk_request),
        KindRule(Kind.CHUNK, limits.CHUNK_BYTES_MAX, Lane.SYNC, _ANSWER, _chunk),
        KindRule(Kind.LIGHT_REQUEST, limits.REQUEST_BYTES_MAX, Lane.SYNC, _ASK_BLOCKS, _integer),
        KindRule(Kind.LIGHT, limits.LIGHT_BYTES_MAX, Lane.SYNC, _ANSWER, _light),
    )
}
if set(KINDS) != set(Kind):
    raise InvariantError("every kind has exactly one row")
if any(rule.bytes_max > rule.budget.bytes_burst for rule in KINDS.values()):
    raise InvariantError("a budget's burst must hold the largest frame of its kind")

PAYLOAD_BYTES_MAX: Final = max(rule.bytes_max for rule in KINDS.values())
GREETING_KINDS: Final = frozenset({Kind.HELLO, Kind.HELLO_ACK, Kind.REJECT})
ESTABLISHED_KINDS: Final = frozenset(Kind) - {Kind.HELLO, Kind.HELLO_ACK}


@dataclass(frozen=True, slots=True)
class Frame:
    """A received frame: its decoded content, and `raw`, its bytes with the length prefix, for relaying unchanged.

    `flood_id` is None for what a peer said to us alone.
    """

    kind: Kind
    body: Any
    flood_id: bytes | None
    raw: bytes


class FrameError(Rejected):
    """Bytes that are no frame of this protocol: the stream cannot be trusted any further.

    Codes: `frame_oversize`, `frame_malformed`, `frame_unexpected`.
    """


def encode_frame(kind: Kind, body: Any, flood_id: bytes | None = None) -> bytes:
    """Returns a frame's bytes, length prefix included; raises InvariantError if it is too large for its kind."""
    payload = encode((int(kind), body) if flood_id is None else (int(kind), body, flood_id))
    bytes_max = KINDS[kind].bytes_max
    if len(payload) > bytes_max:
        raise InvariantError(f"a {kind.name} frame of {len(payload)} bytes is above its bound of {bytes_max}")
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def batches(items: Iterable[bytes], *, kind: Kind) -> Iterator[tuple[bytes, ...]]:
    """Yields `items` in order, in bodies that each fit a TRANSACTIONS, TX_ANNOUNCE, TX_REQUEST or TX_HELD frame."""
    items_max = limits.TRANSACTIONS_PER_FRAME_MAX if kind is Kind.TRANSACTIONS else limits.HASHES_MAX
    bytes_max = KINDS[kind].bytes_max - limits.FRAME_OVERHEAD_BYTES
    batch: list[bytes] = []
    size = 0
    for item in items:
        item_size = len(item) + 5
        if batch and (len(batch) == items_max or size + item_size > bytes_max):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(item)
        size += item_size
    if batch:
        yield tuple(batch)


class Framer:
    """Turns a peer's byte stream into frames: `feed` bytes in, take frames out with `next_frame`.

    It holds at most one incomplete frame, never larger than its kind allows, and what one read brought. After a
    FrameError it is not to be used again.
    """

    def __init__(self, expected: frozenset[Kind]) -> None:
        """Takes the kinds that are legal now; all others are refused as unexpected."""
        self._expected = expected
        self._buffer = bytearray()
        self._start = 0

    def expect(self, kinds: frozenset[Kind]) -> None:
        """Changes which kinds are legal, from the next frame on."""
        self._expected = kinds

    @property
    def buffered_bytes(self) -> int:
        """How many received bytes are held."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes | bytearray) -> None:
        """Takes bytes as they came."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Returns the next complete frame, or None if more bytes are needed; raises FrameError."""
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < PREFIX_BYTES:
            self._compact()
            return None
        size = int.from_bytes(buffer[start : start + PREFIX_BYTES], "big")
        if not _PAYLOAD_BYTES_MIN <= size <= PAYLOAD_BYTES_MAX:
            raise FrameError("frame_oversize", f"a frame of {size} bytes: 3 to {PAYLOAD_BYTES_MAX} are allowed")
        if available < _PEEK_BYTES:
            self._compact()
            return None
        rule = self._rule(buffer[start + PREFIX_BYTES], buffer[start + PREFIX_BYTES + 1])
        if size > rule.bytes_max:
            raise FrameError(
                "frame_oversize", f"a {rule.kind.name} frame of {size} bytes: at most {rule.bytes_max} are allowed"
            )
        end = start + PREFIX_BYTES + size
        if len(buffer) < end:
            self._compact()
            return None
        raw = bytes(buffer[start:end])
        self._start = end
        return _decode(raw, rule)

    def _rule(self, array_marker: int, number: int) -> KindRule:
        if array_marker not in (_ARRAY_PLAIN, ARRAY_WITH_FLOOD_ID) or number not in KINDS:
            raise FrameError("frame_malformed", "a frame is [kind, body] or [kind, body, flood id] of a known kind")
        kind = Kind(number)
        if kind not in self._expected:
            raise FrameError("frame_unexpected", f"a {kind.name} frame is not legal now")
        return KINDS[kind]

    def _compact(self) -> None:
        """Forgets what was taken; done only when the rest is incomplete, so that each byte moves at most once."""
        del self._buffer[: self._start]
        self._start = 0


def _decode(raw: bytes, rule: KindRule) -> Frame:
    try:
        value = decode(raw[PREFIX_BYTES:], bytes_max=rule.bytes_max, depth_max=_DEPTH_MAX)
        body = value[1]
        rule.shape(body)
    except DecodeError as error:
        raise FrameError("frame_malformed", f"{rule.kind.name}: {error.message}") from error
    flood_id = None
    if len(value) == 3:
        flood_id = value[2]
        if not rule.flooded or type(flood_id) is not bytes or len(flood_id) != limits.FLOOD_ID_BYTES:
            raise FrameError("frame_malformed", f"{rule.kind.name}: no such flood id")
    return Frame(rule.kind, body, flood_id, raw)
