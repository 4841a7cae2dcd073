"""What the RPC server counts: a protocol that the node's metrics implement, and one that counts nothing."""

from __future__ import annotations

from typing import Protocol


class RpcMetrics(Protocol):
    """Called on the event loop for each answer, so it must be cheap. Label values come from fixed, small sets."""

    def answered(self, method: str, outcome: str, count: int, seconds: float) -> None:
        """`count` calls of `method` ended with `outcome` ("ok" or an error kind's name), in `seconds` together."""

    def connections(self, transport: str, change: int) -> None:
        """Connections of `transport` ("http" or "websocket") rose or fell by `change`."""

    def subscriptions(self, change: int) -> None:
        """Subscriptions rose or fell by `change`."""

    def dropped(self, reason: str) -> None:
        """A connection was refused or ended by a limit of this name."""


class NoMetrics:
    """Counts nothing."""

    def answered(self, method: str, outcome: str, count: int, seconds: float) -> None:
        """Does nothing."""

    def connections(self, transport: str, change: int) -> None:
        """Does nothing."""

    def subscriptions(self, change: int) -> None:
        """Does nothing."""

    def dropped(self, reason: str) -> None:
        """Does nothing."""
