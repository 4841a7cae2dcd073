"""qenex_sendTransaction, qenex_getTransaction, qenex_getReceipt and qenex_getTransactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from qenex_node.rpc import history, render, schemas
from qenex_node.rpc.errors import (
    BUSY,
    DROPPED,
    EXPIRED,
    LIMIT_REACHED,
    REJECTED,
    SWITCHED_OFF,
    TIMEOUT,
    RpcError,
    from_rejected,
)
from qenex_node.rpc.methods.accounts import EXAMPLE_ADDRESS
from qenex_node.rpc.params import ADDRESS, HASH, PLACE, TRANSACTION, choice, integer
from qenex_node.rpc.registry import Bound, Call, Method, Param, Result
from qenex_node.rpc.render import Json, hexed
from qenex_node.rpc.view import (
    Accepted,
    Admitted,
    Committed,
    Dropped,
    Expired,
    Location,
    NodeView,
    SubmitOutcome,
    WaitOutcome,
)
from state.errors import JsonValue
from state.transaction import decode_transaction
from state.types import TxId

ACCEPTED: Final = "accepted"
COMMITTED: Final = "committed"
WAIT_MS_DEFAULT: Final = 10_000
WAIT_MS_MAX: Final = 600_000
PAGE_MAX: Final = 100

Answer = JsonValue | RpcError


async def send(call: Call, bounds: list[Bound]) -> Sequence[Answer]:
    """Answers qenex_sendTransaction: all of a batch are admitted together, and those that wait alike wait together."""
    node = call.node
    waits = [(wait, min(timeout_ms, call.limits.wait_ms_max)) for _, wait, timeout_ms in bounds]
    wires = [bound[0] for bound in bounds]
    bounds.clear()
    outcomes = await node.submit(wires)
    wires.clear()
    answers: list[Answer] = [None] * len(outcomes)
    groups: dict[tuple[str, int], list[tuple[int, Admitted]]] = {}
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Admitted) and outcome.committed is None:
            groups.setdefault(waits[place], []).append((place, outcome))
        else:
            answers[place] = _settled(node, outcome)
    if len(groups) == 1:
        ((wait, timeout_ms), group) = groups.popitem()
        await _wait(node, wait, timeout_ms, group, answers)
    elif groups:
        async with trio.open_nursery() as nursery:
            for (wait, timeout_ms), group in groups.items():
                nursery.start_soon(_wait, node, wait, timeout_ms, group, answers)
    return answers


def _settled(node: NodeView, outcome: SubmitOutcome) -> Answer:
    """The answer to a transaction that is refused, or was committed before."""
    if isinstance(outcome, Admitted):
        if outcome.committed is None:
            return _accepted(outcome)
        return _committed(node, outcome, outcome.committed)
    return from_rejected(outcome)


async def _wait(
    node: NodeView, wait: str, timeout_ms: int, group: list[tuple[int, Admitted]], answers: list[Answer]
) -> None:
    ids = [admitted.id for _, admitted in group]
    waiting = node.wait_accepted if wait == ACCEPTED else node.wait_committed
    fates = await waiting(ids, timeout_ms)
    for (place, admitted), fate in zip(group, fates, strict=True):
        answers[place] = _accepted(admitted) if type(fate) is Accepted else _fate(node, admitted, fate, timeout_ms)


def _accepted(admitted: Admitted) -> Json:
    return {"id": hexed(admitted.id), "not_after_ms": admitted.not_after_ms, "status": ACCEPTED}


def _committed(node: NodeView, admitted: Admitted, location: Location) -> Json:
    receipt = history.receipt_at(node, location.height, location.index)
    return {
        "id": hexed(admitted.id),
        "not_after_ms": admitted.not_after_ms,
        "status": COMMITTED,
        "height": location.height,
        "index": location.index,
        "receipt": node.ledger.receipt_to_json(receipt),
    }


def _fate(node: NodeView, admitted: Admitted, fate: WaitOutcome, timeout_ms: int) -> Answer:
    if isinstance(fate, Committed):
        return _committed(node, admitted, fate.location)
    known: Json = {"id": hexed(admitted.id)}
    if isinstance(fate, Expired):
        message = f"block {fate.height} is later than its deadline: it can never enter; sign it anew"
        return RpcError(EXPIRED, message, {**known, "height": fate.height, "time_ms": fate.time_ms})
    if isinstance(fate, Dropped):
        data = {**fate.reason.data, **known}
        return RpcError(DROPPED, fate.reason.message, data, reason=fate.reason.code)
    return RpcError(TIMEOUT, None, {**known, "not_after_ms": admitted.not_after_ms, "timeout_ms": timeout_ms})


def _uncommitted(node: NodeView, tx_id: TxId) -> Json:
    """What is known of a transaction that no block holds."""
    entry = node.mempool.by_id(tx_id)
    why = node.mempool.waiting_reason(tx_id)
    if entry is not None and why is not None:
        return {"status": "pending", "waiting": render.waiting(why), "not_after_ms": entry.tx.not_after_ms}
    gone = node.mempool.gone(tx_id)
    if gone is None:
        return {"status": "unknown"}
    if gone.not_after_ms < node.store.head.time_ms:
        return {"status": "expired", "not_after_ms": gone.not_after_ms}
    left: JsonValue = {"code": gone.code, "message": gone.message}
    return {"status": "unknown", "left_mempool": left, "not_after_ms": gone.not_after_ms}


def get_transaction(call: Call, tx_id: bytes) -> JsonValue:
    """Answers qenex_getTransaction."""
    node = call.node
    place = node.store.locate(tx_id)
    if place is None:
        answer = {"id": hexed(tx_id), **_uncommitted(node, TxId(tx_id))}
        entry = node.mempool.by_id(TxId(tx_id))
        if entry is not None:
            answer["transaction"] = render.transaction(node.ledger, entry.tx)
        return answer
    height, index = place
    tx = decode_transaction(history.wire_at(node, height, index), node.context)
    return {
        "id": hexed(tx_id),
        "status": COMMITTED,
        "height": height,
        "index": index,
        "transaction": render.transaction(node.ledger, tx),
    }


def get_receipt(call: Call, tx_id: bytes) -> JsonValue:
    """Answers qenex_getReceipt."""
    node = call.node
    place = node.store.locate(tx_id)
    if place is None:
        return {"id": hexed(tx_id), **_uncommitted(node, TxId(tx_id))}
    height, index = place
    receipt = node.ledger.receipt_to_json(history.receipt_at(node, height, index))
    return {"status": COMMITTED, "height": height, "index": index, **receipt}


async def get_transactions(
    call: Call, account: bytes, before: tuple[int, int] | None, limit: int, verbosity: str
) -> JsonValue:
    """Answers qenex_getTransactions."""
    node = call.node
    places = node.store.account_transactions(account, before, limit)
    transactions: list[JsonValue] = []
    pauses = history.Pauses()
    for height, index in places:
        receipt = history.receipt_at(node, height, index)
        if verbosity == "full":
            wire = history.wire_at(node, height, index)
            transactions.append(history.committed_transaction(node, height, index, wire, receipt))
        else:
            transactions.append({"height": height, "index": index, "id": hexed(receipt.id), "code": receipt.code})
        await pauses.pause()
    last = places[-1] if len(places) == limit else None
    following: JsonValue = None if last is None else {"height": last[0], "index": last[1]}
    return {"transactions": transactions, "next": following, "indexed_from": node.store.accounts_indexed_from}


ID: Final = Param("id", HASH, "the transaction's id")
PENDING_DOC: Final = (
    "`status` is `committed`; `pending`, and `waiting` says why; `expired` once a committed block is later than its "
    "deadline; or `unknown`."
)

METHODS: Final = (
    Method(
        "qenex_sendTransaction",
        "Submits a signed transaction and waits until it is safe with other validators, or final.",
        params=(
            Param("transaction", TRANSACTION, "the whole signed transaction"),
            Param(
                "wait",
                choice(ACCEPTED, COMMITTED),
                "`accepted`: until f other validators hold it; `committed`: until it is final",
                ACCEPTED,
            ),
            Param(
                "timeout_ms",
                integer(0, WAIT_MS_MAX),
                "how long to wait at most; the node's own limit may be shorter",
                WAIT_MS_DEFAULT,
            ),
        ),
        result=Result(
            "sent",
            schemas.some(
                id=schemas.HASH_SCHEMA,
                not_after_ms=schemas.NUMBER,
                status=schemas.TEXT,
                height=schemas.HEIGHT_SCHEMA,
                index=schemas.NUMBER,
                receipt=schemas.RECEIPT,
            ),
            "`status` is `accepted` or `committed`; `height`, `index` and `receipt` are there when it is committed, "
            "which a known transaction may be at once. Sending the same transaction again is harmless. The sends of "
            "one batch are admitted together: the cheapest way to send many.",
        ),
        errors=(REJECTED, BUSY, TIMEOUT, EXPIRED, DROPPED, LIMIT_REACHED),
        example=("0x92...", COMMITTED, WAIT_MS_DEFAULT),
        bulk=send,
    ),
    Method(
        "qenex_getTransaction",
        "A transaction by its id, and what became of it.",
        params=(ID,),
        result=Result(
            "transaction",
            schemas.some(
                id=schemas.HASH_SCHEMA,
                status=schemas.TEXT,
                height=schemas.HEIGHT_SCHEMA,
                index=schemas.NUMBER,
                transaction=schemas.TRANSACTION,
                waiting=schemas.WAITING,
                not_after_ms=schemas.NUMBER,
            ),
            PENDING_DOC,
        ),
        example=("0x" + "11" * 32,),
        plain=get_transaction,
    ),
    Method(
        "qenex_getReceipt",
        "What a transaction did, by its id: code, events, and its place in the chain.",
        params=(ID,),
        result=Result(
            "receipt",
            schemas.some(
                id=schemas.HASH_SCHEMA,
                status=schemas.TEXT,
                height=schemas.HEIGHT_SCHEMA,
                index=schemas.NUMBER,
                code=schemas.TEXT,
                units=schemas.NUMBER,
                fee=schemas.AMOUNT_SCHEMA,
                events=schemas.array(schemas.fields(kind=schemas.TEXT, fields=schemas.ANY_OBJECT)),
                waiting=schemas.WAITING,
                not_after_ms=schemas.NUMBER,
            ),
            PENDING_DOC + " A committed transaction that failed has a `code` other than `ok` and no events.",
        ),
        example=("0x" + "11" * 32,),
        plain=get_receipt,
    ),
    Method(
        "qenex_getTransactions",
        "The committed transactions that touched an account, newest first.",
        params=(
            Param("account", ADDRESS, "the account"),
            Param("before", PLACE, "only those before this place; `next` of the page before", None),
            Param("limit", integer(1, PAGE_MAX), "how many at most", 20),
            Param("verbosity", choice("ids", "full"), '"ids": id and code; "full": all of it', "ids"),
        ),
        result=Result(
            "transactions",
            schemas.fields(
                transactions={"type": "array"},
                next=schemas.nullable(schemas.PLACE_SCHEMA),
                indexed_from=schemas.NUMBER,
            ),
            "`next` is the place to give as `before` for the next page, null on the last. The node's index begins at "
            "the height `indexed_from`.",
        ),
        errors=(SWITCHED_OFF,),
        example=(EXAMPLE_ADDRESS,),
        waiting=get_transactions,
    ),
)
