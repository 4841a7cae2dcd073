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
The hash of a node above one leaf alone is that leaf's, above nothing the placeholder. A page's row is

    format (1) | slots occupied (2, bit n for slot n) | slots that are leaves (2) | hashes of nodes 2 to 15 (32 each) |
    version (8) of each slot's row | hash (32) of each slot | key hash (32) of each leaf | checksum (4)

where versions, slots' hashes and leaves' key hashes are only those that there are, in ascending order. That the inner
hashes are stored lets one change cost four hashes instead of fifteen; that they have fixed places halves what
surrounds each of the four; the page's own is left out, as its parent has it.

This module knows no reader, no order of changes and no proof.
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
_HEADER_BYTES: Final = 5
_SLOTS_AT: Final = _HEADER_BYTES + HASH_BYTES * (SLOTS - 2)
_SLOT_BYTES: Final = VERSION_BYTES + HASH_BYTES
_EMPTY_ROW: Final = _FORMAT_BYTE + bytes(_HEADER_BYTES - 1) + EMPTY * (SLOTS - 2) + bytes(_CHECK_BYTES)


def _span(node: int) -> int:
    """The mask of the slots beneath a heap node."""
    level = node.bit_length() - 1
    width = SLOTS >> level
    return ((1 << width) - 1) << (node - (1 << level)) * width


SPAN: Final = (0, *(_span(node) for node in range(1, 2 * SLOTS)))
ANCESTORS: Final = tuple(sum(1 << (SLOTS + slot >> up) for up in range(1, 5)) for slot in range(SLOTS))
ALL_NODES: Final = (1 << SLOTS) - 2

_NODE_AT: Final = tuple(_HEADER_BYTES + HASH_BYTES * (node - 2) for node in range(SLOTS))
"""Where the hash of an inner node stands in a row; two halves stand side by side."""


def _path(slot: int) -> tuple[tuple[int, int, int], ...]:
    """For the inner nodes above a slot, upwards: the slots beneath, where its hash stands, where its halves stand."""
    nodes = (SLOTS + slot >> up for up in range(2, 4))
    return tuple((SPAN[node], _NODE_AT[node], _NODE_AT[2 * node]) for node in nodes)


_PATHS: Final = tuple(_path(slot) for slot in range(SLOTS))


def slots_of(mask: int) -> list[int]:
    """Returns the slots of a mask, ascending."""
    return [slot for slot in range(SLOTS) if mask >> slot & 1]


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


def name_of(node_key: bytes) -> str:
    """Returns a row's key as a person reads it: version, depth, path."""
    version = int.from_bytes(node_key[:VERSION_BYTES], "big")
    if len(node_key) == VERSION_BYTES:
        return f"tree root record of version {version}"
    depth, path = node_key[VERSION_BYTES], node_key[VERSION_BYTES + 1 :].hex()
    kind = "value" if depth == KEY_NIBBLES else "page"
    return f"tree {kind} of version {version} at path {path[:depth] or 'root'}"


def _sealed(node_key: bytes, content: bytes | bytearray) -> bytes:
    return b"".join((content, crc32(content, crc32(node_key)).to_bytes(_CHECK_BYTES, "big")))


def _check_seal(node_key: bytes, data: bytes) -> None:
    if data[:1] != _FORMAT_BYTE:
        raise InvariantError(f"{name_of(node_key)} has format {data[:1].hex() or 'none'}, known is {FORMAT}")
    if crc32(data[:-_CHECK_BYTES], crc32(node_key)).to_bytes(_CHECK_BYTES, "big") != data[-_CHECK_BYTES:]:
        raise InvariantError(f"{name_of(node_key)} is damaged: its checksum does not match")


class Page:
    """Four levels of the tree, as one run of bytes (a row without its checksum) that is read and edited in place.

    `occupied` and `leaves` are masks of the slots that hold anything, and a leaf; an item's place in the row follows
    from the number of bits set below its own. One run of bytes instead of an object for each hash is what makes an
    update fast: it lies together in memory, and the garbage collector need not visit it.
    """

    __slots__ = ("leaves", "occupied", "row")

    def __init__(self, row: bytes = _EMPTY_ROW) -> None:
        self.row = bytearray(row)
        del self.row[-_CHECK_BYTES:]
        self.occupied = row[1] << 8 | row[2]
        self.leaves = row[3] << 8 | row[4]

    def get(self, slot: int) -> Ref | None:
        """Returns what stands in a slot."""
        occupied, bit = self.occupied, 1 << slot
        if not occupied & bit:
            return None
        row, place, count = self.row, (occupied & bit - 1).bit_count(), occupied.bit_count()
        version_at = _SLOTS_AT + VERSION_BYTES * place
        hash_at = _SLOTS_AT + VERSION_BYTES * count + HASH_BYTES * place
        key = None
        if self.leaves & bit:
            key_at = _SLOTS_AT + _SLOT_BYTES * count + HASH_BYTES * (self.leaves & bit - 1).bit_count()
            key = bytes(row[key_at : key_at + HASH_BYTES])
        digest = bytes(row[hash_at : hash_at + HASH_BYTES])
        return digest, bytes(row[version_at : version_at + VERSION_BYTES]), key

    def set(self, slot: int, ref: Ref | None) -> None:
        """Puts `ref` into a slot. The hashes above it are stale until `rehash` is given ANCESTORS[slot]."""
        occupied, leaves, bit = self.occupied, self.leaves, 1 << slot
        place, count = (occupied & bit - 1).bit_count(), occupied.bit_count()
        was_there = occupied >> slot & 1
        was_leaf = leaves >> slot & 1
        version_at = _SLOTS_AT + VERSION_BYTES * place
        hash_at = _SLOTS_AT + VERSION_BYTES * count + HASH_BYTES * place
        digest, version, key = (b"", b"", None) if ref is None else ref
        row = self.row
        if was_leaf or key is not None:
            key_at = _SLOTS_AT + _SLOT_BYTES * count + HASH_BYTES * (leaves & bit - 1).bit_count()
            row[key_at : key_at + HASH_BYTES * was_leaf] = key or b""
        row[hash_at : hash_at + HASH_BYTES * was_there] = digest
        row[version_at : version_at + VERSION_BYTES * was_there] = version
        self.occupied = occupied & ~bit if ref is None else occupied | bit
        self.leaves = leaves & ~bit if key is None else leaves | bit

    def hash_of(self, node: int) -> bytes:
        """Returns the hash of the subtree at a heap node below the first, be it inner, one leaf, or empty."""
        if node < SLOTS:
            at = _NODE_AT[node]
        else:
            occupied, bit = self.occupied, 1 << node - SLOTS
            if not occupied & bit:
                return EMPTY
            place, count = (occupied & bit - 1).bit_count(), occupied.bit_count()
            at = _SLOTS_AT + VERSION_BYTES * count + HASH_BYTES * place
        return bytes(self.row[at : at + HASH_BYTES])

    def rehash(self, dirty: int) -> bytes:
        """Computes the hashes of the heap nodes in the mask `dirty`, deepest first, and returns the page's own.

        Node 1 must be among them.
        """
        row, occupied = self.row, self.occupied
        row[1:_HEADER_BYTES] = (occupied << SLOTS | self.leaves).to_bytes(_HEADER_BYTES - 1, "big")
        pages = occupied & ~self.leaves
        hashes_at = _SLOTS_AT + VERSION_BYTES * occupied.bit_count()
        digest: bytes = EMPTY
        halves: bytes | bytearray
        while dirty:
            node = dirty.bit_length() - 1
            dirty ^= 1 << node
            below = occupied & SPAN[node]
            if not below:
                digest = EMPTY
            elif below & below - 1 or below & pages:
                if node < SLOTS // 2:
                    at = _NODE_AT[2 * node]
                    halves = row[at : at + 2 * HASH_BYTES]
                elif below & below - 1:
                    at = hashes_at + HASH_BYTES * (occupied & (below & -below) - 1).bit_count()
                    halves = row[at : at + 2 * HASH_BYTES]
                else:
                    halves = self.hash_of(2 * node) + self.hash_of(2 * node + 1)
                digest = sha256(INNER_TAG + halves).digest()
            else:
                digest = self.hash_of(SLOTS - 1 + below.bit_length())
            if node > 1:
                at = _NODE_AT[node]
                row[at : at + HASH_BYTES] = digest
        return digest

    def replace(self, slot: int, digest: bytes, version: bytes) -> bytes:
        """Gives a slot that stays what it is a new hash and version, and returns the page's own new hash.

        This is `set` with `rehash` for the commonest change: a leaf keeps its key, or a page stays a page, so that
        everything keeps its place. A node with one child keeps having one.
        """
        row, occupied, bit = self.row, self.occupied, 1 << slot
        place, count = (occupied & bit - 1).bit_count(), occupied.bit_count()
        version_at = _SLOTS_AT + VERSION_BYTES * place
        hash_at = _SLOTS_AT + VERSION_BYTES * count + HASH_BYTES * place
        row[version_at : version_at + VERSION_BYTES] = version
        row[hash_at : hash_at + HASH_BYTES] = digest
        lone = not self.leaves & bit
        if occupied >> (slot ^ 1) & 1:
            left_at = hash_at - HASH_BYTES if slot & 1 else hash_at
            digest = sha256(INNER_TAG + row[left_at : left_at + 2 * HASH_BYTES]).digest()
        elif lone:
            digest = sha256(INNER_TAG + (EMPTY + digest if slot & 1 else digest + EMPTY)).digest()
        at = _NODE_AT[SLOTS + slot >> 1]
        row[at : at + HASH_BYTES] = digest
        for span, at, halves_at in _PATHS[slot]:
            if lone or occupied & span != bit:
                digest = sha256(INNER_TAG + row[halves_at : halves_at + 2 * HASH_BYTES]).digest()
            row[at : at + HASH_BYTES] = digest
        return sha256(INNER_TAG + row[_HEADER_BYTES : _HEADER_BYTES + 2 * HASH_BYTES]).digest()

    def encode(self, node_key: bytes) -> bytes:
        """Returns the row under `node_key`, with its checksum."""
        return _sealed(node_key, self.row)


def decode_page(node_key: bytes, data: bytes) -> Page:
    """Returns the page of a row; raises InvariantError naming the row unless it is whole and well formed.

    Whether the inner hashes are right is not recomputed here: the checksum finds damage, and `walk` proves the rest.
    """
    _check_seal(node_key, data)
    if len(data) < _SLOTS_AT:
        raise InvariantError(f"{name_of(node_key)} is malformed")
    page = Page(data)
    slots, leaves = page.occupied, page.leaves
    size = _SLOTS_AT + _SLOT_BYTES * slots.bit_count() + HASH_BYTES * leaves.bit_count() + _CHECK_BYTES
    if len(data) != size or leaves & ~slots or not slots:
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
