"""`qenex light`: an honest node passes, each lie ends with the exit code for it, and what was seen is remembered."""

import json
from dataclasses import replace

import pytest

from state.address import to_text
from state.hashing import sha256
from tests.cli.chain_support import network
from tests.qenex_node.client.client_support import ANN, BOB, CEM, certified
from tests.state.ledger.world import pay


@pytest.fixture
def net(tmp_path, monkeypatch):
    with network(tmp_path, monkeypatch) as made:
        commit(made, 1)
        commit(made, 2)
        yield made


def commit(net, amount):
    return net.node.commit(net.node.world.tx(ANN, pay(CEM.address, amount)))


def trust_file(net):
    return net.folder / ".devnet" / "light.json"


def test_an_honest_node_passes_and_its_newest_block_is_remembered(net, qenex):
    tx_id = "0x" + net.node.world.executed[1].transactions[0].id.hex()
    named = ["--account", "ann", "--balance", f"{to_text(CEM.address)}:QNX", "--asset", "QNX", "--receipt", tx_id]
    told = qenex("light", *named, "--json")
    assert (told.code, told.err) == (0, "")
    (node,) = told.json["nodes"]
    assert (node["height"], node["validators"], node["signed_by"]) == (2, 4, 3)
    assert [entry["what"] for entry in node["checked"]] == [
        "block",
        "validators",
        "account",
        "asset",
        "balance",
        "receipt",
    ]
    assert json.loads(trust_file(net).read_text())["height"] == 2
    assert "block 2 is final, signed by 3 of 4" in qenex("light").out


def test_following_tells_each_new_head_once(net, qenex):
    told = qenex("light", "--follow", "--for", "1", "--json")
    assert told.code == 0
    assert [json.loads(line)["height"] for line in told.out.splitlines()] == [2]


LIES = {
    "read_account": (("--account", "ann"), lambda honest: lambda reader, who: honest(reader, BOB.address)),
    "read_balance": (("--balance", "ann:QNX"), lambda honest: lambda reader, who, asset: (7, 0)),
    "read_asset": ((), lambda honest: lambda reader, code: replace(honest(reader, code), supply=1)),
}


@pytest.mark.parametrize("read", LIES)
def test_a_node_that_tells_other_than_it_proves_is_found_out(net, qenex, monkeypatch, read):
    options, lie = LIES[read]
    assert qenex("light", *options).code == 0
    monkeypatch.setattr(net.node.ledger, read, lie(getattr(net.node.ledger, read)))
    told = qenex("light", *options, "--json")
    assert told.code == 44
    assert told.json["error"]["data"]["lie"] == "value"


def test_a_node_with_a_forged_head_is_found_out(net, qenex):
    world = net.node.world
    world.certificate_at = lambda height: certified(
        world.headers[height], net.node.context.genesis_hash, signers=(0, 1)
    )
    told = qenex("light", "--json")
    assert (told.code, told.json["error"]["data"]["lie"]) == (44, "certificate")
    assert not trust_file(net).exists()


def test_a_node_that_shows_less_than_was_seen_is_stale(net, qenex):
    assert qenex("light").code == 0
    world = net.node.world
    world.head = world.headers[1]
    told = qenex("light", "--json")
    assert (told.code, told.json["error"]["data"]["lie"]) == (44, "stale")


def test_a_second_certified_block_of_a_height_that_was_seen_is_a_fork(net, qenex):
    assert qenex("light").code == 0
    world = net.node.world
    world.headers[2] = replace(world.headers[2], state_root=sha256(b"fork"))
    commit(net, 3)
    world.headers[3] = world.head = replace(world.headers[3], parent_hash=world.headers[2].hash)
    told = qenex("light", "--json")
    assert (told.code, told.json["error"]["code"]) == (46, "fork_proved")


def test_a_block_may_be_trusted_by_its_hash_and_another_hash_is_refused(net, qenex):
    right = "0x" + net.node.world.headers[1].hash.hex()
    assert qenex("light", "--trust", f"1:{right}").code == 0
    told = qenex("light", "--trust", f"2:{right}", "--json")
    assert (told.code, told.json["error"]["data"]["lie"]) == (44, "header")
    assert qenex("light", "--trust", f"0:{right}").code == 41
    assert qenex("light", "--trust", right).code == 41


def test_a_trust_file_of_another_chain_or_damaged_is_refused(net, qenex):
    assert qenex("light").code == 0
    good = json.loads(trust_file(net).read_text())
    block = good["light_block"]
    for change in (
        {"genesis_hash": "0x" + "00" * 32},
        {"version": 2},
        {"light_block": block[:-2] + ("00" if block[-2:] != "00" else "01")},
        {"light_block": block[:-2]},
    ):
        trust_file(net).write_text(json.dumps(good | change))
        assert qenex("light", "--json").json["error"]["code"] == "trust_file_invalid"
    trust_file(net).write_text("{")
    assert qenex("light", "--json").json["error"]["code"] == "trust_file_invalid"


def test_a_trusted_block_that_is_too_old_is_not_gone_on_from(net, qenex, monkeypatch):
    from qenex_node.client import session

    monkeypatch.setattr(session, "wall_clock_ms", lambda: net.node.world.head.time_ms + 3 * 24 * 3600 * 1000)
    told = qenex("light", "--trusted-within", "1", "--json")
    assert told.json["error"]["code"] == "trust_expired"
    assert qenex("light", "--trusted-within", "4").code == 0


def test_without_a_genesis_document_nothing_is_trusted(net, qenex, tmp_path):
    told = qenex("light", "--genesis", tmp_path / "none.json", "--json")
    assert told.json["error"]["code"] == "trust_missing"
