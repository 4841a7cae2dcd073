"""Amounts as people write them, with a decimal point, and as everything else holds them: integers of base units."""

from __future__ import annotations

import re
from typing import Final

from state.codec import AMOUNT_LIMIT
from state.errors import Rejected

_AMOUNT: Final = re.compile(r"([0-9]{1,39})(?:\.([0-9]{1,18}))?\Z")


def parse_amount(text: str, decimals: int) -> int:
    """Returns the base units of "12.50"; raises Rejected("amount_invalid") for more places than the asset has."""
    match = _AMOUNT.match(text.replace("_", ""))
    if match is None:
        raise Rejected("amount_invalid", f"{text!r} is not an amount like 12 or 12.50")
    whole, fraction = match[1], match[2] or ""
    if len(fraction.rstrip("0")) > decimals:
        raise Rejected("amount_invalid", f"{text!r} has more than the asset's {decimals} decimal places")
    amount = int(whole + fraction[:decimals].ljust(decimals, "0"))
    if amount >= AMOUNT_LIMIT:
        raise Rejected("amount_invalid", f"{text!r} does not fit 128 bits of base units")
    return amount


def show_amount(amount: int, decimals: int) -> str:
    """Returns base units with the asset's decimal point: show_amount(1250, 2) is "12.50"."""
    if decimals == 0:
        return str(amount)
    digits = str(amount).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"
