"""`qenex tx governance-...`: validators' operators act with what lies in their homes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qenex_node.config import Config
from qenex_node.homes import Home, create_home
from state.address import to_text
from state.keys import SigningKey
from tests.cli.chain_support import network
from tests.qenex_node.client.client_support import ANN
from tests.state.ledger.council import consensus_key, node_key


@pytest.fixture
def net(tmp_path, monkeypatch):
    with network(tmp_path, monkeypatch) as made:
        yield made


def home_of(net, number: int, name: str | None = None, keys: tuple[SigningKey, SigningKey] | None = None):
    """A validator's home on the network's chain, its keys plain; the database is not needed."""
    name = name or f"v{number}"
    config = Config()
    port = int(net.rpc.rpartition(":")[2])
    config = replace(config, node=replace(config.node, name=name), rpc=replace(config.rpc, port=port))
    consensus, node = keys or (consensus_key(number), node_key(number))
    path = net.folder / f"home-{name}-{number}"
    create_home(path, config, passphrase=None, node_key=node, validator_key=consensus)
    (path / "genesis.json").write_text(json.dumps(net.node.world.genesis.to_json()))
    Home(path).data.mkdir()
    return path


def card_of(qenex, home):
    out = home / "card.json"
    ended = qenex("tx", "governance-card", "--home", home, "--out", out, "--json")
    assert ended.code == 0, ended
    assert json.loads(out.read_text()) == ended.json
    return out


def test_a_validator_is_added_with_its_card_and_the_homes_of_three_others(net, qenex):
    homes = [home_of(net, number) for number in range(3)]
    card = card_of(qenex, home_of(net, 4))
    told = qenex("tx", "governance-propose", "--add", card, "--home", homes[0], "--wait", "--json")
    assert told.code == 0, told
    assert told.json["receipt"]["events"][0]["fields"]["validator"] == "v4"
    assert "add v4" in qenex("query", "proposals").out
    for home in homes[1:]:
        ended = qenex("tx", "governance-vote", "1", "--approve", "--home", home, "--wait")
        assert ended.code == 0, ended
    assert [v.name for v in net.node.world.validators.validators] == ["v0", "v1", "v2", "v3", "v4"]
    assert qenex("query", "proposals", "--json").json == {"proposals": []}
    (closed,) = qenex("query", "proposals", "--closed", "--json").json["proposals"]
    assert closed["status"] == "in_force"
    assert "in_force" in qenex("query", "proposal", "1").out
    shown = qenex("query", "validator", "v4")
    assert to_text(consensus_key(4).address) in shown.out
    assert "offences        none" in shown.out
    refused = qenex("tx", "governance-vote", "1", "--reject", "--home", homes[1], "--wait")
    assert "proposal_closed" in refused.err


def test_keys_are_rotated_with_the_card_of_a_second_home(net, qenex):
    homes = [home_of(net, number) for number in range(3)]
    # The node key stays, the consensus key is new.
    card = card_of(qenex, home_of(net, 12, "v1", (consensus_key(12), node_key(1))))
    proposed = qenex("tx", "governance-propose", "--replace", card, "--home", homes[0], "--wait", "--json")
    assert proposed.code == 0, proposed
    told = qenex("query", "proposal", "1", "--json").json
    assert (told["key"], told["node_key"]) == ("0x" + consensus_key(12).public.data.hex(), None)
    for home in homes[1:]:
        assert qenex("tx", "governance-vote", "1", "--approve", "--home", home, "--wait").code == 0
    assert net.node.world.validators.index_of(consensus_key(12).public.data) == 1
    # The operator account is still that of the old key.
    second = net.folder / "home-v1-12"
    refused = qenex("tx", "governance-propose", "--remove", "v3", "--home", second, "--wait")
    assert "signatures_missing" in refused.err
    assert "that is the operator of v1: give its keys with --key" in refused.err
    old = Home(homes[1]).validator_key_file
    signed = qenex("tx", "governance-propose", "--remove", "v3", "--home", second, "--key", old, "--wait")
    assert "validators_too_few" in signed.err


def test_a_removal_an_operator_and_what_is_refused(net, qenex):
    home = home_of(net, 0)
    refused = qenex("tx", "governance-propose", "--remove", "v3", "--home", home, "--wait")
    assert "validators_too_few" in refused.err
    both = qenex("tx", "governance-propose", "--remove", "v3", "--replace-operator", "v1", "--home", home)
    assert "give one of" in both.err
    alone = qenex("tx", "governance-propose", "--replace-operator", "v1", "--home", home)
    assert "--operator" in alone.err
    terms = ("--operator", to_text(ANN.address), "--from-height", "50", "--expires-in", "3600")
    assert qenex("tx", "governance-propose", "--replace-operator", "v1", *terms, "--home", home, "--wait").code == 0
    told = qenex("query", "proposal", "1", "--json").json
    assert (told["change"], told["validator"], told["from_height"]) == ("replace", "v1", 50)
    nameless = qenex("tx", "governance-vote", "1", "--approve", "--home", net.folder, "--rpc", net.rpc)
    assert "name_needed" in nameless.err


def test_a_proposal_is_signed_elsewhere_from_a_draft(net, qenex):
    home = home_of(net, 1)
    draft = net.folder / "draft.json"
    operator = to_text(consensus_key(0).address)
    ended = qenex(
        "tx", "governance-propose", "--remove", "v3", "--by", "v0", "--from", operator, "--draft", draft, "--home", home
    )
    assert ended.code == 0, ended
    assert "missing: 1 of" in ended.out
    assert "governance_propose" in qenex("tx", "show", draft).out


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ({"format": "qenex-validator-card"}, "card_invalid"),
        ({"version": 2}, "version_unknown"),
        ({"name": "v5"}, "card_invalid"),
        ({"key_proof": "0x" + "11" * 64}, "card_invalid"),
        ({"key": None}, "card_invalid"),
        ({"genesis_hash": "0x" + "11" * 32}, "card_invalid"),
    ],
)
def test_a_card_that_is_not_its_owners_for_this_chain_is_refused(net, qenex, spoil, code):
    home = home_of(net, 0)
    card = card_of(qenex, home_of(net, 4))
    card.write_text(json.dumps({**json.loads(card.read_text()), **spoil}))
    ended = qenex("tx", "governance-propose", "--add", card, "--home", home)
    assert code in ended.err
