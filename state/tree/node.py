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
that leaf's hash, and is left out. This module knows no reader, no order of changes and no proof.
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


def page_key(version: bytes, depth: int, path: bytes) -> bytes:
    """Returns the row key of the page at `depth` nibbles on the way to `path`, a key hash."""
    whole = depth >> 1
    if depth & 1:
        return version + _DEPTH_BYTES[depth] + path[:whole] + _HIGH_NIBBLE[path[whole]]
    return version + _DEPTH_BYTES[depth] + path[:whole]


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


def _sealed(node_key: bytes, content: bytes) -> bytes:
    return content + crc32(content, crc32(node_key)).to_bytes(_CHECK_BYTES, "big")


def _check_seal(node_key: bytes, data: bytes) -> None:
    if data[:1] != _FORMAT_BYTE:
        raise InvariantError(f"{name_of(node_key)} has format {data[:1].hex() or 'none'}, known is {FORMAT}")
    if crc32(data[:-_CHECK_BYTES], crc32(node_key)).to_bytes(_CHECK_BYTES, "big") != data[-_CHECK_BYTES:]:
        raise InvariantError(f"{name_of(node_key)} is damaged: its checksum does not match")


class Page:
    """Four levels of the tree, decoded. One that stands in a cache is shared: copy it before a change.

    `stored` is the mask of heap nodes that have a hash of their own (bits 2 to 15 inner nodes, 16 to 31 slots),
    `leaves` the mask of slots that are leaves; `heap`, `versions` and `keys` hold None where there is nothing.
    """

    __slots__ = ("heap", "keys", "leaves", "stored", "versions")

    def __init__(self) -> None:
        self.stored = 0
        self.leaves = 0
        self.heap: list[bytes | None] = [None] * (2 * SLOTS)
        self.versions: list[bytes | None] = [None] * SLOTS
        self.keys: list[bytes | None] = [None] * SLOTS

    def copy(self) -> Page:
        """Returns a page with the same content that may be changed."""
        other = Page.__new__(Page)
        other.stored = self.stored
        other.leaves = self.leaves
        other.heap = self.heap[:]
        other.versions = self.versions[:]
        other.keys = self.keys[:]
        return other

    @property
    def occupied(self) -> int:
        """The mask of slots that are not empty."""
        return self.stored >> SLOTS

    @property
    def hash(self) -> bytes:
        """The page's own hash, as of the last `rehash`."""
        own = self.heap[1]
        if own is None:
            raise InvariantError("a page was asked for its hash before it was computed")
        return own

    def get(self, slot: int) -> Ref | None:
        """Returns what stands in a slot."""
        digest, version = self.heap[SLOTS + slot], self.versions[slot]
        return None if digest is None or version is None else (digest, version, self.keys[slot])

    def set(self, slot: int, ref: Ref | None) -> None:
        """Puts `ref` into a slot. The hashes above it are stale until `rehash` is given ANCESTORS[slot]."""
        if ref is None:
            self.heap[SLOTS + slot] = self.versions[slot] = self.keys[slot] = None
            self.stored &= ~(1 << SLOTS + slot)
            self.leaves &= ~(1 << slot)
            return
        self.heap[SLOTS + slot], self.versions[slot], key = ref
        self.keys[slot] = key
        self.stored |= 1 << SLOTS + slot
        if key is None:
            self.leaves &= ~(1 << slot)
        else:
            self.leaves |= 1 << slot

    def hash_of(self, node: int) -> bytes:
        """Returns the hash of the subtree at a heap node, be it inner, one leaf, or empty."""
        digest = self.heap[node]
        if digest is None:
            below = self.stored >> SLOTS & SPAN[node]
            digest = self.heap[SLOTS - 1 + below.bit_length()] if below else EMPTY
        return digest or EMPTY

    def rehash(self, dirty: int) -> None:
        """Computes the hashes of the heap nodes in the mask `dirty`, deepest first."""
        heap = self.heap
        stored = self.stored
        occupied = stored >> SLOTS
        pages = occupied & ~self.leaves
        while dirty:
            node = dirty.bit_length() - 1
            bit = 1 << node
            dirty ^= bit
            below = occupied & SPAN[node]
            if below & (below - 1) or below & pages:
                left = heap[2 * node] or self.hash_of(2 * node)
                right = heap[2 * node + 1] or self.hash_of(2 * node + 1)
                heap[node] = sha256(INNER_TAG + left + right).digest()
                stored |= bit
            else:
                heap[node] = None
                stored &= ~bit
        self.stored = stored & ~2

    def encode(self, node_key: bytes) -> bytes:
        """Returns the row under `node_key`: format, masks, versions, hashes, leaves' key hashes, checksum."""
        header = _FORMAT_BYTE + (self.stored << SLOTS | self.leaves).to_bytes(6, "big")
        content = b"".join(filter(None, (header, *self.versions, *self.heap[2:], *self.keys)))
        return _sealed(node_key, content)


def decode_page(node_key: bytes, data: bytes) -> Page:
    """Returns the page of a row; raises InvariantError naming the row unless it is whole and well formed.

    Whether the inner hashes are right is not recomputed here: the checksum finds damage, and `walk` proves the rest.
    """
    _check_seal(node_key, data)
    masks = int.from_bytes(data[1:_HEADER_BYTES], "big")
    stored, leaves = masks >> SLOTS, masks & 0xFFFF
    nodes, slots, leaf_slots = bits_of(stored), bits_of(stored >> SLOTS), bits_of(leaves)
    hashes_at = _HEADER_BYTES + VERSION_BYTES * len(slots)
    keys_at = hashes_at + HASH_BYTES * len(nodes)
    end = keys_at + HASH_BYTES * len(leaf_slots)
    if len(data) != end + _CHECK_BYTES or stored & 3 or leaves & ~(stored >> SLOTS) or not slots:
        raise InvariantError(f"{name_of(node_key)} is malformed")
    page = Page()
    page.stored, page.leaves = stored, leaves
    heap, versions, keys = page.heap, page.versions, page.keys
    for slot, at in zip(slots, range(_HEADER_BYTES, hashes_at, VERSION_BYTES), strict=True):
        versions[slot] = data[at : at + VERSION_BYTES]
    for node, at in zip(nodes, range(hashes_at, keys_at, HASH_BYTES), strict=True):
        heap[node] = data[at : at + HASH_BYTES]
    for slot, at in zip(leaf_slots, range(keys_at, end, HASH_BYTES), strict=True):
        keys[slot] = data[at : at + HASH_BYTES]
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
