"""qenex_subscribe and qenex_unsubscribe, for WebSockets."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import schemas, streams
from qenex_node.rpc.errors import INVALID_PARAMS, LIMIT_REACHED, NOT_FOUND, SWITCHED_OFF, WEBSOCKET_ONLY, RpcError
from qenex_node.rpc.methods.heights import check_height
from qenex_node.rpc.params import ADDRESS, HEIGHT, choice, text
from qenex_node.rpc.registry import Call, Method, Param, Result
from qenex_node.rpc.subscriptions import Session, Stream
from state.errors import JsonValue

BLOCKS: Final = "blocks"
TRANSACTIONS: Final = "transactions"
EVIDENCE: Final = "evidence"
STATUS: Final = "status"


def _session(call: Call) -> Session:
    if call.session is None:
        raise RpcError(WEBSOCKET_ONLY)
    return call.session


def subscribe(call: Call, channel: str, account: bytes | None, from_height: int | None) -> JsonValue:
    """Answers qenex_subscribe."""
    session = _session(call)
    node, limits = call.node, call.limits
    if account is not None and channel != TRANSACTIONS:
        raise _misplaced("account", f"only {TRANSACTIONS} are of an account")
    if from_height is not None:
        if channel == STATUS:
            raise _misplaced("from_height", "status has no history")
        if channel != EVIDENCE and from_height != node.store.head.height + 1:
            check_height(node.store, from_height)
        if channel == TRANSACTIONS and account is not None:
            _check_index(node.store.accounts_indexed_from, from_height)
    stream: Stream
    if channel == BLOCKS:
        stream = streams.blocks(node, limits, from_height)
    elif channel == TRANSACTIONS:
        stream = streams.transactions(node, limits, account, from_height)
    elif channel == EVIDENCE:
        stream = streams.evidence(node, from_height)
    else:
        stream = streams.status(node)
    return {"subscription": session.subscribe(channel, stream), "head_height": node.store.head.height}


def _check_index(indexed_from: int | None, from_height: int) -> None:
    """Raises RpcError(SWITCHED_OFF) where a replay of an account would miss something."""
    # Block 0 holds no transactions, so an index that begins at 1 is whole.
    if indexed_from is None or max(from_height, 1) < indexed_from:
        message = "this node does not list accounts' transactions from that height on: ask another"
        data: dict[str, JsonValue] = {"feature": "account_index", "indexed_from": indexed_from}
        raise RpcError(SWITCHED_OFF, message, data, reason="index_off")


def _misplaced(param: str, message: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"parameter {param}: {message}", {"param": param}, reason="misplaced")


def unsubscribe(call: Call, subscription: str) -> JsonValue:
    """Answers qenex_unsubscribe."""
    _session(call).unsubscribe(subscription)
    return {"subscription": subscription, "ended": True}


METHODS: Final = (
    Method(
        "qenex_subscribe",
        "Begins to send events over this WebSocket, as notifications of the method qenex_subscription.",
        params=(
            Param(
                "channel",
                choice(BLOCKS, TRANSACTIONS, EVIDENCE, STATUS),
                "`blocks`: headers with certificates; `transactions`: committed ones with receipts; `evidence`: "
                "validators caught signing twice; `status`: the node's, when it changed",
            ),
            Param("account", ADDRESS, "only this account's transactions", None),
            Param(
                "from_height",
                HEIGHT,
                "replays from this height on, then goes live without a gap; if left out, begins with the next block",
                None,
            ),
        ),
        result=Result(
            "subscription",
            schemas.fields(subscription=schemas.TEXT, head_height=schemas.HEIGHT_SCHEMA),
            "Events arrive as `params` {`subscription`, `channel`, `event`}; the last message of a subscription that "
            "the node ends has `ended` {`reason`, `message`, `from_height`} instead, the height being where to go on.",
        ),
        errors=(WEBSOCKET_ONLY, LIMIT_REACHED, SWITCHED_OFF),
        example=(BLOCKS, None, 1),
        plain=subscribe,
    ),
    Method(
        "qenex_unsubscribe",
        "Ends a subscription of this WebSocket.",
        params=(Param("subscription", text(64), "the subscription's id"),),
        result=Result(
            "ended", schemas.fields(subscription=schemas.TEXT, ended=schemas.FLAG), "No event follows this answer."
        ),
        errors=(WEBSOCKET_ONLY, NOT_FOUND),
        example=("blocks-1",),
        plain=unsubscribe,
    ),
)
