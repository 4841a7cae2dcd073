"""Addresses as text: bech32m, in which no slip of the pen leads to another account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.address import from_text, to_text
from state.errors import Rejected


@given(st.binary(min_size=32, max_size=32))
def test_an_address_reads_back_in_either_case(address):
    text = to_text(address)
    assert len(text) == 61
    assert from_text(text) == from_text(text.upper()) == address


@given(
    st.binary(min_size=32, max_size=32), st.lists(st.integers(3, 60), min_size=1, max_size=4, unique=True), st.data()
)
def test_up_to_four_wrong_characters_are_noticed(address, places, data):
    text = list(to_text(address))
    for place in places:
        text[place] = data.draw(st.sampled_from([c for c in "qpzry9x8gf2tvdw0s3jn54khce6mua7l" if c != text[place]]))
    with pytest.raises(Rejected) as caught:
        from_text("".join(text))
    assert caught.value.code == "address_invalid"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "q",
        lambda t: "qy" + t[2:],
        lambda t: t[:5] + t[5:].upper(),
        lambda t: t[:10] + "b" + t[11:],
        lambda t: t[:10] + "é" + t[11:],
        lambda t: t[0] + t[2] + t[1] + t[3:],
        lambda t: "",
    ],
)
def test_other_texts_are_refused(change):
    with pytest.raises(Rejected) as caught:
        from_text(change(to_text(bytes(range(32)))))
    assert caught.value.code == "address_invalid"


ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
PREFIX_VALUES = [ord("q") >> 5, ord("x") >> 5, 0, ord("q") & 31, ord("x") & 31]


def polymod(values):
    """BIP 350's own reference."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, constant in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            checksum ^= constant if top >> bit & 1 else 0
    return checksum


@given(st.binary(min_size=32, max_size=32))
def test_the_checksum_is_bech32m_of_bip_350(address):
    data = [ALPHABET.index(c) for c in to_text(address)[3:]]
    assert polymod([*PREFIX_VALUES, *data]) == 0x2BC830A3
    assert sum(value << 5 * (51 - place) for place, value in enumerate(data[:52])) == int.from_bytes(address) << 4


def test_padding_bits_must_be_zero():
    """A text with a valid checksum over data whose last four bits are not zero is another spelling: refused."""
    values = [ALPHABET.index(c) for c in to_text(bytes(32))[3:-6]]
    values[-1] |= 1
    checksum = polymod([*PREFIX_VALUES, *values, *[0] * 6]) ^ 0x2BC830A3
    values += [checksum >> 5 * (5 - place) & 31 for place in range(6)]
    with pytest.raises(Rejected, match="padding"):
        from_text("qx1" + "".join(ALPHABET[value] for value in values))
