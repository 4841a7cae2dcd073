"""Receipts: what became of a transaction, as the receipts root of its block commits to it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from state.codec import (
    decode,
    decode_amount,
    encode,
    encode_amount,
    expect_array,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, Rejected
from state.limits import EVENTS_MAX, NAME_LENGTH_MAX
from state.types import Amount, TxId

RECEIPT_VERSION: Final = 1
RECEIPT_BYTES_MAX: Final = 4 * 1024 * 1024
OK: Final = "ok"


class Event(NamedTuple):
    """Something that happened: its kind, and its fields in canonical form, in the order that the kind declares."""

    kind: str
    fields: tuple[Any, ...]


class Receipt(NamedTuple):
    """The outcome of one transaction: `code` is "ok", or the stable code of why it failed and changed nothing.

    `fee` is in base units of the native asset. A failed transaction has no events.
    """

    id: TxId
    code: str
    units: int
    fee: Amount
    events: tuple[Event, ...]

    @property
    def ok(self) -> bool:
        """Whether all its operations happened."""
        return self.code == OK

    def encode(self) -> bytes:
        """Returns the canonical array [version, id, code, units, fee, [[kind, fields] ...]]."""
        return encode((RECEIPT_VERSION, self.id, self.code, self.units, encode_amount(self.fee), self.events))

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Reads canonical bytes; raises DecodeError, naming an unknown version."""
        value = expect_tuple(decode(data, bytes_max=RECEIPT_BYTES_MAX), 6, "receipt")
        version, tx_id, code, units, fee, events = value
        if type(version) is not int or version != RECEIPT_VERSION:
            raise Rejected("version_unknown", f"receipt version {version!r} is unknown; known is {RECEIPT_VERSION}")
        return cls(
            TxId(expect_bytes(tx_id, 32, "transaction id")),
            expect_str(code, NAME_LENGTH_MAX, "code"),
            expect_int(units, "units"),
            Amount(decode_amount(fee)),
            tuple(_event(item) for item in expect_array(events, EVENTS_MAX, "events")),
        )


def _event(value: Any) -> Event:
    kind, fields = expect_tuple(value, 2, "event")
    if type(fields) is not tuple:
        raise DecodeError("an event's fields are an array")
    return Event(expect_str(kind, NAME_LENGTH_MAX, "event kind"), fields)
