"""Is a NEW-VIEW right: did a quorum change to its view, is it by that view's primary, and does it prove its height h*?

A pure check that every replica makes (PBFT 4.4: backups verify the new-view certificate). What must be proposed again
is recomputed from the same VIEW-CHANGEs by `Rules.demanded`; the message itself is not asked.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.messages import NewView
from consensus.records import Terms
from consensus.rules import Rules
from state.errors import DecodeError, Rejected
from state.types import Height, ValidatorSet, View


def check_new_view(
    message: NewView,
    validators: ValidatorSet,
    since: Height,
    primary: Callable[[Height, View], int],
    rules: Rules,
    terms: Terms | None = None,
) -> None:
    """Raises Rejected with code `new_view_<reason>` unless the NEW-VIEW is valid for the set in force since `since`."""
    changes = message.view_changes
    senders = [change.sender for change in changes]
    if senders != sorted(set(senders)) or any(sender >= validators.n for sender in senders):
        raise Rejected("new_view_senders", "VIEW-CHANGEs must be of members of the set, in order, each once")
    if len(changes) < rules.quorum(validators):
        raise Rejected("new_view_quorum", f"{len(changes)} VIEW-CHANGEs are not a quorum of {rules.quorum(validators)}")
    if not set(rules.must_count(terms, message.height)) <= set(senders):
        raise Rejected("new_view_kept", "after a lost quorum, all that kept their records must change to the view")
    for change in changes:
        if change.view != message.view:
            raise Rejected("new_view_view", "every VIEW-CHANGE must be to the NEW-VIEW's view")
        try:
            rules.check_view_change(change)
        except DecodeError as error:
            raise Rejected("new_view_malformed", error.message) from error
    highest = rules.highest_proved(changes)
    if message.height != highest:
        raise Rejected("new_view_height", f"the VIEW-CHANGEs prove height {highest}, not {message.height}")
    if not all(rules.counts_in_new_view(change, highest, since) for change in changes):
        raise Rejected("new_view_lagging", "a VIEW-CHANGE lags too far, or belongs to another validator set")
    if message.sender != primary(highest, message.view):
        raise Rejected("new_view_primary", "only the primary of (h*, view) makes a NEW-VIEW")
