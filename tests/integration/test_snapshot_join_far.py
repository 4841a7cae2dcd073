"""A node that is far behind joins with a snapshot, timed: for a machine and an hour that can be spared.

QENEX_JOIN_BLOCKS=100000 QENEX_JOIN_ACCOUNTS=1000000 pytest -s tests/integration/test_snapshot_join_far.py

The chain is made without a network: real blocks of one payment each, certified by the validators' own keys. It takes
some ms a block; what is timed is the join alone.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from integration_support import pay, same_chain, trusting_client

from devnet.network import Devnet
from devnet.prepare import Wish
from qenex_node.config import Config
from qenex_node.homes import NodeHome, open_home
from qenex_node.keystore import read_key
from qenex_node.options import store_options
from qenex_node.snapshot_tools import create
from state import slices
from state.block import vote_preimage
from state.execution import Executor
from state.keys import SigningKey
from state.ledger import Ledger
from state.store import Store
from state.transaction import Operation, body_value, decode_transaction, sign_transaction
from state.types import VOTE_COMMIT, Certificate, Header, TimeMs, View

BLOCKS = int(os.environ.get("QENEX_JOIN_BLOCKS", "0"))
ACCOUNTS = int(os.environ.get("QENEX_JOIN_ACCOUNTS", "1000"))
PAYERS = 1_000
PRUNE_EVERY = 500


class Maker:
    """Makes a chain in a stopped validator's database."""

    def __init__(self, net: Devnet, home: NodeHome) -> None:
        self.net = net
        self.genesis = home.genesis
        self.options = replace(store_options(home.config), durable=False)
        self.store = Store.open(home.home.data, home.genesis, Ledger(), self.options)
        self.executor = Executor(Ledger(), home.genesis.context, self.store)
        names = [validator.name for validator in home.genesis.validators.validators]
        self.signers = [read_key(net.node(name).home / "keys" / "validator.json", None) for name in names]
        self.payers: list[SigningKey] = [net.bulk_key(n) for n in range(min(PAYERS, ACCOUNTS))]

    def certificate(self, header: Header) -> Certificate:
        validators = self.store.validators
        preimage = vote_preimage(self.genesis.hash, validators.hash, VOTE_COMMIT, header.height, 0, header.hash)
        quorum = [(index, key.sign(preimage)) for index, key in enumerate(self.signers[: validators.quorum])]
        return Certificate(VOTE_COMMIT, header.height, View(0), header.hash, tuple(quorum))

    def block(self, number: int) -> None:
        context, head = self.genesis.context, self.store.head
        turn, place = divmod(number, len(self.payers))
        payer, to = self.payers[place], self.payers[place - 1].address
        operation = Operation("transfer", 1, (None, "QNX", ((to, b"\x01"),)))
        body = body_value(context, payer.address, 0, turn, head.time_ms + 60_000, [operation])
        tx = decode_transaction(sign_transaction(context, body, {payer.address: [payer]}), context)
        proposer = self.signers[0].public.data
        executed = slices.run(self.executor.build(TimeMs(head.time_ms + 1), [tx], proposer, lambda: False))
        assert executed is not None
        prepared = slices.run(self.store.commit(executed, self.certificate(executed.block.header)))
        prepared.write()
        self.store.advance(prepared)
        self.executor.committed(executed)
        if number % PRUNE_EVERY == 0:
            slices.run(self.store.prune())


def make_chain(net: Devnet, names: list[str]) -> None:
    """Gives all validators the same chain of so many blocks, with the snapshot of its head."""
    first = open_home(net.node(names[0]).home)
    maker = Maker(net, first)
    for number in range(BLOCKS):
        maker.block(number)
    maker.store.close()
    create(first)
    for name in names[1:]:
        home = open_home(net.node(name).home)
        shutil.rmtree(home.home.data)
        shutil.copytree(first.home.data, home.home.data)
        shutil.copytree(first.home.snapshots, home.home.snapshots)
        store = Store.open(home.home.data, home.genesis, Ledger(), store_options(home.config))
        store.create_votes(read_key(home.home.validator_key_file, None).public.data)
        store.close()


@pytest.mark.skipif(not BLOCKS, reason="runs where QENEX_JOIN_BLOCKS says how far behind the node is to be")
def test_a_node_far_behind_joins_with_a_snapshot_in_less_than_two_minutes(tmp_path: Path) -> None:
    config = Config()
    config = replace(config, sync=replace(config.sync, snapshot_gap_heights=max(1, BLOCKS // 5)))
    wish = Wish(validators=4, full_nodes=1, accounts=ACCOUNTS, config=config)
    with Devnet(tmp_path / "net", wish=wish, autostart=False) as net:
        names = [name for name in net.names if name.startswith("validator")]
        began = time.monotonic()
        make_chain(net, names)
        print(f"made {BLOCKS} blocks with {ACCOUNTS} accounts in {time.monotonic() - began:.0f} s")
    # Entered anew, for its ports may have been taken by others meanwhile.
    with Devnet(tmp_path / "net", wish=wish, autostart=False) as net:
        for name in names:
            net.start(name, wait=False)
        net.wait_ready(names, timeout_s=300)
        assert net.height(names[0]) == BLOCKS
        began = time.monotonic()
        (joining,) = set(net.names) - set(names)
        net.start(joining)
        with trusting_client(net, names[0]) as client:
            height = pay(client, net.account_key("alice"), net.account_key("bob").address)
        net.wait_height(height, [joining], timeout_s=600)
        net.wait_ready([joining], timeout_s=60)
        seconds = time.monotonic() - began
        print("\n".join(line for line in net.log(joining).splitlines() if "statesync" in line or "anew" in line))
        print(f"joined {seconds:.1f} s after its start, {BLOCKS} blocks behind, with {ACCOUNTS} accounts")
        assert "beginning anew" in net.log(joining)
        same_chain(net, [*names, joining])
        assert seconds < 120
