"""Building a tree from sorted pairs gives the very rows of an update, and keeps few pages open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from tree_support import CONTENTS, StoredTree, keys_of, spec_root

from state.errors import InvariantError
from state.hashing import Hash
from state.tree.build import build


def built(pairs: Iterable[tuple[bytes, bytes]], version: int) -> tuple[dict[bytes, bytes], Hash]:
    rows = {}
    work = build(pairs, version)
    while True:
        try:
            node_key, row = next(work)
        except StopIteration as end:
            return rows, end.value
        assert node_key not in rows
        rows[node_key] = row


@given(CONTENTS)
@settings(max_examples=150, deadline=None)
def test_a_built_tree_has_the_rows_and_the_root_of_an_updated_one(content: dict[bytes, bytes]) -> None:
    updated = StoredTree().commit(content, version=7)
    rows, root = built(sorted(content.items()), 7)
    assert root == updated.root == spec_root(content)
    assert rows == dict(updated.puts)


@pytest.mark.parametrize("order", [(1, 0), (0, 0)])
def test_pairs_out_of_order_or_twice_are_our_own_mistake(order: tuple[int, int]) -> None:
    keys = keys_of(2)
    with pytest.raises(InvariantError, match="ascending"):
        built([(keys[place], b"v") for place in order], 0)


def test_rows_are_handed_out_long_before_the_pairs_end() -> None:
    taken = 0

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        nonlocal taken
        for key in keys_of(2000):
            taken += 1
            yield key, b"v"

    pages = 0
    for node_key, _ in build(pairs(), 0):
        pages += len(node_key) < 41
        if pages == 1:
            break
    assert taken < 40
