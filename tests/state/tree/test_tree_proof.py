"""A proof convinces of what is true, in both of its forms, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_support import StoredTree

from state.errors import DecodeError, Rejected
from state.hashing import Hash, sha256
from state.tree.hashes import EMPTY
from state.tree.proof import PROOF_BYTES_MAX, Proof, ProofLeaf, verify
from state.tree.prove import prove

NAMES = st.integers(0, 60).map(lambda number: b"account %d" % number)


def tree_of(content: dict[bytes, bytes]) -> StoredTree:
    tree = StoredTree()
    tree.commit({sha256(name): value for name, value in content.items()})
    return tree


def accepted(proof: Proof, root: bytes, key: bytes, value: bytes | None) -> bool:
    try:
        verify(proof, root, key, value)
    except Rejected as error:
        return error.code != "proof_invalid"
    return True


def flipped(data: bytes, bit: int) -> Hash:
    return Hash((int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big"))


def mutants(proof: Proof) -> Iterator[Proof]:
    """Proofs that differ from `proof` in one place."""
    siblings = proof.siblings
    for place, sibling in enumerate(siblings):
        for bit in (0, 100, 255):
            changed = (*siblings[:place], flipped(sibling, bit), *siblings[place + 1 :])
            yield replace(proof, siblings=changed)
        yield replace(proof, siblings=siblings[:place] + siblings[place + 1 :])
    for added in (EMPTY, Hash(bytes(32))):
        yield replace(proof, siblings=(added, *siblings))
        yield replace(proof, siblings=(*siblings, added))
    if siblings != siblings[::-1]:
        yield replace(proof, siblings=siblings[::-1])
    yield replace(proof, siblings=(*siblings, *[EMPTY] * 257))
    if proof.leaf is None:
        yield replace(proof, leaf=ProofLeaf(EMPTY, EMPTY))
    else:
        yield replace(proof, leaf=None)
        for bit in (0, 255):
            yield replace(proof, leaf=replace(proof.leaf, key_hash=flipped(proof.leaf.key_hash, bit)))
            yield replace(proof, leaf=replace(proof.leaf, value_hash=flipped(proof.leaf.value_hash, bit)))


@given(st.dictionaries(NAMES, st.binary(max_size=3), max_size=40), NAMES)
@settings(max_examples=150, deadline=None)
def test_a_proof_shows_the_truth_and_no_change_to_it_is_accepted(content: dict[bytes, bytes], name: bytes) -> None:
    tree = tree_of(content)
    root = tree.commit({}).root
    proof = prove(tree, 1, sha256(name))
    value = content.get(name)
    verify(proof, root, name, value)
    for lie in {None, b"", b"lie", *content.values()} - {value}:
        assert not accepted(proof, root, name, lie)
    assert not accepted(proof, flipped(root, 3), name, value)
    assert not any(accepted(mutant, root, name, value) for mutant in mutants(proof))
    if value is not None:
        assert not any(accepted(proof, root, other, value) for other in [*content, b"stranger"] if other != name)


def test_absence_is_proved_by_an_empty_subtree_and_by_another_leaf_on_the_path() -> None:
    content = {b"account %d" % number: b"v" for number in range(30)}
    tree = tree_of(content)
    root = tree.commit({}).root
    kinds = set()
    for number in range(100):
        name = b"stranger %d" % number
        proof = prove(tree, 1, sha256(name))
        verify(proof, root, name, None)
        kinds.add(proof.leaf is None)
    assert kinds == {True, False}


def test_a_leaf_beside_the_path_proves_no_absence() -> None:
    tree = tree_of({b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
    root = tree.commit({}).root
    proof = prove(tree, 1, sha256(b"a"))
    beside = [name for name in (b"x%d" % n for n in range(64)) if prove(tree, 1, sha256(name)).leaf != proof.leaf]
    assert beside
    assert not any(accepted(proof, root, name, None) for name in beside)


def test_in_an_empty_tree_everything_is_absent() -> None:
    tree = tree_of({})
    verify(prove(tree, 0, sha256(b"a")), EMPTY, b"a", None)
    assert not accepted(Proof(None, ()), EMPTY, b"a", b"")


def test_old_versions_are_proved_under_their_own_roots() -> None:
    tree = tree_of({b"a": b"old", b"b": b"same"})
    before = tree.prepare(1, {}).root
    after = tree.commit({sha256(b"a"): None, sha256(b"c"): b"new"}).root
    verify(prove(tree, 0, sha256(b"a")), before, b"a", b"old")
    verify(prove(tree, 1, sha256(b"a")), after, b"a", None)
    assert not accepted(prove(tree, 0, sha256(b"a")), after, b"a", b"old")


@given(st.dictionaries(NAMES, st.binary(max_size=3), max_size=40), NAMES)
@settings(max_examples=50, deadline=None)
def test_a_proof_survives_both_of_its_encodings(content: dict[bytes, bytes], name: bytes) -> None:
    proof = prove(tree_of(content), 0, sha256(name))
    assert Proof.decode(proof.encode()) == proof
    assert Proof.from_json(proof.to_json()) == proof


def test_the_longest_proof_fits_its_bound_and_a_longer_one_is_refused() -> None:
    longest = Proof(ProofLeaf(EMPTY, EMPTY), (EMPTY,) * 256)
    assert len(longest.encode()) <= PROOF_BYTES_MAX
    assert Proof.decode(longest.encode()) == longest
    longer = replace(longest, siblings=(EMPTY,) * 257)
    with pytest.raises(DecodeError):
        Proof.decode(longer.encode())
    with pytest.raises(DecodeError):
        Proof.from_json(longer.to_json())


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"leaf": None},
        {"leaf": None, "siblings": [], "more": 1},
        {"leaf": None, "siblings": None},
        {"leaf": None, "siblings": ["0x" + "AA" * 32]},
        {"leaf": None, "siblings": ["aa" * 33]},
        {"leaf": None, "siblings": ["0x" + "aa" * 31]},
        {"leaf": None, "siblings": ["0x" + "a " * 32]},
        {"leaf": None, "siblings": [7]},
        {"leaf": {"key_hash": "0x" + "aa" * 32}, "siblings": []},
        {"leaf": {"key_hash": "0x" + "aa" * 32, "value_hash": "0xzz" + "aa" * 31}, "siblings": []},
    ],
)
def test_json_that_is_not_the_form_of_a_proof_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        Proof.from_json(value)


@pytest.mark.parametrize(
    "data", [b"", b"\x92\xc0\xc0", b"\x92\x91\xc0\x90", b"\x92\xc0\x91\xc4\x01a", b"\x92\xc0\x90\x00"]
)
def test_bytes_that_are_not_a_proof_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Proof.decode(data)


def test_the_verifier_imports_no_database_and_no_stored_node() -> None:
    code = "import sys, state.tree.proof; print(*sorted(m for m in sys.modules if m.startswith(('state', 'plyvel'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "plyvel" not in out
    assert {name for name in out if name.startswith("state.")} == {
        "state.codec",
        "state.errors",
        "state.hashing",
        "state.tree",
        "state.tree.hashes",
        "state.tree.proof",
    }
