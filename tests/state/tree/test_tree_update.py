"""The stored tree has the root that the definition gives, at every version, and knows what became stale."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_support import BATCHES, KEYS, StoredTree, keys_of, spec_root

from state.errors import InvariantError
from state.hashing import sha256
from state.slices import run
from state.tree.cache import PageCache
from state.tree.hashes import EMPTY, root_of
from state.tree.read import read, root
from state.tree.update import commit_to_cache, update
from state.tree.walk import walk

HELLO_ROOT = bytes.fromhex("6b97115f56e533f2fd443f7e76e4d1ff94d34e6b2e233f2dbdf5cfd1ec39a30c")


def reachable(tree: StoredTree, version: int) -> set[bytes]:
    return {visited.node_key for visited in walk(tree, version)}


def content_at(tree: StoredTree, version: int) -> dict[bytes, bytes]:
    leaves = [(seen.key_hash, seen.value) for seen in walk(tree, version) if seen.key_hash is not None]
    assert [key for key, _ in leaves] == sorted(key for key, _ in leaves)
    return {key: value for key, value in leaves if value is not None}


def test_a_single_pair_has_the_published_root() -> None:
    tree = StoredTree()
    assert tree.commit({sha256(b"hello"): b"world"}).root == HELLO_ROOT
    assert root_of({b"hello": b"world"}) == HELLO_ROOT


def test_the_empty_tree_has_the_placeholder_as_root() -> None:
    tree = StoredTree()
    assert tree.commit({}).root == EMPTY == root_of({})
    assert root(tree, 0) == EMPTY
    assert read(tree, 0, bytes(32)) is None


@given(BATCHES, st.sampled_from([0, 3, 1000]))
@settings(max_examples=150, deadline=None)
def test_every_version_keeps_the_root_and_the_values_that_the_definition_gives(
    batches: list[Mapping[bytes, bytes | None]], cache_pages: int
) -> None:
    tree = StoredTree(cache_pages)
    touched = sorted({key for batch in batches for key in batch})
    for batch in batches:
        assert tree.commit(batch).root == spec_root(tree.content)
        assert len(tree.cache) <= cache_pages
    for version, content in tree.contents.items():
        assert root(tree, version) == spec_root(content)
        assert content_at(tree, version) == content
        assert [read(tree, version, key) for key in touched] == [content.get(key) for key in touched]


@given(BATCHES)
@settings(max_examples=100, deadline=None)
def test_pruning_stale_rows_leaves_exactly_what_the_later_versions_reference(
    batches: list[Mapping[bytes, bytes | None]],
) -> None:
    tree = StoredTree(16)
    for batch in batches:
        tree.commit(batch)
    newest = len(batches) - 1
    references = [reachable(tree, version) for version in range(len(batches))]
    assert set(tree.rows) == set().union(*references)
    for version in range(1, len(batches)):
        for node_key in tree.stale[version]:
            del tree.rows[node_key]
        assert set(tree.rows) == set().union(*references[version:])
        assert content_at(tree, version) == tree.contents[version]
    assert set(tree.rows) == reachable(tree, newest)


@given(st.dictionaries(KEYS, st.sampled_from([b"a", b"b"]), max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_the_rows_do_not_depend_on_the_order_of_the_changes(content: dict[bytes, bytes], data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(content)))
    one, other = StoredTree(), StoredTree()
    assert one.commit(content).puts == other.commit({key: content[key] for key in order}).puts


def test_an_unchanged_version_has_a_root_and_makes_only_the_old_root_record_stale() -> None:
    tree = StoredTree()
    content = dict.fromkeys(keys_of(100), b"v")
    first = tree.commit(content).root
    absent = dict.fromkeys(keys_of(5, b"absent"))
    for changes in ({}, absent, dict(list(content.items())[:7])):
        done = tree.commit(changes)
        assert done.root == first == root(tree, done.version)
        assert len(done.puts) == len(done.stale) == 1


def test_versions_may_leave_gaps_but_not_go_back() -> None:
    tree = StoredTree()
    tree.commit({keys_of(1)[0]: b"a"}, version=5)
    tree.commit({keys_of(1)[0]: b"b"}, version=900)
    assert (read(tree, 5, keys_of(1)[0]), read(tree, 900, keys_of(1)[0])) == (b"a", b"b")
    with pytest.raises(InvariantError, match="cannot follow"):
        tree.prepare(900, {})


def test_a_discarded_candidate_of_the_same_height_leaves_no_trace_in_the_cache() -> None:
    tree = StoredTree(cache_pages=1000)
    keys = keys_of(300)
    tree.commit(dict.fromkeys(keys, b"start"))
    tree.prepare(1, dict.fromkeys(keys[:200], b"loser"))
    tree.prepare(1, dict.fromkeys(keys[100:]))
    tree.commit(dict.fromkeys(keys[50:250], b"winner"))
    tree.commit(dict.fromkeys(keys[::3]))
    assert root(tree, 2) == spec_root(tree.content)
    assert content_at(tree, 2) == tree.content


def test_the_cache_spares_reading_pages_again_and_holds_only_live_ones() -> None:
    tree = StoredTree(cache_pages=1000)
    keys = keys_of(300)
    tree.commit(dict.fromkeys(keys, b"a"))
    pages_read = []

    class Counting:
        def get(self, node_key: bytes) -> bytes | None:
            pages_read.append(node_key)
            return tree.rows.get(node_key)

    done = run(update(Counting(), 0, 1, dict.fromkeys(keys[:50], b"b"), tree.cache))
    assert pages_read == [bytes(8)]
    tree.rows.update(done.puts)
    commit_to_cache(tree.cache, done)
    assert all(tree.cache.get(node_key) is None for node_key in done.stale)
    live = {seen.node_key: seen.row for seen in walk(tree, 1)}
    held = [node_key for node_key in live if tree.cache.get(node_key) is not None]
    assert len(held) == len(tree.cache)
    assert all(tree.cache.get(node_key) == live[node_key] for node_key in held)


def test_a_full_cache_drops_what_was_written_longest_ago() -> None:
    cache = PageCache(2)
    rows = [(bytes(8) + bytes([1, slot << 4]), b"row") for slot in range(3)]
    cache.replace([], rows)
    assert [cache.get(node_key) for node_key, _ in rows] == [None, b"row", b"row"]
    cache.clear()
    assert len(cache) == 0


def test_a_long_update_pauses_after_each_few_changes() -> None:
    tree = StoredTree()
    keys = keys_of(20_000)
    pauses = sum(1 for _ in update(tree, None, 0, dict.fromkeys(keys, b"a")))
    assert pauses > len(keys) // 32


def test_a_key_that_is_not_a_hash_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError, match="31 bytes"):
        run(update(StoredTree(), None, 0, {bytes(31): b"a"}))
