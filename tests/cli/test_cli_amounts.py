"""Amounts with decimal points: exact both ways, and nothing is rounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.amounts import parse_amount, show_amount
from state.errors import Rejected


@given(st.integers(0, 2**128 - 1), st.integers(0, 18))
def test_what_is_shown_reads_back(amount: int, decimals: int) -> None:
    assert parse_amount(show_amount(amount, decimals), decimals) == amount


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [("12", 2, 1200), ("12.5", 2, 1250), ("0.01", 2, 1), ("1.500", 1, 15), ("1_000", 0, 1000), ("0", 18, 0)],
)
def test_amounts_are_read(text: str, decimals: int, amount: int) -> None:
    assert parse_amount(text, decimals) == amount


@pytest.mark.parametrize("text", ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.001", "1,5", "x", str(2**128), "\u0661"])
def test_what_is_no_amount_of_the_asset_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_amount(text, 2)
    assert caught.value.code == "amount_invalid"
