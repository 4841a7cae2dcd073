"""mempool_status and mempool_get: what waits for a block, and why."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import render, schemas
from qenex_node.rpc.errors import NOT_FOUND, RpcError
from qenex_node.rpc.params import HASH
from qenex_node.rpc.registry import Call, Method, Param, Result
from state.errors import JsonValue
from state.types import TxId


def status(call: Call) -> JsonValue:
    """Answers mempool_status."""
    mempool = call.node.mempool
    stats = mempool.stats()
    oldest = stats.oldest_arrived_ms
    return {
        "count": stats.count,
        "bytes": stats.bytes,
        "ready": stats.ready,
        "gap": stats.gap,
        "overdue": stats.overdue,
        "accounts": stats.accounts,
        "oldest_age_ms": None if oldest is None else max(0, call.node.now_ms() - oldest),
        "count_max": mempool.limits.count_max,
        "bytes_max": mempool.limits.bytes_max,
    }


def get(call: Call, tx_id: bytes) -> JsonValue:
    """Answers mempool_get."""
    mempool = call.node.mempool
    entry = mempool.by_id(TxId(tx_id))
    waiting = mempool.waiting_reason(TxId(tx_id))
    if entry is None or waiting is None:
        gone = mempool.gone(TxId(tx_id))
        if gone is not None:
            raise RpcError(NOT_FOUND, f"it left the mempool: {gone.message}", {"left": gone.code}, reason="not_waiting")
        raise RpcError(NOT_FOUND, "no transaction with this id waits here", reason="not_waiting")
    return {
        "place": mempool.place(entry.tx.id),
        "waiting": render.waiting(waiting),
        "age_ms": max(0, call.node.now_ms() - entry.arrived_ms),
        "transaction": render.transaction(call.node.ledger, entry.tx),
    }


METHODS: Final = (
    Method(
        "mempool_status",
        "How many transactions wait for a block, and what the mempool may hold.",
        params=(),
        result=Result(
            "status",
            schemas.fields(
                count=schemas.NUMBER,
                bytes=schemas.NUMBER,
                ready=schemas.NUMBER,
                gap=schemas.NUMBER,
                overdue=schemas.NUMBER,
                accounts=schemas.NUMBER,
                oldest_age_ms=schemas.nullable(schemas.NUMBER),
                count_max=schemas.NUMBER,
                bytes_max=schemas.NUMBER,
            ),
            "`ready` can be in the next block, `gap` wait for a sequence, `overdue` are past their deadline.",
        ),
        plain=status,
    ),
    Method(
        "mempool_get",
        "A waiting transaction: its place in the queue, and why it waits.",
        params=(Param("id", HASH, "the transaction's id"),),
        result=Result(
            "entry",
            schemas.fields(
                place=schemas.nullable(schemas.NUMBER),
                waiting=schemas.WAITING,
                age_ms=schemas.NUMBER,
                transaction=schemas.TRANSACTION,
            ),
            "`place` is how many ready transactions stand before it, null if it is not ready.",
        ),
        errors=(NOT_FOUND,),
        example=("0x" + "11" * 32,),
        plain=get,
    ),
)
