"""What each machine did, one line an event, for people: the first thing to read about a run that went wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consensus.interface import (
    AskProposal,
    AskValidation,
    BodyAvailable,
    Broadcast,
    Commit,
    Committed,
    Complaint,
    NothingToPropose,
    OwnVoteShown,
    Persist,
    Proposed,
    PushTransactions,
    Received,
    Report,
    RequestBody,
    RequestSync,
    Send,
    SetTimer,
    Snapshot,
    Validated,
    WorkChanged,
)
from consensus.messages import Decided, Evidence, Message, NewView, PrePrepare, Status, Suspect, ViewChange, Vote
from state.types import Certificate


def describe(value: Any) -> str:
    """Returns an input or an effect of a core in a few words."""
    match value:
        case Received(message):
            return f"hears {describe_message(message)}"
        case Send(to, message):
            return f"says to v{to}: {describe_message(message)}"
        case Broadcast(message):
            return f"says to all: {describe_message(message)}"
        case Persist():
            keys = ", ".join(_readable(key) for key, _ in value.puts)
            gone = ", ".join(_readable(key) for key in value.deletes)
            return f"persists [{keys}]" + (f" drops [{gone}]" if gone else "") + f" bodies {_hashes(value.bodies)}"
        case AskProposal(height, view) | NothingToPropose(height, view):
            return f"{type(value).__name__} at {height}/{view}"
        case AskValidation():
            return f"asks whether {_short(value.block_hash)} is valid ({'first' if value.first else 'again'})"
        case Proposed(height, view, header, wires):
            return f"built {_short(header.hash)} at {height}/{view} with {len(wires)} transactions"
        case Validated(block_hash, _, outcome, reason):
            return f"validated {_short(block_hash)}: {outcome} {reason}"
        case Commit(header, _, certificate):
            return f"commits {_short(header.hash)} by {_certificate(certificate)}"
        case Committed(header, certificate, _):
            return f"has height {header.height} {_short(header.hash)} durable by {_certificate(certificate)}"
        case RequestBody(block_hash, holders):
            return f"wants body {_short(block_hash)} of {holders}"
        case BodyAvailable(block_hash, _):
            return f"got body {_short(block_hash)}"
        case SetTimer(at_ms):
            return f"wants to know when it is {at_ms}"
        case WorkChanged(has_work):
            return "has transactions waiting" if has_work else "has nothing waiting"
        case Complaint(reason):
            return f"complains: {reason}" if reason else "complains no more"
        case RequestSync(height, sender, proven):
            whom = "anyone" if sender is None else f"v{sender}"
            return f"asks {whom} for blocks up to {height}, which is {'proven' if proven else 'claimed'}"
        case PushTransactions():
            return "sends its oldest transactions to all"
        case OwnVoteShown(message):
            return f"is shown its own {describe_message(message)}"
        case Report():
            about = "" if value.message is None else f" ({describe_message(value.message)})"
            return f"reports {value.kind}: {value.code} {dict(value.data)}{about}"
        case _:
            return repr(value)


def describe_end(snapshot: Snapshot) -> str:
    """Returns where a core stands when a run ends."""
    why = f", suspects: {snapshot.suspicion}" if snapshot.suspicion else ""
    silent = "" if snapshot.may_sign else ", may not sign"
    place = f"height {snapshot.height}, view {snapshot.view}, promised {snapshot.promised}, floor {snapshot.floor}"
    votes = f"PREPAREs of {_members(snapshot.prepares)}, COMMITs of {_members(snapshot.commits)}"
    return f"ends at {place}, {snapshot.phase}, primary v{snapshot.primary}{why}{silent}; {votes}"


def _members(indexes: tuple[int, ...]) -> str:
    return ", ".join(f"v{index}" for index in indexes) or "nobody"


def describe_message(message: Message) -> str:
    """Returns a message in a few words, as v<sender> KIND height/view and what it is about."""
    match message:
        case Vote():
            return f"v{message.sender} {_place(message)} {_short(message.block_hash)}"
        case PrePrepare():
            again = "" if message.certificate is None else f" again by {_certificate(message.certificate)}"
            return f"v{message.sender} {_place(message)} {_short(message.block_hash)}{again}"
        case ViewChange():
            return f"v{message.sender} {_place(message)} holding {_certificate(message.prepared)}"
        case NewView():
            changes = "; ".join(describe_message(change) for change in message.view_changes)
            return f"v{message.sender} {_place(message)} [{changes}]"
        case Status():
            held = f"prepares {message.prepares:b} commits {message.commits:b}"
            accepted = "nothing" if message.proposal is None else _short(message.proposal)
            return f"v{message.sender} {_place(message)} promised {message.promised} accepted {accepted} {held}"
        case Suspect():
            return f"v{message.sender} {_place(message)}"
        case Decided(certificate):
            return f"DECIDED {_certificate(certificate)}"
        case Evidence():
            return f"EVIDENCE against v{message.offender}: {message.offence.name} {message.height}/{message.view}"


class Trace:
    """Lines with time and machine, given to `write` as they come."""

    def __init__(self, write: Callable[[str], None], now_us: Callable[[], int]) -> None:
        self._write = write
        self._now_us = now_us

    def line(self, machine: int, text: str) -> None:
        """Adds a line; machine -1 is the world around the machines."""
        who = "world" if machine < 0 else f"m{machine}"
        self._write(f"{self._now_us() / 1000:10.3f} {who:>5}  {text}")


def _place(message: Vote | PrePrepare | ViewChange | NewView | Status | Suspect) -> str:
    return f"{message.kind.name} {message.height}/{message.view}"


def _certificate(certificate: Certificate | None) -> str:
    if certificate is None:
        return "nothing"
    signers = ",".join(str(index) for index, _ in certificate.signatures)
    kind = "PREPAREs" if certificate.kind == 1 else "COMMITs"
    return f"{kind} {certificate.height}/{certificate.view} {_short(certificate.block_hash)} of {signers}"


def _short(block_hash: bytes) -> str:
    return block_hash.hex()[:6]


def _hashes(hashes: tuple[bytes, ...]) -> str:
    return "[" + ", ".join(_short(block_hash) for block_hash in hashes) + "]"


def _readable(key: bytes) -> str:
    text = key.decode("ascii", "replace")
    return text if text.isprintable() else key.hex()
