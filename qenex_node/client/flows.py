"""What the client does, step by step and without I/O: a flow yields what is to be asked and is sent the answer.

A face (blocking.py, concurrent.py, live.py) carries a flow out: it sends a `Call` and returns its result or throws its
error into the flow, sends a `Batch` and returns a list of results and errors, and waits for a `Pause`. So all faces
submit, wait and verify by the same code, and tests need neither socket nor clock.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from qenex_node.client.jsonrpc import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Many calls in one request; answered by the list of their results or errors, in order."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long."""

    seconds: float


Step: TypeAlias = Call | Batch | Pause
Flow: TypeAlias = Generator[Step, Any, T]
