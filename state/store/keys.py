"""The layout of the database: every kind of record, its key and its content. The format's version stands here too.

A key is one letter and fixed parts; heights are 8 bytes, indexes 4, both big-endian, so that order of keys is order in
the chain. All hashes have 32 bytes. Arrays are in the canonical encoding.

    letter  key after the letter          content
    M       name of a chain-wide record   see META_* below
    H       block hash                    the header, encoded
    B       height, block hash            the rest of the block: its encoding after the header
    C       height                        [hash of the committed block, its certificate or nil (height 0)]
    R       height                        [receipt, encoded ...], in block order
    T       transaction id                height, index
    A       address, height, index        nothing (only where the account index is kept)
    S       state key                     its newest committed value
    N       row key of the tree           a row of the tree (state/tree/node.py), which has checks of its own
    O       height                        [row key ...]: rows of N that no version from this height on references
    V       key of a vote record          what the consensus core keeps there

A block is two records, so that headers are read without bodies; both exist before it is committed, when its body was
stored with the votes for it. C is what makes a block committed.

Except for N, a value is its content with a CRC-32 over key and content at its end: LevelDB's own checksums stop at its
files, these find a value under a wrong key or a record that some other program wrote.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from state.store.errors import Damaged
from state.tree.node import name_of as name_of_row

FORMAT_VERSION: Final = 1

META: Final = b"M"
HEADER: Final = b"H"
BODY: Final = b"B"
CHAIN: Final = b"C"
RECEIPTS: Final = b"R"
TRANSACTION: Final = b"T"
ACCOUNT: Final = b"A"
STATE: Final = b"S"
NODE: Final = b"N"
STALE: Final = b"O"
VOTE: Final = b"V"

META_FORMAT: Final = META + b"format"
"""The version of this layout; written last when a database is made, so that half a database is seen."""
META_CHAIN: Final = META + b"chain"
"""The genesis hash."""
META_HEAD: Final = META + b"head"
"""[height, block hash] of the newest committed block."""
META_OLDEST: Final = META + b"oldest"
"""The lowest height whose state is whole; there are no O records up to it."""
META_BASE: Final = META + b"base"
"""The height that the chain begins with here, known by header, certificate and state alone; absent where that is 0."""
META_INDEX: Final = META + b"index"
"""The first height of the account index; absent where none is kept, empty while it is being removed."""
META_VOTES: Final = META + b"votes"
"""[version, number of vote records, XOR of their checksums]; absent where `init` did not create them."""
META_GARBAGE: Final = META + b"garbage"
"""About how many bytes were overwritten or deleted since space was last reclaimed."""

CHECK_BYTES: Final = 4
HEIGHT_BYTES: Final = 8
INDEX_BYTES: Final = 4
HASH_BYTES: Final = 32


def height_bytes(height: int) -> bytes:
    """Returns a height as it stands in keys."""
    return height.to_bytes(HEIGHT_BYTES, "big")


def place_bytes(height: int, index: int) -> bytes:
    """Returns a transaction's place as it stands in keys and contents: height, index."""
    return (height << 8 * INDEX_BYTES | index).to_bytes(HEIGHT_BYTES + INDEX_BYTES, "big")


def read_place(data: bytes) -> tuple[int, int]:
    """Returns (height, index) of a place."""
    return int.from_bytes(data[:HEIGHT_BYTES], "big"), int.from_bytes(data[HEIGHT_BYTES:], "big")


def after(letter: bytes) -> bytes:
    """Returns where the records of a letter end."""
    return bytes([letter[0] + 1])


def check_of(key: bytes, content: bytes) -> bytes:
    """Returns the checksum that ends the value under `key`."""
    return crc32(content, crc32(key)).to_bytes(CHECK_BYTES, "big")


def seal(key: bytes, content: bytes) -> bytes:
    """Returns the value that holds `content` under `key`."""
    return content + crc32(content, crc32(key)).to_bytes(CHECK_BYTES, "big")


def unseal(key: bytes, value: bytes) -> bytes:
    """Returns the content of a value; raises Damaged naming the record unless its checksum matches."""
    content = value[:-CHECK_BYTES]
    if crc32(content, crc32(key)).to_bytes(CHECK_BYTES, "big") != value[-CHECK_BYTES:]:
        raise Damaged(name_of(key), "does not match its checksum")
    return content


_NAMES: Final = {
    HEADER: "header of block 0x{}",
    CHAIN: "certificate of height {}",
    RECEIPTS: "receipts of height {}",
    TRANSACTION: "place of transaction 0x{}",
    STATE: "state record 0x{}",
    STALE: "list of stale tree rows of height {}",
    VOTE: "vote record 0x{}",
}


def name_of(key: bytes) -> str:
    """Returns what a person calls the record under `key`."""
    letter, rest = key[:1], key[1:]
    if letter == META:
        return f"record {rest.decode('ascii', 'backslashreplace')!r} of the database"
    if letter == NODE:
        return name_of_row(rest) if len(rest) >= HEIGHT_BYTES else f"tree row under the short key 0x{rest.hex()}"
    if letter == BODY:
        return f"block of height {int.from_bytes(rest[:HEIGHT_BYTES], 'big')}, hash 0x{rest[HEIGHT_BYTES:].hex()}"
    if letter == ACCOUNT:
        height, index = read_place(rest[HASH_BYTES:])
        return f"index entry of account 0x{rest[:HASH_BYTES].hex()} at height {height}, index {index}"
    if letter in (CHAIN, RECEIPTS, STALE):
        return _NAMES[letter].format(int.from_bytes(rest, "big"))
    return _NAMES.get(letter, "record of unknown kind 0x{}").format(rest.hex() if letter in _NAMES else key.hex())
