"""What can go wrong between a client and a node, as exceptions that a program can act on.

Three families: the way to the node failed (`TransportError`), the node answered with an error (`RpcError`, one class
for each row of the node's table), and the node's answer does not hold (`VerificationFailed`, `ProtocolError`). What the
client itself is given wrongly (a mistyped address) is a `state.errors.Rejected`, raised before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from state.errors import JsonValue


class ClientError(Exception):
    """Anything that this client reports about a node."""


class TransportError(ClientError):
    """The node cannot be reached, or the connection was lost.

    `sent` tells whether the request may have arrived: then its outcome is unknown until it is asked for.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class TimedOut(TransportError):
    """The node did not answer within the time limit."""


class ProtocolError(ClientError):
    """The answer is not what the interface promises: this is no QENEX node, or another version of one."""


class RpcError(ClientError):
    """The node answered with an error: `code` of its table, `reason` to act on, `message` for people, `data`.

    `retried` tells that an earlier sending of the same request was lost on the way: that one may have been carried out.
    """

    code: int
    reason: str
    message: str
    data: Mapping[str, JsonValue]

    def __init__(self, code: int, message: str, data: Mapping[str, JsonValue]) -> None:
        reason = data.get("reason")
        self.code = code
        self.reason = reason if isinstance(reason, str) else "unknown"
        self.message = message
        self.data = data
        self.retried = False
        super().__init__(f"{self.reason}: {message}")


class MalformedRequest(RpcError):
    """The node could not read the request, or does not know the method or a parameter."""


class InternalError(RpcError):
    """The node failed to answer; its log says why."""


class RequestRejected(RpcError):
    """The transaction or request is refused as it is; `reason` is the rule that it breaks."""


class LimitReached(RpcError):
    """A limit of the node is reached; `reason` is its name."""


class NotFound(RpcError):
    """What was asked for does not exist."""


class NotReady(RpcError):
    """The node cannot answer this now."""


class HeightPruned(RpcError):
    """The node no longer keeps the state of that height."""


class HeightAhead(RpcError):
    """That height is not committed yet."""


class WaitTimedOut(RpcError):
    """The wait ended first; the transaction is still pending."""


class Expired(RpcError):
    """A block later than the transaction's deadline is committed: it can never enter."""


class Dropped(RpcError):
    """The node accepted the transaction and had to let go of it."""


class Busy(RpcError):
    """The node's mempool is full, as a whole or for this account: try again later."""


class SwitchedOff(RpcError):
    """The operator has switched this feature off on this node."""


class WebSocketOnly(RpcError):
    """Subscriptions need a WebSocket."""


class BlockPruned(RpcError):
    """The node was restored from a snapshot and has only the blocks above it: ask another."""


_KINDS: dict[int, type[RpcError]] = {
    -32700: MalformedRequest,
    -32600: MalformedRequest,
    -32601: MalformedRequest,
    -32602: MalformedRequest,
    -32603: InternalError,
    -32000: RequestRejected,
    -32001: LimitReached,
    -32002: NotFound,
    -32003: NotReady,
    -32004: HeightPruned,
    -32005: HeightAhead,
    -32006: WaitTimedOut,
    -32007: Expired,
    -32008: Dropped,
    -32009: Busy,
    -32010: SwitchedOff,
    -32011: WebSocketOnly,
    -32012: BlockPruned,
}


def rpc_error(value: Any) -> RpcError:
    """Returns the exception for a JSON-RPC error object; raises ProtocolError if it is none."""
    if not isinstance(value, dict) or type(value.get("code")) is not int:
        raise ProtocolError("the error in the answer has no code")
    data = value.get("data")
    kind = _KINDS.get(value["code"], RpcError)
    return kind(value["code"], str(value.get("message", "")), data if isinstance(data, dict) else {})


class TransactionFailed(ClientError):
    """The transaction is in a block and changed nothing: `code` says why it failed, `receipt` is its receipt."""

    def __init__(self, code: str, height: int, receipt: Mapping[str, JsonValue]) -> None:
        super().__init__(f"the transaction failed at height {height}: {code}")
        self.code = code
        self.height = height
        self.receipt = receipt


class StillPending(TimedOut):
    """The transaction was not final when the caller's time was up. `wire` may be sent again at any time."""

    def __init__(self, message: str, tx_id: bytes, wire: bytes) -> None:
        super().__init__(message, sent=True)
        self.tx_id = tx_id
        self.wire = wire


class VerificationFailed(ClientError):
    """An answer that does not hold against the trusted validators: `lie` names which part of it.

    `LIES` has all names with their meaning.
    """

    LIES: ClassVar[Mapping[str, str]] = {
        "value": "the proof is for another value than the one that was given",
        "key": "the proof is for another key than the one that was asked for",
        "proof": "the proof does not lead to the state root of the header",
        "header": "the header is not the block that the certificate is for",
        "certificate": "no quorum of the trusted validators signed this block",
        "validators": "the block names another validator set than the trusted one",
        "chain": "the answer is from another chain",
        "height": "the answer is for another height than the one that was asked for",
        "stale": "the answer is older than one seen before, or than the caller allows",
        "transaction": "the transaction is not in the block at the place that was said",
        "receipt": "the receipt is not in the block at the place that was said",
        "link": "the headers are not each the parent of the next",
        "evidence": "the evidence is not that of the block's header",
        "fork": "two different blocks of one height are both certified: more than f validators signed twice",
    }

    def __init__(self, lie: str, message: str) -> None:
        super().__init__(f"{lie}: {message}")
        self.lie = lie
        self.message = message
