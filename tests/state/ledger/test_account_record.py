"""The record of an account: one canonical form, and the rule by which it gives its balances leaves of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import encode, encode_amount
from state.errors import Rejected
from state.keys import ML_DSA_65, Policy
from state.ledger.account import (
    Account,
    account_key,
    balance_key,
    decode_balance,
    encode_balance,
)
from tests.state.ledger.world import World, key, pay

CODES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=5)
AMOUNTS = st.integers(0, 2**128 - 1)
BALANCES = st.dictionaries(CODES, st.tuples(AMOUNTS, AMOUNTS).filter(any), max_size=32)
LANES = st.lists(st.integers(0, 2**64 - 1), max_size=16).filter(lambda lanes: not lanes or lanes[-1] > 0).map(tuple)
POLICIES = st.sampled_from(
    [None, Policy.single(key(1).public), Policy.of(2, (key(1).public, key(2, ML_DSA_65).public))]
)
EXTENSIONS = st.dictionaries(st.text("abc_", min_size=1, max_size=4), st.binary(max_size=40), max_size=16)


@given(LANES, POLICIES, st.none() | BALANCES, EXTENSIONS)
def test_an_account_reads_back_from_its_record(lanes, policy, balances, extensions):
    account = Account(lanes, policy, balances, tuple(sorted(extensions.items())))
    if account.is_empty():
        return
    data = account.encode()
    again = Account.decode(data)
    assert again == account
    assert again.encode() == data


@given(LANES, st.integers(0, 15))
def test_a_lane_advances_alone(lanes, lane):
    account = Account(tuple(n for n in lanes if n < 2**63), balances={})
    before = [account.sequence(n) for n in range(16)]
    account.advance(lane)
    after = [account.sequence(n) for n in range(16)]
    assert after[lane] == before[lane] + 1
    assert after[:lane] + after[lane + 1 :] == before[:lane] + before[lane + 1 :]
    assert not account.lanes or account.lanes[-1] > 0


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ((1, (), None, (), ()), "an empty account has no record"),
        ((1, (1, 0), None, (), ()), "a lane after the last used one"),
        ((1, (1,) * 17, None, (), ()), "seventeen lanes"),
        ((1, (1,), None, (("QNX", b"", b""),), ()), "a balance of nothing"),
        ((1, (1,), None, (("QNX", b"\x01", b""), ("EUR", b"\x01", b"")), ()), "balances out of order"),
        ((1, (1,), None, (("QNX", b"\x01", b""), ("QNX", b"\x01", b"")), ()), "a balance twice"),
        ((1, (1,), None, (("QNX", b"\x00\x01", b""),), ()), "an amount with a leading zero"),
        ((1, (1,), None, (("QNX", b"\x01" * 17, b""),), ()), "an amount beyond 128 bits"),
        ((1, (1,), None, (), (("b", b""), ("a", b""))), "extensions out of order"),
        ((1, (1,), (2, ((1, bytes(32)),)), (), ()), "a policy that cannot be satisfied"),
        ((2, (1,), None, (), ()), "an unknown version"),
        ((1, (1,), None, ()), "a missing field"),
        ((1, (1,), None, tuple((f"A{n:02}", b"\x01", b"") for n in range(33)), ()), "33 balances inside"),
    ],
)
def test_a_record_that_is_not_canonical_is_refused(record, why):
    with pytest.raises(Rejected):
        Account.decode(encode(record))


def test_state_keys_are_the_canonical_arrays():
    address = key(1).address
    assert account_key(address) == encode(("account", address))
    assert balance_key(address, "EUR.X") == encode(("balance", address, "EUR.X"))


@given(AMOUNTS, AMOUNTS)
def test_a_balance_of_its_own_reads_back(free, held):
    if free or held:
        assert decode_balance(encode_balance((free, held))) == (free, held)
    else:
        with pytest.raises(Rejected):
            decode_balance(encode((1, encode_amount(0), encode_amount(0))))


def many_assets(count):
    issuer = key(0)
    codes = [f"A{n:02}" for n in range(count)]
    world = World({issuer.address: {"QNX": 10**6}}, [(code, issuer.address, 0) for code in codes])
    return world, issuer, codes


def give(world, issuer, codes, to):
    for code in codes:
        mint = world.ledger.build("mint", {"asset": code, "to": world_text(to), "amount": "5"})
        assert world.codes(world.tx(issuer, mint)) == ["ok"]


def world_text(address):
    from state.address import to_text

    return to_text(address)


def test_the_33rd_balance_moves_all_of_them_to_leaves_of_their_own():
    world, issuer, codes = many_assets(33)
    victim = key(5)
    give(world, issuer, codes[:32], victim.address)
    assert len(world.ledger.read_account(world, victim.address).balances) == 32
    give(world, issuer, codes[32:], victim.address)
    assert world.ledger.read_account(world, victim.address).balances is None
    assert all(world.available(victim.address, code) == 5 for code in codes)
    assert all(balance_key(victim.address, code) in world.state for code in codes)


def test_nobody_can_keep_an_account_from_being_paid_by_filling_it():
    world, issuer, codes = many_assets(40)
    victim = key(5)
    give(world, issuer, codes, victim.address)
    assert world.codes(world.tx(issuer, pay(victim.address, 77))) == ["ok"]
    assert world.available(victim.address) == 77
    assert world.codes(world.tx(victim, pay(key(6).address, 77))) == ["ok"]
    assert world.available(key(6).address) == 77


def test_a_leaf_balance_that_becomes_nothing_leaves_the_state():
    world, issuer, codes = many_assets(33)
    victim = key(5)
    give(world, issuer, codes, victim.address)
    assert world.codes(world.tx(victim, pay(issuer.address, 5, codes[3]))) == ["ok"]
    assert balance_key(victim.address, codes[3]) not in world.state
    assert world.available(victim.address, codes[3]) == 0
    give(world, issuer, codes[3:4], victim.address)
    assert world.available(victim.address, codes[3]) == 5


def test_a_failure_after_the_33rd_balance_takes_the_move_back():
    world, issuer, codes = many_assets(33)
    victim = key(5)
    give(world, issuer, codes[:32], victim.address)
    before = world.state[account_key(victim.address)]
    mint = world.ledger.build("mint", {"asset": codes[32], "to": world_text(victim.address), "amount": "5"})
    assert world.codes(world.tx(issuer, mint, pay(victim.address, 10**9))) == ["balance_insufficient"]
    assert world.state[account_key(victim.address)] == before
    assert not any(balance_key(victim.address, code) in world.state for code in codes)
