"""Blocks as a stream, for audit: its two forms, how a store is written as one, and how one is gone on with.

Each entry is a block with its certificate and receipts, in order of height; the validator set in force comes with the
first entry and with each from which another is in force. So the stream proves itself to who trusts the genesis document
(exportcheck.py). Block 0 is not in it: it follows from that document.

    frames      each 4 bytes of length, big-endian, then the canonical encoding of an array: first the opening
                ["qenex-export", version, chain id, genesis hash], then entries
                [encoded block, encoded certificate, [encoded receipt ...], validator set or nil]
    json lines  each a JSON object on a line: first {"format", "version", "chain_id", "genesis_hash"}, then entries with
                those four parts as hex, and the height and hash for people
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Final

from state.block import Block
from state.codec import decode, encode, expect_array, expect_blob, expect_tuple
from state.errors import DecodeError, Rejected
from state.ledger.receipt import RECEIPT_BYTES_MAX
from state.limits import BLOCK_ENCODED_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, CERTIFICATE_BYTES_MAX, VALIDATORS_MAX
from state.store import Store
from state.types import Certificate, ChainContext, ValidatorSet

FORMAT: Final = "qenex-export"
VERSION: Final = 1
LENGTH_BYTES: Final = 4
ENTRY_BYTES_MAX: Final = 1 << 28
"""Of one entry, receipts included; a JSON line may have twice as much and some more."""

LINE_BYTES_MAX: Final = 2 * ENTRY_BYTES_MAX + 4096
FRAMES: Final = "frames"
JSON_LINES: Final = "json"

_VALIDATORS_BYTES_MAX: Final = VALIDATORS_MAX * 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of the stream; `validators` is given where the set is another than that of the entry before."""

    block: Block
    certificate: Certificate
    receipts: tuple[bytes, ...]
    validators: ValidatorSet | None


def entries(store: Store, start: int, end: int) -> Iterator[Entry]:
    """Yields the blocks of a store from height `start` to `end`; raises Rejected where one is not kept."""
    known: bytes | None = None
    for height in range(start, end + 1):
        block, certificate = store.block_at(height), store.certificate_at(height)
        if block is None or certificate is None:
            raise Rejected("height_unknown", f"height {height} is not committed; the head is {store.head.height}")
        changed = block.header.validators_hash != known
        known = block.header.validators_hash
        validators = store.validators_at(height) if changed else None
        yield Entry(block, certificate, store.receipt_bytes_at(height), validators)


class Writer:
    """Writes a stream in one of its forms to an open binary file."""

    def __init__(self, stream: BinaryIO, form: str, context: ChainContext, *, opening: bool = True) -> None:
        """Writes the opening too, unless the stream has it already."""
        self._stream = stream
        self._form = form
        if not opening:
            return
        if form == FRAMES:
            self._frame((FORMAT, VERSION, context.chain_id, context.genesis_hash))
        else:
            document = {"format": FORMAT, "version": VERSION, "chain_id": context.chain_id}
            self._line({**document, "genesis_hash": _hexed(context.genesis_hash)})

    def write(self, entry: Entry) -> None:
        """Writes one entry."""
        validators = None if entry.validators is None else entry.validators.to_value()
        if self._form == FRAMES:
            self._frame((entry.block.encoded, entry.certificate.encode(), entry.receipts, validators))
            return
        header = entry.block.header
        self._line(
            {
                "height": header.height,
                "hash": _hexed(header.hash),
                "block": _hexed(entry.block.encoded),
                "certificate": _hexed(entry.certificate.encode()),
                "receipts": [_hexed(receipt) for receipt in entry.receipts],
                "validators": None if validators is None else _hexed(encode(validators)),
            }
        )

    def _frame(self, value: tuple[Any, ...]) -> None:
        data = encode(value)
        self._stream.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)

    def _line(self, document: dict[str, Any]) -> None:
        self._stream.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")


class Reader:
    """Reads a stream in either form, strictly; `at` is where the last whole record ended."""

    def __init__(self, stream: BufferedReader, context: ChainContext) -> None:
        """Reads the opening; raises Rejected("export_invalid") for another chain or what is no stream."""
        self._stream = stream
        self.at = 0
        self.form = JSON_LINES if stream.peek(1)[:1] == b"{" else FRAMES
        opening = self._record()
        if opening is None:
            raise _invalid("it is empty or ends within its opening")
        self._check_opening(opening, context)

    def __iter__(self) -> Iterator[Entry]:
        """Yields entry after entry; raises Rejected("export_cut_off") where it ends within one."""
        while (record := self._record()) is not None:
            yield self._entry(record)

    def _record(self) -> bytes | None:
        """Returns the next whole record, None at the end."""
        if self.form == JSON_LINES:
            line = self._stream.readline(LINE_BYTES_MAX)
            if line and not line.endswith(b"\n"):
                raise self._cut_off()
            self.at += len(line)
            return line or None
        length = self._stream.read(LENGTH_BYTES)
        if not length:
            return None
        size = int.from_bytes(length, "big")
        if len(length) == LENGTH_BYTES and size > ENTRY_BYTES_MAX:
            raise _invalid(f"a record of {size} bytes is longer than any may be")
        data = self._stream.read(size)
        if len(length) < LENGTH_BYTES or len(data) < size:
            raise self._cut_off()
        self.at += LENGTH_BYTES + size
        return data

    def _cut_off(self) -> Rejected:
        return Rejected(
            "export_cut_off", f"the stream ends within a record, at byte {self.at}: --resume goes on with it"
        )

    def _check_opening(self, record: bytes, context: ChainContext) -> None:
        try:
            if self.form == JSON_LINES:
                said = json.loads(record)
                opening = (said["format"], said["version"], said["chain_id"], _unhexed(said["genesis_hash"]))
            else:
                opening = expect_tuple(decode(record, bytes_max=1024), 4, "opening")
        except (DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _invalid(f"its opening cannot be read: {error}") from None
        if opening[0] != FORMAT:
            raise _invalid("it does not begin as one")
        if opening[1] != VERSION or type(opening[1]) is not int:
            raise Rejected("version_unknown", f"the stream has version {opening[1]!r}; this program reads {VERSION}")
        if opening[2:] != (context.chain_id, context.genesis_hash):
            raise Rejected("wrong_chain", f"the stream is of chain {opening[2]!r}, or of one with another genesis")

    def _entry(self, record: bytes) -> Entry:
        try:
            block, certificate, receipts, validators = self._parts(record)
            expect_blob(certificate, CERTIFICATE_BYTES_MAX, "certificate")
            return Entry(
                Block.decode(expect_blob(block, BLOCK_ENCODED_BYTES_MAX, "block")),
                Certificate.decode(certificate),
                tuple(
                    expect_blob(receipt, RECEIPT_BYTES_MAX, "receipt")
                    for receipt in expect_array(receipts, BLOCK_TRANSACTIONS_MAX, "receipts")
                ),
                None if validators is None else ValidatorSet.from_value(validators),
            )
        except (DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _invalid(f"the record that ends at byte {self.at} cannot be read: {error}") from None

    def _parts(self, record: bytes) -> tuple[Any, Any, Any, Any]:
        if self.form == FRAMES:
            block, certificate, receipts, validators = expect_tuple(
                decode(record, bytes_max=ENTRY_BYTES_MAX), 4, "entry"
            )
            return block, certificate, receipts, validators
        said = json.loads(record)
        if sorted(said) != ["block", "certificate", "hash", "height", "receipts", "validators"]:
            raise DecodeError("its names are not those of an entry")
        block = _unhexed(said["block"])
        header = Block.decode(block).header
        if (said["height"], said["hash"]) != (header.height, _hexed(header.hash)):
            raise DecodeError("height and hash are not those of the block")
        named = said["validators"]
        validators = None if named is None else decode(_unhexed(named), bytes_max=_VALIDATORS_BYTES_MAX)
        return block, _unhexed(said["certificate"]), tuple(map(_unhexed, said["receipts"])), validators


@dataclass(frozen=True, slots=True)
class Begun:
    """A stream that was begun: its form, its last height (None without an entry), and where its last record ends."""

    form: str
    last_height: int | None
    at: int


def begun(path: Path, context: ChainContext) -> Begun:
    """Reads a stream that may end within a record; raises Rejected as `Reader` does, but not "export_cut_off"."""
    with path.open("rb") as stream:
        reader = Reader(stream, context)
        last = None
        try:
            for entry in reader:
                last = entry.block.header.height
        except Rejected as error:
            if error.code != "export_cut_off":
                raise
    return Begun(reader.form, last, reader.at)


def export_to(path: Path, store: Store, context: ChainContext, form: str, start: int, end: int) -> int:
    """Writes heights to a new file, durably; returns how many. Raises Rejected("file_exists")."""
    try:
        stream = path.open("xb")
    except FileExistsError:
        raise Rejected("file_exists", f"{path} exists already: --resume goes on with it") from None
    with stream:
        writer = Writer(stream, form, context)
        return _write(stream, writer, store, start, end)


def resume(path: Path, store: Store, context: ChainContext, start: int, end: int) -> tuple[int, int]:
    """Goes on with a stream, cutting off half a record at its end; returns the first height and how many were written.

    `start` counts where the stream has no entry yet.
    """
    known = begun(path, context)
    first = start if known.last_height is None else known.last_height + 1
    with path.open("r+b") as stream:
        stream.truncate(known.at)
        stream.seek(known.at)
        writer = Writer(stream, known.form, context, opening=False)
        return first, _write(stream, writer, store, first, end)


def _write(stream: BinaryIO, writer: Writer, store: Store, start: int, end: int) -> int:
    count = 0
    for entry in entries(store, start, end):
        writer.write(entry)
        count += 1
    stream.flush()
    os.fsync(stream.fileno())
    return count


def _hexed(data: bytes) -> str:
    return "0x" + data.hex()


def _unhexed(text: Any) -> bytes:
    if type(text) is not str or not text.startswith("0x"):
        raise DecodeError("bytes are written as 0x-hex")
    return bytes.fromhex(text[2:])


def _invalid(why: str) -> Rejected:
    return Rejected("export_invalid", f"this is no stream of blocks: {why}")
