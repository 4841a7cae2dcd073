"""Reading and writing the records of the chain: blocks, certificates, receipts, indexes.

Everything that is read is decoded strictly and compared with the key that it stands under; what does not fit is named
as damage. Which heights count as committed is decided by the store: nothing here knows the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from state.block import Block
from state.codec import decode, encode, expect_array, expect_blob, expect_bytes, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import Hash
from state.ledger.receipt import RECEIPT_BYTES_MAX, Receipt
from state.limits import (
    BLOCK_ENCODED_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    CERTIFICATE_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
)
from state.store.database import Batch, Database
from state.store.errors import Damaged
from state.store.keys import (
    BODY,
    CHAIN,
    HASH_BYTES,
    HEADER,
    HEIGHT_BYTES,
    META_BASE,
    META_HEAD,
    RECEIPTS,
    STALE,
    TRANSACTION,
    after,
    height_bytes,
    name_of,
    place_bytes,
    read_place,
    seal,
)
from state.types import Certificate, Header, TxId

_BLOCK_ARRAY: Final = b"\x93"
"""What an encoded block begins with, before its header: an array of three."""

_RECORD_BYTES_MAX: Final = 1 << 30
"""Of receipts and lists of stale rows, which have no bound but that of the block that caused them."""

_ROWS_MAX: Final = 1 << 28


# Keys


def header_key(block_hash: bytes) -> bytes:
    """Returns the key of a header."""
    return HEADER + block_hash


def body_key(height: int, block_hash: bytes) -> bytes:
    """Returns the key of what a block holds beside its header."""
    return BODY + height_bytes(height) + block_hash


# Writing


def put_header(batch: Batch, header: Header) -> None:
    """Puts a header."""
    key = header_key(header.hash)
    batch.put(key, seal(key, header.encoded))


def put_block(batch: Batch, block: Block) -> None:
    """Puts a block: its header, and its body apart."""
    header = block.header
    put_header(batch, header)
    key = body_key(header.height, header.hash)
    batch.put(key, seal(key, block.encoded[len(_BLOCK_ARRAY) + len(header.encoded) :]))


def delete_block(batch: Batch, height: int, block_hash: bytes) -> None:
    """Removes a block that was not committed."""
    batch.delete(header_key(block_hash))
    batch.delete(body_key(height, block_hash))


def put_head(batch: Batch, header: Header, certificate: Certificate | None) -> None:
    """Makes a block, whose records exist, the committed one of its height and the head."""
    key = CHAIN + height_bytes(header.height)
    value = None if certificate is None else certificate.to_value()
    batch.put(key, seal(key, encode((header.hash, value))))
    batch.put(META_HEAD, seal(META_HEAD, head_content(header)))


def head_content(header: Header) -> bytes:
    """Returns the content of the record of the head."""
    return encode((header.height, header.hash))


def put_base(batch: Batch, height: int) -> None:
    """Notes that the chain begins here with this height, above 0: there are no blocks up to it."""
    batch.put(META_BASE, seal(META_BASE, height_bytes(height)))


def put_receipts(batch: Batch, height: int, receipts: Sequence[bytes]) -> None:
    """Puts the encoded receipts of a height."""
    key = RECEIPTS + height_bytes(height)
    batch.put(key, seal(key, encode(tuple(receipts))))


def put_stale(batch: Batch, height: int, rows: Sequence[bytes]) -> None:
    """Puts the list of tree rows that no version from `height` on references."""
    key = STALE + height_bytes(height)
    batch.put(key, seal(key, encode(tuple(rows))))


# Reading


def read_head(database: Database) -> tuple[int, Hash]:
    """Returns (height, block hash) of the head."""
    data = database.need(META_HEAD)
    with _Naming(META_HEAD):
        height, block_hash = expect_tuple(decode(data, bytes_max=64), 2, "head")
        if type(height) is not int:
            raise DecodeError("its height is no number")
        return height, Hash(expect_bytes(block_hash, HASH_BYTES, "block hash"))


def read_base(database: Database) -> int:
    """Returns the height that the chain begins with here: 0, or that of the snapshot that it was restored from."""
    content = database.get(META_BASE)
    if content is None:
        return 0
    if len(content) != HEIGHT_BYTES or not any(content):
        raise Damaged(name_of(META_BASE), "is no height above 0")
    return int.from_bytes(content, "big")


def read_header(database: Database, block_hash: bytes) -> Header | None:
    """Returns the header with this hash, committed or not."""
    key = header_key(block_hash)
    data = database.get(key)
    if data is None:
        return None
    with _Naming(key):
        header = Header.decode(data)
    if header.hash != block_hash:
        raise Damaged(name_of(key), "does not have the hash that it stands under")
    return header


def need_header(database: Database, block_hash: bytes) -> Header:
    """Returns the header with this hash; raises Damaged if it is missing."""
    header = read_header(database, block_hash)
    if header is None:
        raise Damaged(name_of(header_key(block_hash)), "is missing")
    return header


def read_block(database: Database, header: Header) -> Block:
    """Returns the whole block of a stored header, proved against it."""
    key = body_key(header.height, header.hash)
    data = database.need(key)
    with _Naming(key):
        return Block.decode(_BLOCK_ARRAY + header.encoded + data)


def read_wire(database: Database, height: int, block_hash: bytes, index: int) -> bytes | None:
    """Returns one transaction of a block without proving the others, or None beyond its last."""
    key = body_key(height, block_hash)
    data = database.need(key)
    with _Naming(key):
        # The record is the tail of an array of three; as an array of two it is transactions and evidence.
        value = decode(b"\x92" + data, bytes_max=BLOCK_ENCODED_BYTES_MAX)
        wires = expect_array(expect_tuple(value, 2, "block")[0], BLOCK_TRANSACTIONS_MAX, "transactions")
        return expect_blob(wires[index], TRANSACTION_BYTES_MAX, "transaction") if index < len(wires) else None


def read_commit(database: Database, height: int) -> tuple[Hash, Certificate | None]:
    """Returns hash and certificate of a committed height, whose signatures are not proved here."""
    key = CHAIN + height_bytes(height)
    data = database.need(key)
    with _Naming(key):
        block_hash, value = expect_tuple(decode(data, bytes_max=CERTIFICATE_BYTES_MAX + 64), 2, "certificate record")
        expect_bytes(block_hash, HASH_BYTES, "block hash")
        certificate = None if value is None else Certificate.from_value(value)
    if (certificate is None) != (height == 0):
        raise Damaged(name_of(key), "must hold a certificate, except at height 0")
    if certificate is not None and (certificate.height != height or certificate.block_hash != block_hash):
        raise Damaged(name_of(key), "holds the certificate of another block")
    return Hash(block_hash), certificate


def read_receipts(database: Database, height: int) -> tuple[bytes, ...]:
    """Returns the encoded receipts of a height."""
    return tuple(_read_blobs(database, RECEIPTS + height_bytes(height), BLOCK_TRANSACTIONS_MAX, RECEIPT_BYTES_MAX))


def decode_receipt(height: int, data: bytes) -> Receipt:
    """Returns a stored receipt; raises Damaged naming its record."""
    with _Naming(RECEIPTS + height_bytes(height)):
        return Receipt.decode(data)


def read_stale(database: Database, height: int) -> tuple[bytes, ...]:
    """Returns the tree rows that became stale at a height."""
    return _read_blobs(database, STALE + height_bytes(height), _ROWS_MAX, 64)


def read_place_of(database: Database, tx_id: TxId) -> tuple[int, int] | None:
    """Returns (height, index) of a transaction, or None."""
    key = TRANSACTION + tx_id
    data = database.get(key)
    if data is None:
        return None
    if len(data) != len(place_bytes(0, 0)):
        raise Damaged(name_of(key), "has the wrong length")
    return read_place(data)


def stored_bodies(database: Database, from_height: int) -> dict[Hash, int]:
    """Returns hash -> height of all stored blocks from a height on, committed or not."""
    start = len(BODY) + HEIGHT_BYTES
    found: dict[Hash, int] = {}
    for key, _ in database.scan(BODY + height_bytes(from_height), after(BODY)):
        if len(key) != start + HASH_BYTES:
            raise Damaged(name_of(key), "has a key of the wrong length")
        found[Hash(key[start:])] = int.from_bytes(key[len(BODY) : start], "big")
    return found


def _read_blobs(database: Database, key: bytes, count_max: int, size_max: int) -> tuple[bytes, ...]:
    data = database.need(key)
    with _Naming(key):
        items = expect_array(decode(data, bytes_max=_RECORD_BYTES_MAX), count_max, "record")
        for item in items:
            expect_blob(item, size_max, "item")
    return items


class _Naming:
    """Turns a rejection of what a record holds into damage of that record. A class, as it stands on hot paths."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Rejected):
            raise Damaged(name_of(self._key), f"is malformed: {error.message}") from error
