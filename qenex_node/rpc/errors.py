"""The errors that a client can meet: JSON-RPC's own codes and this node's table of stable application codes.

An error's `data` always holds `reason`, a stable snake_case word to act on; what else it holds is told per kind here.
Errors of our own making are answered as -32603 and say nothing of their inside: that goes to the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from state.errors import JsonValue, Rejected


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table: the JSON-RPC code, its name, what it means, and what `data` holds beside `reason`."""

    code: int
    name: str
    meaning: str
    data: tuple[str, ...] = ()


PARSE_ERROR: Final = ErrorKind(-32700, "parse_error", "The body is not JSON.")
INVALID_REQUEST: Final = ErrorKind(-32600, "invalid_request", "The JSON is not a JSON-RPC 2.0 request.")
METHOD_NOT_FOUND: Final = ErrorKind(-32601, "method_not_found", "There is no such method.", ("method",))
INVALID_PARAMS: Final = ErrorKind(-32602, "invalid_params", "A parameter is missing, unknown or wrong.", ("param",))
INTERNAL_ERROR: Final = ErrorKind(-32603, "internal_error", "The node failed to answer; its log says why.")

REJECTED: Final = ErrorKind(
    -32000,
    "rejected",
    "The transaction or request is refused as it is; `reason` is the rule that it breaks, with that rule's details.",
)
LIMIT_REACHED: Final = ErrorKind(
    -32001, "limit_reached", "A limit of this node is reached; `reason` is its name.", ("maximum",)
)
NOT_FOUND: Final = ErrorKind(-32002, "not_found", "What was asked for does not exist.")
NOT_READY: Final = ErrorKind(-32003, "not_ready", "The node cannot answer this now.")
HEIGHT_PRUNED: Final = ErrorKind(
    -32004, "height_pruned", "The node no longer keeps the state of that height.", ("height", "oldest_height")
)
HEIGHT_AHEAD: Final = ErrorKind(-32005, "height_ahead", "That height is not committed yet.", ("height", "head_height"))
TIMEOUT: Final = ErrorKind(
    -32006, "timeout", "The wait ended first; the transaction is still pending.", ("id", "not_after_ms", "timeout_ms")
)
EXPIRED: Final = ErrorKind(
    -32007,
    "expired",
    "A block later than the transaction's deadline is committed: it can never enter.",
    ("id", "height", "time_ms"),
)
DROPPED: Final = ErrorKind(
    -32008, "dropped", "The node accepted the transaction and had to let go of it; `reason` says why.", ("id",)
)
BUSY: Final = ErrorKind(-32009, "busy", "The mempool is full, as a whole or for this account: try again later.")
SWITCHED_OFF: Final = ErrorKind(
    -32010, "switched_off", "The operator has switched this feature off on this node.", ("feature",)
)
WEBSOCKET_ONLY: Final = ErrorKind(-32011, "websocket_only", "Subscriptions need a WebSocket, at /ws.")

BLOCK_PRUNED: Final = ErrorKind(
    -32012,
    "block_pruned",
    "The node was restored from a snapshot and has only the blocks above it.",
    ("height", "base_height"),
)

STANDARD_KINDS: Final = (PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR)
APPLICATION_KINDS: Final = (
    REJECTED,
    LIMIT_REACHED,
    NOT_FOUND,
    NOT_READY,
    HEIGHT_PRUNED,
    HEIGHT_AHEAD,
    TIMEOUT,
    EXPIRED,
    DROPPED,
    BUSY,
    SWITCHED_OFF,
    WEBSOCKET_ONLY,
    BLOCK_PRUNED,
)

# Refusals that are not about the transaction or request itself; every other code is a plain REJECTED.
_KIND_OF_REASON: Final = {
    "mempool_full": BUSY,
    "account_limit": BUSY,
    "height_pruned": HEIGHT_PRUNED,
    "block_pruned": BLOCK_PRUNED,
    "height_unknown": HEIGHT_AHEAD,
    "not_found": NOT_FOUND,
    "index_off": SWITCHED_OFF,
    "not_ready": NOT_READY,
    "read_only": NOT_READY,
}


class RpcError(Exception):
    """An answer that is an error; raised by methods, turned into JSON by the dispatcher."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        """Takes the kind, a sentence (or the kind's meaning), details, and the reason (or the kind's name)."""
        super().__init__(message or kind.meaning)
        self.kind = kind
        self.message = message or kind.meaning
        self.data: dict[str, JsonValue] = {"reason": reason or kind.name, **(data or {})}

    def to_json(self) -> dict[str, JsonValue]:
        """Returns the JSON-RPC error object."""
        return {"code": self.kind.code, "message": self.message, "data": self.data}


def from_rejected(rejected: Rejected, data: Mapping[str, JsonValue] | None = None) -> RpcError:
    """Returns the error for a refusal of the ledger, mempool or store; `data` adds details."""
    kind = _KIND_OF_REASON.get(rejected.code, REJECTED)
    return RpcError(kind, rejected.message, {**rejected.data, **(data or {})}, reason=rejected.code)


def limit_reached(name: str, maximum: int, message: str) -> RpcError:
    """Returns the error for a limit of `RpcLimits` by its name."""
    return RpcError(LIMIT_REACHED, message, {"maximum": maximum}, reason=name)
