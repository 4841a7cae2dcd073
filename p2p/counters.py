"""What the peer layer counts and how often it speaks: plain numbers for metrics, and a log that cannot be flooded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from p2p.limits import LOG_INTERVAL_SECONDS, LOG_SUBJECTS_MAX
from p2p.wire import Kind

logger: Final = logging.getLogger("qenex.p2p")
LOG_FIELDS: Final = "qenex_fields"
"""The attribute of a log record that the node's formats (qenex_node/logs.py) show as fields."""

CLOSE_REASONS: Final = (
    "banned",
    "closed_by_peer",
    "connect_failed",
    "connect_timeout",
    "connection_lost",
    "dropped_by_node",
    "duplicate_connection",
    "evicted",
    "frame_malformed",
    "frame_oversize",
    "frame_unexpected",
    "handler_error",
    "hello_timeout",
    "internal_error",
    "malformed",
    "no_longer_permitted",
    "not_a_validator",
    "not_permitted",
    "ping_timeout",
    "proof_invalid",
    "queue_full",
    "rejected_by_peer",
    "replaced",
    "shutdown",
    "tls_failed",
    "tls_timeout",
    "tls_untrusted",
    "unexpected_frame",
    "write_stalled",
    "wrong_chain",
    "wrong_genesis",
    "wrong_node_id",
    "wrong_peer",
    "wrong_version",
)
_FLOOD_EVENTS: Final = ("originated", "delivered", "duplicate", "relayed")
_KINDS: Final = tuple(kind.name.lower() for kind in Kind)


class Counters:
    """Totals since the start, every series at zero from the beginning.

    `values` maps a name to label and number: `connections_closed` by reason; `messages_in`, `messages_out`, `bytes_in`,
    `bytes_out` and `over_budget` by kind of frame; `floods` by event; `bans` and `dials` by total.
    """

    def __init__(self) -> None:
        self.values: Final[dict[str, dict[str, int]]] = {
            "connections_closed": dict.fromkeys(CLOSE_REASONS, 0),
            "messages_in": dict.fromkeys(_KINDS, 0),
            "messages_out": dict.fromkeys(_KINDS, 0),
            "bytes_in": dict.fromkeys(_KINDS, 0),
            "bytes_out": dict.fromkeys(_KINDS, 0),
            "over_budget": dict.fromkeys(_KINDS, 0),
            "floods": dict.fromkeys(_FLOOD_EVENTS, 0),
            "bans": {"total": 0},
            "dials": {"total": 0},
        }

    def count(self, name: str, label: str, amount: int = 1) -> None:
        """Adds to one of the series above; there are no others."""
        self.values[name][label] += amount

    def count_closed(self, reason: str) -> None:
        """Counts the end of a connection; a reason that is not of `CLOSE_REASONS` is the node's own."""
        series = self.values["connections_closed"]
        series[reason if reason in series else "dropped_by_node"] += 1


class Traffic:
    """What went over one connection, by kind of frame, counted there and in the node's totals."""

    def __init__(self, totals: Counters) -> None:
        """Takes the node's totals."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in: dict[str, int] = {}
        self.messages_out: dict[str, int] = {}
        self._totals = totals

    def received(self, kind: Kind, size: int) -> None:
        """Counts a frame that came."""
        label = _KINDS[kind - 1]
        self.bytes_in += size
        self.messages_in[label] = self.messages_in.get(label, 0) + 1
        self._totals.values["messages_in"][label] += 1
        self._totals.values["bytes_in"][label] += size

    def queued(self, kind: Kind, size: int) -> None:
        """Counts a frame that was given to the connection to send."""
        label = _KINDS[kind - 1]
        self.bytes_out += size
        self.messages_out[label] = self.messages_out.get(label, 0) + 1
        self._totals.values["messages_out"][label] += 1
        self._totals.values["bytes_out"][label] += size


class QuietLog:
    """Writes at most one line a second for each subject, and then says how many it left out."""

    def __init__(self, target: logging.Logger = logger) -> None:
        """Takes the logger to write to."""
        self._target = target
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def write(self, level: int, event: str, subject: str, now: float, fields: Mapping[str, object]) -> None:
        """Logs `event` about `subject` (an address or a node) with its fields, at `now` of a steady clock."""
        key = (event, subject)
        last, left_out = self._last.get(key, (-LOG_INTERVAL_SECONDS, 0))
        if now - last < LOG_INTERVAL_SECONDS:
            self._last[key] = (last, left_out + 1)
            return
        if key not in self._last and len(self._last) >= LOG_SUBJECTS_MAX:
            self._last.clear()
        self._last[key] = (now, 0)
        shown = {"subject": subject, **fields, **({"left_out": left_out} if left_out else {})}
        self._target.log(level, event, extra={LOG_FIELDS: shown})
