"""The genesis document: one canonical form and hash, whatever order its JSON is in, and what it refuses."""

import copy
import json

import pytest

from state.address import to_text
from state.codec import decode, encode
from state.errors import InvariantError, Rejected
from state.genesis import ChainParameters, Genesis, StateFile, check_asset_code
from state.hashing import sha256
from state.ledger import Account, Asset, Ledger
from state.ledger.account import account_key
from state.ledger.asset import asset_key
from state.ledger.validators import decode_former, decode_rule
from state.types import Amount, AssetCode
from tests.state.ledger.world import genesis_of, key

ANN, BOB = key(1), key(2)


def genesis():
    return genesis_of({ANN.address: {"QNX": 5, "EUR": 2**127}, BOB.address: {"QNX": 7}}, [("EUR", ANN.address, 1)])


def test_the_document_reads_back_from_bytes_and_from_json():
    document = genesis()
    assert Genesis.decode(document.encoded) == document
    assert Genesis.from_json(json.loads(json.dumps(document.to_json()))) == document


def test_the_hash_does_not_depend_on_the_order_of_the_json():
    shuffled = genesis().to_json()
    for name in ("validators", "assets", "accounts"):
        shuffled[name] = shuffled[name][::-1]
    assert Genesis.from_json(shuffled).hash == genesis().hash


def test_a_state_file_is_part_of_the_document():
    base = genesis()
    more = Genesis(
        **{
            **{name: getattr(base, name) for name in ("chain_id", "time_ms", "validators", "parameters", "assets")},
            "accounts": base.accounts,
            "state_file": StateFile(sha256(b"file"), 1000, ((AssetCode("QNX"), Amount(999)),)),
        }
    )
    assert Genesis.decode(more.encoded) == more
    assert Genesis.from_json(more.to_json()) == more
    assert more.supplies() == {"EUR": 2**127, "QNX": 12 + 999}
    assert more.hash != base.hash


def change(path, value):
    def apply(document):
        *way, last = path
        for step in way:
            document = document[step]
        document[last] = value

    return apply


def remove(name):
    return lambda document: document.pop(name)


BAD = [
    ("another version", change(["version"], 2)),
    ("a bad chain id", change(["chain_id"], "Test 1")),
    ("a time as text", change(["time_ms"], "now")),
    ("a time beyond 64 bits", change(["time_ms"], 2**64)),
    ("decimals beyond 64 bits", change(["assets", 0, "decimals"], 2**70)),
    ("a name that is no text", change(["validators", 0, "name"], "\ud800")),
    ("an amount beyond 128 bits", change(["accounts", 0, "balances", "EUR"], str(2**128))),
    ("no validators", change(["validators"], [])),
    ("a validator's key too short", change(["validators", 0, "key"], "0x12")),
    ("a validator's bad name", change(["validators", 0, "name"], "A B")),
    ("a name twice", change(["validators", 0, "name"], "v1")),
    ("an unknown parameter", change(["parameters", "speed"], 1)),
    ("a parameter out of bounds", change(["parameters", "block_units_max"], 1)),
    ("a parameter as boolean", change(["parameters", "leader_term"], True)),
    ("an unknown native asset", change(["parameters", "native_asset"], "XYZ")),
    ("a bad asset code", change(["assets", 0, "code"], "eur")),
    ("19 decimals", change(["assets", 0, "decimals"], 19)),
    ("an amount as number", change(["accounts", 0, "balances", "QNX"], 5)),
    ("a negative amount", change(["accounts", 0, "balances", "QNX"], "-5")),
    ("an amount in other digits", change(["accounts", 0, "balances", "QNX"], "\u0665")),
    ("an undefined asset", change(["accounts", 0, "balances", "USD"], "5")),
    ("a supply beyond 128 bits", change(["accounts", 0, "balances", "EUR"], str(2**128 - 1))),
    ("a mistyped address", change(["accounts", 0, "address"], to_text(ANN.address)[:-1] + "q")),
    ("an account twice", lambda d: d["accounts"].append(copy.deepcopy(d["accounts"][0]))),
    ("no validators at all", remove("validators")),
    ("no parameters", remove("parameters")),
]


@pytest.mark.parametrize("damage", [bad[1] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_document_that_no_chain_can_start_from_is_refused(damage):
    document = genesis_of(
        {ANN.address: {"QNX": 5, "EUR": 2**127}, BOB.address: {"QNX": 7, "EUR": 2**126}}, [("EUR", ANN.address, 1)]
    ).to_json()
    damage(document)
    with pytest.raises(Rejected):
        Genesis.from_json(document)


@pytest.mark.parametrize("document", [None, 5, "x", [], {}, {"version": 1}])
def test_other_json_is_refused(document):
    with pytest.raises(Rejected):
        Genesis.from_json(document)


def test_bytes_in_another_order_are_refused():
    value = decode(genesis().encoded, bytes_max=10**6)
    swapped = (*value[:6], value[6][::-1], value[7])
    with pytest.raises(Rejected):
        Genesis.decode(encode(swapped))
    without_default = (*value[:4], value[4][:-1], *value[5:])
    with pytest.raises(Rejected):
        Genesis.decode(encode(without_default))


@pytest.mark.parametrize("code", ["A", "ABCDEFGHIJKLM", "aB", "1A", ".A", "A B", "Ä1", "A\n"])
def test_asset_codes_have_two_to_twelve_capitals_digits_and_dots(code):
    with pytest.raises(Rejected):
        check_asset_code(code)
    assert check_asset_code("AB") == "AB"
    assert check_asset_code("EUR.BANK1234") == "EUR.BANK1234"


def test_the_first_state_holds_what_the_document_says():
    document = genesis()
    state = dict(Ledger().genesis_pairs(document))
    assert Account.decode(state[account_key(ANN.address)]).balances == {"QNX": (5, 0), "EUR": (2**127, 0)}
    assert Asset.decode(state[asset_key("QNX")]).supply == 12
    assert Asset.decode(state[asset_key("EUR")]).issuer == ANN.address
    assert state[encode(("parameter", "block_units_max"))] == encode(ChainParameters().block_units_max)
    assert decode_rule(state[encode(("validators",))]) == (1, document.validators)
    assert decode_former(state[encode(("validators", 1))]) == (0, document.validators)
    assert state[encode(("issuer", ANN.address))] == encode(1)


def test_unknown_flags_of_an_asset_are_refused_by_the_ledger():
    document = genesis_of({}, [("EUR", ANN.address, 4)])
    with pytest.raises(Rejected, match="flags"):
        dict(Ledger().genesis_pairs(document))


def test_more_balances_than_a_record_holds_are_our_bug():
    with pytest.raises(InvariantError):
        Account.holding({f"A{n}": 1 for n in range(33)})
