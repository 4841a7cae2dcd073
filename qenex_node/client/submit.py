"""Submitting: from operations to a transaction that is final, with sequence numbers, deadlines, and what may go wrong.

The rules that keep money safe when a connection is lost:

- The same bytes may be sent again at any time: the node answers with what became of them. So whoever does not know the
  outcome sends the same transaction again, never a new one.
- A transaction is signed anew, with another sequence number, only if it was certainly refused: the node said so, and no
  earlier sending of it was lost on the way.
- A transaction that is neither committed nor refused by its deadline can never be committed: `Expired` is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qenex_node.client.draft import Draft, Slot
from qenex_node.client.errors import (
    Busy,
    NotFound,
    RequestRejected,
    RpcError,
    StillPending,
    TransactionFailed,
    TransportError,
    WaitTimedOut,
)
from qenex_node.client.errors import Expired as ExpiredError
from qenex_node.client.flows import Batch, Flow, Pause
from qenex_node.client.forms import hash_of, hexed, id_of, integer, reading
from qenex_node.client.jsonrpc import Call
from qenex_node.client.session import Session
from qenex_node.client.signing import Signer, signer_of
from state.address import to_text
from state.errors import JsonValue, Rejected
from state.keys import SigningKey
from state.transaction import Operation, body_value
from state.types import Address, ChainContext, TxId

WAIT_MS_MAX: Final = 30_000
WAIT_MS_DEFAULT: Final = 60_000
REFUSED_MAX: Final = 3
BUSY_MAX: Final = 6
BUSY_PAUSE_S: Final = 0.1
POLL_S: Final = 0.05
POLL_S_MAX: Final = 1.0
_RECEIPT_FIELDS: Final = ("id", "code", "units", "fee", "events")
_SEQUENCE_REASONS: Final = ("sequence_used", "sequence_taken")


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a transaction beside its operations; `fee_max` in base units of the native asset.

    `valid_ms` is how long it may wait for its block (None: the session's). `cosigners` sign for the other accounts that
    the operations debit, `payer` for the account that pays the fee.
    """

    lane: int = 0
    valid_ms: int | None = None
    fee_max: int = 0
    memo: bytes = b""
    payer: Signer | SigningKey | None = None
    cosigners: tuple[Signer | SigningKey, ...] = ()


ORDINARY: Final = Terms()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signed transaction that was not sent yet."""

    id: TxId
    wire: bytes
    sender: Address
    lane: int
    sequence: int
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A transaction that the node accepted: f other validators hold it too. It may be committed already."""

    id: TxId
    not_after_ms: int
    wire: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction that is final: its place, and its receipt in JSON form."""

    id: TxId
    height: int
    index: int
    receipt: Mapping[str, JsonValue] = field(repr=False)

    @property
    def code(self) -> str:
        """ "ok", or why it failed and changed nothing."""
        return str(self.receipt["code"])


def context_of(session: Session) -> Flow[ChainContext]:
    """Returns which chain transactions are for, asked of the node once unless a trusted genesis document says it."""
    if session.context is None:
        _take_status(session, (yield Call("qenex_status")))
    return _known_context(session)


def _known_context(session: Session) -> ChainContext:
    context = session.context
    if context is None:
        raise Rejected("context_unknown", "the session does not know its chain yet")
    return context


def _take_status(session: Session, status: Any) -> None:
    def read(value: Any) -> tuple[ChainContext, int]:
        context = ChainContext(value["chain_id"], hash_of(value["genesis_hash"]))
        return context, integer(value["head"]["time_ms"])

    context, head_time_ms = reading("status", read, status)
    if session.context is None:
        session.context = context
    elif context != session.context:
        raise Rejected("wrong_chain", f"the node is on chain {context.chain_id!r}, not on the one that was expected")
    session.head_time_ms = max(session.head_time_ms, head_time_ms)


def _learn(session: Session, sender: Address, lane: int) -> Flow[None]:
    """Asks what is not known yet for a transaction: chain, block time, the lane's next number. One request."""
    if session.sequences.known(sender, lane) and session.context is not None and session.head_time_ms:
        return
    answers = yield Batch((Call("qenex_status"), Call("qenex_getAccount", {"address": to_text(sender)})))
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
    _take_status(session, answers[0])

    def read(value: Any) -> int:
        lanes = value["next_free"] if value["next_free"] is not None else value["lanes"]
        return integer(lanes[lane])

    session.sequences.learn(sender, lane, reading("account", read, answers[1]))


def prepare(
    session: Session, who: Signer | SigningKey, operations: Sequence[Operation], terms: Terms = ORDINARY
) -> Flow[Prepared]:
    """Returns a signed transaction with the sender's next sequence number and a deadline."""
    sender = signer_of(who)
    yield from _learn(session, sender.address, terms.lane)
    return _sign(session, sender, operations, terms)


def _sign(session: Session, sender: Signer, operations: Sequence[Operation], terms: Terms) -> Prepared:
    context = _known_context(session)
    payer = None if terms.payer is None else signer_of(terms.payer)
    sequence = session.sequences.take(sender.address, terms.lane)
    not_after_ms = session.deadline_ms(terms.valid_ms)
    body = body_value(
        context,
        sender.address,
        terms.lane,
        sequence,
        not_after_ms,
        operations,
        payer=None if payer is None else payer.address,
        fee_max=terms.fee_max,
        memo=terms.memo,
    )
    signers = [sender, *(signer_of(cosigner) for cosigner in terms.cosigners)]
    draft = Draft.make(context, body, _slots([*signers, payer] if payer is not None else signers))
    for signer in [*signers, payer] if payer is not None else signers:
        for key in signer.keys:
            draft = draft.signed_by(key)
    try:
        wire = draft.wire()
    except Rejected:
        session.sequences.give_back(sender.address, terms.lane, sequence)
        raise
    return Prepared(draft.id, wire, sender.address, terms.lane, sequence, not_after_ms)


def _slots(signers: Iterable[Signer]) -> list[Slot]:
    return [Slot(signer.address, signer.policy, signer.stored) for signer in signers]


def make_draft(
    session: Session,
    sender: Slot,
    operations: Sequence[Operation],
    others: Sequence[Slot] = (),
    terms: Terms = ORDINARY,
    payer: Address | None = None,
) -> Flow[Draft]:
    """Returns an unsigned transaction for several people to sign offline; `others` are the further accounts."""
    yield from _learn(session, sender.address, terms.lane)
    body = body_value(
        _known_context(session),
        sender.address,
        terms.lane,
        session.sequences.take(sender.address, terms.lane),
        session.deadline_ms(terms.valid_ms),
        operations,
        payer=payer,
        fee_max=terms.fee_max,
        memo=terms.memo,
    )
    return Draft.make(_known_context(session), body, [sender, *others])


def submit_wire(wire: bytes, tx_id: TxId) -> Flow[Submitted]:
    """Submits a signed transaction; returns once f other validators hold it.

    A busy node is asked again, with growing pauses. Raises RpcError where the node refuses, StillPending where the
    outcome is unknown: then the same bytes may be sent again.
    """
    answer = yield from _send(wire, tx_id, {})
    return Submitted(tx_id, reading("answer", lambda value: integer(value["not_after_ms"]), answer), wire)


def _send(wire: bytes, tx_id: TxId, more: Mapping[str, JsonValue], wait_ms: int = 0) -> Flow[Any]:
    pause_s = BUSY_PAUSE_S
    for attempt in range(1, BUSY_MAX + 1):
        try:
            return (yield Call("qenex_sendTransaction", {"transaction": hexed(wire), **more}, wait_ms))
        except Busy:
            if attempt == BUSY_MAX:
                raise
            yield Pause(pause_s)
            pause_s *= 2
        except TransportError as error:
            if not error.sent:
                raise
            raise StillPending(f"{error}; its outcome is unknown, send the same bytes again", tx_id, wire) from error
    raise Rejected("busy", "the node is busy")


def submit_many(prepared: Sequence[Prepared]) -> Flow[list[Submitted | Exception]]:
    """Submits signed transactions in one request; returns for each that it was accepted, or the error, in order."""
    calls = tuple(Call("qenex_sendTransaction", {"transaction": hexed(one.wire)}) for one in prepared)
    if not calls:
        return []
    answers = yield Batch(calls)
    return [
        answer if isinstance(answer, RpcError) else Submitted(one.id, one.not_after_ms, one.wire)
        for one, answer in zip(prepared, answers, strict=True)
    ]


def submit(
    session: Session, who: Signer | SigningKey, operations: Sequence[Operation], terms: Terms = ORDINARY
) -> Flow[Submitted]:
    """Signs and submits operations as one transaction; returns once f other validators hold it.

    Where another transaction took the sequence number meanwhile, it is signed again with the next one.
    """
    sender = signer_of(who)
    for attempt in range(1, REFUSED_MAX + 1):
        prepared = yield from prepare(session, sender, operations, terms)
        try:
            return (yield from submit_wire(prepared.wire, prepared.id))
        except RpcError as error:
            if not _refused(session, prepared, error) or attempt == REFUSED_MAX:
                raise
        except TransportError as error:
            if not error.sent:
                session.sequences.give_back(prepared.sender, prepared.lane, prepared.sequence)
            raise
    raise Rejected("sequence_used", "the sequence number was taken by others again and again")


def submit_and_wait(
    session: Session,
    who: Signer | SigningKey,
    operations: Sequence[Operation],
    terms: Terms = ORDINARY,
    *,
    wait_ms: int = WAIT_MS_DEFAULT,
) -> Flow[Committed]:
    """Signs and submits operations as one transaction and returns once it is final, even if it failed.

    Raises Expired or Dropped if it never will be final, StillPending if `wait_ms` was not enough.
    """
    sender = signer_of(who)
    for attempt in range(1, REFUSED_MAX + 1):
        prepared = yield from prepare(session, sender, operations, terms)
        try:
            return (yield from wait_wire(prepared.wire, prepared.id, wait_ms=wait_ms))
        except RpcError as error:
            if not _refused(session, prepared, error) or attempt == REFUSED_MAX:
                raise
        except TransportError as error:
            if not error.sent:
                session.sequences.give_back(prepared.sender, prepared.lane, prepared.sequence)
            raise
    raise Rejected("sequence_used", "the sequence number was taken by others again and again")


def _refused(session: Session, prepared: Prepared, error: RpcError) -> bool:
    """Takes back the sequence number of a refused transaction; returns whether it may be signed again with another."""
    if error.retried or not isinstance(error, RequestRejected | Busy):
        session.sequences.forget(prepared.sender, prepared.lane)
        return False
    if error.reason not in _SEQUENCE_REASONS:
        session.sequences.give_back(prepared.sender, prepared.lane, prepared.sequence)
        return False
    session.sequences.forget(prepared.sender, prepared.lane)
    following = error.data.get("next", error.data.get("next_sequence"))
    if type(following) is int and following >= 0:
        session.sequences.learn(prepared.sender, prepared.lane, following)
    return True


def wait_wire(wire: bytes, tx_id: TxId, *, wait_ms: int = WAIT_MS_DEFAULT) -> Flow[Committed]:
    """Submits a signed transaction, again if it was submitted before, and returns once it is final.

    Raises as `submit_and_wait` does.
    """
    left_ms = wait_ms
    while True:
        once_ms = max(1, min(left_ms, WAIT_MS_MAX))
        try:
            answer = yield from _send(wire, tx_id, {"wait": "committed", "timeout_ms": once_ms}, once_ms)
        except WaitTimedOut as error:
            left_ms -= once_ms
            if left_ms <= 0:
                raise StillPending(error.message, tx_id, wire) from error
            continue
        return _committed(answer, tx_id)


def wait_id(tx_id: TxId, *, wait_ms: int = WAIT_MS_DEFAULT) -> Flow[Committed]:
    """Asks for a transaction by its id until it is final; whoever has its bytes waits better by `wait_wire`.

    Raises NotFound if the node does not know it at all, else as `submit_and_wait` does.
    """
    waited_s, pause_s = 0.0, POLL_S
    while True:
        answer = yield Call("qenex_getReceipt", {"id": hexed(tx_id)})
        status = reading("receipt", lambda value: str(value["status"]), answer)
        if status == "committed":
            return _committed(answer, tx_id)
        if status == "unknown":
            raise NotFound(-32002, "the node does not know this transaction", {"reason": "transaction_unknown"})
        if status == "expired":
            raise ExpiredError(-32007, "its deadline passed before it was committed", {"reason": "expired"})
        if waited_s * 1000 >= wait_ms:
            raise StillPending(f"the transaction is still {status}", tx_id, b"")
        yield Pause(pause_s)
        waited_s += pause_s
        pause_s = min(2 * pause_s, POLL_S_MAX)


def _committed(answer: Any, tx_id: TxId) -> Committed:
    def read(value: Any) -> Committed:
        # qenex_getReceipt answers with the receipt's own fields, qenex_sendTransaction with the receipt in a field.
        receipt = value.get("receipt") or {name: value[name] for name in _RECEIPT_FIELDS}
        if id_of(value["id"]) != tx_id or id_of(receipt["id"]) != tx_id or not isinstance(receipt["code"], str):
            raise ValueError("the answer is for another transaction")
        return Committed(tx_id, integer(value["height"]), integer(value["index"]), receipt)

    return reading("receipt", read, answer)


def succeeded(done: Committed) -> Committed:
    """Returns a final transaction if its operations happened; raises TransactionFailed if it changed nothing."""
    if done.code != "ok":
        raise TransactionFailed(done.code, done.height, done.receipt)
    return done
