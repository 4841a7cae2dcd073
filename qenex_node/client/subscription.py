"""One subscription without I/O: which events are new, and where to go on after a lost connection, with none missed.

Heights number what was seen. `blocks` go on with the block after the last one. `transactions` come in pages of a
block: an unfinished block is replayed and what was seen of it is left out. `evidence` is numbered by the node. `status`
has no history: the newest is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qenex_node.client import forms
from qenex_node.client.forms import reading
from qenex_node.client.jsonrpc import Call
from state.address import to_text
from state.errors import JsonValue, Rejected
from state.types import Address

BLOCKS: Final = "blocks"
TRANSACTIONS: Final = "transactions"
EVIDENCE: Final = "evidence"
STATUS: Final = "status"
CHANNELS: Final = (BLOCKS, TRANSACTIONS, EVIDENCE, STATUS)

Event = dict[str, JsonValue]


@dataclass(slots=True)
class Cursor:
    """Where a subscription stands. `from_height` None begins with what happens from now on."""

    channel: str
    account: Address | None = None
    from_height: int | None = None
    _page: int = -1
    _number: int = 0

    def __post_init__(self) -> None:
        """Raises Rejected("channel_unknown")."""
        if self.channel not in CHANNELS:
            raise Rejected("channel_unknown", f"there is no channel {self.channel!r}; there are {', '.join(CHANNELS)}")

    def call(self) -> Call:
        """Returns the call that begins, or goes on with, the subscription."""
        return Call(
            "qenex_subscribe",
            {
                "channel": self.channel,
                "account": None if self.account is None else to_text(self.account),
                "from_height": self.from_height,
            },
        )

    def begun(self, answer: Any) -> str:
        """Takes the answer to `call` and returns the subscription's id."""

        def read(value: Any) -> tuple[str, int]:
            return forms.text(value["subscription"]), forms.integer(value["head_height"])

        name, head_height = reading("subscription", read, answer)
        if self.from_height is None and self.channel != STATUS:
            # From here on a lost connection must not lose what happens meanwhile.
            self.from_height = head_height + 1
        return name

    def take(self, event: Any) -> Event | None:
        """Returns the event if it is new, without what was seen of it before; None if it was seen whole."""
        taken: Event | None = reading("event", self._take, event)
        return taken

    def _take(self, event: Mapping[str, Any]) -> Event | None:
        if self.channel == BLOCKS:
            return self._take_block(event)
        if self.channel == TRANSACTIONS:
            return self._take_page(event)
        if self.channel == EVIDENCE:
            number = forms.integer(event["number"])
            if number <= self._number:
                return None
            self._number = number
        return dict(event)

    def _take_block(self, event: Mapping[str, Any]) -> Event | None:
        height = forms.integer(event["header"]["height"])
        if self.from_height is not None and height < self.from_height:
            return None
        if self.from_height is not None and height > self.from_height:
            raise ValueError(f"block {height} came where {self.from_height} was next")
        self.from_height = height + 1
        return dict(event)

    def _take_page(self, event: Mapping[str, Any]) -> Event | None:
        height = forms.integer(event["height"])
        if self.from_height is not None and height < self.from_height:
            return None
        if height != self.from_height:
            self.from_height, self._page = height, -1
        fresh = [entry for entry in event["transactions"] if forms.integer(entry["index"]) > self._page]
        if fresh:
            self._page = fresh[-1]["index"]
        if event["last"]:
            self.from_height, self._page = height + 1, -1
        return {**event, "transactions": fresh} if fresh else None

    def ended(self, end: Any) -> None:
        """Takes the node's word that it ended the subscription: the next `call` goes on where it says."""
        height = reading("end of subscription", lambda value: value["from_height"], end)
        if type(height) is int and self.from_height is None:
            self.from_height = height
