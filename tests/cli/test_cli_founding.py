"""From keys made at home to a chain: init, cards, genesis, init again; and whole test networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.keyring import load
from cli.settings import Settings
from qenex_node.config import load as load_config
from qenex_node.exitcodes import ExitCode
from qenex_node.homes import open_home
from qenex_node.options import store_options
from qenex_node.testnet import NATIVE, bulk_key, read_testnet
from state.address import to_text
from state.ledger import Ledger
from state.ledger.overlay import read_account
from state.store import Store
from tests.cli.cli_support import Qenex

OWNER = "qx1rmczaag9dz4u32qmpfpzyjtd00kqmg8q3cmucma7dfrhpwvpr3hq296sgc"
ASSET = ("--asset", f"QNX,2,{OWNER}")


def card(qenex: Qenex, home: Path, name: str) -> Path:
    ended = qenex("init", "--home", home, "--name", name, "--plain", "--advertise", f"{name}:27100", "--json")
    assert ended.code == 0, ended.out
    return home / "validator.card.json"


def test_institutions_make_a_chain_of_cards(qenex: Qenex, tmp_path: Path) -> None:
    cards = [card(qenex, tmp_path / name, name) for name in ("bank-a", "bank-b", "bank-c")]
    file = tmp_path / "genesis.json"
    held = ("--account", f"{OWNER},QNX=1000.50")
    create = ("genesis", "create", "--file", file, "--chain-id", "pay-1", *ASSET, *held, "--parameter", "drift_ms=900")
    created = qenex(*create, "--card", cards[0], "--card", cards[1], "--json").json
    added = qenex("genesis", "add", cards[2], "--file", file, "--json").json
    assert created["hash"] != added["hash"]
    verified = qenex("genesis", "verify", "--file", file, "--json").json
    assert verified == added
    assert [v["name"] for v in verified["validators"]] == ["bank-a", "bank-b", "bank-c"]
    assert verified["validators"][0]["p2p"] == "bank-a:27100"
    assert verified["supplies"] == {"QNX": "100050"}
    assert (verified["quorum"], verified["accounts"]) == (2, 1)
    done = qenex("init", "--home", tmp_path / "bank-a", "--genesis", file, "--json").json
    assert (done["genesis_hash"], done["vote_records_created"]) == (verified["hash"], True)
    assert done["node_id"].startswith("0x"), "as RPC writes it"
    node_home = open_home(tmp_path / "bank-a")
    assert node_home.genesis.parameters.drift_ms == 900


def test_a_forged_card_is_refused_wherever_it_comes_in(qenex: Qenex, tmp_path: Path) -> None:
    good, other = card(qenex, tmp_path / "a", "bank-a"), card(qenex, tmp_path / "b", "bank-b")
    file = tmp_path / "genesis.json"
    create = ("genesis", "create", "--file", file, "--chain-id", "pay-1", *ASSET, "--json")
    assert qenex(*create, "--card", good).code == 0
    forged = tmp_path / "forged.json"
    document = json.loads(other.read_text())
    forged.write_text(json.dumps(document | {"key": json.loads(good.read_text())["key"]}))
    ended = qenex("genesis", "add", forged, "--file", file, "--json")
    assert (ended.code, ended.json["error"]["code"]) == (ExitCode.GENESIS, "card_invalid")
    text = json.loads(file.read_text())
    text["cards"][0]["proof"] = "0x" + "00" * 64
    file.write_text(json.dumps(text))
    ended = qenex("genesis", "verify", "--file", file, "--json")
    assert (ended.code, ended.json["error"]["code"]) == (ExitCode.GENESIS, "card_invalid")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--asset", f"QNX,2,{OWNER[:-1]}x"),
        ("--asset", "QNX,2"),
        ("--asset", f"QNX,19,{OWNER}"),
        ("--asset", f"EUR,2,{OWNER}"),
        (*ASSET, "--account", f"{OWNER},QNX=1.001"),
        (*ASSET, "--account", f"{OWNER},EUR=1"),
        (*ASSET, "--parameter", "drift_ms=1"),
        (*ASSET, "--parameter", "nothing=1"),
    ],
)
def test_what_cannot_found_a_chain_is_refused_and_writes_nothing(
    qenex: Qenex, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    made = card(qenex, tmp_path / "a", "bank-a")
    file = tmp_path / "genesis.json"
    ended = qenex("genesis", "create", "--file", file, "--chain-id", "x", "--card", made, *arguments, "--json")
    assert ended.code not in (0, 1)
    assert not file.exists()


def test_init_refuses_what_it_cannot_do_and_changes_nothing(qenex: Qenex, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "a", "--json")
    assert qenex("init", *home, "--plain").json["error"]["code"] == "name_needed"
    assert qenex("init", *home, "--plain", "--name", "Bank A").json["error"]["code"] == "config_invalid"
    refused = qenex("init", *home, "--name", "bank-a").json["error"]
    assert refused["code"] == "passphrase_needed"
    assert "--passphrase-file" in refused["message"]
    listen = qenex("init", *home, "--plain", "--name", "bank-a", "--listen", "nowhere")
    assert listen.json["error"]["code"] == "config_invalid"
    assert not (tmp_path / "a").exists()
    assert qenex("init", *home, "--plain", "--name", "bank-a").code == 0
    again = qenex("init", *home, "--plain", "--name", "bank-a")
    assert (again.code, again.json["error"]["code"]) == (ExitCode.HOME, "home_exists")


def test_cards_of_others_become_peers(qenex: Qenex, tmp_path: Path) -> None:
    other = card(qenex, tmp_path / "b", "bank-b")
    qenex("init", "--home", tmp_path / "a", "--name", "bank-a", "--plain", "--card", other, "--peer", "bank-c@c:1")
    assert load_config(tmp_path / "a" / "config.toml").p2p.peers == ("bank-c@c:1", "bank-b@bank-b:27100")


def network_at(qenex: Qenex, directory: Path, *more: object) -> Any:
    ended = qenex("testnet", "--output", directory, "--seed", "s", "--json", *more)
    assert ended.code == 0, ended.out
    return ended.json


def test_a_seed_gives_the_same_network_each_time(qenex: Qenex, tmp_path: Path) -> None:
    first = network_at(qenex, tmp_path / "a", "--accounts", 3)
    second = network_at(qenex, tmp_path / "b", "--accounts", 3)
    assert first["genesis_hash"] == second["genesis_hash"]
    assert [account["address"] for account in first["accounts"]] == [a["address"] for a in second["accounts"]]
    other = qenex("testnet", "--output", tmp_path / "c", "--seed", "t", "--json").json
    assert other["genesis_hash"] != first["genesis_hash"]


def test_a_test_network_is_wired_funded_and_ready(qenex: Qenex, tmp_path: Path) -> None:
    made = network_at(qenex, tmp_path / "net", "--full-nodes", 1, "--accounts", 50, "--base-port", 30000)
    assert [node["role"] for node in made["nodes"]] == ["validator"] * 4 + ["full"]
    roots = set()
    for node in made["nodes"]:
        node_home = open_home(Path(node["home"]))
        assert f"http://127.0.0.1:{node_home.config.rpc.port}" == node["rpc"]
        store = Store.open(node_home.home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
        try:
            roots.add(store.head.state_root)
            assert store.votes_exist == (node["role"] == "validator")
            bulk = read_account(store, bulk_key("s", 49).address)
            assert bulk is not None
            assert bulk.balances is not None
            assert bulk.balances[NATIVE][0] > 0
        finally:
            store.close()
    assert len(roots) == 1
    network = read_testnet(tmp_path / "net")
    assert [node.name for node in network.nodes] == [node["name"] for node in made["nodes"]]
    dialed = {node.name: load_config(node.home / "config.toml").p2p.peers for node in network.nodes}
    assert dialed["validator-01"] == ()
    assert len(dialed["full-01"]) == 4
    key = load(Settings(home_given=tmp_path / "net"), "alice", lambda: b"")
    assert to_text(key.address) == next(a["address"] for a in made["accounts"] if a["name"] == "alice")


def test_a_test_network_is_never_overwritten(qenex: Qenex, tmp_path: Path) -> None:
    network_at(qenex, tmp_path / "net", "--validators", 1)
    ended = qenex("testnet", "--output", tmp_path / "net", "--json")
    assert ended.json["error"]["code"] == "home_exists"


def test_ports_that_do_not_exist_are_refused(qenex: Qenex, tmp_path: Path) -> None:
    ended = qenex("testnet", "--output", tmp_path / "net", "--base-port", 65535, "--json")
    assert ended.json["error"]["code"] == "testnet_invalid"
    assert not (tmp_path / "net").exists()
