"""The JSON forms of chain values: headers, certificates, blocks, transactions, accounts, assets, proofs' context.

One form for each thing, everywhere: snake_case, bytes as 0x-hex, amounts as decimal strings of base units, heights as
numbers, addresses in bech32m, times in ms since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Sequence

from qenex_node.mempool import Waiting
from qenex_node.rpc.view import EvidenceInfo, NodeView
from state.address import to_text
from state.codec import decode
from state.errors import JsonValue
from state.keys import SCHEMES, Policy, PublicKey
from state.ledger import Account, Asset, Ledger
from state.ledger.account import Balance
from state.limits import EXTENSION_BYTES_MAX, LANES_MAX
from state.transaction import Authorisation, Transaction
from state.types import Certificate, Header, ValidatorSet

Json = dict[str, JsonValue]


def hexed(data: bytes) -> str:
    """Returns 0x-hex."""
    return "0x" + data.hex()


def header(value: Header) -> Json:
    """Returns a header with its hash."""
    return {
        "version": value.version,
        "chain_id": value.chain_id,
        "height": value.height,
        "hash": hexed(value.hash),
        "time_ms": value.time_ms,
        "parent_hash": hexed(value.parent_hash),
        "tx_root": hexed(value.tx_root),
        "receipts_root": hexed(value.receipts_root),
        "state_root": hexed(value.state_root),
        "validators_hash": hexed(value.validators_hash),
        "next_validators_hash": hexed(value.next_validators_hash),
        "proposer": hexed(value.proposer),
        "evidence_hash": hexed(value.evidence_hash),
        "units_used": value.units_used,
    }


def certificate(value: Certificate | None) -> JsonValue:
    """Returns a certificate; block 0 has none."""
    if value is None:
        return None
    return {
        "kind": value.kind,
        "height": value.height,
        "view": value.view,
        "block_hash": hexed(value.block_hash),
        "signatures": [{"validator": index, "signature": hexed(signature)} for index, signature in value.signatures],
    }


def validators(value: ValidatorSet) -> Json:
    """Returns a validator set; a validator's index is its place in the list."""
    members: list[JsonValue] = [
        {"name": member.name, "key": hexed(member.key), "node_key": hexed(member.node_key)}
        for member in value.validators
    ]
    return {"hash": hexed(value.hash), "quorum": value.quorum, "f": value.f, "validators": members}


def public_key(key: PublicKey) -> Json:
    """Returns a key with its scheme's name."""
    return {"scheme": SCHEMES[key.scheme].name, "key": hexed(key.data)}


def policy(value: Policy | None) -> JsonValue:
    """Returns threshold and keys, null for none."""
    if value is None:
        return None
    return {"threshold": value.threshold, "keys": [public_key(key) for key in value.keys]}


def _authorisation(value: Authorisation) -> JsonValue:
    return {
        "address": to_text(value.address),
        "policy": policy(value.policy),
        "signatures": [{**public_key(key), "signature": hexed(signature)} for key, signature in value.signatures],
    }


def transaction(ledger: Ledger, tx: Transaction) -> Json:
    """Returns a transaction with its operations' fields by name."""
    return {
        "id": hexed(tx.id),
        "wire_hash": hexed(tx.wire_hash),
        "chain_id": tx.chain_id,
        "sender": to_text(tx.sender),
        "lane": tx.lane,
        "sequence": tx.sequence,
        "not_after_ms": tx.not_after_ms,
        "payer": None if tx.payer is None else to_text(tx.payer),
        "fee_max": str(tx.fee_max),
        "operations": [ledger.operation_to_json(operation) for operation in tx.operations],
        "memo": hexed(tx.memo),
        "authorisations": [_authorisation(authorisation) for authorisation in tx.authorisations],
        "wire": hexed(tx.wire),
    }


def waiting(value: Waiting) -> Json:
    """Returns why a transaction waits."""
    return {"code": value.code, "message": value.message, "data": value.data}


def balance(value: Balance) -> Json:
    """Returns available and held."""
    return {"available": str(value[0]), "held": str(value[1])}


def account(ledger: Ledger, owner: bytes, record: Account | None, next_free: Sequence[int] | None) -> Json:
    """Returns an account; one without a record shows as it would begin."""
    known = record or Account(balances={})
    lanes: list[JsonValue] = [known.sequence(lane) for lane in range(LANES_MAX)]
    held = known.balances
    return {
        "address": to_text(owner),
        "exists": record is not None,
        "lanes": lanes,
        "next_free": None if next_free is None else list(next_free),
        "policy": policy(known.policy),
        "balances": None if held is None else {code: balance(held[code]) for code in sorted(held)},
        "extensions": {tag: _extension(ledger, tag, data) for tag, data in known.extensions},
    }


def _extension(ledger: Ledger, tag: str, data: bytes) -> JsonValue:
    known: JsonValue = None
    for plugin in ledger.plugins:
        if plugin.extension is not None and plugin.extension.tag == tag:
            fields = plugin.extension.fields
            known = fields.to_json(fields.decode(decode(data, bytes_max=EXTENSION_BYTES_MAX), tag))
    return {"bytes": hexed(data), "fields": known}


def asset(value: Asset) -> Json:
    """Returns an asset."""
    return {
        "code": value.code,
        "decimals": value.decimals,
        "issuer": to_text(value.issuer),
        "flags": value.flags,
        "supply": str(value.supply),
    }


def status(node: NodeView) -> Json:
    """Returns who the node is and where it stands."""
    info = node.status()
    head = node.store.head
    return {
        "chain_id": node.context.chain_id,
        "genesis_hash": hexed(node.context.genesis_hash),
        "head": {
            "height": head.height,
            "hash": hexed(head.hash),
            "time_ms": head.time_ms,
            "state_root": hexed(head.state_root),
        },
        "view": info.view,
        "primary": info.primary,
        "sync": {"syncing": info.sync.syncing, "target_height": info.sync.target_height},
        "version": info.version,
        "node_id": hexed(info.node_id),
        "role": info.role,
    }


def evidence(info: EvidenceInfo) -> Json:
    """Returns one piece of evidence."""
    return {
        "number": info.number,
        "validator": info.validator,
        "kind": info.kind,
        "height": info.height,
        "view": info.view,
        "first": hexed(info.first),
        "second": hexed(info.second),
        "recorded_height": info.recorded_height,
    }
