"""Writes the test vectors of what nodes say to each other: `python -m tests.conformance.make_peer_vectors`.

`peers.json` has certificates, greetings, frames, acknowledgements and the relay rule; `consensus.json` the consensus
messages. They belong to the chain of tests/conformance/make_vectors.py, and everything follows from fixed seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from consensus.messages import (
    Decided,
    Evidence,
    Kind,
    NewView,
    PrePrepare,
    Status,
    Suspect,
    ViewChange,
    Vote,
    certificate_of,
    encode_message,
    signing_preimage,
)
from p2p import wire
from p2p.flood import relay_targets
from p2p.hello import Greeting, LocalNode, Role, proof_preimage
from p2p.identity import NodeKey, anchor
from state.block import Block, evidence_hash, tx_root
from state.codec import encode
from state.evidence import Offence, SignedHash
from state.hashing import TAG_POSSESSION, sha256
from state.keys import verify_ed25519
from state.transaction import wire_hash_of
from state.types import Certificate, Header
from tests.conformance.make_vectors import CONTEXT, DIRECTORY, GENESIS, hexed, key, seed, value_json

VALIDATORS = GENESIS.validators
SIGNERS = [key(f"{validator.name} validator") for validator in VALIDATORS.validators]
TRANSACTIONS = (b"transaction one", b"transaction two")


def header_of(height: int, parent: bytes, wires: tuple[bytes, ...] = TRANSACTIONS, time_ms: int = 0) -> Header:
    """A header for these transactions; its state is made up."""
    return Header(
        version=1,
        chain_id=CONTEXT.chain_id,
        height=height,
        time_ms=GENESIS.time_ms + 1000 * height + time_ms,
        parent_hash=parent,
        tx_root=tx_root([wire_hash_of(item) for item in wires]),
        receipts_root=sha256(b"receipts"),
        state_root=sha256(b"state"),
        validators_hash=VALIDATORS.hash,
        next_validators_hash=VALIDATORS.hash,
        proposer=VALIDATORS.validators[0].key,
        evidence_hash=evidence_hash(()),
        units_used=2,
    )


FIRST = header_of(1, sha256(b"parent"))
SECOND = header_of(2, FIRST.hash)
OTHER = header_of(2, FIRST.hash, time_ms=1)
WIRE_HASHES = tuple(wire_hash_of(item) for item in TRANSACTIONS)


def signed(message: Any) -> Any:
    """The message with its sender's signature."""
    preimage = signing_preimage(message, GENESIS.hash, VALIDATORS.hash)
    return replace(message, signature=SIGNERS[message.sender].sign(preimage))


def certificate(kind: Kind, header: Header, view: int, senders: tuple[int, ...] = (0, 1, 3)) -> Certificate:
    """The certificate of these validators' votes."""
    return certificate_of([signed(Vote(kind, header.height, view, header.hash, sender)) for sender in senders])


COMMITTED = certificate(Kind.COMMIT, FIRST, 0)
PREPARED = certificate(Kind.PREPARE, SECOND, 3)


def half(message: Any) -> SignedHash:
    """What evidence keeps of a signed message."""
    return SignedHash(message.block_hash, getattr(message, "certificate_hash", bytes(32)), message.signature)


def evidence(one: Any, other: Any) -> Evidence:
    """The evidence that two contradicting messages make."""
    first, second = sorted((half(one), half(other)), key=lambda item: item.block_hash)
    return Evidence(Offence(one.kind), one.height, one.view, one.sender, first, second)


def messages() -> list[tuple[str, Any]]:
    """One message or more of each kind."""
    changes = (
        signed(ViewChange(2, 4, COMMITTED, PREPARED, 0)),
        signed(ViewChange(2, 4, COMMITTED, None, 1)),
        signed(ViewChange(1, 4, None, None, 3)),
    )
    proposal = signed(PrePrepare(2, 0, SECOND, WIRE_HASHES, None, 0))
    repeated = signed(PrePrepare(2, 4, SECOND, WIRE_HASHES, PREPARED, 0))
    return [
        ("a PREPARE", signed(Vote(Kind.PREPARE, 2, 3, SECOND.hash, 1))),
        ("a COMMIT", signed(Vote(Kind.COMMIT, 2, 3, SECOND.hash, 2))),
        ("a first proposal", proposal),
        ("a proposal made again in a later view", repeated),
        ("a SUSPECT", signed(Suspect(2, 300, 3))),
        ("a VIEW-CHANGE at height 1, with nothing", signed(ViewChange(1, 1, None, None, 3))),
        ("a VIEW-CHANGE with both certificates", changes[0]),
        ("a NEW-VIEW of three VIEW-CHANGEs", signed(NewView(2, 4, changes, 0))),
        ("a STATUS without a proposal", signed(Status(2, 0, 0, None, 0, 0, 1))),
        ("a STATUS with votes of validators 0 and 3", signed(Status(2, 3, 4, SECOND.hash, 0b1001, 0b0001, 2))),
        ("a DECIDED", Decided(COMMITTED)),
        (
            "EVIDENCE of two PREPAREs",
            evidence(*(signed(Vote(Kind.PREPARE, 2, 3, header.hash, 2)) for header in (SECOND, OTHER))),
        ),
        (
            "EVIDENCE of two PRE-PREPAREs",
            evidence(repeated, signed(PrePrepare(2, 4, OTHER, WIRE_HASHES, None, 0))),
        ),
    ]


def refused_messages() -> list[tuple[str, bytes]]:
    """Bytes that have the form of no message."""
    signature, hash_ = bytes(64), bytes(32)
    below, above = sorted((sha256(b"1"), sha256(b"2")))
    late = certificate(Kind.PREPARE, SECOND, 4)

    def halves(one: bytes, other: bytes) -> tuple[Any, ...]:
        return (one, hash_, signature), (other, hash_, signature)

    values: list[tuple[str, Any]] = [
        ("no message", ()),
        ("an unknown kind", (10, 1, 0, 0, signature)),
        ("height 0", (4, 0, 0, 0, signature)),
        ("a sender above 63", (4, 1, 0, 64, signature)),
        ("a signature of 63 bytes", (4, 1, 0, 0, signature[1:])),
        ("a view of 2**64 - 1", (4, 1, (1 << 64) - 1, 0, signature)),
        ("a field too many", (4, 1, 0, 0, signature, None)),
        ("wire hashes that are not the header's", (3, 2, 0, SECOND.to_value(), bytes(32), None, 0, signature)),
        (
            "a proposal whose certificate is of its own view",
            (3, 2, 4, SECOND.to_value(), b"".join(WIRE_HASHES), late.to_value(), 0, signature),
        ),
        ("a VIEW-CHANGE to view 0", (5, 1, 0, None, None, 0, signature)),
        ("a VIEW-CHANGE without the certificate of the height below", (5, 2, 1, None, None, 0, signature)),
        ("a VIEW-CHANGE with COMMITs as prepared", (5, 1, 1, None, COMMITTED.to_value(), 0, signature)),
        ("a DECIDED of PREPAREs", (8, PREPARED.to_value())),
        ("evidence out of order", (9, 1, 2, 3, 2, *halves(above, below))),
        ("evidence of one block", (9, 1, 2, 3, 2, *halves(below, below))),
        ("evidence of VIEW-CHANGEs", (9, 5, 2, 3, 2, *halves(below, above))),
    ]
    return [(what, encode(value)) for what, value in values]


def untrue_messages() -> list[tuple[str, str, Any]]:
    """Messages of right form that prove wrong: (what, code, message)."""
    vote = signed(Vote(Kind.PREPARE, 2, 3, SECOND.hash, 1))
    few = certificate(Kind.COMMIT, FIRST, 0, (0, 1))
    return [
        ("a vote under another validator's index", "signature_invalid", replace(vote, sender=2)),
        ("a vote of another view than was signed", "signature_invalid", replace(vote, view=4)),
        ("a COMMIT with a PREPARE's signature", "signature_invalid", replace(vote, kind=Kind.COMMIT)),
        ("an index that is not in the set", "sender_unknown", replace(vote, sender=4)),
        ("two signatures where the quorum is three", "certificate_invalid", Decided(few)),
        ("a certificate of another view", "certificate_invalid", Decided(replace(COMMITTED, view=1))),
    ]


def consensus() -> Any:
    """consensus.json."""
    entries = []
    for what, message in messages():
        entry: dict[str, Any] = {
            "what": what,
            "kind": int(message.kind),
            "value": value_json(message.to_value()),
            "encoded": hexed(encode_message(message)),
        }
        if not isinstance(message, Decided | Evidence):
            entry["digest"] = hexed(message.digest)
            entry["preimage"] = hexed(signing_preimage(message, GENESIS.hash, VALIDATORS.hash))
            entry["signature"] = hexed(message.signature)
        if isinstance(message, PrePrepare):
            entry["block_hash"] = hexed(message.block_hash)
            entry["certificate_hash"] = hexed(message.certificate_hash)
        entries.append(entry)
    return {
        "genesis_hash": hexed(GENESIS.hash),
        "validators_hash": hexed(VALIDATORS.hash),
        "validators": [
            {"name": v.name, "key": hexed(v.key), "key_seed": hexed(seed(f"{v.name} validator"))}
            for v in VALIDATORS.validators
        ],
        "messages": entries,
        "refused": [{"what": what, "encoded": hexed(data)} for what, data in refused_messages()],
        "untrue": [
            {"what": what, "code": code, "encoded": hexed(encode_message(message))}
            for what, code, message in untrue_messages()
        ],
    }


def local_node(name: str, validator_key: bytes | None, height: int, vote_seen: bytes | None) -> LocalNode:
    """What the node with this name tells of itself."""
    signer = key(f"{name} validator")
    return LocalNode(
        chain=CONTEXT,
        role=Role.FULL if validator_key is None else Role.VALIDATOR,
        listen_address=f"{name}.example:27100",
        validator_key=validator_key,
        head_height=lambda: height,
        sign=signer.sign,
        verify=verify_ed25519,
        latest_vote_seen=lambda _: vote_seen,
    )


def greetings() -> Any:
    """Two validators greet each other, and a full node greets a validator."""
    alpha, beta = (v for v in VALIDATORS.validators if v.name in ("alpha", "beta"))
    vote = encode_message(messages()[0][1])
    cases: list[tuple[str, list[tuple[str, bytes | None, int, bytes | None]]]] = [
        ("two validators", [("alpha", alpha.key, 7, vote), ("beta", beta.key, 6, None)]),
        ("a full node and a validator", [("full", None, 0, None), ("beta", beta.key, 7, None)]),
    ]
    result = []
    for what, told in cases:
        ids = [NodeKey(seed(f"{name} node")) for name, *_ in told]
        nonces = [sha256(f"{what}, nonce of {name}".encode()) for name, *_ in told]
        sides = [Greeting(local_node(*told[i]), ids[i].id, ids[1 - i].id, nonces[i]) for i in range(2)]
        hellos = [side.hello() for side in sides]
        acks = [sides[i].receive_hello(hellos[1 - i]) for i in range(2)]
        preimages = [
            proof_preimage(GENESIS.hash, ids[i].id, ids[1 - i].id, (nonces[i], nonces[1 - i])) for i in range(2)
        ]
        result.append(
            {
                "what": what,
                "sides": [
                    {
                        "name": told[i][0],
                        "node_seed": hexed(seed(f"{told[i][0]} node")),
                        "validator_seed": None if told[i][1] is None else hexed(seed(f"{told[i][0]} validator")),
                        "nonce": hexed(nonces[i]),
                        "hello": value_json(hellos[i]),
                        "hello_frame": hexed(wire.encode_frame(wire.Kind.HELLO, hellos[i])),
                        "proof_preimage": None if told[i][1] is None else hexed(preimages[i]),
                        "ack": value_json(acks[i]),
                        "ack_frame": hexed(wire.encode_frame(wire.Kind.HELLO_ACK, acks[i])),
                    }
                    for i in range(2)
                ],
            }
        )
    return result


def node_keys() -> Any:
    """Node keys with their certificates, DER-encoded."""
    entries = []
    for name in ("alpha", "beta", "full"):
        node = NodeKey(seed(f"{name} node"))
        entries.append(
            {
                "name": name,
                "seed": hexed(seed(f"{name} node")),
                "public": hexed(node.public),
                "id": node.id,
                "leaf": hexed(node.certificate().public_bytes(Encoding.DER)),
                "anchor": hexed(anchor(node.public).public_bytes(Encoding.DER)),
            }
        )
    return entries


def held_ids() -> tuple[bytes, ...]:
    """The ids that the acknowledgements are about."""
    return (sha256(b"one"), sha256(b"two"))


def held_preimage() -> bytes:
    """What a signed acknowledgement signs."""
    return TAG_POSSESSION + encode((GENESIS.hash, held_ids()))


def frames() -> Any:
    """One frame or more of each kind in use."""
    kinds = wire.Kind
    flood_id = bytes(range(8))
    block = Block(FIRST, TRANSACTIONS)
    signer = SIGNERS[1]
    vote = encode_message(messages()[0][1])
    bodies: list[tuple[wire.Kind, Any, bytes | None]] = [
        (kinds.REJECT, ("wrong_chain", "this is chain vectors-1, not other"), None),
        (kinds.PING, 1, None),
        (kinds.PONG, (1, 1_700_000_000_123), None),
        (kinds.PEERS, (), None),
        (kinds.PEERS, tuple(bytes.fromhex(entry["id"]) for entry in node_keys()), None),
        (kinds.CONSENSUS, vote, None),
        (kinds.CONSENSUS, vote, flood_id),
        (kinds.TRANSACTIONS, TRANSACTIONS, None),
        (kinds.TX_ANNOUNCE, WIRE_HASHES, None),
        (kinds.TX_REQUEST, WIRE_HASHES[1:], None),
        (kinds.TX_HELD, (held_ids(), None, None), None),
        (kinds.TX_HELD, (held_ids(), signer.public.data, signer.sign(held_preimage())), flood_id),
        (kinds.BODY_REQUEST, FIRST.hash, None),
        (kinds.BODY, block.encoded, None),
        (kinds.BLOCK_REQUEST, (1, 64), None),
        (kinds.BLOCKS, (), None),
        (kinds.BLOCKS, ((block.encoded, COMMITTED.encode()),), None),
        (kinds.SNAPSHOTS_REQUEST, 20_000, None),
        (kinds.SNAPSHOTS, ((40_000, sha256(b"newer")), (20_000, sha256(b"older"))), None),
        (kinds.MANIFEST_REQUEST, sha256(b"newer"), None),
        (kinds.MANIFEST, (sha256(b"newer"), b"", b""), None),
        (kinds.CHUNK_REQUEST, (sha256(b"newer"), 3), None),
        (kinds.CHUNK, (sha256(b"newer"), 3, encode((b"state key", b"value"))), None),
        (kinds.LIGHT_REQUEST, 1, None),
        (kinds.LIGHT, (1, encode((FIRST.to_value(), COMMITTED.to_value(), VALIDATORS.to_value()))), None),
    ]
    return [
        {
            "kind": int(kind),
            "name": kind.name,
            "body": value_json(body),
            "flood_id": None if flood is None else hexed(flood),
            "encoded": hexed(wire.encode_frame(kind, body, flood)),
        }
        for kind, body, flood in bodies
    ]


def refused_frames() -> Any:
    """What an accepted peer may not send, with the code of the REJECT."""

    def framed(*items: Any) -> bytes:
        payload = encode(items)
        return len(payload).to_bytes(4, "big") + payload

    cases = [
        ("a length below 3", "frame_oversize", (2).to_bytes(4, "big")),
        ("a length that no kind allows", "frame_oversize", (wire.PAYLOAD_BYTES_MAX + 1).to_bytes(4, "big")),
        ("a PING above its bound", "frame_oversize", (65).to_bytes(4, "big") + b"\x92\x04"),
        ("no array of two or three", "frame_malformed", framed(4, 1, bytes(8), 0)),
        ("an unknown kind", "frame_malformed", framed(25, 0)),
        ("a HELLO after the greeting", "frame_unexpected", framed(1, 0)),
        ("a PING with text", "frame_malformed", framed(4, "1")),
        ("a PING in a longer form", "frame_malformed", b"\0\0\0\4\x92\x04\xcc\x01"),
        ("a flood id on a kind that is not flooded", "frame_malformed", framed(4, 1, bytes(8))),
        ("a flood id of 7 bytes", "frame_malformed", framed(8, b"", bytes(7))),
        ("a node id of 31 bytes", "frame_malformed", framed(6, (bytes(31),))),
    ]
    return [{"what": what, "code": code, "bytes": hexed(data)} for what, code, data in cases]


@dataclass
class _Peer:
    id: str
    neighbours: frozenset[str]


def relays() -> Any:
    """Who gets a message that came from a peer: by whom each direct peer states as its own direct peers."""
    cases: list[tuple[str, dict[str, list[str]], str | None]] = [
        ("our own message", {"a": ["us"], "b": ["us"]}, None),
        ("a full mesh", {"a": ["us", "b", "c"], "b": ["us", "a", "c"], "c": ["us", "a", "b"]}, "a"),
        ("a line", {"a": ["us"], "b": ["us"]}, "a"),
        ("a ring of four", {"a": ["us", "c"], "b": ["us", "c"]}, "a"),
        ("only the sender claims to serve", {"a": ["us", "b"], "b": ["us"]}, "a"),
        ("only the other claims to be served", {"a": ["us"], "b": ["us", "a"]}, "a"),
    ]
    result = []
    for what, neighbours, source in cases:
        peers = {name: _Peer(name, frozenset(stated)) for name, stated in neighbours.items()}
        targets = relay_targets(peers.values(), None if source is None else peers[source])  # type: ignore[type-var]
        result.append(
            {"what": what, "peers": neighbours, "from": source, "passed_on_to": [peer.id for peer in targets]}
        )
    return result


def peers() -> Any:
    """peers.json."""
    signer = SIGNERS[1]
    return {
        "genesis_hash": hexed(GENESIS.hash),
        "node_keys": node_keys(),
        "greetings": greetings(),
        "frames": frames(),
        "refused_frames": refused_frames(),
        "acknowledgement": {
            "ids": [hexed(tx_id) for tx_id in held_ids()],
            "validator": VALIDATORS.validators[1].name,
            "key": hexed(signer.public.data),
            "preimage": hexed(held_preimage()),
            "signature": hexed(signer.sign(held_preimage())),
        },
        "relays": relays(),
    }


MAKERS: dict[str, Callable[[], Any]] = {"peers": peers, "consensus": consensus}


def text_of(name: str) -> str:
    """The content of the file with this name."""
    return json.dumps(MAKERS[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes both files."""
    for name in MAKERS:
        (DIRECTORY / f"{name}.json").write_text(text_of(name))


if __name__ == "__main__":
    main()
