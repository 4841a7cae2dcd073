"""Merkle trees over lists, for transactions and receipts: RFC 6962, section 2.1, over SHA-256.

A leaf is SHA-256(0x00 | data), a node SHA-256(0x01 | left | right), the empty list SHA-256(""). The left part of a
split is the largest power of two smaller than the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from state.errors import Rejected
from state.hashing import Hash
from state.slices import Slices

_SLICE_LEAVES: Final = 1024
"""A power of two, so that each slice is a whole subtree; about 1 ms."""


def root(leaves: Sequence[bytes]) -> Hash:
    """Returns the 32-byte tree head of `leaves` (RFC 6962, MTH)."""
    return _fold([sha256(b"\x00" + leaf).digest() for leaf in leaves])


def root_in_slices(leaves: Sequence[bytes]) -> Slices[Hash]:
    """Returns the same as `root`, pausing after each subtree of a long list."""
    subtrees: list[bytes] = []
    for start in range(0, len(leaves), _SLICE_LEAVES):
        subtrees.append(root(leaves[start : start + _SLICE_LEAVES]))
        yield
    return _fold(subtrees)


def _fold(level: list[bytes]) -> Hash:
    if not level:
        return Hash(sha256(b"").digest())
    while len(level) > 1:
        # Pairing from the left and carrying an odd last node up gives the RFC's split at the largest power of two.
        paired = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) & 1:
            paired.append(level[-1])
        level = paired
    return Hash(level[0])


def path(leaves: Sequence[bytes], index: int) -> tuple[Hash, ...]:
    """Returns the audit path of leaf `index`, from the leaf upwards (RFC 6962, PATH)."""
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    steps: list[Hash] = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            steps.append(Hash(level[index ^ 1]))
        paired = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) & 1:
            paired.append(level[-1])
        level = paired
        index >>= 1
    return tuple(steps)


def verify_path(leaf: bytes, index: int, size: int, steps: Sequence[bytes], expected_root: bytes) -> None:
    """Checks that `leaf` stands at `index` of the list of `size` leaves with this root.

    Raises Rejected("proof_invalid") if it does not (RFC 9162, section 2.1.3.2, describes the walk).
    """
    if not 0 <= index < size:
        raise Rejected("proof_invalid", "the index lies outside the list")
    value = sha256(b"\x00" + leaf).digest()
    position, last = index, size - 1
    for step in steps:
        if last == 0:
            raise Rejected("proof_invalid", "the audit path is too long")
        if position & 1 or position == last:
            value = sha256(b"\x01" + step + value).digest()
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            value = sha256(b"\x01" + value + step).digest()
        position >>= 1
        last >>= 1
    if last != 0 or value != expected_root:
        raise Rejected("proof_invalid", "the audit path does not lead to the root")
