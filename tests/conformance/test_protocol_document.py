"""docs/protocol.md names everything that the ledger and the formats declare, so that neither drifts from the other."""

import re
from pathlib import Path

import pytest

from state import hashing
from state.execution import _RULE_OF_CODE
from state.genesis import PARAMETER_NAMES, ChainParameters
from state.keys import SCHEMES
from state.ledger import Ledger
from state.ledger.plugin import OperationType
from state.limits import (
    EVENTS_MAX,
    INLINE_BALANCES_MAX,
    MEMO_BYTES_MAX,
    OPERATIONS_MAX,
    SIGNATURES_MAX,
    TRANSACTION_BYTES_MAX,
)
from state.store.snapshots.manifest import CHUNK_BYTES_MAX, MANIFEST_BYTES_MAX, PARTS_MAX

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
REGISTRY = Ledger().registry


def rows_naming(name):
    return [line for line in TEXT.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]


@pytest.mark.parametrize("operation", REGISTRY.operations.values(), ids=lambda operation: operation.kind)
def test_every_operation_stands_in_the_document_with_its_fields_in_order(operation: OperationType):
    (row,) = rows_naming(operation.kind)
    names = operation.versions[operation.newest].fields.names
    assert [name for name in re.findall(r"`(\w+)`", row.split("|")[2]) if name in names] == list(names)


@pytest.mark.parametrize("event", REGISTRY.events.values(), ids=lambda event: event.kind)
def test_every_event_stands_in_the_document_with_its_fields_in_order(event):
    (row,) = rows_naming(event.kind)
    assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(event.fields.names)


@pytest.mark.parametrize("code", REGISTRY.errors)
def test_every_code_of_a_failure_stands_in_the_document(code):
    assert rows_naming(code)


@pytest.mark.parametrize("name", PARAMETER_NAMES)
def test_every_parameter_stands_in_the_document_with_its_default(name):
    (row,) = rows_naming(name)
    assert row.split("|")[2].strip().strip("`") == str(getattr(ChainParameters(), name))


def test_every_scheme_and_tag_and_rule_stands_in_the_document():
    for scheme in SCHEMES.values():
        assert f"| {scheme.number} | `{scheme.name}` | {scheme.key_bytes} | {scheme.signature_bytes} |" in TEXT
    for name, tag in vars(hashing).items():
        if name.startswith("TAG_"):
            assert f"`{tag[:-1].decode()}`" in TEXT
    for rule in set(_RULE_OF_CODE.values()):
        assert f"`{rule}`" in TEXT


@pytest.mark.parametrize(
    "bound",
    [
        f"at most {MEMO_BYTES_MAX} bytes",
        f"1 to {OPERATIONS_MAX}",
        f"{TRANSACTION_BYTES_MAX} bytes, {SIGNATURES_MAX} signatures",
        f"at most {INLINE_BALANCES_MAX}",
        f"more than {EVENTS_MAX} events",
        f"more than {CHUNK_BYTES_MAX - 5} bytes",
        f"A chunk has at most {CHUNK_BYTES_MAX} bytes",
        f"a manifest at most {MANIFEST_BYTES_MAX} bytes and {PARTS_MAX} parts",
    ],
)
def test_bounds_stand_in_the_document(bound):
    assert bound in " ".join(TEXT.split())


def test_the_example_domain_of_the_ledger_page_works():
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(compile(code, "docs/ledger.md", "exec"), names)
    from tests.state.ledger.world import World, key

    world = World({key(1).address: {"QNX": 5}}, plugins=names["ledger"].plugins)
    first, second = world.tx(key(1), names["operation"]), world.tx(key(1), names["operation"])
    assert world.codes(first, second) == ["ok", "note_exists"]
