"""Damage to any stored row is noticed, and the row is named."""

from __future__ import annotations

import pytest
from tree_support import StoredTree, is_page_key, keys_of

from state.errors import InvariantError
from state.hashing import sha256
from state.slices import run
from state.tree.hashes import leaf_hash
from state.tree.node import (
    ALL_NODES,
    Page,
    decode_page,
    decode_root,
    encode_root,
    name_of,
    page_key,
    version_bytes,
)
from state.tree.read import read, root
from state.tree.update import update
from state.tree.walk import walk

KEYS = keys_of(60)


@pytest.fixture
def tree() -> StoredTree:
    stored = StoredTree()
    stored.commit(dict.fromkeys(KEYS, b"value"))
    stored.commit(dict.fromkeys(KEYS[::4], b"changed"))
    return stored


def live_rows(tree: StoredTree) -> dict[bytes, bytes]:
    return {seen.node_key: seen.row for seen in walk(tree, 1)}


def first_error(tree: StoredTree) -> str:
    with pytest.raises(InvariantError) as caught:
        list(walk(tree, 1))
    return str(caught.value)


def test_the_walk_names_each_row_that_is_missing(tree: StoredTree) -> None:
    for node_key, row in live_rows(tree).items():
        del tree.rows[node_key]
        assert first_error(tree) == f"{name_of(node_key)} is missing"
        tree.rows[node_key] = row


def test_the_walk_names_each_row_in_which_a_bit_is_flipped(tree: StoredTree) -> None:
    for count, (node_key, row) in enumerate(live_rows(tree).items()):
        for bit in range(count % 7, 8 * len(row), 37):
            number = int.from_bytes(row, "big") ^ 1 << bit
            tree.rows[node_key] = number.to_bytes(len(row), "big")
            assert name_of(node_key) in first_error(tree)
        tree.rows[node_key] = row


def test_an_update_names_a_damaged_or_missing_page_on_its_way(tree: StoredTree) -> None:
    changes: dict[bytes, bytes | None] = dict.fromkeys(KEYS)
    for node_key, row in live_rows(tree).items():
        if not is_page_key(node_key):
            continue
        del tree.rows[node_key]
        with pytest.raises(InvariantError, match=name_of(node_key) + " is missing"):
            run(update(tree, 1, 2, changes))
        tree.rows[node_key] = row[:-6] + bytes([row[-6] ^ 1]) + row[-5:]
        with pytest.raises(InvariantError, match=name_of(node_key) + " is damaged"):
            run(update(tree, 1, 2, changes))
        tree.rows[node_key] = row[:-1]
        with pytest.raises(InvariantError, match=name_of(node_key)):
            run(update(tree, 1, 2, changes))
        tree.rows[node_key] = row


def test_reading_a_version_that_is_not_stored_names_its_root_record(tree: StoredTree) -> None:
    with pytest.raises(InvariantError, match="tree root record of version 9 is missing"):
        root(tree, 9)
    with pytest.raises(InvariantError, match="tree root record of version 9 is missing"):
        run(update(tree, 9, 10, {}))


def test_a_value_other_than_its_leaf_commits_to_is_not_handed_out(tree: StoredTree) -> None:
    node_key = version_bytes(1) + b"\x40" + KEYS[0]
    tree.rows[node_key] = b"\x01forged"
    with pytest.raises(InvariantError, match="tree value of version 1 at path " + KEYS[0].hex()):
        read(tree, 1, KEYS[0])


def test_a_row_of_another_format_is_refused_by_its_number(tree: StoredTree) -> None:
    for node_key, row in live_rows(tree).items():
        tree.rows[node_key] = b"\x02" + row[1:]
        assert first_error(tree) == f"{name_of(node_key)} has format 02, known is 1"
        tree.rows[node_key] = row


def test_a_row_under_the_key_of_another_is_noticed(tree: StoredTree) -> None:
    pages = [node_key for node_key in live_rows(tree) if is_page_key(node_key)]
    tree.rows[pages[1]] = tree.rows[pages[2]]
    assert name_of(pages[1]) in first_error(tree)


def leaf_ref(key: bytes, version: int) -> tuple[bytes, bytes, bytes]:
    return leaf_hash(key, sha256(b"value")), version_bytes(version), key


def forge(tree: StoredTree, slots: dict[int, tuple[bytes, bytes, bytes]], spoil: int | None = None) -> None:
    """Puts a whole root page of version 1 with a right checksum, of which a hash may be spoilt."""
    page = Page()
    for slot, ref in slots.items():
        page.set(slot, ref)
    digest = page.rehash(ALL_NODES)
    if spoil is not None:
        page.row[spoil] ^= 1
    node_key = page_key(version_bytes(1), 0, bytes(32))
    tree.rows[node_key] = page.encode(node_key)
    root_key = version_bytes(1)
    tree.rows[root_key] = encode_root(root_key, (digest, root_key, None))


def test_the_walk_proves_what_a_checksum_cannot(tree: StoredTree) -> None:
    by_slot = {key[0] >> 4: key for key in KEYS}
    whole = {slot: leaf_ref(key, 0) for slot, key in sorted(by_slot.items())}
    low, high = sorted(by_slot)[:2]
    forge(tree, whole, spoil=5)
    assert "inner hashes that do not follow from its slots" in first_error(tree)
    forge(tree, whole | {low: whole[high], high: whole[low]})
    assert "referenced from a path that is not its own" in first_error(tree)
    forge(tree, whole | {low: leaf_ref(by_slot[low], 2)})
    assert "references a later version" in first_error(tree)


def test_a_page_with_contradicting_masks_is_malformed() -> None:
    node_key = page_key(version_bytes(1), 0, bytes(32))
    page = Page()
    page.set(3, leaf_ref(KEYS[0], 0))
    page.set(4, leaf_ref(KEYS[1], 0))
    page.rehash(ALL_NODES)
    assert decode_page(node_key, page.encode(node_key)).occupied == 0b11000
    page.row[4] |= 1
    with pytest.raises(InvariantError, match="malformed"):
        decode_page(node_key, page.encode(node_key))


def test_a_root_record_of_another_length_is_malformed() -> None:
    root_key = version_bytes(1)
    with pytest.raises(InvariantError, match="malformed"):
        decode_root(root_key, encode_root(root_key, (bytes(31), bytes(8), None)))
