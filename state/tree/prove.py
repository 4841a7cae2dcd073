"""Makes proofs from a stored tree; what they mean stands with their verifier in proof.py."""

from __future__ import annotations

from state.errors import InvariantError
from state.hashing import Hash, sha256
from state.tree.hashes import KEY_BITS, bit_at
from state.tree.node import KEY_NIBBLES, SLOTS, SPAN, Page, Ref, page_key
from state.tree.proof import Proof, ProofLeaf
from state.tree.read import Reader, load_page, load_root, load_value

BITS_PER_PAGE = KEY_BITS // KEY_NIBBLES


def prove(reader: Reader, version: int, key_hash: bytes) -> Proof:
    """Returns the proof of what the key with this hash has at `version`: its value, or nothing."""
    siblings: list[Hash] = []
    end = load_root(reader, version)
    depth = 0
    while end is not None and end[2] is None:
        if depth == KEY_NIBBLES:
            raise InvariantError("the tree is deeper than a key is long")
        page = load_page(reader, page_key(end[1], depth, key_hash))
        end = _descend(page, key_hash, depth * BITS_PER_PAGE, siblings)
        depth += 1
    siblings.reverse()
    if end is None:
        return Proof(None, tuple(siblings))
    leaf = ProofLeaf(Hash(end[2] or b""), sha256(load_value(reader, end)))
    return Proof(leaf, tuple(siblings))


def _descend(page: Page, key_hash: bytes, depth_bits: int, siblings: list[Hash]) -> Ref | None:
    """Follows a key through one page, adding the sibling at each level, and returns where it leaves the page.

    It stops above the slots at an empty subtree or one leaf alone, which has no siblings deeper down.
    """
    node = 1
    while node < SLOTS:
        node = 2 * node + bit_at(key_hash, depth_bits)
        depth_bits += 1
        siblings.append(Hash(page.hash_of(node ^ 1)))
        below = page.occupied & SPAN[node]
        if not below:
            return None
        if not below & (below - 1) and below & page.leaves:
            return page.get(below.bit_length() - 1)
    return page.get(node - SLOTS)
