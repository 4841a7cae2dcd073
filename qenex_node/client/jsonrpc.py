"""JSON-RPC 2.0 from the caller's side: calls to bytes, answers to results or errors. It knows no connection.

Ids are numbers that the caller chooses. An answer is matched by its id, so that calls of one connection may be answered
in any order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from qenex_node.client.errors import ProtocolError, RpcError, rpc_error
from state.errors import JsonValue

NOTIFICATION: Final = "qenex_subscription"

Params: TypeAlias = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Call:
    """One method with its parameters by name; None stands for a parameter left out.

    `wait_ms` is how long the node itself may wait before it answers: the client's time limit is that much longer.
    """

    method: str
    params: Params = field(default_factory=dict)
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for the call with this id. The id is None where the node could not read one."""

    id: int | None
    result: JsonValue | RpcError


@dataclass(frozen=True, slots=True)
class Notification:
    """What a subscription tells: the params of the notification."""

    params: dict[str, JsonValue]


def _request(call: Call, number: int) -> dict[str, Any]:
    params = {name: value for name, value in call.params.items() if value is not None}
    return {"jsonrpc": "2.0", "method": call.method, "params": params, "id": number}


def encode(call: Call, number: int) -> bytes:
    """Returns the request of one call."""
    return json.dumps(_request(call, number), separators=(",", ":")).encode()


def encode_batch(calls: Sequence[Call], first: int) -> bytes:
    """Returns the request of many calls; they get the ids `first`, `first` + 1 and so on."""
    requests = [_request(call, first + place) for place, call in enumerate(calls)]
    return json.dumps(requests, separators=(",", ":")).encode()


def parse(body: bytes | str) -> Any:
    """Returns the JSON value of an answer; raises ProtocolError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer is not JSON ({error}): is this the RPC address of a node?") from None


def _answer(value: Any) -> Answer:
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0" or ("result" in value) == ("error" in value):
        raise ProtocolError("the answer is not a JSON-RPC 2.0 response")
    number = value.get("id")
    if number is not None and type(number) is not int:
        raise ProtocolError("the answer has an id that was never sent")
    if "error" in value:
        return Answer(number, rpc_error(value["error"]))
    if number is None:
        raise ProtocolError("the answer belongs to no request")
    return Answer(number, value["result"])


def decode(body: bytes, number: int) -> JsonValue | RpcError:
    """Returns the result or error of the one call with this id; raises ProtocolError."""
    answer = _answer(parse(body))
    if answer.id not in (number, None):
        raise ProtocolError("the answer is for another request")
    return answer.result


def decode_batch(body: bytes, first: int, count: int) -> list[JsonValue | RpcError]:
    """Returns the results or errors of a batch in the order of its calls.

    Raises RpcError when the node refuses the batch as a whole, ProtocolError for answers that do not fit.
    """
    value = parse(body)
    if not isinstance(value, list):
        answer = _answer(value)
        if isinstance(answer.result, RpcError):
            raise answer.result
        raise ProtocolError("a batch was answered by a single result")
    results: dict[int, JsonValue | RpcError] = {}
    for item in value:
        answer = _answer(item)
        if answer.id is None or not first <= answer.id < first + count or answer.id in results:
            raise ProtocolError("an answer of the batch belongs to none of its calls")
        results[answer.id] = answer.result
    if len(results) != count:
        raise ProtocolError(f"{count - len(results)} calls of the batch were not answered")
    return [results[first + place] for place in range(count)]


def decode_message(text: bytes | str) -> list[Answer | Notification]:
    """Returns what a WebSocket message says: one thing, or the answers to a batch; raises ProtocolError."""
    value = parse(text)
    return [_message(item) for item in value] if isinstance(value, list) else [_message(value)]


def _message(value: Any) -> Answer | Notification:
    if not isinstance(value, dict) or "method" not in value:
        return _answer(value)
    params = value.get("params")
    if value["method"] != NOTIFICATION or not isinstance(params, dict):
        raise ProtocolError("the node sent a notification that is unknown")
    return Notification(params)
