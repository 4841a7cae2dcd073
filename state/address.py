"""Addresses as people see them: bech32m (BIP 350) with the prefix `qx` over 32 bytes.

bech32m detects any four wrong characters, so a mistyped address is refused rather than paid to.
"""

from __future__ import annotations

from typing import Final

from state.errors import Rejected
from state.types import Address

PREFIX: Final = "qx"
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3
_TEXT_LENGTH: Final = len(PREFIX) + 1 + 52 + 6


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


_PREFIX_VALUES: Final = [ord(c) >> 5 for c in PREFIX] + [0] + [ord(c) & 31 for c in PREFIX]


def to_text(address: bytes) -> str:
    """Returns the bech32m form, 61 characters, of a 32-byte address."""
    number = int.from_bytes(address, "big") << 4
    data = [number >> shift & 31 for shift in range(255, -1, -5)]
    checksum = _polymod(_PREFIX_VALUES + data + [0] * 6) ^ _BECH32M
    data += [checksum >> 5 * (5 - place) & 31 for place in range(6)]
    return PREFIX + "1" + "".join(_ALPHABET[value] for value in data)


def from_text(text: str) -> Address:
    """Returns the 32 bytes of a bech32m address; raises Rejected("address_invalid") saying what is wrong."""
    if len(text) != _TEXT_LENGTH:
        raise Rejected("address_invalid", f"an address has {_TEXT_LENGTH} characters, this one {len(text)}")
    if text != text.lower() and text != text.upper():
        raise Rejected("address_invalid", "an address is all lower or all upper case")
    text = text.lower()
    if not text.startswith(PREFIX + "1"):
        raise Rejected("address_invalid", f"an address begins with {PREFIX}1")
    try:
        data = [_VALUES[character] for character in text[len(PREFIX) + 1 :]]
    except KeyError as error:
        raise Rejected("address_invalid", f"{error.args[0]!r} does not occur in addresses") from None
    if _polymod(_PREFIX_VALUES + data) != _BECH32M:
        raise Rejected("address_invalid", "the checksum does not match: the address is mistyped")
    number = 0
    for value in data[:-6]:
        number = number << 5 | value
    if number & 15:
        raise Rejected("address_invalid", "the padding bits are not zero")
    return Address((number >> 4).to_bytes(32, "big"))
