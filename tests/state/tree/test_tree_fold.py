"""Parts of a tree that come apart fold together into its root, as the rules say it by definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tree_support import CONTENTS

from state import slices
from state.hashing import sha256
from state.tree.fold import NOTHING, fold, join_sixteen
from state.tree.hashes import EMPTY, leaf_hash, subtree_root


def leaves_of(content: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """(key hash, leaf hash) in order; the keys of `content` are hashes already."""
    return sorted((key, leaf_hash(key, sha256(value))) for key, value in content.items())


@given(CONTENTS)
@settings(max_examples=200, deadline=None)
def test_leaves_fold_into_the_root_that_the_rules_define(content: dict[bytes, bytes]) -> None:
    leaves = leaves_of(content)
    assert slices.run(fold(leaves, 0)).hash == subtree_root(leaves)


@given(CONTENTS, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_a_tree_cut_at_any_depth_folds_together_again(content: dict[bytes, bytes], nibbles: int) -> None:
    leaves = leaves_of(content)
    parts = []
    for number in range(16**nibbles):
        beneath = [leaf for leaf in leaves if int.from_bytes(leaf[0], "big") >> (256 - 4 * nibbles) == number]
        parts.append(slices.run(fold(beneath, 4 * nibbles)))
        assert parts[-1].leaves == min(2, len(beneath))
    while len(parts) > 1:
        parts = [join_sixteen(parts[at : at + 16]) for at in range(0, len(parts), 16)]
    assert parts[0].hash == subtree_root(leaves)


def test_nothing_folds_into_the_placeholder_and_a_lone_leaf_into_itself() -> None:
    assert slices.run(fold([], 0)) == NOTHING
    assert NOTHING.hash == EMPTY
    key = sha256(b"key")
    lone = slices.run(fold([(key, leaf_hash(key, sha256(b"value")))], 0))
    assert lone.hash == leaf_hash(key, sha256(b"value"))
    assert join_sixteen([NOTHING] * 7 + [lone] + [NOTHING] * 8) == lone
