"""`qenex query`: what is shown, what is proved, and that a lie ends with the exit code for it."""

import json

import pytest

from state.address import to_text
from tests.cli.chain_support import network
from tests.qenex_node.client.client_support import ANN, CEM, certified, key
from tests.state.ledger.world import pay


@pytest.fixture
def net(tmp_path, monkeypatch):
    with network(tmp_path, monkeypatch) as made:
        for amount in (1, 2):
            made.node.commit(made.node.world.tx(ANN, pay(CEM.address, amount)))
        yield made


def tx_id(net, height=2):
    return "0x" + net.node.world.executed[height].transactions[0].id.hex()


def questions(net):
    return [
        ("account", "ann"),
        ("balance", "ann"),
        ("asset", "QNX"),
        ("tx", tx_id(net)),
        ("receipt", tx_id(net)),
        ("block",),
        ("block", "1"),
        ("block", "0x" + net.node.world.headers[1].hash.hex()),
        ("blocks",),
        ("blocks", "--from", "1", "--limit", "2"),
        ("validators",),
        ("status",),
        ("history", "ann"),
    ]


def test_every_query_answers_people_and_programs_believed_and_proved(net, qenex):
    for question in questions(net):
        for options in ((), ("--prove",)):
            told = qenex("query", *question, *options)
            assert (told.code, told.err) == (0, ""), (question, told)
            assert told.out
            document = qenex("query", *question, *options, "--json").json
            if isinstance(document, dict) and "proved" in document:
                assert document["proved"] is (options == ("--prove",))


def test_an_account_is_shown_with_decimals_to_people_and_base_units_to_programs(net, qenex):
    assert "0.999997 QNX" in qenex("query", "account", "ann").out
    document = qenex("query", "account", to_text(ANN.address), "--json").json
    assert document["balances"] == {"QNX": {"available": "999997", "held": "0"}}
    assert document["lanes"] == [2]
    assert qenex("query", "balance", "ann", "--height", "1", "--prove", "--json").json["available"] == "999999"


def test_a_transaction_is_shown_with_its_block_and_its_lane(net, qenex):
    shown = qenex("query", "tx", tx_id(net)).out
    assert "height 2, index 0" in shown
    assert f"{to_text(ANN.address)} (ann)" in shown
    told = qenex("query", "tx", tx_id(net), "--json").json
    assert (told["transaction"]["lane"], told["transaction"]["sequence"]) == (0, 1)


def test_a_history_says_that_it_is_not_proved_even_where_proofs_were_asked_for(net, qenex):
    assert "as the node says" in qenex("query", "history", "ann", "--prove").out


def test_unknown_things_are_told_as_such(net, qenex):
    assert qenex("query", "asset", "EUR").code == 41
    assert qenex("query", "tx", "0x" + "11" * 32, "--json").json["status"] == "unknown"
    assert qenex("query", "tx", "nonsense").code != 0
    assert "sent      0" in qenex("query", "account", to_text(key(77).address), "--prove").out


def test_a_proof_of_any_key_is_checked(net, qenex):
    for parts, present in (
        (("account", "ann"), True),
        (("asset", "QNX"), True),
        (("asset", "EUR"), False),
        (("balance", "ann", "QNX"), False),
        (("parameter", "drift_ms"), True),
        (("validators",), True),
        (("issuer", to_text(key(0).address)), True),
    ):
        ended = qenex("query", "proof", *parts, "--json")
        assert ended.code == 0, ended
        assert (ended.json["value"] is not None) is present
        assert ended.json["proved"] is True


def test_what_is_trusted_is_the_genesis_document_that_was_given(net, qenex, tmp_path):
    document = json.loads((tmp_path / ".devnet" / "genesis.json").read_text())
    document["time_ms"] += 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    ended = qenex("query", "account", "ann", "--genesis", other)
    assert ended.code == 44
    assert "certificate" in ended.err
    (tmp_path / ".devnet" / "genesis.json").unlink()
    assert "trust_missing" in qenex("query", "proof", "account", "ann").err


def test_a_block_that_other_validators_signed_is_refused(net, qenex):
    strangers = [key(7000 + n) for n in range(4)]
    node = net.node
    node.world.certificate_at = lambda height: certified(
        node.world.headers[height], node.context.genesis_hash, keys=strangers
    )
    assert qenex("query", "account", "ann").code == 0
    assert qenex("query", "account", "ann", "--prove").code == 44


def test_old_answers_are_refused_when_their_age_is_bounded(net, qenex):
    assert qenex("query", "account", "ann", "--prove", "--max-age", "3600", "--min-height", "2").code == 0
    ended = qenex("query", "account", "ann", "--prove", "--min-height", "3")
    assert ended.code == 44
    assert "stale" in ended.err
    assert qenex("query", "account", "ann", "--min-height", "3").code != 0
