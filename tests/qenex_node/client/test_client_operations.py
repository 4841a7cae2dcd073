"""Builders: what they build is what the ledger reads, for every operation of every plug-in, one of a test included."""

import inspect

import pytest

from qenex_node.client import Operations
from state.address import to_text
from state.errors import Rejected
from state.keys import Policy
from state.ledger import DEFAULT_PLUGINS, Plugin
from state.ledger.fields import ADDRESS, AMOUNT, BytesType, IntegerType, ListType, OptionalType, record
from state.ledger.plugin import OperationType, Rules
from tests.qenex_node.client.client_support import ANN, BOB, CEM

POLICY = Policy.of(2, (ANN.public, BOB.public, CEM.public))

BUILT = [
    (
        "transfer",
        {"asset": "QNX", "recipients": [(BOB.address, 5), (to_text(CEM.address), 10**30)]},
        (None, "QNX", ((BOB.address, 5), (CEM.address, 10**30))),
    ),
    (
        "transfer",
        {"source": to_text(ANN.address), "asset": "QNX", "recipients": [{"to": BOB.address, "amount": "7"}]},
        (ANN.address, "QNX", ((BOB.address, 7),)),
    ),
    (
        "issue_asset",
        {"code": "EUR", "decimals": 2, "flags": 3, "supply": 0},
        ("EUR", 2, 3, 0, None),
    ),
    ("mint", {"asset": "EUR", "to": BOB.address, "amount": 1}, ("EUR", BOB.address, 1)),
    ("burn", {"asset": "EUR", "amount": "9", "source": None}, (None, "EUR", 9)),
    ("set_policy", {"policy": POLICY}, (None, POLICY)),
    (
        "governance_propose",
        {"by": "a", "change": "remove", "validator": "b", "from_height": 0, "expires_ms": 0},
        ("a", "remove", "b", None, None, None, None, None, 0, 0),
    ),
    ("governance_vote", {"proposal": 7, "by": "a", "approve": True}, (7, "a", True)),
]


@pytest.mark.parametrize(("kind", "fields", "values"), BUILT)
def test_what_is_built_is_what_the_ledger_reads(kind, fields, values):
    operations = Operations()
    built = getattr(operations, kind)(**fields)
    assert built == operations.build(kind, fields)
    declared = operations.types[kind].versions[built.version].fields
    assert declared.decode(built.fields, kind) == values
    told = operations.ledger.operation_to_json(built)
    assert operations.build(kind, told["fields"]) == built


def test_every_declared_operation_has_a_builder_that_explains_itself():
    operations = Operations()
    assert {kind for kind, _, _ in BUILT} == set(operations.types)
    for kind, declared in operations.types.items():
        builder = getattr(operations, kind)
        assert kind in dir(operations)
        assert list(inspect.signature(builder).parameters) == list(declared.versions[declared.newest].fields.names)
        assert declared.summary in builder.__doc__
    assert inspect.signature(operations.transfer).parameters["source"].default is None


WRONG = [
    ("transfer", {"asset": "QNX"}, "recipients"),
    ("transfer", {"asset": "QNX", "recipients": [(BOB.address, 0)]}, "amount"),
    ("transfer", {"asset": "QNX", "recipients": [(BOB.address, -5)]}, "amount"),
    ("transfer", {"asset": "QNX", "recipients": [(BOB.address,)]}, "to, amount"),
    ("transfer", {"asset": "QNX", "recipients": [("qx1nonsense", 5)]}, "address"),
    ("transfer", {"asset": "qnx", "recipients": [(BOB.address, 5)]}, "qnx"),
    ("transfer", {"asset": "QNX", "recipients": [(BOB.address, 5)], "speed": 9}, "speed"),
    ("mint", {"asset": "QNX", "to": BOB.address, "amount": 1.5}, "amount"),
    ("nothing", {}, "nothing"),
]


@pytest.mark.parametrize(("kind", "fields", "named"), WRONG)
def test_what_is_wrong_is_named_before_anything_is_sent(kind, fields, named):
    with pytest.raises(Rejected, match=named):
        Operations().build(kind, fields)


def test_an_operation_that_nobody_declares_is_no_attribute():
    with pytest.raises(AttributeError, match="teleport"):
        _ = Operations().teleport


def test_a_plug_in_of_a_test_gets_a_builder_without_a_change_of_the_client():
    fields = record(
        ("to", OptionalType(ADDRESS), "whom"),
        ("parts", ListType(AMOUNT, 4), "how much each"),
        ("code", BytesType(8), "a code"),
        ("level", IntegerType(10), "a level"),
    )
    rules = Rules(fields, lambda context, values: None)
    plugin = Plugin("sample", "a sample", operations=(OperationType("sample_do", "do it", {1: rules}),))
    operations = Operations((*DEFAULT_PLUGINS, plugin))
    built = operations.sample_do(parts=[1, "2"], code=b"\x01", level=3)
    assert fields.decode(built.fields, "sample_do") == (None, (1, 2), b"\x01", 3)
