"""docs/operations.md says what the code declares, and says something about each thing that can go wrong."""

from __future__ import annotations

import pytest

from cli.docs import PAGE, generated
from cli.main import COMMANDS
from qenex_node.exitcodes import ExitCode


def test_the_tables_are_what_the_code_declares() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert generated(page) == page, "run `python -m cli.docs`"


def test_every_command_and_exit_code_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"`qenex {name}" in page
    for code in ExitCode:
        assert f"| {code.value} | `{code.name.lower()}` |" in page


@pytest.mark.parametrize(
    "heading",
    [
        "The primary is killed",
        "Two of four validators are down",
        "The disk runs low",
        "The store is damaged",
        "The clock is off",
        "The vote records are lost",
        "Backup and restore",
        "Rotating keys",
        "Upgrading",
        "Resync from nothing",
    ],
)
def test_the_page_says_what_to_do_when(heading: str) -> None:
    assert f"\n### {heading}\n" in PAGE.read_text(encoding="utf-8")
