"""JSON schemas of parameters and results, as the OpenRPC document shows them."""

from __future__ import annotations

from typing import Final

from state.errors import JsonValue

Schema = dict[str, JsonValue]

HASH_SCHEMA: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}
HEX_SCHEMA: Final[Schema] = {"type": "string", "pattern": "^0x([0-9a-f]{2})*$"}
ADDRESS_SCHEMA: Final[Schema] = {"type": "string", "pattern": "^qx1[02-9ac-hj-np-z]{58}$"}
AMOUNT_SCHEMA: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,38})$"}
ASSET_SCHEMA: Final[Schema] = {"type": "string", "pattern": "^[A-Z][A-Z0-9.]{1,11}$"}
HEIGHT_SCHEMA: Final[Schema] = {"type": "integer", "minimum": 0}
TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
ANY_OBJECT: Final[Schema] = {"type": "object"}


def fields(**properties: Schema) -> Schema:
    """Returns the schema of an object that has all these properties."""
    named: dict[str, JsonValue] = dict(properties)
    required: list[JsonValue] = list(properties)
    return {"type": "object", "properties": named, "required": required}


def some(**properties: Schema) -> Schema:
    """Returns the schema of an object that may have these properties."""
    named: dict[str, JsonValue] = dict(properties)
    return {"type": "object", "properties": named}


def array(items: Schema) -> Schema:
    """Returns the schema of a list."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """Returns the schema of a value or null."""
    return {"oneOf": [schema, {"type": "null"}]}


PLACE_SCHEMA: Final = fields(height=HEIGHT_SCHEMA, index=HEIGHT_SCHEMA)
HEADER: Final = fields(
    version=NUMBER,
    chain_id=TEXT,
    height=HEIGHT_SCHEMA,
    hash=HASH_SCHEMA,
    time_ms=NUMBER,
    parent_hash=HASH_SCHEMA,
    tx_root=HASH_SCHEMA,
    receipts_root=HASH_SCHEMA,
    state_root=HASH_SCHEMA,
    validators_hash=HASH_SCHEMA,
    next_validators_hash=HASH_SCHEMA,
    proposer=HEX_SCHEMA,
    evidence_hash=HASH_SCHEMA,
    units_used=NUMBER,
)
CERTIFICATE: Final = nullable(
    fields(
        kind=NUMBER,
        height=HEIGHT_SCHEMA,
        view=NUMBER,
        block_hash=HASH_SCHEMA,
        signatures=array(fields(validator=NUMBER, signature=HEX_SCHEMA)),
    )
)
_MEMBERS: Final = array(fields(name=TEXT, key=HEX_SCHEMA, node_key=HEX_SCHEMA))
VALIDATOR_SET: Final = fields(hash=HASH_SCHEMA, quorum=NUMBER, f=NUMBER, validators=_MEMBERS)
VALIDATORS: Final = fields(height=HEIGHT_SCHEMA, hash=HASH_SCHEMA, quorum=NUMBER, f=NUMBER, validators=_MEMBERS)
TRANSACTION: Final = fields(
    id=HASH_SCHEMA,
    wire_hash=HASH_SCHEMA,
    chain_id=TEXT,
    sender=ADDRESS_SCHEMA,
    lane=NUMBER,
    sequence=NUMBER,
    not_after_ms=NUMBER,
    payer=nullable(ADDRESS_SCHEMA),
    fee_max=AMOUNT_SCHEMA,
    operations=array(fields(kind=TEXT, version=NUMBER, fields=ANY_OBJECT)),
    memo=HEX_SCHEMA,
    authorisations=array(ANY_OBJECT),
    wire=HEX_SCHEMA,
)
RECEIPT: Final = fields(
    id=HASH_SCHEMA,
    code=TEXT,
    units=NUMBER,
    fee=AMOUNT_SCHEMA,
    events=array(fields(kind=TEXT, fields=ANY_OBJECT)),
)
WAITING: Final = fields(code=TEXT, message=TEXT, data=ANY_OBJECT)
BALANCE: Final = fields(available=AMOUNT_SCHEMA, held=AMOUNT_SCHEMA)
ACCOUNT: Final = fields(
    address=ADDRESS_SCHEMA,
    exists=FLAG,
    height=HEIGHT_SCHEMA,
    lanes=array(NUMBER),
    next_free=nullable(array(NUMBER)),
    policy=nullable(ANY_OBJECT),
    balances=nullable({"type": "object", "additionalProperties": BALANCE}),
    extensions={
        "type": "object",
        "additionalProperties": fields(bytes=HEX_SCHEMA, fields=nullable(ANY_OBJECT)),
    },
)
ASSET: Final = fields(
    height=HEIGHT_SCHEMA, code=TEXT, decimals=NUMBER, issuer=ADDRESS_SCHEMA, flags=NUMBER, supply=AMOUNT_SCHEMA
)
PROOF: Final = fields(
    height=HEIGHT_SCHEMA,
    key=HEX_SCHEMA,
    value=nullable(HEX_SCHEMA),
    proof=fields(leaf=nullable(fields(key_hash=HASH_SCHEMA, value_hash=HASH_SCHEMA)), siblings=array(HASH_SCHEMA)),
    header=HEADER,
    certificate=CERTIFICATE,
)
STATUS: Final = fields(
    chain_id=TEXT,
    genesis_hash=HASH_SCHEMA,
    head=fields(height=HEIGHT_SCHEMA, hash=HASH_SCHEMA, time_ms=NUMBER, state_root=HASH_SCHEMA),
    view=NUMBER,
    primary=nullable(TEXT),
    sync=fields(syncing=FLAG, target_height=HEIGHT_SCHEMA),
    version=TEXT,
    node_id=HEX_SCHEMA,
    role=TEXT,
)
PEER: Final = fields(
    id=HEX_SCHEMA,
    name=nullable(TEXT),
    address=TEXT,
    direction=TEXT,
    role=TEXT,
    height=HEIGHT_SCHEMA,
    latency_ms=nullable(NUMBER),
    received_bytes=NUMBER,
    sent_bytes=NUMBER,
    score=NUMBER,
    connected_since_ms=NUMBER,
)
EVIDENCE: Final = fields(
    number=NUMBER,
    validator=TEXT,
    kind=TEXT,
    height=HEIGHT_SCHEMA,
    view=NUMBER,
    first=HEX_SCHEMA,
    second=HEX_SCHEMA,
    recorded_height=nullable(HEIGHT_SCHEMA),
)
