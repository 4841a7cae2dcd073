"""qenex_simulate: the receipt that a transaction would have now, without sending it."""

from __future__ import annotations

from typing import Any, Final

from qenex_node.rpc import schemas
from qenex_node.rpc.errors import REJECTED
from qenex_node.rpc.params import TRANSACTION
from qenex_node.rpc.registry import Call, Method, Param, Result
from state.codec import decode, encode
from state.errors import JsonValue
from state.keys import ED25519
from state.ledger import Environment
from state.limits import TRANSACTION_BYTES_MAX
from state.transaction import Transaction, decode_transaction, verify_signatures
from state.types import ChainContext

BODY_FIELDS: Final = 9
_NO_SIGNATURE: Final = (((ED25519, bytes(32)), bytes(64)),)


def read_transaction(wire: bytes, context: ChainContext) -> Transaction:
    """Returns a signed transaction with its signatures proved, or an unsigned one without authorisations.

    An unsigned one is [body, []] or the body alone. Raises Rejected.
    """
    body = _unsigned_body(wire)
    if body is None:
        tx = decode_transaction(wire, context)
        verify_signatures(tx)
        return tx
    # The strict reader demands authorisations of sender and payer: it is given empty ones, which are then taken out.
    who = sorted({address for address in (body[2], body[5]) if type(address) is bytes})
    padded = tuple((address, None, _NO_SIGNATURE) for address in who)
    tx = decode_transaction(encode((body, padded)), context)
    tx.authorisations = ()
    return tx


def _unsigned_body(wire: bytes) -> tuple[Any, ...] | None:
    value = decode(wire, bytes_max=TRANSACTION_BYTES_MAX)
    if type(value) is not tuple:
        return None
    if len(value) == 2 and value[1] == ():
        value = value[0]
    return value if type(value) is tuple and len(value) == BODY_FIELDS else None


def simulate(call: Call, wire: bytes) -> JsonValue:
    """Answers qenex_simulate."""
    node = call.node
    tx = read_transaction(wire, node.context)
    head = node.store.head
    environment = Environment(head.height + 1, max(node.now_ms(), head.time_ms + 1))
    receipt = node.ledger.simulate(node.state, environment, tx)
    return {"height": head.height, "receipt": node.ledger.receipt_to_json(receipt)}


METHODS: Final = (
    Method(
        "qenex_simulate",
        "The receipt that a transaction would have if the next block held it now. Nothing is sent.",
        params=(
            Param(
                "transaction",
                TRANSACTION,
                "a signed transaction, or an unsigned one: its body alone, or with an empty list of authorisations. "
                "An unsigned one counts as authorised by all who would have to",
            ),
        ),
        result=Result(
            "simulation",
            schemas.fields(height=schemas.HEIGHT_SCHEMA, receipt=schemas.RECEIPT),
            "`height` is the head's, whose state was used. Its place in its lane is not looked at.",
        ),
        errors=(REJECTED,),
        example=("0x99...",),
        plain=simulate,
    ),
)
