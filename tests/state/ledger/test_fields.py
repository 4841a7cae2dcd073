"""Field types: canonical and JSON forms of the same values, and what is refused in each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.address import to_text
from state.codec import decode, encode
from state.errors import Rejected
from state.keys import ML_DSA_65, Policy
from state.ledger import Event, Ledger, Receipt
from state.ledger.fields import (
    ADDRESS,
    AMOUNT,
    AMOUNT_OR_ZERO,
    ASSET_CODE,
    BOOLEAN,
    HASH,
    INTEGER,
    POLICY,
    BytesType,
    IntegerType,
    ListType,
    OptionalType,
    TextType,
    record,
)
from state.transaction import Operation
from tests.state.ledger.world import key

ADDRESSES = st.binary(min_size=32, max_size=32)
EXAMPLES = [
    (ADDRESS, ADDRESSES),
    (AMOUNT, st.integers(1, 2**128 - 1)),
    (AMOUNT_OR_ZERO, st.integers(0, 2**128 - 1)),
    (ASSET_CODE, st.from_regex(r"[A-Z][A-Z0-9.]{1,11}", fullmatch=True)),
    (BOOLEAN, st.booleans()),
    (INTEGER, st.integers(0, 2**53 - 1)),
    (TextType(9), st.text(max_size=9)),
    (BytesType(9, 2), st.binary(min_size=2, max_size=9)),
    (HASH, ADDRESSES),
    (POLICY, st.sampled_from([Policy.single(key(1).public), Policy.of(2, (key(1).public, key(2, ML_DSA_65).public))])),
    (OptionalType(AMOUNT), st.none() | st.integers(1, 99)),
    (ListType(INTEGER, 3), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
    (
        record(("a", INTEGER, "a"), ("b", OptionalType(ADDRESS), "b")),
        st.tuples(st.integers(0, 9), st.none() | ADDRESSES),
    ),
]


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=[type(kind).__name__ for kind, _ in EXAMPLES])
@given(data=st.data())
def test_a_value_reads_back_from_both_of_its_forms(kind, values, data):
    value = data.draw(values)
    canonical = decode(encode(kind.encode(value)), bytes_max=10_000)
    assert kind.decode(canonical, "field") == value
    assert kind.from_json(kind.to_json(value), "field") == value
    assert isinstance(kind.schema(), dict)


@pytest.mark.parametrize(
    ("kind", "canonical"),
    [
        (ADDRESS, bytes(31)),
        (ADDRESS, "x" * 32),
        (AMOUNT, b""),
        (AMOUNT, 5),
        (AMOUNT, b"\x01" * 17),
        (ASSET_CODE, "A"),
        (ASSET_CODE, "ABCDEFGHIJKLM"),
        (ASSET_CODE, "EUR\n"),
        (INTEGER, True),
        (IntegerType(5, 2), 1),
        (IntegerType(5, 2), 5),
        (BOOLEAN, 1),
        (TextType(2), "abc"),
        (BytesType(4, 2), b"a"),
        (BytesType(4, 2), b"abcde"),
        (POLICY, (1, ())),
        (POLICY, (1, ((9, bytes(32)),))),
        (ListType(INTEGER, 2), (1, 2, 3)),
        (ListType(INTEGER, 2, 1), ()),
        (record(("a", INTEGER, "")), (1, 2)),
    ],
)
def test_a_canonical_form_out_of_bounds_is_refused(kind, canonical):
    with pytest.raises(Rejected):
        kind.decode(canonical, "field")


@pytest.mark.parametrize(
    ("kind", "json"),
    [
        (ADDRESS, 5),
        (ADDRESS, "qx1"),
        (AMOUNT, 5),
        (AMOUNT, "0"),
        (AMOUNT, "-1"),
        (AMOUNT, "1.5"),
        (AMOUNT, "01"),
        (AMOUNT, "٣"),
        (AMOUNT, "9" * 40),
        (AMOUNT, str(2**128)),
        (INTEGER, 1.0),
        (INTEGER, "1"),
        (INTEGER, True),
        (HASH, "0x12"),
        (HASH, "12" * 32),
        (HASH, "0x" + "AB" * 32),
        (HASH, None),
        (POLICY, {"threshold": 1}),
        (POLICY, {"threshold": 1, "keys": [{"scheme": "rsa", "key": "0x00"}]}),
        (POLICY, {"threshold": 1, "keys": [{"scheme": 1, "key": "0x00"}]}),
        (POLICY, {"threshold": "1", "keys": [{"scheme": "ed25519", "key": "0x" + "00" * 32}]}),
        (ListType(INTEGER, 2), {"0": 1}),
        (ListType(INTEGER, 2), [1, 2, 3]),
        (record(("a", INTEGER, "")), {}),
        (record(("a", INTEGER, "")), {"a": 1, "b": 2}),
        (record(("a", INTEGER, "")), [1]),
    ],
)
def test_a_json_form_out_of_bounds_is_refused(kind, json):
    with pytest.raises(Rejected):
        kind.from_json(json, "field")


def test_an_optional_field_may_be_left_out_of_json():
    kind = record(("a", INTEGER, ""), ("b", OptionalType(INTEGER), ""))
    assert kind.from_json({"a": 1}, "record") == (1, None)
    assert kind.schema()["required"] == ["a"]


def test_operations_have_json_forms_both_ways():
    ledger = Ledger()
    to = key(2).address
    operation = Operation("transfer", 1, (None, "QNX", ((to, b"\x05"),)))
    json = ledger.operation_to_json(operation)
    assert json == {
        "kind": "transfer",
        "version": 1,
        "fields": {"source": None, "asset": "QNX", "recipients": [{"to": to_text(to), "amount": "5"}]},
    }
    assert ledger.operation_from_json(json) == operation
    del json["version"], json["fields"]["source"]
    assert ledger.operation_from_json(json) == operation


@pytest.mark.parametrize(
    "json",
    [
        5,
        {},
        {"kind": "transfer"},
        {"kind": "nothing", "fields": {}},
        {"kind": 5, "fields": {}},
        {"kind": ["transfer"], "fields": {}},
        {"kind": "transfer", "fields": {}},
        {"kind": "transfer", "fields": [], "version": 1},
        {"kind": "mint", "fields": {}, "version": "1"},
        {"kind": "mint", "fields": {}, "version": 2},
        {"kind": "mint", "fields": {}, "version": True},
        {"kind": "mint", "fields": {}, "extra": 1},
    ],
)
def test_a_bad_operation_in_json_is_rejected_and_never_crashes(json):
    with pytest.raises(Rejected):
        Ledger().operation_from_json(json)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["ok", "not_authorised"]), st.integers(0, 2**64 - 1))
def test_a_receipt_reads_back(tx_id, code, units):
    receipt = Receipt(tx_id, code, units, 2**100, (Event("moved", (tx_id, tx_id, "QNX", b"\x05")),))
    assert Receipt.decode(receipt.encode()) == receipt


def test_a_receipt_of_another_version_is_refused_by_name():
    with pytest.raises(Rejected, match="receipt version 2"):
        Receipt.decode(encode((2, bytes(32), "ok", 1, b"", ())))
