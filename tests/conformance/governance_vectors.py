"""The vectors of governance: proofs of possession, operations, records, evidence. Written by make_vectors."""

from __future__ import annotations

from typing import Any

from state.block import evidence_hash, vote_preimage
from state.codec import encode
from state.evidence import EquivocationProof, Offence, SignedHash, proposal_digest
from state.genesis import Genesis
from state.hashing import ZERO_HASH, sha256
from state.keys import SigningKey
from state.ledger import Ledger
from state.ledger.domains.governance.possession import possession_preimage, prove_possession
from state.ledger.domains.governance.records import (
    ACCEPTED,
    Agenda,
    Change,
    Pending,
    Proposal,
    ValidatorRecord,
    operator_of,
    proposal_value,
)
from state.ledger.domains.governance.records import (
    Offence as Recorded,
)
from state.ledger.validators import Rule, changed_rule_pairs
from state.types import Height, Validator, ValidatorSet, View


def hexed(data: bytes) -> str:
    """Bytes as the vectors write them."""
    return "0x" + data.hex()


def governance(genesis: Genesis, consensus: SigningKey, newcomer: SigningKey, node: SigningKey) -> Any:
    """All of it: `consensus` is the key of the genesis set's first validator, the others are those of a new one."""
    ledger = Ledger()
    first = genesis.validators.validators[0]
    proofs = prove_possession(genesis.hash, "eve", newcomer, node)
    added = Validator("eve", newcomer.public.data, node.public.data)
    fields: dict[str, Any] = {
        "by": first.name,
        "change": "add",
        "validator": added.name,
        "key": hexed(added.key),
        "node_key": hexed(added.node_key),
        "key_proof": hexed(proofs[0]),
        "node_key_proof": hexed(proofs[1]),
        "operator": None,
        "from_height": 9,
        "expires_ms": 1_700_000_600_000,
    }
    told = [
        ("governance_propose", fields),
        (
            "governance_propose",
            {**dict.fromkeys(fields), "by": first.name, "change": "remove", "validator": "beta"}
            | {"from_height": 0, "expires_ms": 0},
        ),
        ("governance_vote", {"proposal": 1, "by": first.name, "approve": True}),
    ]
    items = [_evidence(genesis, consensus, offence) for offence in Offence]
    return {
        "possession": {
            "genesis_hash": hexed(genesis.hash),
            "name": added.name,
            "key": hexed(added.key),
            "node_key": hexed(added.node_key),
            "preimage": hexed(possession_preimage(genesis.hash, added.name, added.key, added.node_key)),
            "key_proof": hexed(proofs[0]),
            "node_key_proof": hexed(proofs[1]),
        },
        "operations": [
            {"kind": kind, "fields": given, "encoded": hexed(encode(ledger.build(kind, given).fields))}
            for kind, given in told
        ],
        "operator": {"key": hexed(first.key), "address": hexed(operator_of(first.key))},
        "records": _records(genesis, first, added),
        "evidence": items,
        "evidence_hash": hexed(evidence_hash([bytes.fromhex(item["encoded"][2:]) for item in items])),
    }


def _records(genesis: Genesis, first: Validator, added: Validator) -> Any:
    """Records as they stand after a proposal was accepted, and after it took force at height 9."""
    following = ValidatorSet.of((*genesis.validators.validators, added))
    change = Change("add", added.name, added.key, added.node_key, None)
    proposal = Proposal(1, first.key, change, 9, 1_700_000_600_000, (first.key,), (), ACCEPTED, 0, "")
    agenda = Agenda(2, (), (Pending(1, 9, 1_700_000_600_000, first.key),), (), ())
    record = ValidatorRecord(first.name, first.node_key, operator_of(first.key), 1, 0, False, 1, (Recorded(3, 1, 2),))
    pairs = [
        (encode(("governance", "chain")), encode(genesis.hash)),
        (encode(("governance", "agenda")), encode(agenda)),
        (encode(("governance", "proposal", 1)), encode(proposal_value(proposal))),
        (encode(("governance", "validator", first.key)), encode(record)),
        (encode(("governance", "name", first.name)), encode(first.key)),
        (encode(("governance", "used", first.node_key)), encode(first.name)),
        *changed_rule_pairs(Rule(Height(9), following), Height(1)),
    ]
    return {
        "following": [
            {"name": v.name, "key": hexed(v.key), "node_key": hexed(v.node_key)} for v in following.validators
        ],
        "pairs": [{"key": hexed(key), "value": hexed(value)} for key, value in pairs],
    }


def _evidence(genesis: Genesis, signer: SigningKey, offence: Offence) -> Any:
    validators = genesis.validators
    index = validators.index_of(signer.public.data)
    halves, preimages = [], []
    for block_hash in sorted((sha256(b"block one"), sha256(b"block two"))):
        certificate_hash = sha256(b"certificate") if offence is Offence.PRE_PREPARE else ZERO_HASH
        digest = proposal_digest(block_hash, certificate_hash) if offence is Offence.PRE_PREPARE else block_hash
        preimage = vote_preimage(genesis.hash, validators.hash, int(offence), 5, 2, digest)
        preimages.append(hexed(preimage))
        halves.append(SignedHash(block_hash, certificate_hash, signer.sign(preimage)))
    proof = EquivocationProof(offence, Height(5), View(2), index or 0, halves[0], halves[1])
    return {
        "offence": int(offence),
        "height": 5,
        "view": 2,
        "offender": proof.offender,
        "halves": [
            {
                "block_hash": hexed(half.block_hash),
                "certificate_hash": hexed(half.certificate_hash),
                "signature": hexed(half.signature),
            }
            for half in halves
        ],
        "preimages": preimages,
        "encoded": hexed(proof.encode()),
    }
