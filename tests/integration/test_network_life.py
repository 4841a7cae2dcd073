"""A network of real processes lives through what networks live through: each test breaks it in one way.

Two sizes can be raised beyond what every run can afford: QENEX_KILL_ROUNDS (all nodes killed so many times) and
QENEX_SYNC_BLOCKS (blocks that a node which joins late has to fetch).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_support import assert_nothing_lost, load, pay, same_chain, trusting_client

from devnet.network import Devnet
from state.ledger.account import account_key

ALL = ["validator-01", "validator-02", "validator-03", "validator-04"]
KILL_ROUNDS = int(os.environ.get("QENEX_KILL_ROUNDS", "3"))
SYNC_BLOCKS = int(os.environ.get("QENEX_SYNC_BLOCKS", "200"))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Devnet]:
    with Devnet(tmp_path / "net", accounts=200) as network:
        yield network


def test_a_payment_is_final_everywhere_and_proved_by_each_node(net: Devnet) -> None:
    alice, bob = net.account_key("alice"), net.account_key("bob").address
    with trusting_client(net, "validator-02") as client:
        # Block 0 of a chain with a state file has nobody's signature: proofs begin with the first block.
        pay(client, alice, bob)
        before = client.balance(bob, "QNX")
        height = pay(client, alice, bob, 250)
    net.wait_height(height)
    for name in ALL:
        with trusting_client(net, name) as client:
            assert client.balance(bob, "QNX").available == before.available + 250
            value, header = client.prove(account_key(bob))
            assert value is not None
            assert header.height == height
    same_chain(net, ALL)


def test_a_killed_primary_costs_one_view_change_and_no_transaction(net: Devnet) -> None:
    primary = net.call(ALL[0], "qenex_status")["primary"]
    others = [name for name in ALL if name != primary]
    with load(net, "--rate", "200", "--seconds", "8", "--accounts", "200") as under_way:
        net.wait_height(10)
        net.kill(primary)
        killed_at, height = time.monotonic(), net.height(others[0])
        net.wait_height(height + 2, others, timeout_s=10)
        gap_s = time.monotonic() - killed_at
        result = under_way.result()
    print(f"two further blocks {gap_s:.2f} s after the primary was killed")
    # The bound on an otherwise idle machine is 2 s; what is asserted leaves room for a busy one.
    assert gap_s < 5, f"the next block took {gap_s:.1f} s"
    assert_nothing_lost(result)
    assert {net.call(name, "qenex_status")["primary"] for name in others} != {primary}

    net.start(primary)
    same_chain(net, ALL)
    # It votes again: with another validator down, a block needs its vote.
    net.kill(others[0])
    with trusting_client(net, others[1]) as client:
        pay(client, net.account_key("carol"), net.account_key("bob").address)
    same_chain(net, [primary, *others[1:]])


def test_all_four_killed_at_once_again_and_again_resume_by_themselves(net: Devnet) -> None:
    with load(net, "--rate", "150", "--seconds", str(4 * KILL_ROUNDS + 4), "--accounts", "200") as under_way:
        for _ in range(KILL_ROUNDS):
            height = net.height(ALL[0])
            net.wait_height(height + 5)
            net.kill_all()
            net.start_all()
            net.wait_for(lambda: len(net.heights()) == 4, "all four answer again")
            net.wait_height(max(net.heights().values()) + 2, timeout_s=30)
        result = under_way.result()
    assert_nothing_lost(result)
    same_chain(net, ALL)


def test_without_a_quorum_no_block_is_made_and_it_goes_on_once_there_is_one(net: Devnet) -> None:
    bob = net.account_key("bob").address
    with trusting_client(net, ALL[0]) as client:
        pay(client, net.account_key("alice"), bob)
    net.kill(ALL[2], ALL[3])
    height = net.height(ALL[0])
    net.wait_unready(ALL[0], "no_quorum")
    with net.client(ALL[0]) as client:
        waiting = client.submit(
            net.account_key("carol"),
            [client.session.operations.transfer(source=None, asset="QNX", recipients=[{"to": bob, "amount": 5}])],
        )
    time.sleep(2.5)  # Longer than the progress timer: nothing may come of suspicion either.
    assert net.height(ALL[0]) == height
    began = time.monotonic()
    net.start(ALL[3])
    net.wait_height(height + 1, ALL[:2], timeout_s=15)
    resumed_s = time.monotonic() - began
    print(f"the next block {resumed_s:.2f} s after the third validator was started")
    # The bound on an otherwise idle machine is 5 s; what is asserted leaves room for a busy one.
    assert resumed_s < 10
    with net.client(ALL[0]) as client:
        assert client.wait(waiting).height > height


def test_a_full_node_that_joins_late_catches_up_and_proves_what_it_says(net: Devnet) -> None:
    while net.height(ALL[0]) < SYNC_BLOCKS:
        with load(net, "--rate", "150", "--seconds", "5", "--accounts", "200") as under_way:
            assert_nothing_lost(under_way.result())
    height = net.height(ALL[0])
    began = time.monotonic()
    name = net.add()
    net.wait_height(height, [name], timeout_s=60)
    print(f"{height} blocks synced {time.monotonic() - began:.1f} s after the node was asked for")
    assert net.call(name, "qenex_status")["role"] == "full"
    with trusting_client(net, name) as client:
        # It follows live, takes transactions, and its answers prove against the genesis validators.
        pay(client, net.account_key("alice"), net.account_key("bob").address)
        assert client.balance(net.account_key("bob").address, "QNX").available > 0
    same_chain(net, [*ALL, name])


def test_an_idle_network_makes_no_blocks_and_costs_next_to_nothing(net: Devnet) -> None:
    with trusting_client(net, ALL[0]) as client:
        pay(client, net.account_key("alice"), net.account_key("bob").address)
    same_chain(net, ALL)
    heights = net.heights()
    sizes = {name: disk_bytes(net, name) for name in ALL}
    usage = {name: net.usage(name) for name in ALL}
    seconds = 6.0
    time.sleep(seconds)
    assert net.heights() == heights
    assert {name: disk_bytes(net, name) for name in ALL} == sizes
    for name in ALL:
        before, after = usage[name], net.usage(name)
        assert before is not None
        assert after is not None
        # 2% is the bound on a quiet machine.
        assert (after.cpu_s - before.cpu_s) / seconds < 0.04, name


def disk_bytes(net: Devnet, name: str) -> int:
    data = net.node(name).home / "data"
    return sum(path.stat().st_size for path in data.iterdir())
