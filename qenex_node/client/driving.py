"""Carrying a flow out where results are awaited; the blocking face has its own loop of the same shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import trio

from qenex_node.client.errors import ClientError, RpcError
from qenex_node.client.flows import Batch, Flow, Pause, Step
from qenex_node.client.jsonrpc import Call
from state.errors import JsonValue

T = TypeVar("T")

PerformCall = Callable[[Call], Awaitable[JsonValue]]
PerformBatch = Callable[[Sequence[Call]], Awaitable[list[JsonValue | RpcError]]]


async def drive(flow: Flow[T], call: PerformCall, batch: PerformBatch) -> T:
    """Returns the result of a flow; its exceptions pass through."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await _perform(step, call, batch)
            except ClientError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def _perform(step: Step, call: PerformCall, batch: PerformBatch) -> Any:
    if isinstance(step, Call):
        return await call(step)
    if isinstance(step, Batch):
        return await batch(step.calls)
    await _pause(step)
    return None


async def _pause(step: Pause) -> None:
    await trio.sleep(step.seconds)
