"""qenex_simulate: the receipt that a transaction would have now, without sending it."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import schemas
from qenex_node.rpc.errors import REJECTED
from qenex_node.rpc.params import TRANSACTION
from qenex_node.rpc.registry import Call, Method, Param, Result
from state.errors import JsonValue
from state.ledger import Environment
from state.transaction import decode_for_simulation, verify_signatures


def simulate(call: Call, wire: bytes) -> JsonValue:
    """Answers qenex_simulate."""
    node = call.node
    tx = decode_for_simulation(wire, node.context)
    verify_signatures(tx)
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
                "a signed transaction, or an unsigned one: its body with an empty list of authorisations, which counts "
                "as authorised by all who would have to",
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
