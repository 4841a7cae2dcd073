"""What a store says when it cannot go on. Both halt the node by name: they are never an answer to a client."""

from __future__ import annotations

from typing import ClassVar

from state.errors import InvariantError


class StoreError(InvariantError):
    """The database cannot be relied on; `code` is stable, as that of a rejection."""

    code: ClassVar[str] = "store_error"


class Damaged(StoreError):
    """A stored record or file is not what was written. Nothing was repaired.

    `record` names what is damaged, `problem` says how that was seen.
    """

    code: ClassVar[str] = "store_damaged"

    def __init__(self, record: str, problem: str) -> None:
        super().__init__(f"{self.code}: {record} {problem}")
        self.record = record
        self.problem = problem


class StorageFailed(StoreError):
    """The operating system or LevelDB refused to read or write. What was being written is wholly there or not at all.

    After a failed write the store refuses every further one: the end of the log is unknown until it is opened anew.
    """

    code: ClassVar[str] = "storage_failed"

    def __init__(self, doing: str, reason: str) -> None:
        super().__init__(f"{self.code}: {doing}: {reason}")
        self.reason = reason
