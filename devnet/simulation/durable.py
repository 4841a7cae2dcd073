"""The laws on what must be durable, read from the disk itself at the moment at which a message leaves the machine.

These checks know the form of vote records: they hold each vote against the rounds, the entry into the view and the
promise that a restart at this very moment would find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from consensus.messages import Decided, Evidence, Kind, Message, NewView, PrePrepare, ViewChange, Vote
from consensus.records import ENTRY_KEY, PROMISE_KEY, Memory, Round, decode_records, round_key
from devnet.simulation.checks import Check, Violation
from state.hashing import Hash
from state.types import Certificate, Height

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster
    from devnet.simulation.machine import Machine

_NOTHING: Final = decode_records({})


class Records(Check):
    """A vote leaves only if the disk holds it, its block, and an entry into its view whose floor allows it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._decoded: dict[tuple[bytes, bytes], Memory] = {}

    def left(self, machine: Machine, message: Message) -> None:
        """Looks on the disk for what the message rests on; what is below the durable head needs nothing more."""
        if not machine.own(message):
            return
        if not isinstance(message, Vote | PrePrepare | NewView | ViewChange):
            return
        if message.height <= machine.disk.chain.head.height:
            return
        missing = self._missing(machine, message)
        if missing is not None:
            kind = Kind(message.kind).name
            raise Violation(
                "records",
                f"validator {machine.who} says {kind} of height {message.height}, view {message.view}, and {missing}",
            )

    def _missing(self, machine: Machine, message: Vote | PrePrepare | NewView | ViewChange) -> str | None:
        """Returns what the disk lacks for this message to leave, or None."""
        # Views are each set's own, and so are the records of how they were entered and promised.
        since = self.cluster.since(message.height)
        match message:
            case ViewChange():
                kept = self._read(machine, PROMISE_KEY).promise
                late = (
                    kept is None or kept[0] != since or (kept[1].view, kept[1].height) < (message.view, message.height)
                )
                return "the promise is not on its disk" if late else None
            case NewView():
                entry = self._read(machine, ENTRY_KEY).entry
                late = entry is None or entry[0] != since or entry[1].view < message.view
                return "the view's entry is not on its disk" if late else None
            case Vote() | PrePrepare():
                place = (message.height, message.view)
                item = self._read(machine, round_key(*place)).rounds.get(place)
                if item is None or not _holds(item, message):
                    return "the vote is not on its disk"
                if message.block_hash not in machine.disk.bodies:
                    return "the block is not on its disk"
                head = machine.disk.chain.certificate
                if head is not None and head.view == message.view and head.height >= since:
                    # The head's own certificate is an entry into its view, and stands on the disk with the chain.
                    return None
                entered = self._read(machine, ENTRY_KEY).entry
                return _floor(message, None if entered is None or entered[0] != since else entered[1])

    def _read(self, machine: Machine, key: bytes) -> Memory:
        """Returns what one record says; equal bytes are decoded once, for most votes find the entry of the last."""
        value = machine.disk.record(key)
        if value is None:
            return _NOTHING
        decoded = self._decoded.get((key, value))
        if decoded is None:
            decoded = self._decoded[key, value] = decode_records({key: value})
        return decoded


class Promises(Check):
    """After a VIEW-CHANGE, no vote in a lower view leaves that was not durable before it: what was is only a repeat."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._promised: dict[tuple[int, int], int] = {}
        self._given: dict[tuple[int, int], set[tuple[int, int, int]]] = {}

    def left(self, machine: Machine, message: Message) -> None:
        """Notes promises with the votes that stood before them, and holds later votes against these."""
        if isinstance(message, Decided | Evidence) or not machine.own(message):
            return
        # A view belongs to one validator set: promises of one bind in no other.
        since = self.cluster.since(message.height)
        given = self._given.setdefault((machine.who, since), set())
        promised = self._promised.get((machine.who, since), 0)
        if isinstance(message, ViewChange) and message.view > promised:
            self._promised[machine.who, since] = message.view
            given.update(_votes_on(machine))
        elif isinstance(message, Vote | PrePrepare):
            place = (int(message.kind), message.height, message.view)
            if message.view < promised and place not in given:
                kind, where = Kind(message.kind).name, f"height {message.height}, view {message.view}"
                raise Violation("promise", f"validator {machine.who} promised view {promised}: {kind} of {where}")
            given.add(place)


def _votes_on(machine: Machine) -> Iterator[tuple[int, int, int]]:
    """Yields kind, height and view of each vote on a disk."""
    for item in decode_records(machine.disk.records).rounds.values():
        kinds = [Kind.PRE_PREPARE] if item.proposal.sender == machine.index else []
        kinds += [Kind(vote.kind) for vote in (item.prepare, item.commit) if vote is not None]
        for kind in kinds:
            yield int(kind), item.height, item.view


def _holds(item: Round, message: Vote | PrePrepare) -> bool:
    if isinstance(message, PrePrepare):
        return item.proposal.signature == message.signature
    return message == (item.prepare if message.kind is Kind.PREPARE else item.commit)


def _floor(message: Vote | PrePrepare, entry: NewView | Certificate | None) -> str | None:
    """Holds a vote against the entry into its view, recomputed from the record (view 0 of height 1 on needs none)."""
    if entry is None or entry.view != message.view:
        return None if message.view == 0 and entry is None else "no entry into that view is on its disk"
    if isinstance(entry, Certificate):
        return None if message.height > entry.height else "the view was entered above that height"
    highest = max(change.height for change in entry.view_changes)
    if message.height < highest:
        return f"the floor of its view is {highest}"
    demanded = _demanded(entry, highest) if message.height == highest else None
    return None if demanded in (None, message.block_hash) else "its view demands another block there"


def _demanded(entry: NewView, highest: Height) -> Hash | None:
    held = [change.prepared for change in entry.view_changes if change.height == highest and change.prepared]
    return max(held, key=lambda certificate: certificate.view).block_hash if held else None
