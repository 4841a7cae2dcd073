"""Two of four validators lose their databases: the chain halts by design, all report, all apply, and it goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration_support import pay, same_chain, trusting_client

from devnet.network import Devnet
from qenex_node.client import ClientError
from qenex_node.exitcodes import ExitCode
from state.store.verify import verify

KEPT = ["validator-01", "validator-02"]
WIPED = ["validator-03", "validator-04"]
ALL = [*KEPT, *WIPED]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Devnet]:
    with Devnet(tmp_path / "net", accounts=20) as network:
        yield network


def tool(net: Devnet, name: str, command: str, *arguments: object) -> tuple[int, Any]:
    line = [sys.executable, "-P", "-m", "cli.main", command, "--home", str(net.node(name).home), "--json"]
    done = subprocess.run([*line, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_two_wiped_validators_halt_the_chain_until_a_statement_of_all_and_nothing_final_is_lost(
    net: Devnet, tmp_path: Path
) -> None:
    alice, bob = net.account_key("alice"), net.account_key("bob").address
    with trusting_client(net, *ALL) as client:
        for amount in range(1, 6):
            pay(client, alice, bob, amount)
        final = client.balance(bob, "QNX")
    head = net.wait_same_head(ALL)

    # The disks of two are gone; the others are killed, as if the power failed for all.
    net.kill(*ALL)
    for name in WIPED:
        shutil.rmtree(net.node(name).home / "data")
        code, told = tool(net, name, "init", "--genesis", net.node(name).home / "genesis.json")
        assert code == 0, told
    # One of the wiped ones is started before anybody knows what happened: it fetches the chain and signs nothing.
    net.start(KEPT[0])
    net.start(KEPT[1])
    net.start(WIPED[0])
    net.wait_height(head["height"], [WIPED[0]])
    net.wait_unready(WIPED[0], "votes_missing")
    with net.client(KEPT[0]) as client, pytest.raises(ClientError):
        pay(client, alice, bob, 100, wait_ms=1500)
    assert {net.height(name) for name in (*KEPT, WIPED[0])} == {head["height"]}
    code, told = tool(net, KEPT[0], "recover", "--quorum-lost", "--yes", "--report", tmp_path / "early.json")
    assert (code, told["error"]["code"]) == (ExitCode.STORE_LOCKED, "store_locked")
    for name in (*KEPT, WIPED[0]):
        assert net.stop(name) == 0

    # Each operator reports; a home that has reported signs nothing, also if it is started by mistake.
    files = {name: tmp_path / f"{name}.json" for name in ALL}
    for name in ALL:
        code, told = tool(net, name, "recover", "--quorum-lost", "--yes", "--report", files[name])
        assert (code, told["records_lost"]) == (0, name in WIPED), told
    stated = []
    for name in ALL:
        code, told = tool(net, name, "recover", "--quorum-lost", "--yes", *files.values())
        assert code == 0, told
        stated.append((told["statement"], told["head"], told["head_hash"], told["kept"], told["wiped"]))
    assert len(set(map(str, stated))) == 1
    assert stated[0][1:] == (head["height"], head["hash"], KEPT, WIPED)

    for name in ALL:
        net.start(name, wait=False)
    net.wait_ready(ALL)
    with trusting_client(net, *ALL) as client:
        assert client.balance(bob, "QNX", head["height"]) == final
        before = client.balance(bob, "QNX").available
        # Well beyond the heights for which the statement binds.
        for _ in range(6):
            pay(client, alice, bob)
        assert client.balance(bob, "QNX").available == before + 6
    same_chain(net, ALL)
    for name in ALL:
        assert net.call(name, "qenex_getBlock", head["height"])["header"]["hash"] == head["hash"]
        assert net.call(name, "consensus_evidence")["evidence"] == []
    # The wiped ones sign again: without either one of the others a block still is final.
    net.kill(KEPT[0])
    with trusting_client(net, *KEPT[1:], *WIPED) as client:
        pay(client, alice, bob, wait_ms=30_000)
    net.stop_all()
    home = net.node(WIPED[1]).home
    report = verify(home / "data", net.genesis, _ledger(), state_file=_state_file(home))
    assert report.ok, report.findings


def _ledger() -> Any:
    from state.ledger import Ledger

    return Ledger()


def _state_file(home: Path) -> Path | None:
    from qenex_node.homes import open_home

    return open_home(home).state_file
