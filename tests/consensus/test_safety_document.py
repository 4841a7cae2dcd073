"""docs/safety.md rests each step on code and tests by name: each of these names must exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "safety.md"
REFERENCE = re.compile(r"`([a-z_/0-9]+\.py):([A-Za-z_0-9.]+)`")
REFERENCES = sorted(set(REFERENCE.findall(DOCUMENT.read_text())))


@cache
def names_in(path: str) -> frozenset[str]:
    """All functions and classes of a file, methods as Class.method."""
    names: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{node.name}.")

    visit(ast.parse((ROOT / path).read_text()).body, "")
    return frozenset(names)


def test_the_document_names_code_and_tests_for_its_steps() -> None:
    assert len([path for path, _ in REFERENCES if path.startswith("tests/")]) >= 30
    assert len([path for path, _ in REFERENCES if not path.startswith("tests/")]) >= 30


@pytest.mark.parametrize(("path", "name"), REFERENCES)
def test_a_reference_names_something_that_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file(), f"{path} does not exist"
    assert name in names_in(path), f"{path} has no {name}"


def test_a_wrong_name_would_be_noticed() -> None:
    assert "Rules.quorum" in names_in("consensus/rules.py")
    assert "Rules.quorums" not in names_in("consensus/rules.py")
