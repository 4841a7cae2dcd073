"""From height to height: what a durable commit changes, and what a new validator set starts anew.

Promises and views outlive heights, within a set; votes, proposals and timers of the old height do not.
"""

from __future__ import annotations

from consensus import evidence, own_votes, recovery, repair, timers
from consensus.certificates import learn_committed
from consensus.core import Core, Former
from consensus.interface import Committed
from state.errors import InvariantError
from state.types import Certificate, Height, ValidatorSet


def on_committed(core: Core, event: Committed) -> None:
    """Moves to the next height; everything sent from now on is bound by the commit batch, which is durable."""
    header, certificate = event.header, event.certificate
    if header.height != core.height or header.parent_hash != core.head.hash:
        raise InvariantError(f"height {core.height} is to be committed next, not {header.height}, upon the head")
    if (certificate.height, certificate.block_hash) != (header.height, header.hash):
        raise InvariantError("a block was committed with another block's certificate")
    learn_committed(core, certificate)
    own_votes.on_certificate(core, certificate)
    recovery.on_committed(core, header, certificate)
    followed = core.commit_asked
    core.start_height(header, certificate)
    evidence.settle(core, event.evidence)
    if event.validators_next.hash != core.validators.hash:
        _start_set(core, event.validators_next, certificate)
    timers.shorten(core)
    core.restore_height()
    own_votes.on_height(core, followed)
    repair.on_height(core)


def _start_set(core: Core, validators: ValidatorSet, last: Certificate) -> None:
    """A view belongs to one set: the new one starts at its own view 0, and nothing said in the old one moves it."""
    recovery.on_new_set(core)
    core.former = Former(core.validators, last, core.now - core.config.status_interval_ms)
    core.status_due = True
    core.set_validators(validators, core.height)
    core.view = core.promised = core.rules.view_in_next_set(core.promised)
    core.entry = None
    core.demanded = None
    core.floor = Height(core.height)
    core.fault = core.complaint = None
    core.timeout_ms = core.config.progress_timeout_ms
    core.tallies, core.proposals = {}, {}
    core.statuses, core.latest_votes = {}, {}
    core.suspects, core.view_changes = {}, {}
    core.restore_view()
