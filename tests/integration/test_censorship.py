"""A primary that leaves out one account's transactions, and serves all others well, loses its view for it."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path

from hostile_support import Load
from integration_support import QNX, same_chain

from devnet.fleet import start_command
from devnet.network import Devnet
from devnet.prepare import Wish
from qenex_node.config import Config
from qenex_node.testnet import NetworkNode, derived_key

CENSOR = "validator-01"
HONEST = ["validator-02", "validator-03", "validator-04"]
LEFT_OUT_MS = 1_000
PROGRAM = Path(__file__).with_name("censoring_node.py")


def test_a_primary_that_censors_one_account_loses_its_view_and_the_next_one_serves_it(tmp_path: Path) -> None:
    plain = Config()
    seed = secrets.token_hex(8)
    config = replace(plain, consensus=replace(plain.consensus, left_out_ms=LEFT_OUT_MS))
    wish = Wish(accounts=20, config=config, seed=seed)
    victim = derived_key(seed, "account", "alice").address

    def command(node: NetworkNode, own_clock: bool) -> tuple[str, ...]:
        if node.name != CENSOR:
            return start_command(node, own_clock)
        return (sys.executable, "-P", str(PROGRAM), str(node.home), victim.hex())

    with Devnet(tmp_path / "net", wish=wish, command=command) as net:
        assert net.call(HONEST[0], "qenex_status")["primary"] == CENSOR
        alice, bob = net.account_key("alice"), net.account_key("bob").address
        assert alice.address == victim
        with Load(net, HONEST, account=0) as payer, Load(net, HONEST, account=2), net.client(HONEST[1]) as client:
            net.wait_height(3)
            began = time.monotonic()
            client.transfer(alice, bob, 1, QNX, wait_ms=30_000)
            waited_s = time.monotonic() - began
            states = [net.call(name, "consensus_state") for name in HONEST]
        print(f"the censored payment was final after {waited_s:.1f} s, bound {LEFT_OUT_MS} ms; {payer.text()}")
        # It waited for as long as others were preferred, and then for one view change.
        assert LEFT_OUT_MS / 1000 < waited_s < 15
        assert payer.errors == []
        for state in states:
            assert state["primary"] != CENSOR
            assert [change["from_view"] for change in state["view_changes"]] == [0]
            assert set(state["view_changes"][0]["reasons"]) <= {"left_out", "others"}
        assert any("left_out" in state["view_changes"][0]["reasons"] for state in states)
        same_chain(net, net.names)
