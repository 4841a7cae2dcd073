"""Addresses as people see them: bech32m (BIP 350) with the prefix `qx` over 32 bytes.

bech32m detects any four wrong characters, so a mistyped address is refused rather than paid to.
"""

from __future__ import annotations

from typing import Final

from state.errors import Rejected
from state.types import Address

PREFIX: Final = "qx"
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3
_DATA_LENGTH: Final = 52
_CHECKSUM_LENGTH: Final = 6
_TEXT_LENGTH: Final = len(PREFIX) + 1 + _DATA_LENGTH + _CHECKSUM_LENGTH


def _step(checksum: int, value: int) -> int:
    """Takes one 5-bit value into the 30-bit checksum (BIP 173, polymod)."""
    top = checksum >> 25
    checksum = (checksum & 0x1FFFFFF) << 5 ^ value
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            checksum ^= generator
    return checksum


# Addresses are shown and read all the time, so characters go in pairs: the checksum is linear, and what two steps make
# of its uppermost ten bits is looked up.
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_TWO_STEPS: Final = [_step(_step(top << 20, 0), 0) for top in range(1024)]


def _after_prefix() -> int:
    checksum = 1
    for value in (*(ord(c) >> 5 for c in PREFIX), 0, *(ord(c) & 31 for c in PREFIX)):
        checksum = _step(checksum, value)
    return checksum


_START: Final = _after_prefix()


def to_text(address: bytes) -> str:
    """Returns the bech32m form, 61 characters, of a 32-byte address."""
    number = int.from_bytes(address, "big") << 4
    pairs = [number >> shift & 1023 for shift in range(250, -1, -10)]
    checksum = _START
    for pair in (*pairs, 0, 0, 0):
        checksum = (checksum & 0xFFFFF) << 10 ^ pair ^ _TWO_STEPS[checksum >> 20]
    checksum ^= _BECH32M
    pairs += (checksum >> 20, checksum >> 10 & 1023, checksum & 1023)
    return PREFIX + "1" + "".join([_PAIRS[pair] for pair in pairs])


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
        pairs = [_VALUES[text[place : place + 2]] for place in range(len(PREFIX) + 1, _TEXT_LENGTH, 2)]
    except KeyError as error:
        wrong = next(character for character in error.args[0] if character not in _ALPHABET)
        raise Rejected("address_invalid", f"{wrong!r} does not occur in addresses") from None
    checksum = _START
    number = 0
    for pair in pairs:
        checksum = (checksum & 0xFFFFF) << 10 ^ pair ^ _TWO_STEPS[checksum >> 20]
        number = number << 10 | pair
    if checksum != _BECH32M:
        raise Rejected("address_invalid", "the checksum does not match: the address is mistyped")
    number >>= 5 * _CHECKSUM_LENGTH
    if number & 15:
        raise Rejected("address_invalid", "the padding bits are not zero")
    return Address((number >> 4).to_bytes(32, "big"))
