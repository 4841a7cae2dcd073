"""JSON-RPC 2.0: from the bytes of a message to the bytes of its answer.

It parses, checks, binds parameters, runs methods and writes answers. It knows no socket. Whatever a client sends ends
in an answer or, for notifications, in none; whatever a method raises ends in an error of the table.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, NoReturn

import trio

from qenex_node.rpc.errors import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
    from_rejected,
    limit_reached,
)
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics import RpcMetrics
from qenex_node.rpc.registry import Bound, Call, Method, Registry
from qenex_node.rpc.subscriptions import Session
from qenex_node.rpc.view import NodeView
from state.errors import InvariantError, JsonValue, Rejected

UNKNOWN_METHOD: Final = "unknown"
PARTS_MIN: Final = 1_024
PARTS_PER_CALL_MAX: Final = 64
SLICE_S: Final = 0.002

log = logging.getLogger("qenex.rpc")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
dumps: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Parsed:
    """One well-formed call: `answered` is False for a notification. `id` is its JSON text."""

    method: Method
    bound: Bound
    id: str
    answered: bool


class Dispatcher:
    """Answers messages for one node."""

    def __init__(self, registry: Registry, node: NodeView, limits: RpcLimits, metrics: RpcMetrics) -> None:
        """Takes the methods, what they are given, the bounds, and where to count."""
        self._registry = registry
        self._node = node
        self._limits = limits
        self._metrics = metrics
        self._parts_max = PARTS_MIN + PARTS_PER_CALL_MAX * limits.batch_max
        self._pending = 0
        self._answers = _Pool(limits.answers_bytes_max)

    def begin(self, message: bytes | str, session: Session | None = None) -> bytes | Awaitable[bytes | None] | None:
        """Returns the answer (None for notifications) if it is there at once, else what to await for it.

        What is returned to await must be awaited, once.
        """
        try:
            text = message if isinstance(message, str) else message.decode()
            # What makes JSON slow to read is how many parts it has, not bytes: 1 MiB of [[],[],... takes 70 ms.
            if text.count(",") + text.count("[") + text.count("{") > self._parts_max:
                return self._too_many_parts()
            request = _decode(text)
        except (ValueError, RecursionError) as error:
            self._metrics.answered(UNKNOWN_METHOD, PARSE_ERROR.name, 1, 0.0)
            return _failure(RpcError(PARSE_ERROR, _parse_message(error)), "null").encode()
        call = Call(self._node, self._limits, session)
        if type(request) is list:
            return self._begin_batch(request, call)
        parsed = self._parse(request)
        if isinstance(parsed, str):
            return parsed.encode()
        if parsed is None:
            return None
        if parsed.method.plain is None:
            return self._wait_for_one(parsed, call)
        answer = self._run_plain(parsed, call)
        return answer.encode() if parsed.answered else None

    def _too_many_parts(self) -> bytes:
        maximum = self._parts_max
        error = limit_reached("json_parts_max", maximum, f"a message has at most {maximum} commas and brackets")
        return self._refuse(None, "null", error).encode()

    def _parse(self, request: Any) -> Parsed | str | None:
        """Returns the call, or the error to answer, or None for a notification that cannot be carried out."""
        if type(request) is not dict:
            return self._refuse(None, "null", _invalid("a request is a JSON object"))
        id_ = request.get("id")
        answered = "id" in request
        id_kind = type(id_)
        if id_kind is int:
            id_text = str(id_)
        elif id_kind is str:
            id_text = dumps(id_)
        elif id_ is None:
            id_text = "null"
        else:
            return self._refuse(None, "null", _invalid("id must be text, a whole number or null"))
        name = request.get("method")
        if request.get("jsonrpc") != "2.0" or type(name) is not str:
            return self._refuse(None, id_text, _invalid('a request has "jsonrpc": "2.0" and a "method"'))
        method = self._registry.get(name)
        if method is None:
            message = f"there is no method {name[:64]!r}; rpc.discover lists them"
            error = RpcError(METHOD_NOT_FOUND, message, {"method": name[:64]})
        else:
            try:
                return Parsed(method, method.bind(request.get("params")), id_text, answered)
            except RpcError as refused:
                error = refused
        text = self._refuse(method, id_text, error)
        return text if answered else None

    def _refuse(self, method: Method | None, id_text: str, error: RpcError) -> str:
        self._metrics.answered(UNKNOWN_METHOD if method is None else method.name, error.kind.name, 1, 0.0)
        return _failure(error, id_text)

    def _run_plain(self, parsed: Parsed, call: Call) -> str:
        method = parsed.method
        started = perf_counter()
        try:
            result: JsonValue | RpcError = method.plain(call, *parsed.bound)  # type: ignore[misc]
        except Exception as error:
            result = self._as_error(method, error)
        return self._finish(method, result, parsed.id, perf_counter() - started)

    def _finish(self, method: Method, result: JsonValue | RpcError, id_text: str, seconds: float) -> str:
        if isinstance(result, RpcError):
            self._metrics.answered(method.name, result.kind.name, 1, seconds)
            return _failure(result, id_text)
        self._metrics.answered(method.name, "ok", 1, seconds)
        return f'{{"jsonrpc":"2.0","result":{dumps(result)},"id":{id_text}}}'

    def _as_error(self, method: Method, error: Exception) -> RpcError:
        """Turns what a method raised into an answer; our own bugs are logged and not told."""
        if isinstance(error, RpcError):
            return error
        if isinstance(error, Rejected):
            return from_rejected(error)
        kind = "broken invariant" if isinstance(error, InvariantError) else "unexpected error"
        log.error("%s in RPC method %s", kind, method.name, exc_info=error)
        return RpcError(INTERNAL_ERROR)

    async def _wait_for_one(self, parsed: Parsed, call: Call) -> bytes | None:
        started = perf_counter()
        method, id_text, answered, bounds = parsed.method, parsed.id, parsed.answered, [parsed.bound]
        # A bulk method empties `bounds` before it waits: nothing else may hold the parameters then.
        del parsed
        result = (await self._waiting(method, bounds, call))[0]
        answer = self._finish(method, result, id_text, perf_counter() - started)
        return answer.encode() if answered else None

    async def _waiting(self, method: Method, bounds: list[Bound], call: Call) -> Sequence[JsonValue | RpcError]:
        """Runs a method that may wait for each of `bounds`, counted against the pending calls of all clients."""
        maximum = self._limits.pending_max
        count = len(bounds)
        if self._pending + count > maximum:
            error = limit_reached("pending_max", maximum, "too many calls wait on this node: try again later")
            return [error] * count
        self._pending += count
        try:
            if method.bulk is not None:
                return await method.bulk(call, bounds)
            return [await method.waiting(call, *bound) for bound in bounds]  # type: ignore[misc]
        except Exception as error:
            return [self._as_error(method, error)] * count
        finally:
            self._pending -= count

    def _begin_batch(self, requests: list[Any], call: Call) -> bytes | Awaitable[bytes | None]:
        if not requests:
            return self._refuse(None, "null", _invalid("a batch holds at least one request")).encode()
        if len(requests) > self._limits.batch_max:
            maximum = self._limits.batch_max
            error = limit_reached("batch_max", maximum, f"a batch holds at most {maximum} requests")
            return self._refuse(None, "null", error).encode()
        return self._answer_batch(requests, call)

    async def _answer_batch(self, requests: list[Any], call: Call) -> bytes | None:
        """Answers a batch in its order; calls of a bulk method are carried out together, after the others."""
        room = _Room(self._limits.answer_bytes_max, self._answers)
        try:
            return await self._answers_in_order(requests, call, room)
        finally:
            room.leave()

    async def _answers_in_order(self, requests: list[Any], call: Call, room: _Room) -> bytes | None:
        answers: list[str | None] = [None] * len(requests)
        bulks: dict[str, _Bulk] = {}
        slice_end = perf_counter() + SLICE_S
        for place, request in enumerate(requests):
            parsed = self._parse(request)
            if isinstance(parsed, Parsed):
                if parsed.method.bulk is not None:
                    bulks.setdefault(parsed.method.name, _Bulk(parsed.method)).add(place, parsed)
                    continue
                answers[place] = await self._answer_in_batch(parsed, call, room)
            elif parsed is not None:
                answers[place] = room.take(parsed)
            if perf_counter() > slice_end:
                await trio.lowlevel.checkpoint()
                slice_end = perf_counter() + SLICE_S
        requests.clear()
        for bulk in bulks.values():
            await self._answer_bulk(bulk, call, answers, room)
        told = [answer for answer in answers if answer is not None]
        return f"[{','.join(told)}]".encode() if told else None

    async def _answer_in_batch(self, parsed: Parsed, call: Call, room: _Room) -> str | None:
        if room.full:
            return self._refuse(parsed.method, parsed.id, room.error()) if parsed.answered else None
        if parsed.method.plain is not None:
            answer = self._run_plain(parsed, call)
        else:
            started = perf_counter()
            result = (await self._waiting(parsed.method, [parsed.bound], call))[0]
            answer = self._finish(parsed.method, result, parsed.id, perf_counter() - started)
        return room.take(answer) if parsed.answered else None

    async def _answer_bulk(self, bulk: _Bulk, call: Call, answers: list[str | None], room: _Room) -> None:
        method = bulk.method
        started = perf_counter()
        results = await self._waiting(method, bulk.bounds, call)
        outcomes: dict[str, int] = {}
        for (place, id_text), result in zip(bulk.places, results, strict=True):
            if isinstance(result, RpcError):
                outcome, answer = result.kind.name, _failure(result, id_text or "null")
            else:
                outcome, answer = "ok", f'{{"jsonrpc":"2.0","result":{dumps(result)},"id":{id_text}}}'
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            # What was carried out is answered even beyond the room: the client must learn of it.
            answers[place] = None if id_text is None else room.take(answer)
        share = (perf_counter() - started) / len(results)
        for outcome, count in outcomes.items():
            self._metrics.answered(method.name, outcome, count, share * count)


class _Bulk:
    """The calls of one bulk method in a batch: their parameters, their places, and their ids (None: notification)."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.bounds: list[Bound] = []
        self.places: list[tuple[int, str | None]] = []

    def add(self, place: int, parsed: Parsed) -> None:
        self.bounds.append(parsed.bound)
        self.places.append((place, parsed.id if parsed.answered else None))


@dataclass(slots=True)
class _Pool:
    """How many bytes the answers of all batches under way may still take: thousands of them can wait at once."""

    left: int


class _Room:
    """How many bytes the answer to a batch may still take."""

    def __init__(self, maximum: int, pool: _Pool) -> None:
        self._maximum = maximum
        self._pool = pool
        self._taken = 0

    @property
    def full(self) -> bool:
        return self._taken >= self._maximum or self._pool.left <= 0

    def take(self, answer: str) -> str:
        self._taken += len(answer)
        self._pool.left -= len(answer)
        return answer

    def leave(self) -> None:
        self._pool.left += self._taken

    def error(self) -> RpcError:
        if self._taken < self._maximum:
            return limit_reached("answers_bytes_max", self._maximum, "too many batches are being answered: ask later")
        return limit_reached(
            "answer_bytes_max", self._maximum, "the answers so far fill the batch: ask in smaller ones"
        )


def _invalid(message: str) -> RpcError:
    return RpcError(INVALID_REQUEST, message)


def _parse_message(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return "not JSON: nested too deep" if isinstance(error, RecursionError) else f"not JSON: {error}"


def _failure(error: RpcError, id_text: str) -> str:
    return f'{{"jsonrpc":"2.0","error":{dumps(error.to_json())},"id":{id_text}}}'


def refusal_body(error: RpcError) -> bytes:
    """Returns the JSON-RPC form of an error that belongs to no request (a refused connection, a bad HTTP request)."""
    return _failure(error, "null").encode()
