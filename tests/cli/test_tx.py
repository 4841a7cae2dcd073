"""`qenex tx`: what a newcomer types first, every declared operation, and transactions that several people sign."""

import json

import pytest

from state.address import from_text, to_text
from tests.cli.chain_support import network
from tests.qenex_node.client.client_support import ANN, BOB


@pytest.fixture
def net(tmp_path, monkeypatch):
    with network(tmp_path, monkeypatch) as made:
        yield made


def new_key(qenex, name, *options):
    ended = qenex("keys", "new", name, "--plain", "--json", *options)
    assert ended.code == 0, ended
    return from_text(ended.json["address"])


def send(qenex, *arguments):
    ended = qenex("tx", *arguments, "--wait", "--json")
    assert ended.code == 0, ended
    return ended.json


def test_the_first_transaction_is_six_short_commands(net, qenex):
    alice = new_key(qenex, "alice")
    assert qenex("tx", "transfer", "--from", "ann", "--to", "alice", "--amount", "0.5", "--wait").code == 0
    told = qenex("tx", "transfer", "--from", "alice", "--to", "bob", "--amount", "0.2", "--no-wait", "--json").json
    waited = qenex("tx", "wait", told["id"])
    assert waited.code == 0
    assert "final at height 2" in waited.out
    assert f"moved: source {to_text(alice)} (alice), target {to_text(BOB.address)} (bob), amount 0.200000 QNX" in (
        waited.out
    )
    assert "0.300000 QNX" in qenex("query", "balance", "alice").out
    proved = qenex("query", "account", "alice", "--prove")
    assert proved.code == 0
    assert "balance QNX  0.300000 QNX" in proved.out
    assert "proved at height 2, by 3 or more of 4 validators" in proved.out
    assert net.available(alice) == 300_000


def test_amounts_are_decimal_on_the_command_line_alone(net, qenex):
    told = send(qenex, "transfer", "--from", "ann", "--to", "bob", "--amount", "0.000001")
    assert told["receipt"]["events"][0]["fields"]["amount"] == "1"
    refused = qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "0.0000001")
    assert refused.code != 0
    assert "6 decimal places" in refused.err


def test_many_are_paid_in_one_transaction(net, qenex):
    carol = new_key(qenex, "carol")
    send(qenex, "transfer", "--from", "ann", "--to", "bob", "--amount", "0.1", "--to", "carol", "--amount", "0.2")
    assert (net.available(BOB.address), net.available(carol)) == (1_100_000, 200_000)
    uneven = qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "1", "--amount", "2")
    assert "equally often" in uneven.err


def test_an_asset_is_issued_minted_moved_and_burned(net, qenex):
    told = send(qenex, "issue-asset", "--from", "ann", "--code", "EUR", "--decimals", "2", "--flags", "1")
    assert told["receipt"]["code"] == "ok"
    send(qenex, "mint", "--from", "ann", "--asset", "EUR", "--to", "bob", "--amount", "12.50")
    send(qenex, "burn", "--from", "bob", "--asset", "EUR", "--amount", "2.50")
    assert net.available(BOB.address, "EUR") == 1000
    shown = qenex("query", "asset", "EUR", "--prove")
    assert "supply            10.00" in shown.out


def test_a_failed_transaction_ends_with_the_code_for_failed(net, qenex):
    ended = qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "10000", "--wait")
    assert ended.code == 42
    assert "balance_insufficient" in ended.err
    ended = qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "1", "--asset", "EUR")
    assert ended.code == 41
    assert "asset_unknown" in ended.err


def test_another_account_that_is_debited_signs_too_where_its_key_is_here(net, qenex):
    send(qenex, "transfer", "--from", "ann", "--source", "bob", "--to", "ann", "--amount", "0.25")
    assert net.available(ANN.address) == 1_250_000


def test_keys_are_changed_and_the_new_one_signs_for_the_old_address(net, qenex):
    old, _ = new_key(qenex, "safe"), new_key(qenex, "spare", "--scheme", "ml-dsa-65")
    send(qenex, "transfer", "--from", "ann", "--to", "safe", "--amount", "0.5")
    send(qenex, "set-policy", "--from", "safe", "--new-key", "spare")
    refused = qenex("tx", "transfer", "--from", "safe", "--to", "bob", "--amount", "0.1")
    assert "signatures_missing" in refused.err
    send(qenex, "transfer", "--from", "safe", "--key", "spare", "--to", "bob", "--amount", "0.1")
    assert net.available(old) == 400_000


def test_several_people_sign_a_file_apart_without_network(net, qenex, tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        new_key(qenex, name)
    policy, draft, first, second, whole = (str(tmp_path / f"{name}.json") for name in ("policy", *"dfsw"))
    made = qenex("tx", "policy", "--threshold", "2", "--key", "one", "--key", "two", "--key", "three", "--out", policy)
    assert made.code == 0
    shared = qenex("tx", "policy", "--threshold", "2", "--key", "one", "--key", "two", "--key", "three", "--json").json
    send(qenex, "transfer", "--from", "ann", "--to", shared["address"], "--amount", "0.9")
    told = qenex(
        *("tx", "transfer", "--from", shared["address"], "--policy", policy, "--to", "bob", "--amount", "0.4"),
        *("--memo", "rent", "--draft", draft, "--json"),
    )
    assert told.json["missing"] == {shared["address"]: 2}
    monkeypatch.setenv("QENEX_RPC", "http://127.0.0.1:1")
    assert qenex("tx", "sign", draft, "--key", "one", "--out", first).code == 0
    assert qenex("tx", "sign", draft, "--key", "three", "--out", second).code == 0
    assert "missing: 1 of" in qenex("tx", "show", first).out
    assert qenex("tx", "combine", first, second, "--out", whole).code == 0
    shown = qenex("tx", "show", whole)
    assert "complete" in shown.out
    assert "rent" in shown.out
    monkeypatch.delenv("QENEX_RPC")
    assert "signatures_missing" in qenex("tx", "send", first).err
    assert qenex("tx", "send", whole, "--wait", "--json").json["receipt"]["code"] == "ok"
    assert qenex("tx", "send", whole, "--wait", "--json").json["height"] == 2
    assert net.available(BOB.address) == 1_400_000


def test_a_signed_transaction_is_sent_as_hex_too(net, qenex, tmp_path):
    draft = str(tmp_path / "draft.json")
    qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "0.1", "--draft", draft)
    from cli.commands.tx import read_draft

    wire = read_draft(tmp_path / "draft.json").wire()
    assert qenex("tx", "send", "0x" + wire.hex(), "--wait").code == 0
    assert net.available(BOB.address) == 1_100_000


def test_a_changed_file_is_refused(net, qenex, tmp_path):
    draft = tmp_path / "draft.json"
    qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "0.1", "--draft", draft)
    document = json.loads(draft.read_text())
    document["body"] = document["body"][:-2] + "c0"
    draft.write_text(json.dumps(document))
    ended = qenex("tx", "send", draft)
    assert ended.code != 0
    assert "draft_invalid" in ended.err


def test_names_that_are_unknown_or_ambiguous_are_refused(net, qenex):
    ended = qenex("tx", "transfer", "--from", "ann", "--to", "zoe", "--amount", "1")
    assert "known: ann, bob" in ended.err
    new_key(qenex, "bob")
    ended = qenex("tx", "transfer", "--from", "ann", "--to", "bob", "--amount", "1")
    assert "name_ambiguous" in ended.err
    mistyped = to_text(BOB.address)[:-1] + ("q" if to_text(BOB.address)[-1] != "q" else "p")
    ended = qenex("tx", "transfer", "--from", "ann", "--to", mistyped, "--amount", "1")
    assert "checksum" in ended.err
    assert net.node.submits == []


def test_a_node_that_is_not_there_is_told_by_its_own_exit_code(net, qenex):
    ended = qenex("tx", "transfer", "--rpc", "http://127.0.0.1:1", "--from", "ann", "--to", "bob", "--amount", "1")
    assert ended.code == 40
    assert "127.0.0.1:1" in ended.err


def test_help_names_the_declared_fields(qenex):
    for kind, option in (("transfer", "--to"), ("issue-asset", "--decimals"), ("set-policy", "--new-key")):
        ended = qenex("tx", kind, "--help")
        assert ended.code == 0
        assert option in ended.out
