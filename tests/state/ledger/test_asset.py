"""Assets: who may issue, mint and burn, and that the record of supply follows."""

import pytest

from state.address import to_text
from state.errors import InvariantError, Rejected
from state.ledger.asset import HOLDERS_MAY_BURN, SUPPLY_FIXED, Asset
from state.types import Address, Amount, AssetCode
from tests.state.ledger.world import World, key, pay

ISSUER, ANN, BOB = key(0), key(1), key(2)


def world(**parameters):
    return World(
        {ANN.address: {"QNX": 1000, "FREE": 10, "EUR": 10}},
        [("EUR", ISSUER.address, 0), ("FREE", ISSUER.address, HOLDERS_MAY_BURN)],
        **parameters,
    )


def op(w, kind, **fields):
    return w.ledger.build(kind, fields)


def issue(w, code="USD", **more):
    return op(w, "issue_asset", **{"code": code, "decimals": 2, "flags": 0, "supply": "0", **more})


def supply(w, code):
    return w.ledger.read_asset(w, code).supply


def test_an_asset_reads_back_from_its_record():
    asset = Asset(AssetCode("EUR.X"), 18, Address(bytes(range(32))), 3, Amount(2**128 - 1))
    assert Asset.decode(asset.encode()) == asset


def test_the_supply_at_genesis_is_what_accounts_hold():
    w = world()
    assert (supply(w, "QNX"), supply(w, "FREE"), supply(w, "EUR")) == (1000, 10, 10)


def test_anyone_issues_an_asset_where_issuance_is_open():
    w = world()
    (receipt,) = w.block(w.tx(BOB, issue(w, supply="70", decimals=18)))
    assert [event.kind for event in receipt.events] == ["asset_issued", "minted"]
    asset = w.ledger.read_asset(w, "USD")
    assert (asset.issuer, asset.decimals, asset.supply) == (BOB.address, 18, 70)
    assert w.available(BOB.address, "USD") == 70


def test_only_registered_issuers_issue_where_issuance_is_closed():
    w = world(open_issuance=0)
    assert w.codes(w.tx(BOB, issue(w))) == ["not_authorised"]
    assert w.codes(w.tx(ISSUER, issue(w))) == ["ok"]
    named = issue(w, code="GBP", issuer=to_text(ISSUER.address))
    assert w.codes(w.tx(BOB, named)) == ["not_authorised"]
    assert w.codes(w.tx(BOB, named, signers=[ISSUER])) == ["ok"]
    assert w.ledger.read_asset(w, "GBP").issuer == ISSUER.address


def test_a_code_is_given_once():
    w = world()
    assert w.codes(w.tx(BOB, issue(w)), w.tx(ANN, issue(w))) == ["ok", "asset_exists"]


def test_only_the_issuer_mints():
    w = world()
    mint = op(w, "mint", asset="EUR", to=to_text(BOB.address), amount="5")
    assert w.codes(w.tx(ANN, mint)) == ["not_authorised"]
    assert w.codes(w.tx(ANN, mint, signers=[ISSUER]), w.tx(ISSUER, mint)) == ["ok", "ok"]
    assert (supply(w, "EUR"), w.available(BOB.address, "EUR")) == (20, 10)


def test_a_fixed_supply_stays():
    w = world()
    w.block(w.tx(BOB, issue(w, flags=SUPPLY_FIXED, supply="9")))
    mint = op(w, "mint", asset="USD", to=to_text(BOB.address), amount="5")
    assert w.codes(w.tx(BOB, mint)) == ["supply_fixed"]
    assert supply(w, "USD") == 9


def test_a_supply_stays_below_two_to_the_128():
    w = world()
    w.block(w.tx(BOB, issue(w, supply=str(2**128 - 2))))
    mint = op(w, "mint", asset="USD", to=to_text(BOB.address), amount="1")
    assert w.codes(w.tx(BOB, mint), w.tx(BOB, mint)) == ["ok", "supply_overflow"]
    assert supply(w, "USD") == 2**128 - 1


def test_holders_burn_only_where_the_asset_says_so():
    w = world()
    free, eur = op(w, "burn", asset="FREE", amount="4"), op(w, "burn", asset="EUR", amount="4")
    assert w.codes(w.tx(ANN, free), w.tx(ANN, eur), w.tx(ANN, eur, signers=[ISSUER])) == ["ok", "not_authorised", "ok"]
    assert (supply(w, "FREE"), supply(w, "EUR"), w.available(ANN.address, "EUR")) == (6, 6, 6)


def test_the_issuer_burns_nothing_that_is_not_its_own_without_its_owner():
    w = world()
    burn = op(w, "burn", asset="EUR", amount="4", source=to_text(ANN.address))
    assert w.codes(w.tx(ISSUER, burn)) == ["not_authorised"]
    assert w.codes(w.tx(ISSUER, burn, signers=[ANN])) == ["ok"]


def test_what_is_unknown_fails_by_name():
    w = world()
    mint = op(w, "mint", asset="NONE", to=to_text(BOB.address), amount="5")
    burn = op(w, "burn", asset="NONE", amount="5")
    assert w.codes(w.tx(ANN, mint), w.tx(ANN, burn), w.tx(ANN, pay(BOB.address, 1, "NONE"))) == [
        "asset_unknown",
        "asset_unknown",
        "balance_insufficient",
    ]


@pytest.mark.parametrize("fields", [{"decimals": 19}, {"flags": 4}, {"code": "u"}, {"supply": "01"}, {"more": 1}])
def test_an_impossible_asset_is_malformed(fields):
    w = world()
    with pytest.raises(Rejected):
        issue(w, **fields)


def test_money_from_nowhere_halts_the_node():
    w = world()
    tx = w.tx(ANN, pay(BOB.address, 1))
    run = w.ledger.begin_block(w.executor.state, environment(w))
    run.apply(tx)
    run.overlay.add(BOB.address, "QNX", 1, 0)
    with pytest.raises(InvariantError, match="1 QNX"):
        list(run.finish())


def test_a_supply_without_money_halts_the_node():
    w = world()
    run = w.ledger.begin_block(w.executor.state, environment(w))
    run.overlay.set_asset(w.ledger.read_asset(w, "EUR").with_supply(11))
    with pytest.raises(InvariantError, match="-1 EUR"):
        list(run.finish())


def environment(w):
    from state.ledger import Environment

    return Environment(w.head.height + 1, w.head.time_ms + 1)
