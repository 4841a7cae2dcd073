"""How a tree is stored: three kinds of immutable rows, their keys, and their strict decoding.

The binary tree is cut into pages of four levels: a page stands at a depth counted in nibbles and has 16 slots, one for
each next nibble. A slot is empty, a leaf, or a page one nibble deeper; a page holds at least two leaves beneath it.
Rows are never rewritten. Each is keyed by the version (block height) that wrote it, big-endian in 8 bytes, so that
the rows of one block stand together and a database appends them in order:

    root record   version                        the root page, the only leaf, or nothing
    page          version | depth | path         path: the first `depth` nibbles, in whole bytes, padded with zeros
    value         version | 64    | key hash     the value of a leaf; 64 nibbles are a whole path

Pages and root records end in a CRC-32 over key and content, so that damage, or a row under a wrong key, is named when
it is read and not executed on. A value is checked against the hash of its leaf instead.

A page's hashes are numbered like a heap: 1 is the page's own, 2n and 2n+1 are the halves of n, 16 to 31 are the slots.
Stored are those of slots and of inner nodes, so that one change costs four hashes; a node above one leaf alone has
that leaf's hash, and is left out, as is the page's own, which its parent has. A page's row is

    format (1) | heap nodes stored (4, bit n for node n) | slots that are leaves (2) |
    version (8) of each slot's row | hash (32) of each stored node | key hash (32) of each leaf | checksum (4)

each part in ascending order. This module knows no reader, no order of changes and no proof.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, TypeAlias
from zlib import crc32

from state.errors import InvariantError
from state.tree.hashes import EMPTY, HASH_BYTES, INNER_TAG

FORMAT: Final = 1
SLOTS: Final = 16
KEY_NIBBLES: Final = 64
VERSION_BYTES: Final = 8

Ref: TypeAlias = tuple[bytes, bytes, bytes | None]
"""What a parent knows of a child: its hash, the version (8 bytes) of its row, and the key hash if it is a leaf."""

_FORMAT_BYTE: Final = bytes([FORMAT])
_DEPTH_BYTES: Final = tuple(bytes([depth]) for depth in range(KEY_NIBBLES + 1))
_HIGH_NIBBLE: Final = tuple(bytes([byte & 0xF0]) for byte in range(256))
_CHECK_BYTES: Final = 4
_HEADER_BYTES: Final = 7
_EMPTY_ROW: Final = _FORMAT_BYTE + bytes(_HEADER_BYTES - 1 + _CHECK_BYTES)


def _span(node: int) -> int:
    """The mask of the slots beneath a heap node."""
    level = node.bit_length() - 1
    width = SLOTS >> level
    return ((1 << width) - 1) << (node - (1 << level)) * width


SPAN: Final = (0, *(_span(node) for node in range(1, 2 * SLOTS)))
ANCESTORS: Final = tuple(sum(1 << (SLOTS + slot >> up) for up in range(1, 5)) for slot in range(SLOTS))
ALL_NODES: Final = (1 << SLOTS) - 2

_BITS_OF_BYTE: Final = tuple(
    tuple(tuple(8 * place + bit for bit in range(8) if byte >> bit & 1) for byte in range(256)) for place in range(4)
)


def bits_of(mask: int) -> tuple[int, ...]:
    """Returns the numbers of the bits that are set in a 32-bit mask, ascending."""
    first, second, third, fourth = _BITS_OF_BYTE
    return first[mask & 255] + second[mask >> 8 & 255] + third[mask >> 16 & 255] + fourth[mask >> 24]


def version_bytes(version: int) -> bytes:
    """Returns a version as it stands in row keys: 8 bytes, big-endian."""
    return version.to_bytes(VERSION_BYTES, "big")


def page_place(depth: int, path: bytes) -> bytes:
    """Returns the part of a page's row key that all its versions share: depth, and the nibbles of `path` down to it.

    `path` is the hash of any key beneath the page.
    """
    whole = depth >> 1
    if depth & 1:
        return _DEPTH_BYTES[depth] + path[:whole] + _HIGH_NIBBLE[path[whole]]
    return _DEPTH_BYTES[depth] + path[:whole]


def page_key(version: bytes, depth: int, path: bytes) -> bytes:
    """Returns the row key of the page that `version` wrote at `depth` nibbles on the way to `path`, a key hash."""
    return version + page_place(depth, path)


def value_key(version: bytes, key_hash: bytes) -> bytes:
    """Returns the row key of the value that `version` wrote for a key."""
    return version + _DEPTH_BYTES[KEY_NIBBLES] + key_hash


def nibble_at(key_hash: bytes, depth: int) -> int:
    """Returns the slot of a key in the page at `depth` nibbles."""
    byte = key_hash[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def is_page_key(node_key: bytes) -> bool:
    """Tells whether a row key is that of a page, not of a value or a root record."""
    return len(node_key) > VERSION_BYTES and node_key[VERSION_BYTES] < KEY_NIBBLES


def name_of(node_key: bytes) -> str:
    """Returns a row's key as a person reads it: version, depth, path."""
    version = int.from_bytes(node_key[:VERSION_BYTES], "big")
    if len(node_key) == VERSION_BYTES:
        return f"tree root record of version {version}"
    depth, path = node_key[VERSION_BYTES], node_key[VERSION_BYTES + 1 :].hex()
    kind = "value" if depth == KEY_NIBBLES else "page"
    return f"tree {kind} of version {version} at path {path[:depth] or 'root'}"


def _sealed(node_key: bytes, content: bytes) -> bytes:
    return content + crc32(content, crc32(node_key)).to_bytes(_CHECK_BYTES, "big")


def _check_seal(node_key: bytes, data: bytes) -> None:
    if data[:1] != _FORMAT_BYTE:
        raise InvariantError(f"{name_of(node_key)} has format {data[:1].hex() or 'none'}, known is {FORMAT}")
    if crc32(data[:-_CHECK_BYTES], crc32(node_key)).to_bytes(_CHECK_BYTES, "big") != data[-_CHECK_BYTES:]:
        raise InvariantError(f"{name_of(node_key)} is damaged: its checksum does not match")


class Page:
    """Four levels of the tree, as one run of bytes that is read and edited in place.

    `stored` is the mask of heap nodes that have a hash of their own (bits 2 to 15 inner nodes, 16 to 31 slots), and
    `leaves` the mask of slots that are leaves. They tell where in the row everything stands: each part holds only
    what there is, in ascending order, so that an item's place is the number of bits set below its own. One run of
    bytes instead of an object for each hash is what makes an update fast: it lies together in memory, and the
    garbage collector need not visit it.
    """

    __slots__ = ("leaves", "row", "stored")

    def __init__(self, row: bytes = _EMPTY_ROW) -> None:
        self.row = bytearray(row)
        masks = int.from_bytes(row[1:_HEADER_BYTES], "big")
        self.stored = masks >> SLOTS
        self.leaves = masks & 0xFFFF

    @property
    def occupied(self) -> int:
        """The mask of slots that are not empty."""
        return self.stored >> SLOTS

    def get(self, slot: int) -> Ref | None:
        """Returns what stands in a slot."""
        stored, bit = self.stored, 1 << slot
        occupied = stored >> SLOTS
        if not occupied & bit:
            return None
        row = self.row
        version_at = _HEADER_BYTES + VERSION_BYTES * (occupied & bit - 1).bit_count()
        hashes_at = _HEADER_BYTES + VERSION_BYTES * occupied.bit_count()
        hash_at = hashes_at + HASH_BYTES * (stored & (bit << SLOTS) - 1).bit_count()
        key = None
        if self.leaves & bit:
            key_at = hashes_at + HASH_BYTES * (stored.bit_count() + (self.leaves & bit - 1).bit_count())
            key = bytes(row[key_at : key_at + HASH_BYTES])
        digest = bytes(row[hash_at : hash_at + HASH_BYTES])
        return digest, bytes(row[version_at : version_at + VERSION_BYTES]), key

    def set(self, slot: int, ref: Ref | None) -> None:
        """Puts `ref` into a slot. The hashes above it are stale until `rehash` is given ANCESTORS[slot]."""
        stored, leaves, bit = self.stored, self.leaves, 1 << slot
        occupied = stored >> SLOTS
        was_there = occupied >> slot & 1
        was_leaf = leaves >> slot & 1
        version_at = _HEADER_BYTES + VERSION_BYTES * (occupied & bit - 1).bit_count()
        hashes_at = _HEADER_BYTES + VERSION_BYTES * occupied.bit_count()
        hash_at = hashes_at + HASH_BYTES * (stored & (bit << SLOTS) - 1).bit_count()
        key_at = hashes_at + HASH_BYTES * (stored.bit_count() + (leaves & bit - 1).bit_count())
        digest, version, key = (b"", b"", None) if ref is None else ref
        row = self.row
        row[key_at : key_at + HASH_BYTES * was_leaf] = key or b""
        row[hash_at : hash_at + HASH_BYTES * was_there] = digest
        row[version_at : version_at + VERSION_BYTES * was_there] = version
        self.stored = stored & ~(bit << SLOTS) if ref is None else stored | bit << SLOTS
        self.leaves = leaves & ~bit if key is None else leaves | bit

    def hash_of(self, node: int) -> bytes:
        """Returns the hash of the subtree at a heap node below the first, be it inner, one leaf, or empty."""
        stored = self.stored
        if not stored >> node & 1:
            below = stored >> SLOTS & SPAN[node]
            if not below:
                return EMPTY
            node = SLOTS - 1 + below.bit_length()
        hashes_at = _HEADER_BYTES + VERSION_BYTES * (stored >> SLOTS).bit_count()
        at = hashes_at + HASH_BYTES * (stored & (1 << node) - 1).bit_count()
        return bytes(self.row[at : at + HASH_BYTES])

    def rehash(self, dirty: int) -> bytes:
        """Computes the hashes of the heap nodes in the mask `dirty`, deepest first, and returns the page's own.

        Node 1 must be among them. The page must have two leaves or a page in its slots.
        """
        row, stored, occupied = self.row, self.stored, self.stored >> SLOTS
        pages = occupied & ~self.leaves
        hashes_at = _HEADER_BYTES + VERSION_BYTES * occupied.bit_count()
        while dirty > 2:
            node = dirty.bit_length() - 1
            bit = 1 << node
            dirty ^= bit
            at = hashes_at + HASH_BYTES * (stored & bit - 1).bit_count()
            end = at + HASH_BYTES if stored & bit else at
            below = occupied & SPAN[node]
            if below & below - 1 or below & pages:
                row[at:end] = sha256(INNER_TAG + self._halves(node, hashes_at)).digest()
                stored |= bit
            else:
                del row[at:end]
                stored &= ~bit
            self.stored = stored
        row[1:_HEADER_BYTES] = (stored << SLOTS | self.leaves).to_bytes(6, "big")
        return sha256(INNER_TAG + self._halves(1, hashes_at)).digest()

    def _halves(self, node: int, hashes_at: int) -> bytes:
        """The hashes of the two halves of an inner node; where both are stored they stand side by side."""
        left = 2 * node
        if self.stored >> left & 3 == 3:
            at = hashes_at + HASH_BYTES * (self.stored & (1 << left) - 1).bit_count()
            return bytes(self.row[at : at + 2 * HASH_BYTES])
        return self.hash_of(left) + self.hash_of(left + 1)

    def replace(self, slot: int, digest: bytes, version: bytes) -> bytes:
        """Gives a slot that stays what it is a new hash and version, and returns the page's own new hash.

        This is `set` with `rehash` for the commonest change: a leaf keeps its key, or a page stays a page, so that
        everything keeps its place.
        """
        row, stored = self.row, self.stored
        occupied = stored >> SLOTS
        at = _HEADER_BYTES + VERSION_BYTES * (occupied & (1 << slot) - 1).bit_count()
        row[at : at + VERSION_BYTES] = version
        hashes_at = _HEADER_BYTES + VERSION_BYTES * occupied.bit_count()
        node = SLOTS + slot
        while node > 1:
            left = node & 30
            at = hashes_at + HASH_BYTES * (stored & (1 << left) - 1).bit_count()
            if stored >> left & 3 == 3:
                own_at = at + HASH_BYTES if node & 1 else at
                row[own_at : own_at + HASH_BYTES] = digest
                digest = sha256(INNER_TAG + row[at : at + 2 * HASH_BYTES]).digest()
            else:
                if stored >> node & 1:
                    row[at : at + HASH_BYTES] = digest
                if node < 4 or stored >> (node >> 1) & 1:
                    other = self.hash_of(node ^ 1)
                    digest = sha256(INNER_TAG + (other + digest if node & 1 else digest + other)).digest()
            node >>= 1
        return digest

    def encode(self, node_key: bytes) -> bytes:
        """Returns the row under `node_key`: format, masks, versions, hashes, leaves' key hashes, checksum."""
        return _sealed(node_key, bytes(self.row[:-_CHECK_BYTES]))


def decode_page(node_key: bytes, data: bytes) -> Page:
    """Returns the page of a row; raises InvariantError naming the row unless it is whole and well formed.

    Whether the inner hashes are right is not recomputed here: the checksum finds damage, and `walk` proves the rest.
    """
    _check_seal(node_key, data)
    page = Page(data)
    slots, hashes, keys = page.occupied.bit_count(), page.stored.bit_count(), page.leaves.bit_count()
    size = _HEADER_BYTES + VERSION_BYTES * slots + HASH_BYTES * (hashes + keys) + _CHECK_BYTES
    if len(data) != size or page.stored & 3 or page.leaves & ~page.occupied or not slots:
        raise InvariantError(f"{name_of(node_key)} is malformed")
    return page


def encode_root(node_key: bytes, ref: Ref | None) -> bytes:
    """Returns the root record under `node_key`: format, then version, hash and, for a leaf, key hash of the root."""
    parts = () if ref is None else (ref[1], ref[0], ref[2] or b"")
    return _sealed(node_key, _FORMAT_BYTE + b"".join(parts))


def decode_root(node_key: bytes, data: bytes) -> Ref | None:
    """Returns what a root record points to, None for the empty tree; raises InvariantError naming the record."""
    _check_seal(node_key, data)
    content = data[1:-_CHECK_BYTES]
    if not content:
        return None
    hash_end = VERSION_BYTES + HASH_BYTES
    if len(content) not in (hash_end, hash_end + HASH_BYTES):
        raise InvariantError(f"{name_of(node_key)} is malformed")
    return content[VERSION_BYTES:hash_end], content[:VERSION_BYTES], content[hash_end:] or None


def encode_value(value: bytes) -> bytes:
    """Returns the row of a value."""
    return _FORMAT_BYTE + value


def decode_value(node_key: bytes, data: bytes) -> bytes:
    """Returns the value of a row; raises InvariantError naming a row of an unknown format."""
    if data[:1] != _FORMAT_BYTE:
        raise InvariantError(f"{name_of(node_key)} has format {data[:1].hex() or 'none'}, known is {FORMAT}")
    return data[1:]
