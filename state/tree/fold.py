"""Hashes of subtrees from what stands beneath them: the rules of hashes.py, for parts of a tree that come apart.

A tree may be cut along prefixes of its keys and each part be hashed alone. What a part needs to tell of itself for the
whole to be put together again is its hash and whether it holds no leaf, one, or more: a subtree with one leaf is that
leaf at whatever depth, so beside an empty one it moves up unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from state.hashing import Hash
from state.slices import Slices
from state.tree.hashes import EMPTY, KEY_BITS, bit_at, inner_hash

NIBBLE_BITS: Final = 4
_SLICE_LEAVES: Final = 512


class Subtree(NamedTuple):
    """A subtree as its parent sees it: its hash, and how many leaves it has, where 2 stands for any greater number."""

    hash: Hash
    leaves: int


NOTHING: Final = Subtree(EMPTY, 0)


def lone_leaf(leaf_hash: Hash) -> Subtree:
    """Returns the subtree that is one leaf."""
    return Subtree(leaf_hash, 1)


def many_leaves(subtree_hash: Hash) -> Subtree:
    """Returns the subtree of two leaves or more with this hash."""
    return Subtree(subtree_hash, 2)


def join(left: Subtree, right: Subtree) -> Subtree:
    """Returns the subtree above two siblings; `left` holds the keys whose next bit is 0."""
    if left.leaves + right.leaves <= 1:
        return left if left.leaves else right
    return Subtree(inner_hash(left.hash, right.hash), 2)


def join_sixteen(children: Sequence[Subtree]) -> Subtree:
    """Returns the subtree above the sixteen that stand one nibble deeper, given in the order of that nibble."""
    row = list(children)
    while len(row) > 1:
        row = [join(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def fold(leaves: Sequence[tuple[bytes, Hash]], depth: int) -> Slices[Subtree]:
    """Returns the subtree at `depth` bits over leaves (key hash, leaf hash) that share their first `depth` bits.

    They must be in strictly ascending order of key hash; that and the shared bits are the caller's to prove. The memory
    used beside them is bounded by the depth of the tree.
    """
    # What is folded so far, from the left: (subtree, a key hash beneath it, the depth that it stands at), and between
    # each two the depth at which their paths part. Those depths rise, so a leaf that parts higher closes what is below.
    spine: list[tuple[Subtree, bytes, int]] = []
    partings: list[int] = []
    for count, (key, digest) in enumerate(leaves, 1):
        if spine:
            parting = _parting(spine[-1][1], key)
            while partings and partings[-1] > parting:
                _close(spine, partings)
            partings.append(parting)
        spine.append((lone_leaf(digest), key, KEY_BITS))
        if count % _SLICE_LEAVES == 0:
            yield
    while partings:
        _close(spine, partings)
    return _lifted(*spine[0], depth) if spine else NOTHING


def _parting(before: bytes, after: bytes) -> int:
    """The depth at which two paths part: the number of leading bits that they share."""
    difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
    return KEY_BITS - difference.bit_length()


def _close(spine: list[tuple[Subtree, bytes, int]], partings: list[int]) -> None:
    """Joins the two newest subtrees where their paths part."""
    depth = partings.pop()
    right, left = spine.pop(), spine.pop()
    joined = join(_lifted(*left, depth + 1), _lifted(*right, depth + 1))
    spine.append((joined, left[1], depth))


def _lifted(subtree: Subtree, key: bytes, stands_at: int, depth: int) -> Subtree:
    """Returns the subtree at `depth` on the way to `key` that holds nothing but the one given."""
    if subtree.leaves < 2:
        return subtree
    digest = subtree.hash
    for at in range(stands_at - 1, depth - 1, -1):
        digest = inner_hash(EMPTY, digest) if bit_at(key, at) else inner_hash(digest, EMPTY)
    return Subtree(digest, 2)
