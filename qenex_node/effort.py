"""What it costs to check a consensus message, counted before anything is checked."""

from __future__ import annotations

from consensus.messages import Decided, Evidence, Message, NewView, PrePrepare, ViewChange
from state.types import Certificate


def signatures_in(message: Message) -> int:
    """Returns how many signatures must be proved to believe a message, those of embedded certificates included."""
    if isinstance(message, Decided):
        return _in(message.certificate)
    if isinstance(message, Evidence):
        return 2
    if isinstance(message, PrePrepare):
        return 1 + _in(message.certificate)
    if isinstance(message, ViewChange):
        return _in_change(message)
    if isinstance(message, NewView):
        return 1 + sum(map(_in_change, message.view_changes))
    return 1


def _in_change(change: ViewChange) -> int:
    return 1 + _in(change.committed) + _in(change.prepared)


def _in(certificate: Certificate | None) -> int:
    return 0 if certificate is None else len(certificate.signatures)
