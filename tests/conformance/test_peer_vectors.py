"""The published vectors of what nodes say to each other hold both ways, and their hashes follow from the document.

What is hashed and signed is made here a second time, from the values in the files and docs/protocol.md alone.
"""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from consensus.messages import decode_message, encode_message, signing_preimage
from consensus.new_view import check_new_view
from consensus.rules import Rules
from consensus.verify import verify_message
from p2p import wire
from p2p.flood import relay_targets
from p2p.hello import Greeting, LocalNode, Role
from p2p.identity import NodeKey, anchor, node_id
from state.errors import DecodeError, Rejected
from state.hashing import TAG_POSSESSION
from state.keys import SigningKey, verify_ed25519
from state.types import ChainContext, ValidatorSet
from tests.conformance import make_peer_vectors
from tests.conformance.test_independent_client import encode, tag
from tests.conformance.test_independent_peer import Node, anchor_of
from tests.conformance.test_vectors import DOCUMENT, value_of

DIRECTORY = Path(__file__).parent / "vectors"
VALIDATORS: ValidatorSet = DOCUMENT.validators


def load(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def raw(text):
    assert text.startswith("0x")
    return bytes.fromhex(text[2:])


def named(entry):
    return entry.get("what") or entry.get("name")


def digest_of(*parts):
    return sha256(tag("consensus") + b"".join(parts)).digest()


PEERS, CONSENSUS = load("peers"), load("consensus")
MESSAGES = CONSENSUS["messages"]
SIGNED = [entry for entry in MESSAGES if "digest" in entry]


@pytest.mark.parametrize("name", sorted(make_peer_vectors.MAKERS))
def test_the_files_are_what_the_generator_writes(name):
    assert make_peer_vectors.text_of(name) == (DIRECTORY / f"{name}.json").read_text()


# ---- consensus messages ----


def documented_digest(entry):
    """The section "Consensus messages" of docs/protocol.md, from the message's array."""
    value = value_of(entry["value"])
    kind = value[0]
    if kind in (1, 2):
        return value[3]
    if kind == 3:
        block_hash = sha256(tag("header") + encode(value[3])).digest()
        certificate_hash = bytes(32) if value[5] is None else digest_of(encode(value[5]))
        return digest_of(block_hash, certificate_hash)
    if kind == 4:
        return bytes(32)
    if kind == 5:
        return digest_of(encode((value[3], value[4])))
    if kind == 6:
        return digest_of(encode(value[3]))
    return digest_of(encode(value[3:7]))


def documented_preimage(kind, height, view, digest):
    fields = (DOCUMENT.hash, VALIDATORS.hash, kind, height, view, digest)
    return tag("vote") + encode(fields)


@pytest.mark.parametrize("entry", MESSAGES, ids=named)
def test_messages_encode_to_their_bytes_and_read_back(entry):
    value = value_of(entry["value"])
    assert encode(value) == raw(entry["encoded"])
    message = decode_message(raw(entry["encoded"]))
    assert message.to_value() == value
    assert message.kind == entry["kind"] == value[0]
    assert encode_message(message) == raw(entry["encoded"])


@pytest.mark.parametrize("entry", SIGNED, ids=named)
def test_what_messages_sign_follows_from_the_document(entry):
    message = decode_message(raw(entry["encoded"]))
    assert message.digest == raw(entry["digest"]) == documented_digest(entry)
    preimage = raw(entry["preimage"])
    assert preimage == documented_preimage(entry["kind"], message.height, message.view, raw(entry["digest"]))
    assert preimage == signing_preimage(message, DOCUMENT.hash, VALIDATORS.hash)
    seed = raw(CONSENSUS["validators"][message.sender]["key_seed"])
    assert message.signature == raw(entry["signature"]) == SigningKey(1, seed).sign(preimage)


@pytest.mark.parametrize("entry", MESSAGES, ids=named)
def test_messages_are_true(entry):
    verify_message(decode_message(raw(entry["encoded"])), DOCUMENT.hash, lambda height: VALIDATORS)


def test_the_new_view_is_one_that_replicas_accept():
    (entry,) = (entry for entry in MESSAGES if entry["kind"] == 6)
    primary = lambda height, view: VALIDATORS.primary(height, view, 0)  # noqa: E731
    check_new_view(decode_message(raw(entry["encoded"])), VALIDATORS, 1, primary, Rules())


@pytest.mark.parametrize("entry", [entry for entry in MESSAGES if entry["kind"] == 9], ids=named)
def test_evidence_holds_two_signatures_of_the_offender(entry):
    _, offence, height, view, offender, *halves = value_of(entry["value"])
    assert halves[0][0] < halves[1][0]
    for block_hash, certificate_hash, signature in halves:
        digest = digest_of(block_hash, certificate_hash) if offence == 3 else block_hash
        assert offence == 3 or certificate_hash == bytes(32)
        key = VALIDATORS.validators[offender].key
        assert verify_ed25519(key, documented_preimage(offence, height, view, digest), signature)


@pytest.mark.parametrize("entry", CONSENSUS["refused"], ids=named)
def test_bytes_that_are_no_message(entry):
    with pytest.raises(DecodeError):
        decode_message(raw(entry["encoded"]))


@pytest.mark.parametrize("entry", CONSENSUS["untrue"], ids=named)
def test_messages_that_prove_wrong(entry):
    message = decode_message(raw(entry["encoded"]))
    with pytest.raises(Rejected) as refused:
        verify_message(message, DOCUMENT.hash, lambda height: VALIDATORS)
    assert refused.value.code == entry["code"]


# ---- node keys and certificates ----


@pytest.mark.parametrize("entry", PEERS["node_keys"], ids=named)
def test_node_keys_and_their_certificates(entry):
    node = NodeKey(raw(entry["seed"]))
    assert node.public == raw(entry["public"])
    assert node.id == entry["id"] == sha256(raw(entry["public"])).hexdigest()
    assert node.certificate().public_bytes(Encoding.DER) == raw(entry["leaf"])
    assert anchor(raw(entry["public"])).public_bytes(Encoding.DER) == raw(entry["anchor"])


@pytest.mark.parametrize("entry", PEERS["node_keys"], ids=named)
def test_certificates_are_made_as_the_document_says(entry):
    node = Node(raw(entry["seed"]))
    assert node.leaf == raw(entry["leaf"])
    assert anchor_of(raw(entry["public"])) == raw(entry["anchor"])
    read = x509.load_der_x509_certificate(raw(entry["leaf"]))
    Ed25519PublicKey.from_public_bytes(raw(entry["public"])).verify(read.signature, read.tbs_certificate_bytes)


# ---- the greeting ----


def side_of(said, other):
    """A greeting's machine that stands where the vector says."""
    hello = value_of(said["hello"])
    _, chain_id, genesis_hash, _, role, address, height, validator_key, nonce = hello
    signer = None if said["validator_seed"] is None else SigningKey(1, raw(said["validator_seed"]))
    local = LocalNode(
        chain=ChainContext(chain_id, genesis_hash),
        role=Role(role),
        listen_address=address,
        validator_key=validator_key,
        head_height=lambda: height,
        sign=lambda message: signer.sign(message),
        verify=verify_ed25519,
        latest_vote_seen=lambda key: value_of(said["ack"])[1],
    )
    other_key = NodeKey(raw(other["node_seed"])).public
    own_id = NodeKey(raw(said["node_seed"])).id
    return Greeting(local, own_id, node_id(other_key), nonce)


@pytest.mark.parametrize("case", PEERS["greetings"], ids=named)
@pytest.mark.parametrize("at", [0, 1])
def test_greetings(case, at):
    said, other = case["sides"][at], case["sides"][1 - at]
    greeting = side_of(said, other)
    assert greeting.hello() == value_of(said["hello"])
    assert greeting.receive_hello(value_of(other["hello"])) == value_of(said["ack"])
    greeting.receive_ack(value_of(other["ack"]))
    assert greeting.accepted
    assert greeting.vote_seen == value_of(other["ack"])[1]


@pytest.mark.parametrize("case", PEERS["greetings"], ids=named)
@pytest.mark.parametrize("at", [0, 1])
def test_proofs_of_greetings_follow_from_the_document(case, at):
    said, other = case["sides"][at], case["sides"][1 - at]
    hello, other_hello = value_of(said["hello"]), value_of(other["hello"])
    assert hello[3] == sha256(NodeKey(raw(said["node_seed"])).public).digest()
    proof = value_of(said["ack"])[0]
    if said["validator_seed"] is None:
        assert (hello[4], hello[7], proof) == ("full", None, None)
        return
    preimage = tag("hello") + encode((hello[2], hello[3], other_hello[3], hello[8], other_hello[8]))
    assert preimage == raw(said["proof_preimage"])
    assert proof == SigningKey(1, raw(said["validator_seed"])).sign(preimage)
    assert hello[7] == SigningKey(1, raw(said["validator_seed"])).public.data


def test_a_proof_does_not_hold_for_another_nonce():
    said, other = PEERS["greetings"][0]["sides"]
    greeting = side_of({**said, "hello": [*said["hello"][:8], {"bytes": "0x" + "00" * 32}]}, other)
    greeting.receive_hello(value_of(other["hello"]))
    with pytest.raises(Rejected) as refused:
        greeting.receive_ack(value_of(other["ack"]))
    assert refused.value.code == "proof_invalid"


# ---- frames ----

FRAMES = [
    *PEERS["frames"],
    *(
        {"kind": kind, "name": name, "body": side[field], "flood_id": None, "encoded": side[f"{field}_frame"]}
        for case in PEERS["greetings"]
        for side in case["sides"]
        for kind, name, field in ((1, "HELLO", "hello"), (2, "HELLO_ACK", "ack"))
    ),
]


def test_every_kind_of_frame_in_use_has_a_vector():
    assert {entry["kind"] for entry in FRAMES} == set(wire.Kind) - {wire.Kind.STATUS}


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: f"{entry['name']}-{entry['encoded'][-8:]}")
def test_frames(entry):
    kind, body = wire.Kind(entry["kind"]), value_of(entry["body"])
    flood_id = None if entry["flood_id"] is None else raw(entry["flood_id"])
    encoded = raw(entry["encoded"])
    payload = encode((entry["kind"], body) if flood_id is None else (entry["kind"], body, flood_id))
    assert encoded == len(payload).to_bytes(4, "big") + payload
    assert wire.encode_frame(kind, body, flood_id) == encoded
    framer = wire.Framer(frozenset({kind}))
    for at in range(len(encoded)):
        assert framer.next_frame() is None
        framer.feed(encoded[at : at + 1])
    frame = framer.next_frame()
    assert (frame.kind, frame.body, frame.flood_id, frame.raw) == (kind, body, flood_id, encoded)


@pytest.mark.parametrize("entry", PEERS["refused_frames"], ids=named)
def test_bytes_that_are_no_frame(entry):
    framer = wire.Framer(wire.ESTABLISHED_KINDS)
    framer.feed(raw(entry["bytes"]))
    with pytest.raises(wire.FrameError) as refused:
        framer.next_frame()
    assert refused.value.code == entry["code"]


def test_acknowledgements():
    said = PEERS["acknowledgement"]
    ids = tuple(raw(tx_id) for tx_id in said["ids"])
    preimage = TAG_POSSESSION + encode((raw(PEERS["genesis_hash"]), ids))
    assert preimage == raw(said["preimage"])
    assert tag("possession") == TAG_POSSESSION
    assert verify_ed25519(raw(said["key"]), preimage, raw(said["signature"]))
    assert raw(said["key"]) in {v.key for v in VALIDATORS.validators if v.name == said["validator"]}


class Stub:
    def __init__(self, name, neighbours):
        self.id = name
        self.neighbours = frozenset(neighbours)


@pytest.mark.parametrize("case", PEERS["relays"], ids=named)
def test_the_relay_rule(case):
    peers = {name: Stub(name, neighbours) for name, neighbours in case["peers"].items()}
    source = None if case["from"] is None else peers[case["from"]]
    assert [peer.id for peer in relay_targets(peers.values(), source)] == case["passed_on_to"]
