"""The state of one replica, and the effects of the step under way. No rules of the protocol: those stand in the modules
that change this state, one idea each (docs/consensus.md has the map).

Everything here is about the height being decided, `height`, the one above `head`; what belongs to a view belongs to
`view`, the last entered, except promises, which may be ahead. `changed` says that a rule may now apply that did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from consensus.interface import (
    Config,
    Effect,
    KnownBlock,
    Persist,
    Report,
    ReportKind,
    RequestBody,
    Restored,
)
from consensus.messages import Evidence, Message, NewView, PrePrepare, Status, Suspect, ViewChange
from consensus.records import (
    ENTRY_KEY,
    PROMISE_KEY,
    TERMS_KEY,
    Memory,
    Record,
    Round,
    Signing,
    SigningState,
    Terms,
    decode_records,
    evidence_key,
    round_key,
    signing_record,
)
from consensus.rules import Rules
from consensus.tally import Tally
from state.errors import InvariantError, JsonValue, Rejected
from state.hashing import Hash
from state.types import Certificate, Header, Height, ValidatorSet, View

BLOCKS_KEPT_MAX: Final = 16
Signer = Callable[[bytes], bytes]


@dataclass(slots=True)
class Former:
    """The validator set in force before, and what proves to those who are still in it that it is over."""

    validators: ValidatorSet
    last: Certificate
    told_at: int


class BlockState:
    """A block of the height being decided, with what is known of its body and validity."""

    __slots__ = ("asked", "block", "durable", "held", "invalid", "invalid_first", "retry_at", "valid")

    def __init__(self, block: KnownBlock, *, held: bool = False, durable: bool = False) -> None:
        self.block = block
        self.held = held
        self.durable = durable
        self.valid = False
        self.invalid = False
        self.invalid_first = False
        self.asked: bool | None = None
        self.retry_at: int | None = None


class Core:
    """See the module's first lines."""

    def __init__(self, config: Config, restored: Restored, sign: Signer | None, rules: Rules) -> None:
        if (sign is None) != (config.key is None):
            raise InvariantError("a validator has a key and a signer, an observer neither")
        self.config: Final = config
        self.rules: Final = rules
        self.sign: Final = sign

        self.now = 0
        self.started = False
        self.changed = True
        self._effects: list[Effect | None] = []
        self._puts: dict[bytes, bytes] = {}
        self._bodies: list[Hash] = []
        self._pending_deletes: dict[bytes, None] = {}
        self._pending_drops: dict[Hash, None] = {}
        self._persist_place: int | None = None

        self.head = restored.head
        self.head_certificate = restored.certificate
        self.height = Height(restored.head.height + 1)
        self.validators = restored.validators
        self.since = restored.validators_since
        self.index = self._own_index()

        self.records_exist = restored.records is not None and config.key is not None
        memory = rules.remembered(decode_records(restored.records or {}))
        self.signing = self._signing_of(memory)
        self.rounds: dict[tuple[Height, View], Round] = memory.rounds
        self.evidence: dict[bytes, Evidence] = {}
        self.settled: dict[bytes, None] = {}
        self.smaller_proofs: dict[bytes, int] = {}
        self.old_blocks: dict[Hash, KnownBlock] = {}
        self.remembered_entry = memory.entry
        self.remembered_promise = memory.promise
        self.remembered_terms = memory.terms
        self.reported = memory.report is not None
        self.terms: Terms | None = None

        self.view = View(0)
        self.promised = View(0)
        self.entry: NewView | Certificate | None = None
        self.floor = Height(self.since)
        self.demanded: Certificate | None = None

        self.blocks: dict[Hash, BlockState] = {}
        self.accepted: PrePrepare | None = None
        self.refused = False
        self.prepared: Certificate | None = None
        self.decided: Certificate | None = None
        self.commit_asked = False
        self.tallies: dict[Height, Tally] = {}
        self.proposals: dict[Height, dict[int, PrePrepare]] = {}
        self.bodies_wanted: dict[Hash, tuple[int, ...]] = {}
        self.proposal_asked = False
        self.proposal_declined = False

        self.silence_left = config.silence_heights
        self.silent_above = self.height
        self.silence_until = 0

        self.suspects: dict[int, Suspect] = {}
        self.view_changes: dict[int, ViewChange] = {}
        self.stall: str | None = None
        self.fault: str | None = None
        self.complaint: str | None = None
        self.has_work = False

        self.timeout_ms = config.progress_timeout_ms
        self.progress_key: tuple[int, int, int] | None = None
        self.progress_at: int | None = None
        self.status_sent_at = 0
        self.status_height = Height(0)
        self.status_due = True
        self.repeat_at = 0
        self.timer_at: int | None = None

        self.proven = Height(0)
        self.sync_asked = Height(0)
        self.still_height = Height(0)
        self.statuses: dict[int, Status] = {}
        self.former: Former | None = None
        self.latest_votes: dict[int, Message] = {}

        self._restore(memory, restored)

    # ---- what follows from the state ----

    @property
    def quorum(self) -> int:
        """How many votes make a certificate here."""
        return self.rules.quorum(self.validators)

    @property
    def may_sign(self) -> bool:
        """Whether this validator may sign anything at the height being decided."""
        return self.refusal is None

    @property
    def refusal(self) -> str | None:
        """Why nothing may be signed at the height being decided, as a stable code; None if it may."""
        signing, terms = self.signing, self.terms
        if self.index is None:
            return "not_in_force"
        if not self.records_exist:
            return "records_missing"
        if self.reported:
            return "reported"
        if signing.state is SigningState.BARRED:
            return "records_lost"
        if signing.state is SigningState.RECOVERING and terms is None:
            return "recovering"
        if self.height < signing.from_height or (terms is not None and self.height <= terms.head_height):
            return "behind"
        if self.silence_left > 0:
            return "silent"
        return None

    @property
    def suspicion(self) -> str | None:
        """Why the primary is suspected, or None."""
        return self.fault or self.stall or self.complaint

    @property
    def in_view(self) -> bool:
        """Whether the view last entered is still ours to vote in: no promise is ahead of it."""
        return self.rules.promise_allows(self.promised, self.view)

    @property
    def demanded_hash(self) -> Hash | None:
        """The block that the view's NEW-VIEW demands at the floor, or None."""
        return None if self.demanded is None else self.demanded.block_hash

    def may_enter(self, view: View) -> bool:
        """Whether a view may be entered: it is ahead of ours, and not below what we promised."""
        return view > self.view and self.rules.promise_allows(self.promised, view)

    def primary(self, height: Height, view: View) -> int:
        """Returns the index of the primary of (height, view)."""
        return self.validators.primary(height, view, self.config.leader_term)

    @property
    def is_primary(self) -> bool:
        """Whether we are the primary of the height being decided, in our view."""
        return self.index is not None and self.primary(self.height, self.view) == self.index

    def own_round(self) -> Round | None:
        """Returns our part in the current height and view so far."""
        return self.rounds.get((self.height, self.view))

    def tally(self, height: Height) -> Tally:
        """Returns the votes of a height."""
        tally = self.tallies.get(height)
        if tally is None:
            tally = self.tallies[height] = Tally(self.rules)
        return tally

    def block_state(self, block: KnownBlock) -> BlockState:
        """Returns what is known of a block, making room for it among the bounded number that is kept."""
        block_hash = block.header.hash
        state = self.blocks.get(block_hash)
        if state is None:
            if len(self.blocks) >= BLOCKS_KEPT_MAX:
                self._forget_a_block()
            known = self.old_blocks.get(block_hash)
            state = self.blocks[block_hash] = BlockState(block, held=known is not None, durable=known is not None)
        return state

    # ---- effects ----

    @property
    def has_effects(self) -> bool:
        """Whether the step under way has had effects so far."""
        return bool(self._effects)

    def emit(self, effect: Effect) -> None:
        """Adds an effect to this step's."""
        self._effects.append(effect)

    def report(self, kind: ReportKind, code: str, message: Message | None = None, **data: JsonValue) -> None:
        """Adds a Report to this step's effects."""
        self._effects.append(Report(kind, code, data, message))

    def persist(self, puts: Iterable[Record], bodies: Iterable[Hash] = ()) -> None:
        """Makes records and bodies durable before whatever is emitted from now on.

        All of a step goes into one Persist at the place of the first: being durable earlier harms nothing.
        """
        if self._persist_place is None:
            self._persist_place = len(self._effects)
            self._effects.append(None)
        for key, value in puts:
            self._puts[key] = value
            self._pending_deletes.pop(key, None)
        for block_hash in bodies:
            state = self.blocks.get(block_hash)
            if state is None or not state.held:
                raise InvariantError("a body is to be durable that is not at hand")
            if not state.durable:
                state.durable = True
                self._bodies.append(block_hash)
            self._pending_drops.pop(block_hash, None)

    def want_body(self, certificate: Certificate) -> None:
        """Asks for a certified block by hash from those whose votes say that they have it; repair repeats it."""
        block_hash = certificate.block_hash
        if block_hash not in self.bodies_wanted:
            holders = tuple(sender for sender, _ in certificate.signatures if sender != self.index)
            self.bodies_wanted[block_hash] = holders
            self.emit(RequestBody(block_hash, holders))

    def forget(self, keys: Iterable[bytes], bodies: Iterable[Hash]) -> None:
        """Notes records and bodies that are needed no more: they go with the next Persist, or stay till then."""
        for key in keys:
            self._puts.pop(key, None)
            self._pending_deletes[key] = None
        for block_hash in bodies:
            self._pending_drops[block_hash] = None

    def take_effects(self) -> tuple[Effect, ...]:
        """Returns the step's effects, and starts the next step's."""
        if not self._effects:
            return ()
        place = self._persist_place
        if place is not None:
            self._remember_height()
            self._effects[place] = Persist(
                tuple(self._puts.items()),
                tuple(self._pending_deletes),
                tuple(self._bodies),
                tuple(self._pending_drops),
            )
            self._puts, self._bodies = {}, []
            self._pending_deletes, self._pending_drops = {}, {}
            self._persist_place = None
        effects = tuple([effect for effect in self._effects if effect is not None])
        self._effects = []
        return effects

    def _remember_height(self) -> None:
        """With each write: whatever becomes of the chain, below this height nothing is signed again.

        Records of decided heights go, and the chain that decided them may be rolled back, or replaced by an older one.
        """
        if self.signing.from_height < self.height:
            self.signing = replace(self.signing, from_height=self.height)
            key, value = signing_record(self.signing)
            self._puts[key] = value

    # ---- the start, and each next height ----

    def _own_index(self) -> int | None:
        return None if self.config.key is None else self.validators.index_of(self.config.key)

    def set_validators(self, validators: ValidatorSet, since: Height) -> None:
        """Puts a new validator set in force from height `since` on."""
        self.validators = validators
        self.since = since
        self.index = self._own_index()

    def _signing_of(self, memory: Memory) -> Signing:
        signing = memory.signing
        lowest = max(signing.from_height, memory.height_max)
        return Signing(signing.state, Height(lowest), signing.signed_at_most, signing.started_ms)

    def _restore(self, memory: Memory, restored: Restored) -> None:
        """Stands where the records say: entered view, floor, promise, rounds of this and greater heights."""
        for item in memory.evidence:
            self.evidence[evidence_key(item)] = item
        self._restore_rounds(restored)
        self.restore_view()
        self.view = self.rules.view_after_restart(self.view, self.promised)
        newest = self.head_certificate
        if newest is not None and newest.height >= self.since and self.may_enter(newest.view):
            self.set_entry(newest.view, newest)
        if self.demanded is not None:
            known = restored.load_block(self.demanded.block_hash)
            if known is not None:
                self.old_blocks[self.demanded.block_hash] = known
        self.restore_height()

    def restore_view(self) -> None:
        """Takes up the recorded entry and promise of the set in force; those of an earlier set go.

        Those of a later set stay: after a rollback the chain comes to it again, and they bind us there.
        """
        if self.remembered_entry is not None:
            since, entry = self.remembered_entry
            if since == self.since:
                self.set_entry(entry.view, entry)
            elif since < self.since:
                self.forget((ENTRY_KEY,), ())
        if self.remembered_promise is not None:
            since, promise = self.remembered_promise
            if since == self.since and self.index is not None:
                self.promised = max(self.promised, promise.view)
                self.view_changes[self.index] = promise
            elif since < self.since:
                self.forget((PROMISE_KEY,), ())
        self._restore_terms()

    def _restore_terms(self) -> None:
        """Takes up what a statement on a lost quorum binds us to, as long as the validator set is the one it names."""
        terms, self.terms = self.remembered_terms, None
        if terms is None or terms.since > self.since:
            return
        if terms.since < self.since:
            self.forget((TERMS_KEY,), ())
            return
        self.terms = terms
        self.promised = max(self.promised, terms.view)
        if self.height <= terms.head_height:
            self.proven = Height(terms.head_height + 1)

    def _restore_rounds(self, restored: Restored) -> None:
        for place in sorted(self.rounds):
            item = self.rounds[place]
            if item.height < self.height:
                del self.rounds[place]
                self.forget((round_key(*place),), (item.proposal.block_hash,))
                continue
            known = restored.load_block(item.proposal.block_hash)
            if known is None:
                raise Rejected(
                    "vote_records_damaged",
                    f"the block of our vote at height {item.height}, view {item.view} is missing: run `qenex recover`",
                )
            self.old_blocks[item.proposal.block_hash] = known

    def restore_height(self) -> None:
        """Takes up our own rounds of the height being decided, if the records have any: after a restart."""
        for place in sorted(self.rounds):
            item = self.rounds[place]
            if item.height != self.height:
                continue
            for vote in (item.prepare, item.commit):
                if vote is not None:
                    self.tally(self.height).add(vote)
            if item.prepared is not None and (self.prepared is None or item.prepared.view > self.prepared.view):
                self.prepared = item.prepared
            known = self.old_blocks.get(item.proposal.block_hash)
            if known is None:
                continue
            self.block_state(known)
            if item.view == self.view:
                taken = item.proposal
                self.accepted = PrePrepare(
                    item.height,
                    item.view,
                    known.header,
                    known.wire_hashes,
                    taken.certificate,
                    taken.sender,
                    taken.signature,
                )
        if self.demanded is not None and self.floor == self.height:
            known = self.old_blocks.get(self.demanded.block_hash)
            if known is not None:
                self.block_state(known)

    def set_entry(self, view: View, entry: NewView | Certificate) -> None:
        """Stands in a view with the floor that its entry sets: h* of a NEW-VIEW, one above a certificate."""
        self.view = view
        self.promised = max(self.promised, view)
        self.entry = entry
        if isinstance(entry, NewView):
            self.floor = self.rules.highest_proved(entry.view_changes)
            self.demanded = self.rules.demanded(entry.view_changes, self.floor)
        else:
            self.floor = Height(entry.height + 1)
            self.demanded = None

    def start_height(self, header: Header, certificate: Certificate) -> None:
        """Moves to the height above a committed block: nothing of the old height stays but what is still to be sent."""
        used = [item.proposal.block_hash for place, item in self.rounds.items() if place[0] <= header.height]
        durable = [block_hash for block_hash, state in self.blocks.items() if state.durable]
        stale = [place for place in sorted(self.rounds) if place[0] <= header.height]
        self.forget([round_key(*place) for place in stale], [*used, *durable])
        for place in stale:
            del self.rounds[place]
        self.head = header
        self.head_certificate = certificate
        self.height = Height(header.height + 1)
        self.blocks = {}
        self.accepted = None
        self.refused = False
        self.prepared = None
        self.decided = None
        self.commit_asked = False
        self.stall = None
        self.proposal_asked = False
        self.proposal_declined = False
        self.bodies_wanted = {}
        self.tallies = {height: tally for height, tally in self.tallies.items() if height >= self.height}
        self.proposals = {height: items for height, items in self.proposals.items() if height >= self.height}
        self.suspects = {
            sender: item
            for sender, item in self.suspects.items()
            if self.rules.suspect_counts(item, self.height, View(0))
        }
        self.changed = True

    def _forget_a_block(self) -> None:
        """Drops the oldest block that no vote, certificate or demand of ours names."""
        named = {item.proposal.block_hash for item in self.rounds.values()}
        for certificate in (self.prepared, self.decided, self.demanded):
            if certificate is not None:
                named.add(certificate.block_hash)
        if self.accepted is not None:
            named.add(self.accepted.block_hash)
        for block_hash in self.blocks:
            if block_hash not in named:
                del self.blocks[block_hash]
                return
