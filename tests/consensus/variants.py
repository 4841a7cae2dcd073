"""Cores that break one rule each, by overriding methods of `Rules`: what goes wrong without the rule must be seen.

The faults that a BFT core must not have, and the variant that has each: quorum one too small, `SmallQuorum`; no
prepared certificate in VIEW-CHANGE, `EmptyViewChange`; lost by a restart: prepared certificate, `LosesPrepared`;
promise, `LosesPromise` (and `OwnVotesIgnored`, a net below it); proposal, `LosesProposal`; entry into the view,
`PromiseIsEntry`; no floor, `NoFloor`; outcome of the view change not recomputed, `OutcomeNotRecomputed`; votes of
several views as one quorum, `MixedViews`; view carried across validator sets, `ViewSurvivesSet` and
`OneViewForAllSets`; recovery too early, `RecoversAtOnce`. Persisting after sending is the driver's fault to have: the
simulator has a variant of the driver.
"""

from __future__ import annotations

from dataclasses import replace

from consensus.records import Memory
from consensus.rules import Rules
from state.types import View


class ClassicQuorum(Rules):
    """2f + 1 whatever n is: right for n = 3f + 1 alone."""

    def quorum(self, validators):
        return 2 * validators.f + 1


class SmallQuorum(Rules):
    """One validator too few."""

    def quorum(self, validators):
        return validators.quorum - 1


class MixedViews(Rules):
    """Votes for one block count together, whatever their views."""

    def group(self, kind, view, block_hash):
        return (kind, 0, block_hash)


class NoFloor(Rules):
    """A view allows any vote, however it was entered."""

    def floor_allows(self, floor, demanded, height, block_hash):
        return True


class OutcomeNotRecomputed(Rules):
    """A replica takes any proposal in a new view: it does not work out itself what must be proposed again."""

    def floor_allows(self, floor, demanded, height, block_hash):
        return height >= floor


class InnerCertificatesIgnored(Rules):
    """A commit certificate counts only if it comes alone."""

    def inner_certificate_counts(self):
        return False


class NoFloorNoInnerCertificate(NoFloor, InnerCertificatesIgnored):
    """Both: nothing in a NEW-VIEW says that a height is over."""


class PromiseIsEntry(Rules):
    """The entry into a view is no record: after a restart the promise is taken for it."""

    def remembered(self, memory):
        return replace(memory, entry=None)

    def view_after_restart(self, entered, promised):
        return promised


class OneViewForAllSets(Rules):
    """A certificate or message of another validator set moves our view."""

    def same_set(self, height, since):
        return True


class ViewSurvivesSet(Rules):
    """A new validator set goes on in the old one's view."""

    def view_in_next_set(self, promised):
        return promised


class RecoversAtOnce(Rules):
    """Whoever lost its records signs again above the first height that it could have signed."""

    def recovery_height(self, signed_at_most):
        return signed_at_most


class OldPromisesCount(Rules):
    """A VIEW-CHANGE counts in a NEW-VIEW however far it lags."""

    def counts_in_new_view(self, change, highest, since):
        return True


class ImpatientAlone(Rules):
    """An unanswered VIEW-CHANGE times out though no quorum asks for its view."""

    def unanswered_timer_runs(self, promised, quorum):
        return True


class EachForItself(ImpatientAlone):
    """Own suspicion alone makes a promise, an unanswered one times out, and others' promises mean nothing."""

    def one_correct(self, validators):
        return 1

    def suspect_counts(self, suspect, height, view):
        return suspect.height >= height and suspect.view == view

    def change_supports(self, change, promised):
        return False

    def view_to_join(self, views, one_correct):
        return View(0)


class ForgetsDecision(Rules):
    """A known decision binds nothing until it is written, and the VIEW-CHANGE carries no certificate."""

    def decision_binds(self, decided):
        return False

    def prepared_to_report(self, prepared, view):
        return None


class EmptyViewChange(Rules):
    """A VIEW-CHANGE never carries a prepared certificate."""

    def prepared_to_report(self, prepared, view):
        return None


class FreeNewView(Rules):
    """A NEW-VIEW never demands a prepared block again."""

    def demanded(self, changes, highest):
        return None


class NoPromise(Rules):
    """A VIEW-CHANGE does not end voting in lower views."""

    def promise_allows(self, promised, view):
        return True


class NoMemory(Rules):
    """Vote records are lost by a restart."""

    def remembered(self, memory):
        return Memory()


class LosesPrepared(Rules):
    """A prepared certificate, and the COMMIT in one record with it, is lost by a restart."""

    def remembered(self, memory):
        rounds = {place: replace(item, commit=None, prepared=None) for place, item in memory.rounds.items()}
        return replace(memory, rounds=rounds)


class LosesPromise(Rules):
    """A VIEW-CHANGE is forgotten by a restart."""

    def remembered(self, memory):
        return replace(memory, promise=None)


class LosesProposal(Rules):
    """A proposal taken or made, and the PREPARE in one record with it, is lost by a restart until it is prepared."""

    def remembered(self, memory):
        return replace(memory, rounds={place: item for place, item in memory.rounds.items() if item.commit})


class ClockForEver(Rules):
    """Rules on proposer and clock hold for a re-proposal too."""

    def first_rules_apply(self, certificate):
        return True


class NoCap(Rules):
    """The timeout doubles without a bound."""

    def timeout_after_failure(self, timeout_ms, timeout_max_ms):
        return timeout_ms * 2


class NoDoubling(Rules):
    """The timeout never grows."""

    def timeout_after_failure(self, timeout_ms, timeout_max_ms):
        return timeout_ms


class OnlyWaitingIsWork(Rules):
    """A proposal or a prepared certificate is not work: only waiting transactions are."""

    def has_work(self, waiting, accepted, prepared):
        return waiting


class AsksOnce(Rules):
    """Blocks are asked for once per proof that we are behind."""

    def sync_due(self, proven, current, asked):
        return proven > max(current, asked)


class BelievesClaims(Rules):
    """A STATUS is believed: no votes until the claimed height is reached."""

    def votes_beside_sync(self, statuses, proven, current):
        return all(status.height <= current for status in statuses.values())


class KeepsAll(Rules):
    """Votes and proposals of all future heights are kept."""

    def buffered(self, height, current):
        return height >= current


class TrustsForm(Rules):
    """The certificates of a VIEW-CHANGE are not looked at."""

    def check_view_change(self, change):
        return None


class SuspectsNeverVoid(Rules):
    """A SUSPECT counts though its height was committed since."""

    def suspect_counts(self, suspect, height, view):
        return suspect.view >= view


class OneIsEnough(Rules):
    """One suspicion makes a promise."""

    def one_correct(self, validators):
        return 1


class OnlyQuorumCounts(Rules):
    """After a lost quorum any q VIEW-CHANGEs open a view, the blank ones of wiped validators among them."""

    def must_count(self, terms, height):
        return ()


class KeptForOneHeight(Rules):
    """After a lost quorum all that kept their records are waited for at the first height alone."""

    def must_count(self, terms, height):
        return terms.kept if terms is not None and height == terms.head_height + 1 else ()


class OwnVotesIgnored(Rules):
    """A vote of ours that our records lack is no reason to stop."""

    def stops_at_own_vote(self):
        return False


class NoRepairAcrossSets(Rules):
    """Whoever is still in the former set is not told that it is over."""

    def answers_former_set(self):
        return False


class LosesPromiseUnwatched(LosesPromise, OwnVotesIgnored):
    """Both: without the second, the own VIEW-CHANGE inside the NEW-VIEW would tell that the promise was lost."""
