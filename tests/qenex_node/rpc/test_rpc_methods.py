"""Each method against a real ledger, tree and mempool: what it answers, and what it refuses."""

import json

import pytest

from qenex_node.rpc import render
from qenex_node.rpc.view import EvidenceInfo
from state import rfc6962
from state.address import to_text
from state.block import tx_root
from state.codec import encode
from state.hashing import sha256
from state.keys import ML_DSA_65
from state.ledger import DEFAULT_PLUGINS, Ledger
from state.ledger.account import Account, account_key
from state.ledger.fields import INTEGER, record
from state.ledger.plugin import Extension, Plugin
from state.transaction import wire_hash_of
from state.tree.proof import Proof, verify
from tests.qenex_node.rpc.rpc_support import (
    ANN,
    ANN_TEXT,
    BOB,
    CEM,
    CEM_TEXT,
    FakeNode,
    hexed,
    pay_tx,
    refused,
    with_node,
)
from tests.state.ledger.world import key, pay_all


def test_status_tells_the_chain_and_where_the_node_stands():
    async def test(node, http):
        head = node.commit(pay_tx(node)).block.header
        assert await http.call("qenex_status") == {
            "chain_id": "test-1",
            "genesis_hash": hexed(node.context.genesis_hash),
            "head": {
                "height": 1,
                "hash": hexed(head.hash),
                "time_ms": head.time_ms,
                "state_root": hexed(head.state_root),
            },
            "view": 0,
            "primary": "v0",
            "sync": {"syncing": False, "target_height": 1},
            "version": "0.1.0",
            "node_id": hexed(bytes(32)),
            "role": "validator",
        }

    with_node(test)


@pytest.mark.parametrize("in_feed", [True, False])
def test_a_block_is_shown_by_height_by_hash_and_as_the_latest(in_feed):
    async def test(node, http):
        txs = [pay_tx(node), pay_tx(node, BOB, ANN, 10**9)]
        block = node.commit(*txs, in_feed=in_feed).block
        shown = await http.call("qenex_getBlock", 1, "full")
        assert shown == await http.call("qenex_getBlock", hexed(block.header.hash), "full")
        assert shown == await http.call("qenex_getBlock", "latest", "full")
        assert shown["header"]["hash"] == hexed(block.header.hash)
        assert shown["certificate"]["signatures"][1] == {"validator": 2, "signature": hexed(bytes([1]) * 64)}
        assert (shown["transaction_count"], shown["next_offset"], shown["evidence"]) == (2, None, [])
        wires = [bytes.fromhex(entry["transaction"]["wire"][2:]) for entry in shown["transactions"]]
        assert hexed(tx_root([wire_hash_of(wire) for wire in wires])) == shown["header"]["tx_root"]
        assert [entry["receipt"]["code"] for entry in shown["transactions"]] == ["ok", "balance_insufficient"]
        ids = (await http.call("qenex_getBlock", 1))["transactions"]
        assert ids == [hexed(tx.id) for tx in txs]
        header = await http.call("qenex_getBlock", verbosity="header")
        assert sorted(header) == ["certificate", "header"]

    with_node(test)


def test_a_large_block_comes_in_pages():
    async def test(node, http):
        node.commit(*[pay_tx(node) for _ in range(120)])
        seen, offset = [], 0
        while offset is not None:
            page = await http.call("qenex_getBlock", 1, "ids", offset, 50)
            seen += page["transactions"]
            offset = page["next_offset"]
        assert seen == (await http.call("qenex_getBlock", 1))["transactions"]
        assert len(seen) == 120
        assert (await http.call("qenex_getBlock", 1, "ids", 500))["transactions"] == []

    with_node(test)


def test_block_zero_has_no_certificate_and_unknown_blocks_are_told_apart():
    async def test(node, http):
        zero = await http.call("qenex_getBlock", 0)
        assert (zero["certificate"], zero["transactions"]) == (None, [])
        ahead = await refused(http, "qenex_getBlock", 9)
        assert (ahead.code, ahead.data["height"], ahead.data["head_height"]) == (-32005, 9, 0)
        unknown = await refused(http, "qenex_getBlock", hexed(bytes(32)))
        assert (unknown.code, unknown.reason) == (-32002, "block_unknown")

    with_node(test)


def test_headers_come_in_pages_from_a_height_or_as_the_newest():
    async def test(node, http):
        for _ in range(6):
            node.commit(pay_tx(node))
        page = await http.call("qenex_getBlocks", 2, 3)
        assert ([header["height"] for header in page["headers"]], page["next"]) == ([2, 3, 4], 5)
        page = await http.call("qenex_getBlocks", 5, 3)
        assert ([header["height"] for header in page["headers"]], page["next"]) == ([5, 6], None)
        page = await http.call("qenex_getBlocks", limit=2)
        assert [header["height"] for header in page["headers"]] == [5, 6]
        assert page["headers"][1]["parent_hash"] == page["headers"][0]["hash"]

    with_node(test)


def test_validators_are_those_in_force():
    async def test(node, http):
        shown = await http.call("qenex_getValidators")
        assert (shown["height"], shown["quorum"], shown["f"]) == (1, 3, 1)
        assert shown["hash"] == hexed(node.world.validators.hash)
        first = node.world.validators.validators[0]
        assert shown["validators"][0] == {"name": "v0", "key": hexed(first.key), "node_key": hexed(first.node_key)}
        assert (await http.call("qenex_getValidators", 0))["height"] == 0
        assert (await refused(http, "qenex_getValidators", 2)).code == -32005

    with_node(test)


def test_a_light_block_shows_what_a_light_client_needs_of_a_height():
    async def test(node, http):
        assert (await refused(http, "qenex_getLightBlock")).data["reason"] == "not_certified"
        assert (await refused(http, "qenex_getLightBlock", 0)).data["reason"] == "not_certified"
        node.commit(pay_tx(node))
        shown = await http.call("qenex_getLightBlock", 1)
        assert shown["header"]["height"] == 1
        assert shown["certificate"] == (await http.call("qenex_getBlock", 1))["certificate"]
        assert shown["validators"]["hash"] == shown["header"]["validators_hash"]
        assert await http.call("qenex_getLightBlock") == shown
        assert (await refused(http, "qenex_getLightBlock", 2)).code == -32005

    with_node(test)


def test_an_account_shows_lanes_balances_and_the_next_free_sequences():
    async def test(node, http):
        node.commit(pay_tx(node, lane=2))
        await http.call("qenex_sendTransaction", hexed(pay_tx(node).wire))
        shown = await http.call("qenex_getAccount", ANN_TEXT)
        assert (shown["exists"], shown["height"], shown["policy"]) == (True, 1, None)
        assert shown["lanes"][:4] == [0, 0, 1, 0]
        assert shown["next_free"][:4] == [1, 0, 1, 0]
        assert len(shown["lanes"]) == len(shown["next_free"]) == 16
        assert shown["balances"] == {"QNX": {"available": "999995", "held": "0"}}
        past = await http.call("qenex_getAccount", ANN_TEXT, 0)
        assert (past["balances"]["QNX"]["available"], past["next_free"], past["height"]) == ("1000000", None, 0)
        nobody = await http.call("qenex_getAccount", to_text(key(77).address))
        assert (nobody["exists"], nobody["balances"], nobody["lanes"]) == (False, {}, [0] * 16)

    with_node(test)


def test_a_stored_policy_is_shown():
    async def test(node, http):
        heir = key(5, ML_DSA_65)
        operation = node.ledger.build(
            "set_policy",
            {"policy": {"threshold": 1, "keys": [{"scheme": "ml-dsa-65", "key": hexed(heir.public.data)}]}},
        )
        assert node.commit(node.world.tx(ANN, operation)).receipts[0].code == "ok"
        policy = (await http.call("qenex_getAccount", ANN_TEXT))["policy"]
        assert policy == {"threshold": 1, "keys": [{"scheme": "ml-dsa-65", "key": hexed(heir.public.data)}]}

    with_node(test)


def test_a_balance_and_an_asset():
    async def test(node, http):
        node.commit(pay_tx(node))
        balance = await http.call("qenex_getBalance", CEM_TEXT, "QNX")
        assert balance == {"height": 1, "address": CEM_TEXT, "asset": "QNX", "available": "5", "held": "0"}
        assert (await http.call("qenex_getBalance", CEM_TEXT, "QNX", 0))["available"] == "0"
        asset = await http.call("qenex_getAsset", "QNX")
        assert (asset["supply"], asset["decimals"], asset["issuer"]) == ("2000000", 6, to_text(key(0).address))
        missing = await refused(http, "qenex_getAsset", "EUR")
        assert (missing.code, missing.reason) == (-32002, "asset_unknown")

    with_node(test)


@pytest.mark.parametrize("height", [None, 1, 3])
def test_a_proof_leads_from_the_value_to_the_state_root_of_its_header(height):
    async def test(node, http):
        for _ in range(3):
            node.commit(pay_tx(node))
        for who, known in ((CEM, True), (key(99), False)):
            shown = await http.call("qenex_getProof", ["account", to_text(who.address)], height)
            at = 3 if height is None else height
            assert shown["height"] == shown["header"]["height"] == shown["certificate"]["height"] == at
            assert shown["key"] == hexed(account_key(who.address))
            assert (shown["value"] is not None) == known
            value = bytes.fromhex(shown["value"][2:]) if known else None
            root = bytes.fromhex(shown["header"]["state_root"][2:])
            verify(Proof.from_json(shown["proof"]), root, account_key(who.address), value)
            if known:
                assert Account.decode(value).balances == {"QNX": (5 * at, 0)}
        by_bytes = await http.call("qenex_getProof", hexed(account_key(CEM.address)), height)
        assert by_bytes["value"] is not None

    with_node(test)


@pytest.mark.parametrize(
    "parts", [["validators"], ["parameter", "drift_ms"], ["asset", "QNX"], ["balance", CEM_TEXT, "QNX"]]
)
def test_every_kind_of_state_key_has_a_proof(parts):
    async def test(node, http):
        shown = await http.call("qenex_getProof", parts)
        value = None if shown["value"] is None else bytes.fromhex(shown["value"][2:])
        assert (value is None) == (parts[0] == "balance")
        state_key = encode(tuple(CEM.address if part == CEM_TEXT else part for part in parts))
        verify(Proof.from_json(shown["proof"]), node.world.head.state_root, state_key, value)

    with_node(test)


@pytest.mark.parametrize("bad", ["0xzz", 5, [], [5], ["account", "qx1nonsense"], ["account", None], {}, ["a"] * 9])
def test_a_malformed_state_key_is_refused(bad):
    async def test(node, http):
        failure = await refused(http, "qenex_getProof", bad)
        assert (failure.code, failure.data["param"]) == (-32602, "key")

    with_node(test)


def test_a_pruned_or_future_height_is_named():
    async def test(node, http):
        for _ in range(5):
            node.commit(pay_tx(node))
        node.world.oldest_state_height = 3
        for method, params in (("qenex_getAccount", [ANN_TEXT]), ("qenex_getProof", [["validators"]])):
            pruned = await refused(http, method, *params, 2)
            assert (pruned.code, pruned.data["height"], pruned.data["oldest_height"]) == (-32004, 2, 3)
            assert (await refused(http, method, *params, 6)).code == -32005
            assert (await http.call(method, *params, 3))["height"] == 3

    with_node(test)


def test_the_ledgers_own_queries_are_methods():
    async def test(node, http):
        document = await http.call("rpc.discover")
        names = [method["name"] for method in document["methods"] if method["name"].startswith("ledger_")]
        assert names == [f"ledger_{name}" for name in node.ledger.registry.queries]
        for name, (_, query) in node.ledger.registry.queries.items():
            if name == "governance_proposal":
                continue  # Nobody has proposed anything here.
            answers = {"address": ANN_TEXT, "asset": "QNX", "code": "QNX", "name": "v0"}
            known = {field.name: answers.get(field.name) for field in query.params.fields}
            assert await http.call(f"ledger_{name}", **known) == node.ledger.query(node.world, name, known)

    with_node(test)


def test_the_mempool_tells_counts_and_why_a_transaction_waits():
    async def test(node, http):
        txs = [pay_tx(node), pay_tx(node), pay_tx(node, BOB, sequence=4)]
        for tx in txs:
            await http.call("qenex_sendTransaction", hexed(tx.wire))
        status = await http.call("mempool_status")
        assert (status["count"], status["ready"], status["gap"], status["accounts"]) == (3, 2, 1, 2)
        assert status["bytes"] == sum(len(tx.wire) for tx in txs)
        assert status["oldest_age_ms"] == 0
        second = await http.call("mempool_get", hexed(txs[1].id))
        assert (second["place"], second["waiting"]["code"]) == (1, "next_block")
        third = await http.call("mempool_get", hexed(txs[2].id))
        assert (third["place"], third["waiting"]["code"]) == (None, "sequence_gap")
        assert third["transaction"]["id"] == hexed(txs[2].id)
        failure = await refused(http, "mempool_get", hexed(bytes(32)))
        assert (failure.code, failure.reason) == (-32002, "not_waiting")
        node.commit()
        assert (await http.call("mempool_status"))["count"] == 1

    with_node(test)


def test_peers_consensus_and_evidence_are_shown():
    async def test(node, http):
        peers = (await http.call("net_peers"))["peers"]
        assert [(peer["name"], peer["role"], peer["latency_ms"]) for peer in peers] == [
            ("v1", "validator", 2),
            (None, "full", None),
        ]
        state = await http.call("consensus_state")
        assert (state["phase"], state["votes"]["prepare"], state["timers"]) == ("prepare", ["v0"], {"progress": 800})
        assert state["view_changes"][0]["reasons"] == ["no progress for 1000 ms"]
        node.found = [EvidenceInfo(n, "v3", "commit", n, 0, b"\x01", b"\x02") for n in range(1, 6)]
        shown = (await http.call("consensus_evidence", 2, 2))["evidence"]
        assert [entry["number"] for entry in shown] == [3, 4]

    with_node(test)


def test_a_mass_payment_is_shown_whole():
    async def test(node, http):
        recipients = [(sha256(bytes([n])), n + 1) for n in range(200)]
        tx = node.world.tx(ANN, pay_all(recipients))
        node.commit(tx)
        shown = await http.call("qenex_getReceipt", hexed(tx.id))
        assert shown["code"] == "ok"
        assert all(to_text(address) in json.dumps(shown["events"]) for address, _ in recipients)
        assert rfc6962.root([node.world.executed[1].receipt_bytes[0]]) == node.world.head.receipts_root

    with_node(test)


def test_every_method_is_covered_here_or_with_the_subscriptions():
    node = FakeNode()
    from pathlib import Path

    from qenex_node.rpc.methods import registry

    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for method in registry(node.ledger, "0"):
        assert method.name.startswith("ledger_") or f'"{method.name}"' in texts


def test_an_accounts_extensions_are_shown_as_bytes_and_by_the_fields_of_their_plugin():
    limit = Plugin("limits", "spending limits", extension=Extension("lim", record(("daily", INTEGER, "the limit"))))
    ledger = Ledger((*DEFAULT_PLUGINS, limit))
    account = Account(balances={}, extensions=(("lim", encode((7,))), ("old", b"\x01")))
    shown = render.account(ledger, ANN.address, account, None)["extensions"]
    assert shown == {"lim": {"bytes": "0x9107", "fields": {"daily": 7}}, "old": {"bytes": "0x01", "fields": None}}
