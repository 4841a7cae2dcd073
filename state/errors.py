"""The two families of errors: ours, which halt the node, and theirs, which are answered.

Every error that a remote party or a user can cause is a `Rejected` with a stable code; whoever receives one can act
on the code without reading the message. An `InvariantError` says that this program is wrong, never that an input is.
"""

from __future__ import annotations

from collections.abc import Mapping

JsonValue = None | bool | int | str | list["JsonValue"] | dict[str, "JsonValue"]


class InvariantError(Exception):
    """A rule that this program itself must keep is broken: the node halts rather than risk a fork."""


class Rejected(Exception):
    """Input from outside that is refused; nothing was changed by it.

    `code` is stable and snake_case, `message` says what to do, `data` holds machine-readable details.
    """

    def __init__(self, code: str, message: str, data: Mapping[str, JsonValue] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data: dict[str, JsonValue] = dict(data or {})


class DecodeError(Rejected):
    """Bytes that are not the canonical encoding of what they claim to be."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)
