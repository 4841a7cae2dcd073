"""The bounds of the RPC server, and the relations between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from state.errors import Rejected
from state.limits import TRANSACTION_BYTES_MAX

REQUEST_OVERHEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """What one client, and all of them together, may take of the node.

    `bodies_bytes_max` bounds the request bodies that are being received, over all connections. `pending` counts calls
    that wait (for a commit, for instance); a WebSocket with `pending_per_connection_max` of them is not read from until
    one is answered. `outbox_bytes_max` bounds what waits to be written to one WebSocket:
    beyond it the reader is too slow and is dropped. `unsent_bytes_max` bounds what waits to be written to all clients
    together: beyond it the one that is furthest behind is dropped. `answer_bytes_max` bounds the answer to one batch,
    `answers_bytes_max` those of all batches that are being answered.
    """

    body_bytes_max: int = 1024 * 1024
    bodies_bytes_max: int = 64 * 1024 * 1024
    header_bytes_max: int = 16 * 1024
    batch_max: int = 1_000
    answer_bytes_max: int = 8 * 1024 * 1024
    answers_bytes_max: int = 64 * 1024 * 1024
    connections_max: int = 512
    connections_per_address_max: int = 256
    pending_max: int = 20_000
    pending_per_connection_max: int = 2_000
    subscriptions_max: int = 1_024
    subscriptions_per_connection_max: int = 32
    outbox_bytes_max: int = 8 * 1024 * 1024
    unsent_bytes_max: int = 64 * 1024 * 1024
    behind_blocks_max: int = 10_000
    wait_ms_max: int = 120_000
    idle_timeout_s: float = 60.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    send_timeout_s: float = 10.0
    ping_interval_s: float = 20.0

    def __post_init__(self) -> None:
        """Raises Rejected("config_invalid") where one bound makes another senseless."""
        relations = (
            (
                self.body_bytes_max >= 2 * TRANSACTION_BYTES_MAX + REQUEST_OVERHEAD_BYTES,
                f"body_bytes_max must hold one transaction of {TRANSACTION_BYTES_MAX} bytes in hex",
            ),
            (self.bodies_bytes_max >= self.body_bytes_max, "bodies_bytes_max must hold one body_bytes_max"),
            (self.outbox_bytes_max >= self.answer_bytes_max, "outbox_bytes_max must hold one answer_bytes_max"),
            (
                self.answers_bytes_max >= self.answer_bytes_max,
                "answers_bytes_max must hold one answer_bytes_max",
            ),
            (self.pending_max >= self.batch_max, "pending_max must hold one batch_max"),
            (self.header_bytes_max >= 1024, "header_bytes_max is at least 1024"),
            (self.behind_blocks_max >= 1, "behind_blocks_max is at least 1"),
            (
                min(self.connections_max, self.connections_per_address_max, self.batch_max, self.wait_ms_max) >= 1
                and self.pending_per_connection_max >= 1,
                "connections, batches and waits are at least 1",
            ),
            (
                min(self.subscriptions_max, self.subscriptions_per_connection_max) >= 0,
                "subscriptions are at least 0",
            ),
            (
                min(
                    self.idle_timeout_s,
                    self.header_timeout_s,
                    self.body_timeout_s,
                    self.send_timeout_s,
                    self.ping_interval_s,
                )
                > 0,
                "time limits are above 0",
            ),
        )
        for holds, rule in relations:
            if not holds:
                raise Rejected("config_invalid", f"rpc limits: {rule}")
