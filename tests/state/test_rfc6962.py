"""Merkle trees over lists: RFC 6962 by its definition, and audit paths for every leaf."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import slices
from state.errors import Rejected
from state.rfc6962 import path, root, root_in_slices, verify_path


def definition(leaves):
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def leaves_of(count):
    return [b"leaf %d" % n for n in range(count)]


@pytest.mark.parametrize("count", [*range(40), 64, 65, 127, 128, 129])
def test_the_root_is_that_of_the_definition(count):
    assert root(leaves_of(count)) == definition(leaves_of(count))


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048, 3000, 5121])
def test_the_root_in_slices_is_the_root(count):
    assert slices.run(root_in_slices(leaves_of(count))) == root(leaves_of(count))


def test_the_root_of_rfc_6962_test_data():
    """The vectors that implementations of Certificate Transparency share."""
    data = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    assert root(data[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root(data[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert root(data[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"


@given(st.integers(1, 70), st.data())
def test_every_leaf_has_a_path_that_proves_it_and_nothing_else(count, data):
    leaves = leaves_of(count)
    index = data.draw(st.integers(0, count - 1))
    steps = path(leaves, index)
    verify_path(leaves[index], index, count, steps, root(leaves))
    others = [
        (b"another", index, count, steps),
        (leaves[index], (index + 1) % (count + 1), count, steps),
        (leaves[index], -1, count, steps),
        (leaves[index], index, count, (*steps, bytes(32))),
    ]
    if steps:
        others += [
            (leaves[index], index, count, steps[:-1]),
            (leaves[index], index, count, (bytes(32), *steps[1:])),
        ]
    for other in others:
        with pytest.raises(Rejected):
            verify_path(*other, root(leaves))


def test_a_leaf_cannot_pass_for_a_node():
    leaves = leaves_of(2)
    left, right = (sha256(b"\x00" + leaf).digest() for leaf in leaves)
    assert root([left + right]) != root(leaves)
