"""The published test vectors hold both ways: what they say encodes to their bytes, and reads back from them."""

import json
from pathlib import Path

import pytest

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import LightBlock, LightClient, TrustedHeader, verify_skipping
from state import rfc6962, slices
from state.address import from_text, to_text
from state.block import Block, evidence_hash, tx_root, verify_certificate, vote_preimage
from state.codec import decode, decode_amount, encode, encode_amount
from state.errors import Rejected
from state.genesis import Genesis
from state.hashing import sha256
from state.keys import Policy, PublicKey, SigningKey, scheme_named, verify_ed25519
from state.ledger import Account, Asset, Event, Ledger, Receipt
from state.ledger.account import account_key, balance_key, decode_balance, encode_balance
from state.ledger.asset import asset_key
from state.ledger.fields import POLICY
from state.store.snapshots import Manifest, Snapshot, prove_chunk
from state.store.snapshots.manifest import encode_chunk
from state.transaction import (
    Authorisation,
    assemble,
    body_value,
    decode_transaction,
    signing_bytes,
    verify_signatures,
    wire_hash_of,
)
from state.tree.hashes import root_of
from state.tree.proof import Proof, verify
from state.types import Certificate, Header, ValidatorSet
from tests.conformance import make_vectors
from tests.qenex_node.client.light_support import drive

DIRECTORY = Path(__file__).parent / "vectors"
LEDGER = Ledger()


def load(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def raw(text):
    assert text.startswith("0x")
    return bytes.fromhex(text[2:])


def ids(entries):
    return [entry.get("what") or entry.get("why") or str(n) for n, entry in enumerate(entries)]


CODEC, AMOUNTS, KEYS, ADDRESSES = load("codec"), load("amounts"), load("keys"), load("addresses")
GENESIS, TRANSACTIONS, RECEIPTS = load("genesis"), load("transactions"), load("receipts")
RECORDS, BLOCKS, PROOFS, LIGHT = load("records"), load("blocks"), load("proofs"), load("light")
SNAPSHOTS = load("snapshots")["snapshots"]
DOCUMENT = Genesis.from_json(GENESIS["document"])


def value_of(json_value):
    if isinstance(json_value, dict):
        return raw(json_value["bytes"]) if "bytes" in json_value else int(json_value["uint"])
    if isinstance(json_value, list):
        return tuple(value_of(item) for item in json_value)
    return json_value


@pytest.mark.parametrize("name", sorted(make_vectors.MAKERS))
def test_the_files_are_what_the_generator_writes(name):
    assert make_vectors.text_of(name) == (DIRECTORY / f"{name}.json").read_text()


@pytest.mark.parametrize("entry", CODEC["values"], ids=lambda entry: entry["encoded"][:20])
def test_values(entry):
    assert encode(value_of(entry["value"])) == raw(entry["encoded"])
    again = decode(raw(entry["encoded"]), bytes_max=1000)
    assert again == value_of(entry["value"])
    assert type(again) is type(value_of(entry["value"]))


@pytest.mark.parametrize("entry", CODEC["refused"], ids=ids(CODEC["refused"]))
def test_bytes_that_are_no_value(entry):
    with pytest.raises(Rejected):
        decode(raw(entry["encoded"]), bytes_max=1000)


@pytest.mark.parametrize("entry", AMOUNTS["amounts"], ids=lambda entry: entry["amount"])
def test_amounts(entry):
    amount = int(entry["amount"])
    assert encode_amount(amount) == raw(entry["bytes"])
    assert decode_amount(raw(entry["bytes"])) == amount
    assert encode(raw(entry["bytes"])) == raw(entry["encoded"])


@pytest.mark.parametrize("entry", AMOUNTS["refused"], ids=lambda entry: entry["bytes"])
def test_bytes_that_are_no_amount(entry):
    with pytest.raises(Rejected):
        decode_amount(raw(entry["bytes"]))


@pytest.mark.parametrize("entry", KEYS["keys"], ids=lambda entry: entry["name"])
def test_keys(entry):
    key = SigningKey(scheme_named(entry["scheme"]).number, raw(entry["seed"]))
    assert key.seed == sha256(entry["name"].encode())
    assert key.public.data == raw(entry["public"])


@pytest.mark.parametrize("entry", KEYS["policies"], ids=lambda entry: entry["text"])
def test_policies(entry):
    policy = POLICY.from_json(entry["policy"], "policy")
    assert encode(policy.to_value()) == raw(entry["encoded"])
    assert Policy.from_value(decode(raw(entry["encoded"]), bytes_max=10_000)) == policy
    assert policy.address == raw(entry["address"])
    assert from_text(entry["text"]) == raw(entry["address"])


@pytest.mark.parametrize("entry", ADDRESSES["addresses"], ids=lambda entry: entry["text"])
def test_addresses(entry):
    assert to_text(raw(entry["bytes"])) == entry["text"]
    assert from_text(entry["text"]) == raw(entry["bytes"])


@pytest.mark.parametrize("entry", ADDRESSES["refused"], ids=ids(ADDRESSES["refused"]))
def test_texts_that_are_no_address(entry):
    with pytest.raises(Rejected):
        from_text(entry["text"])


def test_genesis():
    assert DOCUMENT.encoded == raw(GENESIS["encoded"])
    assert DOCUMENT.hash == raw(GENESIS["hash"])
    assert Genesis.decode(raw(GENESIS["encoded"])).to_json() == GENESIS["document"]
    assert encode(DOCUMENT.validators.to_value()) == raw(GENESIS["validators_encoded"])
    assert DOCUMENT.validators.hash == raw(GENESIS["validators_hash"])


def test_the_state_of_genesis():
    state = {raw(pair["key"]): raw(pair["value"]) for pair in GENESIS["state"]}
    assert dict(LEDGER.genesis_pairs(DOCUMENT)) == state
    assert root_of(state) == raw(GENESIS["state_root"])


@pytest.mark.parametrize("entry", TRANSACTIONS["transactions"], ids=ids(TRANSACTIONS["transactions"]))
def test_transactions_from_what_they_say_to_their_bytes(entry):
    body = entry["body"]
    value = body_value(
        DOCUMENT.context,
        from_text(body["sender"]),
        body["lane"],
        body["sequence"],
        body["not_after_ms"],
        [LEDGER.operation_from_json(operation) for operation in body["operations"]],
        payer=None if body["payer"] is None else from_text(body["payer"]),
        fee_max=int(body["fee_max"]),
        memo=raw(body["memo"]),
    )
    assert encode(value) == raw(entry["body_encoded"])
    assert signing_bytes(DOCUMENT.context, value) == raw(entry["preimage"])
    assert sha256(raw(entry["preimage"])) == raw(entry["id"])
    authorisations = [
        Authorisation(
            from_text(item["address"]),
            None if item["policy"] is None else POLICY.from_json(item["policy"], "policy"),
            tuple(
                (PublicKey(scheme_named(s["scheme"]).number, raw(s["key"])), raw(s["signature"]))
                for s in item["signatures"]
            ),
        )
        for item in entry["authorisations"]
    ]
    assert assemble(value, authorisations) == raw(entry["wire"])
    assert wire_hash_of(raw(entry["wire"])) == raw(entry["wire_hash"])


@pytest.mark.parametrize("entry", TRANSACTIONS["transactions"], ids=ids(TRANSACTIONS["transactions"]))
def test_transactions_from_their_bytes_to_what_they_say(entry):
    tx = decode_transaction(raw(entry["wire"]), DOCUMENT.context)
    verify_signatures(tx)
    body = entry["body"]
    assert (tx.chain_id, to_text(tx.sender), tx.lane, tx.sequence) == (
        body["chain_id"],
        body["sender"],
        body["lane"],
        body["sequence"],
    )
    assert (tx.not_after_ms, str(tx.fee_max), tx.memo) == (body["not_after_ms"], body["fee_max"], raw(body["memo"]))
    assert (None if tx.payer is None else to_text(tx.payer)) == body["payer"]
    assert [LEDGER.operation_to_json(operation) for operation in tx.operations] == body["operations"]
    assert [encode(operation.to_value()) for operation in tx.operations] == list(map(raw, entry["operations_encoded"]))
    assert (tx.id, tx.wire_hash) == (raw(entry["id"]), raw(entry["wire_hash"]))
    assert LEDGER.parse(tx).units == entry["units"]
    assert [to_text(authorisation.address) for authorisation in tx.authorisations] == [
        item["address"] for item in entry["authorisations"]
    ]


@pytest.mark.parametrize("entry", RECEIPTS, ids=lambda entry: entry["receipt"]["id"][:10])
def test_receipts(entry):
    receipt = Receipt.decode(raw(entry["encoded"]))
    assert LEDGER.receipt_to_json(receipt) == entry["receipt"]
    said = entry["receipt"]
    events = []
    for event in said["events"]:
        fields = LEDGER.registry.events[event["kind"]].fields
        events.append(Event(event["kind"], fields.encode(fields.from_json(event["fields"], event["kind"]))))
    again = Receipt(raw(said["id"]), said["code"], said["units"], int(said["fee"]), tuple(events))
    assert again.encode() == raw(entry["encoded"])


@pytest.mark.parametrize("entry", RECORDS["accounts"], ids=lambda entry: entry["value"][:16])
def test_account_records(entry):
    said = entry["account"]
    balances = said["balances"]
    account = Account(
        tuple(value_of(n) for n in said["lanes"]),
        None if said["policy"] is None else POLICY.from_json(said["policy"], "policy"),
        None if balances is None else {c: (int(b["available"]), int(b["held"])) for c, b in balances.items()},
        tuple((item["tag"], raw(item["data"])) for item in said["extensions"]),
    )
    assert account.encode() == raw(entry["value"])
    assert Account.decode(raw(entry["value"])) == account
    assert account_key(from_text(entry["address"])) == raw(entry["key"])


@pytest.mark.parametrize("entry", RECORDS["assets"], ids=lambda entry: entry["asset"]["code"])
def test_asset_records(entry):
    said = entry["asset"]
    asset = Asset(said["code"], said["decimals"], from_text(said["issuer"]), said["flags"], int(said["supply"]))
    assert asset.encode() == raw(entry["value"])
    assert Asset.decode(raw(entry["value"])) == asset
    assert asset_key(said["code"]) == raw(entry["key"])


@pytest.mark.parametrize("entry", RECORDS["balances"], ids=lambda entry: entry["asset"])
def test_balance_records(entry):
    balance = (int(entry["available"]), int(entry["held"]))
    assert encode_balance(balance) == raw(entry["value"])
    assert decode_balance(raw(entry["value"])) == balance
    assert balance_key(from_text(entry["address"]), entry["asset"]) == raw(entry["key"])


@pytest.mark.parametrize("entry", RECORDS["others"], ids=lambda entry: entry["what"][0])
def test_other_state_keys(entry):
    what = tuple(from_text(item) if item.startswith("qx1") else item for item in entry["what"])
    assert encode(what) == raw(entry["key"])


@pytest.mark.parametrize("entry", BLOCKS["headers"], ids=lambda entry: entry["hash"][:10])
def test_headers(entry):
    said = entry["header"]
    fields = {
        name: raw(value) if isinstance(value, str) and value.startswith("0x") else value for name, value in said.items()
    }
    header = Header(**fields)
    assert header.encoded == raw(entry["encoded"])
    assert Header.decode(raw(entry["encoded"])) == header
    assert header.hash == raw(entry["hash"])


def test_blocks():
    block = Block.decode(raw(BLOCKS["block"]["encoded"]))
    assert block.header.encoded == raw(BLOCKS["headers"][0]["encoded"])
    assert block.transactions == tuple(raw(entry["wire"]) for entry in TRANSACTIONS["transactions"])
    assert [wire_hash_of(wire) for wire in block.transactions] == list(map(raw, BLOCKS["block"]["wire_hashes"]))
    assert tx_root(block.wire_hashes) == raw(BLOCKS["block"]["tx_root"])
    assert Block(block.header, block.transactions).encoded == raw(BLOCKS["block"]["encoded"])
    assert evidence_hash(()) == raw(BLOCKS["empty_evidence_hash"])


@pytest.mark.parametrize("vote", BLOCKS["votes"], ids=lambda vote: vote["name"])
def test_votes(vote):
    validators = DOCUMENT.validators
    preimage = vote_preimage(
        DOCUMENT.hash, validators.hash, vote["kind"], vote["height"], vote["view"], raw(vote["block_hash"])
    )
    assert preimage == raw(vote["preimage"])
    for signed in vote["signatures"]:
        key = validators.validators[signed["validator"]].key
        assert verify_ed25519(key, preimage, raw(signed["signature"]))


def test_validators_and_quorums():
    for validator, said in zip(DOCUMENT.validators.validators, BLOCKS["validators"], strict=True):
        assert (validator.name, validator.key, validator.node_key) == (
            said["name"],
            raw(said["key"]),
            raw(said["node_key"]),
        )
        assert SigningKey(1, raw(said["key_seed"])).public.data == validator.key
    assert ValidatorSet.from_value(decode(raw(GENESIS["validators_encoded"]), bytes_max=10_000)) == DOCUMENT.validators


@pytest.mark.parametrize("entry", BLOCKS["quorums"], ids=lambda entry: str(entry["n"]))
def test_quorums(entry):
    from state.types import Validator

    n = entry["n"]
    validators = ValidatorSet.of(Validator(f"{i:02}", sha256(b"k%d" % i), sha256(b"n%d" % i)) for i in range(n))
    assert (validators.f, validators.quorum) == (entry["f"], entry["quorum"])


def test_certificates():
    said = BLOCKS["certificate"]
    certificate = Certificate.decode(raw(said["encoded"]))
    assert (certificate.kind, certificate.height, certificate.view) == (said["kind"], said["height"], said["view"])
    assert certificate.block_hash == raw(said["block_hash"])
    commits = {s["validator"]: raw(s["signature"]) for s in BLOCKS["votes"][1]["signatures"]}
    assert certificate.signatures == tuple((index, commits[index]) for index in said["signers"])
    assert certificate.encode() == raw(said["encoded"])
    verify_certificate(certificate, DOCUMENT.hash, DOCUMENT.validators)


@pytest.mark.parametrize("entry", BLOCKS["rfc6962"], ids=lambda entry: str(len(entry["leaves"])))
def test_trees_over_lists(entry):
    leaves = [raw(leaf) for leaf in entry["leaves"]]
    assert rfc6962.root(leaves) == raw(entry["root"])
    for index, steps in enumerate(entry["paths"]):
        assert list(rfc6962.path(leaves, index)) == list(map(raw, steps))
        rfc6962.verify_path(leaves[index], index, len(leaves), list(map(raw, steps)), raw(entry["root"]))


@pytest.mark.parametrize("entry", PROOFS["trees"], ids=ids(PROOFS["trees"]))
def test_state_proofs(entry):
    pairs = {raw(pair["key"]): raw(pair["value"]) for pair in entry["pairs"]}
    assert root_of(pairs) == raw(entry["root"])
    for said in entry["proofs"]:
        proof = Proof.from_json(said["proof"])
        assert proof.encode() == raw(said["encoded"])
        assert Proof.decode(raw(said["encoded"])) == proof
        value = None if said["value"] is None else raw(said["value"])
        assert pairs.get(raw(said["key"])) == value
        verify(proof, raw(entry["root"]), raw(said["key"]), value)


@pytest.mark.parametrize("entry", PROOFS["refused"], ids=ids(PROOFS["refused"]))
def test_state_proofs_that_do_not_hold(entry):
    value = None if entry["value"] is None else raw(entry["value"])
    with pytest.raises(Rejected):
        verify(Proof.from_json(entry["proof"]), raw(entry["root"]), raw(entry["key"]), value)


def light_block(encoded):
    return LightBlock.from_value(decode(raw(encoded), bytes_max=100_000))


@pytest.mark.parametrize("entry", LIGHT["cases"], ids=ids(LIGHT["cases"]))
def test_light_steps(entry):
    height = entry["trusted_height"]
    trusted = TrustedHeader.of_genesis(DOCUMENT)
    if height:
        trusted = TrustedHeader.of(light_block(LIGHT["chain"][height - 1]))
    try:
        reached = verify_skipping(DOCUMENT.context, trusted, light_block(entry["block"]))
        outcome = "undecided" if reached is None else "trusted"
    except VerificationFailed as refused:
        outcome = refused.lie
    assert outcome == entry["outcome"]


def test_light_blocks_lead_from_genesis_to_the_last_height():
    chain = [light_block(encoded) for encoded in LIGHT["chain"]]
    client = LightClient(DOCUMENT)
    last, _ = drive(client.bisect(len(chain)), lambda height: chain[height - 1])
    assert last == chain[-1]
    for block in chain:
        assert LightBlock.from_value(block.to_value()) == block


@pytest.mark.parametrize("entry", SNAPSHOTS, ids=ids(SNAPSHOTS))
def test_snapshots(entry):
    manifest = Manifest.decode(raw(entry["manifest"]))
    assert (manifest.encoded, manifest.hash) == (raw(entry["manifest"]), raw(entry["manifest_hash"]))
    found = {}
    for chunk, data in zip(manifest.chunks, entry["chunks"], strict=True):
        leaves = slices.run(prove_chunk(chunk, raw(data)))
        assert encode_chunk(leaves) == raw(data)
        found |= {key: value for _, key, value in leaves}
    assert found == {raw(record["key"]): raw(record["value"]) for record in entry["state"]}


@pytest.mark.parametrize("entry", SNAPSHOTS, ids=ids(SNAPSHOTS))
def test_snapshots_are_made_as_the_vectors_say(entry, tmp_path, monkeypatch):
    from state.store.database import Database
    from state.store.keys import STATE, seal
    from state.store.snapshots import make_snapshot, manifest, run

    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", entry["chunk_bytes_max"])
    said = Manifest.decode(raw(entry["manifest"]))
    database = Database.create(tmp_path / "state", durable=False)
    batch = database.batch()
    for record in entry["state"]:
        key = STATE + raw(record["key"])
        batch.put(key, seal(key, raw(record["value"])))
    database.write(batch)
    certificate = Certificate(2, said.header.height, 0, said.header.hash, ())
    sets = (said.validators, said.validators_next)
    run(make_snapshot(database.view(), tmp_path / "out", said.header, certificate, *sets, state_bytes=0))
    made = Snapshot.open(tmp_path / "out" / f"{said.header.height:012}")
    database.close()
    assert made.manifest.encoded == raw(entry["manifest"])
    assert [made.read_chunk(chunk.number) for chunk in made.manifest.chunks] == list(map(raw, entry["chunks"]))
