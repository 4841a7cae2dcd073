"""What a certificate teaches, wherever it was found: a commit certificate inside any valid message counts as if alone.

A commit certificate decides its height whatever our own view is, and lets us enter the view it was made in. A prepared
certificate is what a VIEW-CHANGE of ours must report. A claim teaches nothing.
"""

from __future__ import annotations

from consensus.core import Core
from consensus.interface import ReportKind
from consensus.messages import Kind, NewView
from consensus.records import entry_record
from state.errors import InvariantError
from state.types import Certificate, Height, View


def learn_committed(core: Core, certificate: Certificate) -> None:
    """Takes a commit certificate: decides its height, enters its view, or proves that we are behind."""
    if not core.rules.same_set(certificate.height, core.since):
        return
    if certificate.height == core.head.height and certificate.block_hash != core.head.hash:
        raise InvariantError(f"two blocks are certified at height {certificate.height}: more than f are faulty")
    if core.may_enter(certificate.view):
        enter(core, certificate.view, certificate)
    if certificate.height == core.height:
        if core.decided is None:
            core.decided = certificate
            core.changed = True
        elif core.decided.block_hash != certificate.block_hash:
            raise InvariantError(f"two blocks are certified at height {certificate.height}: more than f are faulty")
    elif certificate.height >= core.height and certificate.height >= core.proven:
        core.proven = Height(certificate.height + 1)
        core.changed = True


def learn_prepared(core: Core, certificate: Certificate) -> None:
    """Takes a prepared certificate of the height being decided, if it is the highest of the views we have been in."""
    if certificate.kind != Kind.PREPARE or certificate.height != core.height or certificate.view > core.view:
        return
    if core.prepared is None or certificate.view > core.prepared.view:
        core.prepared = certificate
        core.changed = True


def enter(core: Core, view: View, entry: NewView | Certificate) -> None:
    """Enters a view by a checked NEW-VIEW or by a commit certificate made in it: durable before anything is sent there.

    Whoever entered otherwise than its records say would, after a restart, vote below the floor.
    """
    core.set_entry(view, entry)
    core.accepted = None
    core.refused = False
    core.stall = None
    core.fault = None
    core.complaint = None
    core.proposal_asked = False
    core.proposal_declined = False
    core.changed = True
    if core.records_exist:
        core.remembered_entry = (core.since, entry)
        core.persist((entry_record(core.since, entry),))
    core.report(
        ReportKind.VIEW_ENTERED,
        "new_view" if isinstance(entry, NewView) else "certificate",
        height=core.height,
        view=view,
        primary=core.primary(core.height, view),
    )
