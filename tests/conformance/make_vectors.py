"""Writes the test vectors under tests/conformance/vectors/: `python -m tests.conformance.make_vectors`.

Everything follows from fixed seeds, except that ML-DSA signs with fresh randomness: a stored signature is kept as long
as it holds for the same transaction. Someone who writes a client in another language reads the JSON files, not this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from state import rfc6962, slices
from state.address import to_text
from state.block import Block, evidence_hash, tx_root, vote_preimage
from state.codec import encode, encode_amount
from state.errors import Rejected
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset
from state.hashing import sha256
from state.keys import ED25519, ML_DSA_65, ML_DSA_87, SCHEMES, Policy, SigningKey
from state.ledger import Account, Asset, Event, Ledger, Receipt
from state.ledger.account import account_key, balance_key, encode_balance
from state.ledger.asset import asset_key
from state.ledger.fields import POLICY
from state.transaction import body_value, decode_transaction, sign_transaction, verify_signatures, wire_hash_of
from state.tree.hashes import root_of
from state.tree.prove import prove
from state.tree.update import update
from state.types import Certificate, ChainContext, Header, Validator, ValidatorSet
from tests.conformance.governance_vectors import governance
from tests.conformance.snapshot_vectors import snapshot_vectors

DIRECTORY = Path(__file__).parent / "vectors"
LEDGER = Ledger()


def hexed(data: bytes) -> str:
    """Bytes as the vectors write them."""
    return "0x" + data.hex()


def seed(name: str) -> bytes:
    """The seed of the key with this name: SHA-256 of the name."""
    return sha256(name.encode())


def key(name: str, scheme: int = ED25519) -> SigningKey:
    """The key with this name."""
    return SigningKey(scheme, seed(name))


ANN, BOB, CEM = key("ann"), key("bob"), key("cem")
QUANTUM, QUANTUM_87 = key("quantum", ML_DSA_65), key("quantum-87", ML_DSA_87)
SHARED = Policy.of(2, (ANN.public, BOB.public, QUANTUM.public))


def value_json(value: Any) -> Any:
    """A canonical value in JSON: bytes as {"bytes": hex}, integers from 2**53 as {"uint": decimal}."""
    if isinstance(value, bytes):
        return {"bytes": hexed(value)}
    if isinstance(value, tuple):
        return [value_json(item) for item in value]
    if type(value) is int and value >= 1 << 53:
        return {"uint": str(value)}
    return value


def codec() -> Any:
    """Values with their bytes, and bytes that are no value."""
    values: list[Any] = [None, False, True]
    values += [n + d for n in (0, 1 << 7, 1 << 8, 1 << 16, 1 << 32) for d in (-1, 0) if n + d >= 0]
    values += [(1 << 63), (1 << 64) - 1]
    values += ["", "a", "é", "a" * 31, "a" * 32, "a" * 256, b"", b"\x00", b"\xff" * 255, bytes(256)]
    values += [(), (1, "a", b"b", None), tuple(range(15)), tuple(range(16)), ((((1,),),),)]
    refused = {
        "cc05": "the integer 5 in two bytes",
        "cd00ff": "the integer 255 in three bytes",
        "d005": "a signed form",
        "ff": "a negative integer",
        "ca00000000": "a float",
        "80": "a map",
        "c70001": "an extension",
        "dc000101": "an array of one with a long length",
        "d90161": "text of one character with a long length",
        "c5000161": "one byte with a long length",
        "a1ff": "not UTF-8",
        "0101": "two values",
        "9201": "an array that ends early",
        "91" * 13 + "01": "13 arrays within each other",
        "": "nothing",
    }
    return {
        "values": [{"value": value_json(value), "encoded": hexed(encode(value))} for value in values],
        "refused": [{"encoded": "0x" + data, "why": why} for data, why in refused.items()],
    }


def amounts() -> Any:
    """Amounts with their bytes and their encoding as a value."""
    good = [0, 1, 127, 128, 255, 256, 65535, 65536, 10**18, (1 << 64) - 1, 1 << 64, (1 << 127), (1 << 128) - 1]
    refused = {"00": "a leading zero", "0001": "a leading zero", "01" + "00" * 16: "2**128"}
    return {
        "amounts": [
            {"amount": str(n), "bytes": hexed(encode_amount(n)), "encoded": hexed(encode(encode_amount(n)))}
            for n in good
        ],
        "refused": [{"bytes": "0x" + data, "why": why} for data, why in refused.items()],
    }


def keys() -> Any:
    """Keys from seeds, policies, and the addresses that they are born with."""
    single = [("ann", ANN), ("bob", BOB), ("quantum", QUANTUM), ("quantum-87", QUANTUM_87)]
    policies = [Policy.single(k.public) for _, k in single] + [SHARED, Policy.of(2, (ANN.public, BOB.public))]
    return {
        "schemes": [
            {"number": s.number, "name": s.name, "key_bytes": s.key_bytes, "signature_bytes": s.signature_bytes}
            for s in SCHEMES.values()
        ],
        "keys": [
            {"name": name, "scheme": SCHEMES[k.scheme].name, "seed": hexed(k.seed), "public": hexed(k.public.data)}
            for name, k in single
        ],
        "policies": [
            {
                "policy": POLICY.to_json(policy),
                "encoded": hexed(encode(policy.to_value())),
                "address": hexed(policy.address),
                "text": to_text(policy.address),
            }
            for policy in policies
        ],
    }


def addresses() -> Any:
    """Addresses with their text, and texts that are none."""
    good = [bytes(32), bytes(range(32)), b"\xff" * 32, ANN.address, SHARED.address]
    text = to_text(ANN.address)
    refused = {
        text[:-1] + ("q" if text[-1] != "q" else "p"): "a wrong character",
        text[:-1]: "too short",
        "qy" + text[2:]: "another prefix",
        text[:20] + text[20:].upper(): "mixed case",
        text[:20] + "b" + text[21:]: "a character that does not occur",
        "": "nothing",
    }
    return {
        "addresses": [{"bytes": hexed(address), "text": to_text(address)} for address in good],
        "refused": [{"text": text, "why": why} for text, why in refused.items()],
    }


def genesis() -> Genesis:
    """The chain that all other vectors belong to."""
    return Genesis(
        chain_id="vectors-1",
        time_ms=1_700_000_000_000,
        validators=ValidatorSet.of(
            Validator(name, key(f"{name} validator").public.data, key(f"{name} node").public.data)
            for name in ("alpha", "beta", "gamma", "delta")
        ),
        parameters=ChainParameters(),
        assets=(
            GenesisAsset("EUR", 2, BOB.address, 1),
            GenesisAsset("QNX", 6, ANN.address),
        ),
        accounts=tuple(
            GenesisAccount(address, balances)
            for address, balances in sorted(
                {
                    ANN.address: (("QNX", 1_000_000_000),),
                    BOB.address: (("EUR", 500_000), ("QNX", 1_000_000_000)),
                    SHARED.address: (("QNX", 1 << 100),),
                }.items()
            )
        ),
    )


GENESIS = genesis()
CONTEXT = ChainContext(GENESIS.chain_id, GENESIS.hash)


def genesis_vectors() -> Any:
    """The genesis document, and the state that it makes."""
    pairs = dict(LEDGER.genesis_pairs(GENESIS))
    return {
        "document": GENESIS.to_json(),
        "encoded": hexed(GENESIS.encoded),
        "hash": hexed(GENESIS.hash),
        "validators_encoded": hexed(encode(GENESIS.validators.to_value())),
        "validators_hash": hexed(GENESIS.validators.hash),
        "state": [{"key": hexed(k), "value": hexed(v)} for k, v in sorted(pairs.items())],
        "state_root": hexed(root_of(pairs)),
    }


def drafts() -> list[tuple[str, dict[str, Any], dict[Any, list[SigningKey]], dict[Any, Policy]]]:
    """(what, body fields, who signs with which keys, policies that travel)."""
    after = GENESIS.time_ms + 60_000
    pay = [
        {"kind": "transfer", "fields": {"asset": "QNX", "recipients": [{"to": to_text(BOB.address), "amount": "5"}]}}
    ]
    swap = [
        {
            "kind": "transfer",
            "fields": {"asset": "QNX", "recipients": [{"to": to_text(BOB.address), "amount": "1000"}]},
        },
        {
            "kind": "transfer",
            "fields": {
                "source": to_text(BOB.address),
                "asset": "EUR",
                "recipients": [{"to": to_text(ANN.address), "amount": "18446744073709551616"}],
            },
        },
    ]
    issue = [
        {"kind": "issue_asset", "fields": {"code": "GOLD.X", "decimals": 18, "flags": 3, "supply": "1000"}},
        {"kind": "burn", "fields": {"asset": "GOLD.X", "amount": "1"}},
        {"kind": "mint", "fields": {"asset": "QNX", "to": to_text(CEM.address), "amount": "7"}},
    ]
    rotate = [{"kind": "set_policy", "fields": {"policy": POLICY.to_json(SHARED)}}]
    body = {"sender": ANN.address, "lane": 0, "sequence": 0, "not_after_ms": after}
    return [
        ("a transfer of one key", {**body, "operations": pay, "memo": b"for tea"}, {ANN.address: [ANN]}, {}),
        (
            "a swap of two accounts, with a payer, in lane 15",
            {**body, "lane": 15, "operations": swap, "payer": CEM.address, "fee_max": 300},
            {ANN.address: [ANN], BOB.address: [BOB], CEM.address: [CEM]},
            {},
        ),
        ("several operations", {**body, "sequence": 1, "operations": issue}, {ANN.address: [ANN]}, {}),
        (
            "2 of 3 keys from birth",
            {**body, "sender": SHARED.address, "operations": pay},
            {SHARED.address: [ANN, BOB]},
            {SHARED.address: SHARED},
        ),
        ("a new policy", {**body, "sequence": 2, "operations": rotate}, {ANN.address: [ANN]}, {}),
        (
            "a transfer of an ML-DSA-65 key",
            {**body, "sender": QUANTUM.address, "operations": pay},
            {QUANTUM.address: [QUANTUM]},
            {},
        ),
        (
            "a transfer of an ML-DSA-87 key",
            {**body, "sender": QUANTUM_87.address, "operations": pay},
            {QUANTUM_87.address: [QUANTUM_87]},
            {},
        ),
    ]


def _stored_wires() -> dict[str, bytes]:
    path = DIRECTORY / "transactions.json"
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())["transactions"]
    return {entry["id"]: bytes.fromhex(entry["wire"][2:]) for entry in stored}


def transactions() -> Any:
    """Transactions from their JSON to their wire bytes."""
    stored = _stored_wires()
    entries = []
    for what, fields, signers, policies in drafts():
        operations = [LEDGER.operation_from_json(operation) for operation in fields["operations"]]
        body = body_value(CONTEXT, **{**fields, "operations": operations})
        wire = sign_transaction(CONTEXT, body, signers, policies)
        tx = decode_transaction(wire, CONTEXT)
        kept = stored.get(hexed(tx.id))
        if kept is not None and any(k.scheme != ED25519 for keys in signers.values() for k in keys):
            try:
                before = decode_transaction(kept, CONTEXT)
                verify_signatures(before)
                tx = before
            except Rejected:
                pass
        entries.append(
            {
                "what": what,
                "body": {
                    "version": 1,
                    "chain_id": CONTEXT.chain_id,
                    "sender": to_text(tx.sender),
                    "lane": tx.lane,
                    "sequence": tx.sequence,
                    "not_after_ms": tx.not_after_ms,
                    "payer": None if tx.payer is None else to_text(tx.payer),
                    "fee_max": str(tx.fee_max),
                    "operations": [LEDGER.operation_to_json(operation) for operation in tx.operations],
                    "memo": hexed(tx.memo),
                },
                "body_encoded": hexed(encode(body)),
                "operations_encoded": [hexed(encode(operation.to_value())) for operation in tx.operations],
                "preimage": hexed(tx.signing_bytes),
                "id": hexed(tx.id),
                "authorisations": [
                    {
                        "address": to_text(authorisation.address),
                        "policy": None if authorisation.policy is None else POLICY.to_json(authorisation.policy),
                        "signatures": [
                            {
                                "scheme": SCHEMES[public.scheme].name,
                                "key": hexed(public.data),
                                "signature": hexed(signature),
                            }
                            for public, signature in authorisation.signatures
                        ],
                    }
                    for authorisation in tx.authorisations
                ],
                "wire": hexed(tx.wire),
                "wire_hash": hexed(tx.wire_hash),
                "units": LEDGER.parse(tx).units,
            }
        )
    return {"chain_id": CONTEXT.chain_id, "genesis_hash": hexed(CONTEXT.genesis_hash), "transactions": entries}


def receipts() -> Any:
    """Receipts with their JSON and bytes."""
    moved = (ANN.address, BOB.address, "QNX", encode_amount(5))
    samples = [
        Receipt(sha256(b"one"), "ok", 2, 0, (Event("moved", moved),)),
        Receipt(sha256(b"two"), "balance_insufficient", 2, 1 << 100, ()),
        Receipt(
            sha256(b"three"),
            "ok",
            5,
            7,
            (
                Event("asset_issued", ("GOLD.X", 18, ANN.address, 3)),
                Event("minted", (ANN.address, "GOLD.X", encode_amount(1000))),
                Event("burned", (ANN.address, "GOLD.X", encode_amount(1))),
                Event("held", (ANN.address, "QNX", encode_amount(2))),
                Event("released", (ANN.address, "QNX", encode_amount(2))),
                Event("policy_set", (ANN.address, 2, 3, SHARED.address)),
            ),
        ),
    ]
    return [{"receipt": LEDGER.receipt_to_json(receipt), "encoded": hexed(receipt.encode())} for receipt in samples]


def records() -> Any:
    """State keys with the records under them."""
    accounts = [
        Account.holding({"QNX": 5}),
        Account((1, 0, 1 << 63), None, {"EUR": (0, 7), "QNX": (1 << 100, 0)}),
        Account((9,), SHARED, {}, (("escrow", b"\x92\x01\x02"), ("vault", b""))),
        Account((1,), None, None),
    ]
    assets = [
        Asset("QNX", 6, ANN.address, 0, (1 << 128) - 1),
        Asset("GOLD.X", 18, BOB.address, 3, 0),
    ]
    return {
        "accounts": [
            {
                "address": to_text(ANN.address),
                "key": hexed(account_key(ANN.address)),
                "account": {
                    "lanes": [value_json(n) for n in account.lanes],
                    "policy": None if account.policy is None else POLICY.to_json(account.policy),
                    "balances": None
                    if account.balances is None
                    else {
                        code: {"available": str(free), "held": str(held)}
                        for code, (free, held) in sorted(account.balances.items())
                    },
                    "extensions": [{"tag": tag, "data": hexed(data)} for tag, data in account.extensions],
                },
                "value": hexed(account.encode()),
            }
            for account in accounts
        ],
        "assets": [
            {
                "asset": {
                    "code": asset.code,
                    "decimals": asset.decimals,
                    "issuer": to_text(asset.issuer),
                    "flags": asset.flags,
                    "supply": str(asset.supply),
                },
                "key": hexed(asset_key(asset.code)),
                "value": hexed(asset.encode()),
            }
            for asset in assets
        ],
        "balances": [
            {
                "address": to_text(ANN.address),
                "asset": "EUR",
                "available": "7",
                "held": str(1 << 127),
                "key": hexed(balance_key(ANN.address, "EUR")),
                "value": hexed(encode_balance((7, 1 << 127))),
            }
        ],
        "others": [
            {
                "what": ["parameter", "drift_ms"],
                "key": hexed(encode(("parameter", "drift_ms"))),
                "value": hexed(encode(5000)),
            },
            {"what": ["validators"], "key": hexed(encode(("validators",)))},
            {"what": ["issuer", to_text(ANN.address)], "key": hexed(encode(("issuer", ANN.address))), "value": "0x01"},
        ],
    }


def _header_json(header: Header) -> dict[str, Any]:
    names = ("version", "chain_id", "height", "time_ms", "parent_hash", "tx_root", "receipts_root", "state_root")
    names += ("validators_hash", "next_validators_hash", "proposer", "evidence_hash", "units_used")
    fields = {name: getattr(header, name) for name in names}
    return {name: hexed(value) if isinstance(value, bytes) else value for name, value in fields.items()}


def blocks() -> Any:
    """A block with its header, votes and certificate, and the trees over lists."""
    wires = [bytes.fromhex(entry["wire"][2:]) for entry in transactions()["transactions"]]
    hashes = [wire_hash_of(wire) for wire in wires]
    receipt = sha256(b"receipt")
    header = Header(
        version=1,
        chain_id=CONTEXT.chain_id,
        height=1,
        time_ms=GENESIS.time_ms + 1000,
        parent_hash=sha256(b"parent"),
        tx_root=tx_root(hashes),
        receipts_root=rfc6962.root([receipt]),
        state_root=sha256(b"state"),
        validators_hash=GENESIS.validators.hash,
        next_validators_hash=GENESIS.validators.hash,
        proposer=GENESIS.validators.validators[0].key,
        evidence_hash=evidence_hash(()),
        units_used=23,
    )
    block = Block(header, tuple(wires))
    votes = []
    signatures = []
    for kind, name in ((1, "PREPARE"), (2, "COMMIT")):
        preimage = vote_preimage(GENESIS.hash, GENESIS.validators.hash, kind, 1, 3, header.hash)
        signed = [
            (index, key(f"{validator.name} validator").sign(preimage))
            for index, validator in enumerate(GENESIS.validators.validators)
        ]
        votes.append(
            {
                "kind": kind,
                "name": name,
                "height": 1,
                "view": 3,
                "block_hash": hexed(header.hash),
                "preimage": hexed(preimage),
                "signatures": [{"validator": index, "signature": hexed(signature)} for index, signature in signed],
            }
        )
        signatures = signed
    certificate = Certificate(2, 1, 3, header.hash, (signatures[0], signatures[2], signatures[3]))
    leaves = [b"leaf %d" % n for n in range(9)]
    return {
        "headers": [{"header": _header_json(header), "encoded": hexed(header.encoded), "hash": hexed(header.hash)}],
        "empty_evidence_hash": hexed(evidence_hash(())),
        "block": {
            "wire_hashes": [hexed(digest) for digest in block.wire_hashes],
            "tx_root": hexed(header.tx_root),
            "encoded": hexed(block.encoded),
        },
        "validators": [
            {
                "name": v.name,
                "key": hexed(v.key),
                "key_seed": hexed(seed(f"{v.name} validator")),
                "node_key": hexed(v.node_key),
            }
            for v in GENESIS.validators.validators
        ],
        "quorums": [
            {"n": n, "f": (n - 1) // 3, "quorum": (n + (n - 1) // 3) // 2 + 1}
            for n in (1, 2, 3, 4, 5, 6, 7, 10, 16, 64)
        ],
        "votes": votes,
        "certificate": {
            "kind": 2,
            "height": 1,
            "view": 3,
            "block_hash": hexed(header.hash),
            "signers": [0, 2, 3],
            "encoded": hexed(certificate.encode()),
        },
        "rfc6962": [
            {
                "leaves": [hexed(leaf) for leaf in leaves[:count]],
                "root": hexed(rfc6962.root(leaves[:count])),
                "paths": [[hexed(step) for step in rfc6962.path(leaves[:count], index)] for index in range(count)],
            }
            for count in (0, 1, 2, 3, 4, 5, 8, 9)
        ],
    }


def light() -> Any:
    """Light blocks of a chain whose set changes twice, and what follows from each for who trusts a header below."""
    first = GENESIS.validators
    second = ValidatorSet.of((*first.validators[1:], _validator("eve")))
    third = ValidatorSet.of((*second.validators[2:], _validator("fay"), _validator("gus")))
    sets = [first, first, first, second, second, third, third]
    headers: list[Header] = []
    for height, validators in enumerate(sets[:-1], 1):
        parent = headers[-1].hash if headers else sha256(b"block 0")
        headers.append(_light_header(height, parent, validators, sets[height]))
    blocks = [_light_block(header, sets[n], range(sets[n].quorum)) for n, header in enumerate(headers)]
    own = ValidatorSet.of(_validator(name) for name in ("mal1", "mal2", "mal3", "mal4"))
    with_one = ValidatorSet.of((*own.validators[:3], first.validators[0]))
    cases = [
        ("the next height", 0, blocks[0], "trusted"),
        ("a later height of the same set", 0, blocks[2], "trusted"),
        ("the next height, of another set that the trusted header names", 3, blocks[3], "trusted"),
        ("a later height, signed by enough of the trusted set", 2, blocks[4], "trusted"),
        ("a later height, signed by too few of the trusted set", 2, blocks[5], "undecided"),
        ("the same from nearer by", 4, blocks[5], "trusted"),
        ("a set that somebody made up", 1, _light_block(_light_header(4, b"", own, own), own, range(3)), "undecided"),
        (
            "a set that somebody made up around one real validator",
            1,
            _light_block(_light_header(4, b"", with_one, with_one), with_one, range(4)),
            "undecided",
        ),
        (
            "a made-up set at the next height",
            1,
            _light_block(_light_header(2, headers[0].hash, own, own), own, range(3)),
            "validators",
        ),
        (
            "another parent at the next height",
            1,
            _light_block(_light_header(2, b"", first, first), first, range(3)),
            "link",
        ),
        ("too few signatures", 0, _light_block(headers[2], first, range(2)), "certificate"),
        ("PREPAREs", 0, _light_block(headers[2], first, range(3), kind=1), "certificate"),
        ("the set of another height", 0, (headers[2], blocks[2][1], second), "validators"),
        ("the certificate of another height", 0, (headers[2], blocks[1][1], first), "header"),
        ("a height that is not above", 3, blocks[1], "height"),
    ]
    return {
        "cases": [
            {
                "what": what,
                "trusted_height": trusted,
                "block": hexed(encode(tuple(part.to_value() for part in block))),
                "outcome": outcome,
            }
            for what, trusted, block, outcome in cases
        ],
        "chain": [hexed(encode(tuple(part.to_value() for part in block))) for block in blocks],
    }


LightParts = tuple[Header, Certificate, ValidatorSet]


def _validator(name: str) -> Validator:
    return Validator(name, key(f"{name} validator").public.data, key(f"{name} node").public.data)


def _light_header(height: int, parent: bytes, validators: ValidatorSet, following: ValidatorSet) -> Header:
    return Header(
        version=1,
        chain_id=CONTEXT.chain_id,
        height=height,
        time_ms=GENESIS.time_ms + 1000 * height,
        parent_hash=parent or sha256(b"another parent"),
        tx_root=sha256(b"transactions"),
        receipts_root=sha256(b"receipts"),
        state_root=sha256(b"state"),
        validators_hash=validators.hash,
        next_validators_hash=following.hash,
        proposer=validators.validators[0].key,
        evidence_hash=evidence_hash(()),
        units_used=1,
    )


def _light_block(header: Header, validators: ValidatorSet, signers: Iterable[int], kind: int = 2) -> LightParts:
    preimage = vote_preimage(GENESIS.hash, validators.hash, kind, header.height, 0, header.hash)
    signatures = tuple(
        (index, key(f"{validators.validators[index].name} validator").sign(preimage)) for index in signers
    )
    return header, Certificate(kind, header.height, 0, header.hash, signatures), validators


def proofs() -> Any:
    """Trees with their roots, proofs of presence and absence in them, and proofs that do not hold."""
    contents = [
        ("nothing", {}),
        ("the single pair of the format's check value", {b"hello": b"world"}),
        ("the state of genesis", dict(LEDGER.genesis_pairs(GENESIS))),
        ("three hundred pairs", {b"key %d" % n: b"value %d" % n for n in range(300)}),
    ]
    trees = []
    for what, pairs in contents:
        rows: dict[bytes, bytes] = {}
        hashed = {sha256(k): v for k, v in pairs.items()}
        rows.update(slices.run(update(rows, None, 0, hashed)).puts)
        asked = [*sorted(pairs)[:3], *(b"absent %d" % n for n in range(4))]
        entries = []
        for state_key in asked:
            proof = prove(rows, 0, sha256(state_key))
            value = pairs.get(state_key)
            entries.append(
                {
                    "key": hexed(state_key),
                    "value": None if value is None else hexed(value),
                    "proof": proof.to_json(),
                    "encoded": hexed(proof.encode()),
                }
            )
        trees.append(
            {
                "what": what,
                "pairs": [{"key": hexed(k), "value": hexed(v)} for k, v in sorted(pairs.items())],
                "root": hexed(root_of(pairs)),
                "proofs": entries,
            }
        )
    return {"trees": trees, "refused": _refused_proofs(trees[-1])}


def _refused_proofs(tree: Any) -> Any:
    present, absent = tree["proofs"][0], tree["proofs"][-1]
    root, proof = tree["root"], present["proof"]
    shorter = {**proof, "siblings": proof["siblings"][1:]}
    turned = {**proof, "siblings": proof["siblings"][::-1]}
    cases = [
        ("another value", root, present["key"], hexed(b"other"), proof),
        ("presence shown as absence", root, present["key"], None, proof),
        ("absence shown as presence", root, absent["key"], hexed(b"value"), absent["proof"]),
        ("another key", root, absent["key"], present["value"], proof),
        ("another root", hexed(sha256(b"root")), present["key"], present["value"], proof),
        ("a sibling missing", root, present["key"], present["value"], shorter),
        ("siblings from the top down", root, present["key"], present["value"], turned),
        ("a leaf that does not stand on the key's path", root, absent["key"], None, proof),
    ]
    names = ("what", "root", "key", "value", "proof")
    return [dict(zip(names, case, strict=True)) for case in cases]


MAKERS = {
    "codec": codec,
    "amounts": amounts,
    "keys": keys,
    "addresses": addresses,
    "genesis": genesis_vectors,
    "transactions": transactions,
    "receipts": receipts,
    "records": records,
    "blocks": blocks,
    "proofs": proofs,
    "light": light,
    "snapshots": lambda: snapshot_vectors(_light_header(9, sha256(b"parent"), *_two_sets()), *_two_sets()),
    "governance": lambda: governance(GENESIS, key("alpha validator"), key("eve validator"), key("eve node")),
}


def _two_sets() -> tuple[ValidatorSet, ValidatorSet]:
    first = GENESIS.validators
    return first, ValidatorSet.of((*first.validators[1:], _validator("eve")))


def text_of(name: str) -> str:
    """The content of the file with this name."""
    return json.dumps(MAKERS[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes all files."""
    DIRECTORY.mkdir(exist_ok=True)
    for name in MAKERS:
        (DIRECTORY / f"{name}.json").write_text(text_of(name))


if __name__ == "__main__":
    main()
