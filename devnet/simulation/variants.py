"""Cores and drivers that break one rule each: the simulator must find what goes wrong with them, or it finds nothing.

A variant holds for all correct validators of a run. `SOUND` breaks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from consensus.interface import Config, Restored
from consensus.messages import Kind, ViewChange
from consensus.records import Memory
from consensus.replica import Replica
from consensus.rules import Rules, VoteGroup
from state.hashing import Hash
from state.types import Certificate, Height, ValidatorSet, View


@dataclass(frozen=True, slots=True)
class Variant:
    """A core's rules, and whether its driver keeps the contract: `persists_first` is "durable before it leaves"."""

    name: str
    breaks: str
    rules: Rules = field(default_factory=Rules)
    persists_first: bool = True

    def replica(
        self, config: Config, restored: Restored, sign: Callable[[bytes], bytes] | None, shares_key: bool
    ) -> Replica:
        """Returns a core with these rules; one whose key others sign with too does not stop when it sees that."""
        return Replica(config, restored, sign, _sharing(type(self.rules)) if shares_key else self.rules)

    def believed(self, validators: ValidatorSet) -> ValidatorSet:
        """Returns a validator set whose quorum is the one that these rules hold for enough, to check certificates."""
        believed = ValidatorSet(validators.validators)
        believed.__dict__["quorum"] = self.rules.quorum(validators)
        return believed


def _sharing(rules: type[Rules]) -> Rules:
    """Returns the same rules, but for the one that a core stops where it sees another hand sign with its key."""

    class Sharing(rules):  # type: ignore[misc,valid-type]
        def stops_at_own_vote(self) -> bool:
            return False

    return Sharing()


class _SmallQuorum(Rules):
    def quorum(self, validators: ValidatorSet) -> int:
        return validators.quorum - 1


class _EmptyViewChange(Rules):
    def prepared_to_report(self, prepared: Certificate | None, view: View) -> Certificate | None:
        return None


class _FreeNewView(Rules):
    def demanded(self, changes: Iterable[ViewChange], highest: Height) -> Certificate | None:
        return None


class _NoFloor(Rules):
    def floor_allows(self, floor: Height, demanded: Hash | None, height: Height, block_hash: Hash) -> bool:
        return True


class _NoPromise(Rules):
    def promise_allows(self, promised: View, view: View) -> bool:
        return True


class _StrictAgain(Rules):
    def first_rules_apply(self, certificate: Certificate | None) -> bool:
        return True


class _Forgetful(Rules):
    """What a restart forgets must be safe without the second line of defence: to stop at an own vote that is shown."""

    def stops_at_own_vote(self) -> bool:
        return False


class _NoMemory(_Forgetful):
    def remembered(self, memory: Memory) -> Memory:
        return Memory()


class _VolatilePrepared(_Forgetful):
    def remembered(self, memory: Memory) -> Memory:
        rounds = {place: replace(item, commit=None, prepared=None) for place, item in memory.rounds.items()}
        return replace(memory, rounds=rounds)


class _VolatilePromise(_Forgetful):
    def remembered(self, memory: Memory) -> Memory:
        return replace(memory, promise=None)


class _VolatileProposal(_Forgetful):
    def remembered(self, memory: Memory) -> Memory:
        rounds = {place: item for place, item in memory.rounds.items() if item.commit is not None}
        return replace(memory, rounds=rounds)


class _Unchecked(Rules):
    def floor_allows(self, floor: Height, demanded: Hash | None, height: Height, block_hash: Hash) -> bool:
        return height >= floor


class _MixedViews(Rules):
    def group(self, kind: Kind, view: View, block_hash: Hash) -> VoteGroup:
        return (kind, View(0) if kind is Kind.COMMIT else view, block_hash)


class _OneViewForAllSets(Rules):
    def same_set(self, height: Height, since: Height) -> bool:
        return True

    def view_in_next_set(self, promised: View) -> View:
        return promised


class _RecoversEarly(Rules):
    def recovery_height(self, signed_at_most: Height) -> Height:
        return signed_at_most


class _LoneSuspicion(Rules):
    def one_correct(self, validators: ValidatorSet) -> int:
        return 1


SOUND: Final = Variant("sound", "nothing")

VARIANTS: Final = {
    variant.name: variant
    for variant in (
        SOUND,
        Variant("small-quorum", "a quorum is one validator too small", _SmallQuorum()),
        Variant("empty-view-change", "a VIEW-CHANGE never carries a prepared certificate", _EmptyViewChange()),
        Variant("no-floor", "a view allows any vote, however it was entered", _NoFloor()),
        Variant("volatile-prepared", "a prepared certificate is lost by a restart", _VolatilePrepared()),
        Variant("volatile-promise", "a promise is lost by a restart", _VolatilePromise()),
        Variant(
            "volatile-proposal", "what was proposed and not yet prepared is lost by a restart", _VolatileProposal()
        ),
        Variant("no-memory", "all vote records are lost by a restart", _NoMemory()),
        Variant("no-promise", "a VIEW-CHANGE does not end voting in lower views", _NoPromise()),
        Variant("free-new-view", "a NEW-VIEW never demands a prepared block again", _FreeNewView()),
        Variant("unchecked-new-view", "only the primary looks at what a NEW-VIEW demands", _Unchecked()),
        Variant("send-first", "messages leave before what they rest on is durable", persists_first=False),
        Variant("mixed-views", "COMMITs of different views count together", _MixedViews()),
        Variant("early-recovery", "whoever lost its records votes again a height too early", _RecoversEarly()),
        Variant("lone-suspicion", "one suspicion alone moves the view", _LoneSuspicion()),
        Variant("one-view-for-all-sets", "a view is carried from one validator set to the next", _OneViewForAllSets()),
        Variant("strict-again", "a re-proposal must keep to the rules on proposer and clock", _StrictAgain()),
    )
}
