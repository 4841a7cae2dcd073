"""The decisions on which safety and progress rest, each a small pure function over values.

`Rules` is handed to a replica when it is made. The node uses it as it stands; tests and the simulator override one
method at a time to show that each rule is needed, by what goes wrong without it. Nothing here has state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from consensus.messages import Kind, Status, Suspect, ViewChange
from consensus.records import Memory, Terms
from state.hashing import Hash
from state.types import Certificate, Height, ValidatorSet, View

VoteGroup: TypeAlias = tuple[int, int, Hash]


class Rules:
    """The protocol's rules; see each method."""

    __slots__ = ()

    # ---- quorums (PBFT 3 and 4.2, generalised to every n) ----

    def quorum(self, validators: ValidatorSet) -> int:
        """How many votes make a certificate: two quorums share a correct validator, whatever n is."""
        return validators.quorum

    def one_correct(self, validators: ValidatorSet) -> int:
        """How many validators include a correct one: f + 1."""
        return validators.f + 1

    def group(self, kind: Kind, view: View, block_hash: Hash) -> VoteGroup:
        """Which votes count together: one kind, one view, one block, within a height."""
        return (kind, view, block_hash)

    # ---- which votes may be given ----

    def floor_allows(self, floor: Height, demanded: Hash | None, height: Height, block_hash: Hash) -> bool:
        """Whether the view, as it was entered, allows a vote: none below h*, at h* only for what was demanded."""
        return height > floor or (height == floor and demanded in (None, block_hash))

    def promise_allows(self, promised: View, view: View) -> bool:
        """Whether a VIEW-CHANGE sent earlier allows a vote in `view` (PBFT 4.4: no messages in lower views)."""
        return view >= promised

    def repeats(self, earlier: Hash | None, block_hash: Hash) -> bool:
        """Whether a vote does not contradict the one given before in the same height and view."""
        return earlier is None or earlier == block_hash

    def first_rules_apply(self, certificate: Certificate | None) -> bool:
        """Whether the rules on proposer and clock hold: not for a re-proposal, or an old block stays out for ever."""
        return certificate is None

    # ---- suspicion and view change ----

    def suspect_counts(self, suspect: Suspect, height: Height, view: View) -> bool:
        """Whether a SUSPECT supports leaving `view`: void once its height is committed here."""
        return suspect.height >= height and suspect.view >= view

    def change_supports(self, change: ViewChange, promised: View) -> bool:
        """Whether a VIEW-CHANGE supports leaving the greatest view that we entered or promised."""
        return change.view > promised

    def view_to_join(self, views: Sequence[View], one_correct: int) -> View:
        """The greatest view that `one_correct` distinct validators have promised or passed (PBFT 4.5.2)."""
        ordered = sorted(views, reverse=True)
        return ordered[one_correct - 1] if len(ordered) >= one_correct else View(0)

    def unanswered_timer_runs(self, promised: int, quorum: int) -> bool:
        """Whether a view change may time out: only when a quorum asks for it (PBFT 4.5.2), or views never meet."""
        return promised >= quorum

    def timeout_after_failure(self, timeout_ms: int, timeout_max_ms: int) -> int:
        """The next progress timeout: doubled (PBFT 4.5.2), up to a cap, or recovery takes ever longer."""
        return min(timeout_ms * 2, timeout_max_ms)

    def has_work(self, waiting: bool, accepted: bool, prepared: bool) -> bool:
        """Whether progress is owed: not only to waiting transactions, as after a restart there may be none."""
        return waiting or accepted or prepared

    def prepared_to_report(self, prepared: Certificate | None, view: View) -> Certificate | None:
        """What a VIEW-CHANGE to `view` carries: the prepared certificate with the highest view below it."""
        return prepared if prepared is not None and prepared.view < view else None

    def decision_binds(self, decided: bool) -> bool:
        """Whether to neither vote nor promise now: the decision of this height is known, and is taken down first."""
        return decided

    def inner_certificate_counts(self) -> bool:
        """Whether a commit certificate inside a VIEW-CHANGE or NEW-VIEW decides as if it had come alone."""
        return True

    def votes_beside_sync(self, statuses: Mapping[int, Status], proven: Height, current: Height) -> bool:
        """Whether to vote while others are, or claim to be, ahead: always, as a lie would silence us otherwise."""
        return True

    def check_view_change(self, change: ViewChange) -> None:
        """Raises DecodeError for a VIEW-CHANGE whose certificates are not what it says they are."""
        change.check_form()

    # ---- NEW-VIEW (PBFT 4.4) ----

    def highest_proved(self, changes: Iterable[ViewChange]) -> Height:
        """h*: each VIEW-CHANGE proves that the height below its own is committed."""
        return max(change.height for change in changes)

    def counts_in_new_view(self, change: ViewChange, highest: Height, since: Height) -> bool:
        """Whether a VIEW-CHANGE says enough about h*: it may lag by one height, within the same validator set."""
        return change.height >= highest - 1 and change.height >= since

    def demanded(self, changes: Iterable[ViewChange], highest: Height) -> Certificate | None:
        """What must be proposed again at h*: the prepared certificate with the highest view; None leaves it free."""
        best: Certificate | None = None
        for change in changes:
            held = change.prepared
            if held is not None and change.height == highest and (best is None or held.view > best.view):
                best = held
        return best

    def must_count(self, terms: Terms | None, height: Height) -> tuple[int, ...]:
        """Whose VIEW-CHANGEs a NEW-VIEW needs beside being a quorum: after a lost quorum, all that kept their records.

        Any q COMMITs of before were given by one of these at least, and only its VIEW-CHANGE still tells of them.
        """
        return terms.kept if terms is not None and height <= terms.last_height else ()

    # ---- heights and validator sets ----

    def same_set(self, height: Height, since: Height) -> bool:
        """Whether what is said about `height` belongs to the validator set in force: views are each set's own."""
        return height >= since

    def view_in_next_set(self, promised: View) -> View:
        """The view in which a new validator set starts, whatever the old one had promised."""
        return View(0)

    def answers_former_set(self) -> bool:
        """Whether to tell those who are still in the set before ours that it is over: else they may never learn it."""
        return True

    def buffered(self, height: Height, current: Height) -> bool:
        """Whether proposals and votes of `height` are kept: this height's and the next one's; the rest is repeated."""
        return current <= height <= current + 1

    # ---- sync, restart, lost records ----

    def sync_due(self, proven: Height, current: Height, asked: Height) -> bool:
        """Whether to ask for blocks (again): as long as a certificate proves that we are behind."""
        return proven > current

    def remembered(self, memory: Memory) -> Memory:
        """What of the vote records counts after a restart: all."""
        return memory

    def stops_at_own_vote(self) -> bool:
        """Whether to stop when a vote of ours is seen that our records lack: two processes with one key may fork."""
        return True

    def view_after_restart(self, entered: View, promised: View) -> View:
        """The view to stand in after a restart: the last with a record of its entry, whatever was promised."""
        return entered

    def recovery_height(self, signed_at_most: Height) -> Height:
        """From which height on a commit without us ends recovery: beyond all that our lost promises can free.

        A lost VIEW-CHANGE of height a counts for h* up to a + 1. If a + 2 was committed without us, no quorum of
        VIEW-CHANGEs that frees a height from there on can rest on ours.
        """
        return Height(signed_at_most + 2)
