"""What became of each transaction of a load, as its client was told: the bookkeeping that all else reports to.

A pure machine: times are given, nothing is sent. A transaction is due, then sent; the client is told that it is
accepted, and later that it is final. What is neither told nor final after a lost connection is *open*: the same bytes
may be sent again, to any node. What was accepted is the network's to keep: it is sent again only where it seems to be
forgotten, because later ones were committed long ago or nothing is any more; and that is counted, because no client
should have to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from devnet.load.signing import Signed

# Refusals after which the same bytes may be sent again: the node has no room or no peers, or did not hear in time.
AGAIN: Final = (-32001, -32003, -32006, -32008, -32009)
EXPIRED_CODE: Final = -32007


class Fate(IntEnum):
    """Where a transaction stands for its client."""

    SENT = 1
    OPEN = 2
    ACCEPTED = 3
    COMMITTED = 4
    EXPIRED = 5
    REJECTED = 6


@dataclass(slots=True, eq=False)
class Entry:
    """One transaction; times by the loop's clock in seconds. `due` is when its client wanted it sent."""

    signed: Signed
    due: float
    group: int
    fate: Fate = Fate.SENT
    told: float = 0.0
    accepted: bool = False


@dataclass(slots=True)
class Totals:
    """Counts of what happened."""

    sent: int = 0
    sends: int = 0
    accepted: int = 0
    committed: int = 0
    expired: int = 0
    rejected: int = 0
    reopened: int = 0
    resubmitted_accepted: int = 0


class Book:
    """All transactions of a load, and those of each group that are not settled."""

    def __init__(self, groups: int) -> None:
        """Takes into how many groups the accounts are divided."""
        self.entries: dict[str, Entry] = {}
        self.unsettled: list[dict[str, Entry]] = [{} for _ in range(groups)]
        self.totals = Totals()
        self.latencies: list[float] = []
        self.commit_times: list[float] = []
        self.reasons: dict[str, int] = {}
        self.broken: set[int] = set()
        self.failed: set[str] = set()
        self.last_commit = 0.0
        self.last_due = 0.0

    def sent(self, signed: Signed, group: int, due: float) -> Entry:
        """Notes a transaction as it is sent for the first time."""
        entry = Entry(signed, due, group)
        self.entries[signed.id] = entry
        self.unsettled[group][signed.id] = entry
        self.totals.sent += 1
        return entry

    def in_flight(self, group: int) -> int:
        """Returns how many of a group are not settled."""
        return len(self.unsettled[group])

    def all_settled(self) -> bool:
        """Returns whether nothing is left to wait for."""
        return not any(self.unsettled)

    def lost_connection(self, entries: Iterable[Entry]) -> None:
        """Notes that nobody knows what became of these sendings."""
        for entry in entries:
            self._reopen(entry)

    def answered(self, entry: Entry, status: str, now: float) -> None:
        """Notes a node's answer: accepted or committed."""
        if status == "committed":
            self._committed(entry, now)
        elif entry.fate in (Fate.SENT, Fate.OPEN):
            entry.fate, entry.told = Fate.ACCEPTED, now
            if not entry.accepted:
                entry.accepted = True
                self.totals.accepted += 1

    def refused(self, entry: Entry, code: int, reason: str) -> None:
        """Notes a node's refusal."""
        if entry.fate >= Fate.COMMITTED:
            return
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if code in AGAIN or (code != EXPIRED_CODE and reason == "expired"):
            # By that node's clock its time is over; only a block later than its deadline makes that a fact.
            self._reopen(entry)
        elif code == EXPIRED_CODE:
            self.settle(entry, Fate.EXPIRED)
        else:
            # What comes after it in the lane can never follow: its account is of no more use.
            self.broken.add(entry.signed.account)
            self.settle(entry, Fate.REJECTED)

    def committed(self, ids: Iterable[str], now: float) -> None:
        """Notes the transactions of a block; those of others are passed over."""
        entries = self.entries
        for tx_id in ids:
            entry = entries.get(tx_id)
            if entry is not None:
                self._committed(entry, now)

    def settle(self, entry: Entry, fate: Fate) -> None:
        """Notes that a transaction is expired or rejected."""
        entry.fate = fate
        self.unsettled[entry.group].pop(entry.signed.id, None)
        if fate is Fate.EXPIRED:
            self.totals.expired += 1
        else:
            self.totals.rejected += 1

    def to_send_again(self, group: int, now: float, patience_s: float, limit: int) -> list[Entry]:
        """Returns what of a group must be sent again, in the order of its first sending, and notes it as sent.

        After `patience_s` an accepted one is taken for forgotten: since others that were due so much later than it, or
        since anything at all, was committed.
        """
        again: list[Entry] = []
        stalled = now - self.last_commit > patience_s
        for entry in self.unsettled[group].values():
            if (
                entry.fate is Fate.ACCEPTED
                and now - entry.told > patience_s
                and (stalled or self.last_due - entry.due > patience_s)
            ):
                self.totals.resubmitted_accepted += 1
            elif entry.fate is not Fate.OPEN:
                continue
            entry.fate = Fate.SENT
            again.append(entry)
            if len(again) >= limit:
                break
        return again

    def _reopen(self, entry: Entry) -> None:
        if entry.fate is Fate.SENT:
            entry.fate = Fate.OPEN
            self.totals.reopened += 1

    def _committed(self, entry: Entry, now: float) -> None:
        if entry.fate is Fate.COMMITTED:
            return
        entry.fate = Fate.COMMITTED
        self.unsettled[entry.group].pop(entry.signed.id, None)
        self.totals.committed += 1
        self.latencies.append(now - entry.due)
        self.commit_times.append(now)
        self.last_commit = now
        self.last_due = max(self.last_due, entry.due)
