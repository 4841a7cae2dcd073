"""The border of the core: everything that goes into `Replica.step` and everything that comes out of it.

Values only. Time is in integer milliseconds of a monotonic clock and comes in by `Tick` alone. The order of effects is
part of the contract: a `Persist` binds every later `Send`, `Broadcast` and `Commit`, of this step and of all others to
come. What a driver must do with each is said at each; docs/consensus.md tells the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from consensus.messages import Message
from state.errors import InvariantError, JsonValue
from state.hashing import Hash
from state.types import Certificate, Header, Height, ValidatorSet, View, WireHash

# ---- configuration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Config:
    """What a replica is told once. Times in ms.

    `key` is the own consensus public key, None for an observer. `progress_timeout_ms` doubles per failed view up to
    `progress_timeout_max_ms`, which must exceed twice the time that the network needs at its worst to fetch, execute,
    persist and exchange three rounds for a full block. STATUS goes out each `status_interval_ms`, and each
    `status_busy_ms` while a height with work does not move. `drift_ms` is the chain's bound on clocks.

    With `silence_heights` above 0 a start is silent: nothing is signed until so many heights were committed before our
    eyes, or none for `silence_quiet_ms`; a vote of ours seen meanwhile, as at any time, stops signing for good.
    """

    chain_id: str
    genesis_hash: Hash
    key: bytes | None
    leader_term: int = 0
    drift_ms: int = 5_000
    progress_timeout_ms: int = 1_000
    progress_timeout_max_ms: int = 60_000
    status_interval_ms: int = 1_000
    status_busy_ms: int = 250
    not_yet_retry_ms: int = 100
    silence_heights: int = 0
    silence_quiet_ms: int = 10_000

    def __post_init__(self) -> None:
        relations = {
            "progress_timeout_ms must be at least 1": self.progress_timeout_ms >= 1,
            "progress_timeout_max_ms must not be below progress_timeout_ms": (
                self.progress_timeout_max_ms >= self.progress_timeout_ms
            ),
            "status_busy_ms must be at least 1 and not above status_interval_ms": (
                1 <= self.status_busy_ms <= self.status_interval_ms
            ),
            "not_yet_retry_ms must be at least 1": self.not_yet_retry_ms >= 1,
            "silence_heights must not be negative, silence_quiet_ms must be at least 1": (
                self.silence_heights >= 0 and self.silence_quiet_ms >= 1
            ),
            "leader_term and drift_ms must not be negative": self.leader_term >= 0 and self.drift_ms >= 0,
        }
        for relation, holds in relations.items():
            if not holds:
                raise InvariantError(f"consensus configuration: {relation}")


@dataclass(frozen=True, slots=True)
class KnownBlock:
    """A block as the core knows it: header and wire hashes, never transaction bodies."""

    header: Header
    wire_hashes: tuple[WireHash, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Restored:
    """Where a replica starts from: the chain's durable head, and what it remembers of its own votes.

    `validators` is the set in force at head + 1, and `validators_since` the first height of its unbroken rule (1 if it
    never changed). `certificate` is the head's, None at genesis. `records` are all vote records of the store, or None
    where there are none (never created, or lost): such a validator signs nothing. `load_block` returns the block whose
    body was made durable with a `Persist`, or None; it is called while the replica is made, and never later.
    """

    head: Header
    certificate: Certificate | None
    validators: ValidatorSet
    validators_since: Height
    records: Mapping[bytes, bytes] | None
    load_block: Callable[[Hash], KnownBlock | None]


# ---- inputs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A message from another node, its form and all its signatures checked (messages.py, verify.py)."""

    message: Message


@dataclass(frozen=True, slots=True)
class Tick:
    """The time. Give one at (or after) the latest `SetTimer`, and before any other input if the clock has moved."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """The answer to AskProposal: a block that we built and executed, with its body at hand."""

    height: Height
    view: View
    header: Header
    wire_hashes: tuple[WireHash, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NothingToPropose:
    """The other answer to AskProposal: no block can be made now. `WorkChanged(True)` makes the core ask again."""

    height: Height
    view: View


class Outcome(StrEnum):
    """What validation of a block came to. NOT_YET: its time is ahead of our clock by more than the drift bound."""

    VALID = "valid"
    INVALID = "invalid"
    NOT_YET = "not_yet"


@dataclass(frozen=True, slots=True)
class Validated:
    """The answer to AskValidation, with the same `first`; `reason` is a stable code, empty when VALID.

    After VALID the body is at hand: a later Persist may ask for it to be made durable.
    """

    block_hash: Hash
    first: bool
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The block of the height being decided is durable, with its certificate, by our Commit effect or by block sync.

    `validators_next` is the set in force at the next height, `evidence` what the block holds of it: the chain keeps it
    from now on, and the core need not. Heights come one by one, in order.
    """

    header: Header
    certificate: Certificate
    validators_next: ValidatorSet
    evidence: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkChanged:
    """Whether a transaction waits here that could stand in a valid next block by itself."""

    has_work: bool


@dataclass(frozen=True, slots=True)
class Complaint:
    """The node's own reason to suspect the primary (a transaction left out too long), or None: no longer."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class BodyAvailable:
    """The answer to RequestBody: a body that matches its hash is at hand, and these are its header and wire hashes."""

    block_hash: Hash
    block: KnownBlock


@dataclass(frozen=True, slots=True)
class OwnVoteShown:
    """A message with our own valid signature, shown by a peer in HELLO. If our records lack it, they are lost."""

    message: Message


Input: TypeAlias = (
    Received
    | Tick
    | Proposed
    | NothingToPropose
    | Validated
    | Committed
    | WorkChanged
    | Complaint
    | BodyAvailable
    | OwnVoteShown
)

# ---- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Make all of this durable in one synced write, before any later Send, Broadcast or Commit leaves.

    `puts` are records, `deletes` keys of obsolete ones, `bodies` the hashes of blocks whose bodies must be stored too
    (all at hand by then), `bodies_dropped` those that no record needs any more.
    """

    puts: tuple[tuple[bytes, bytes], ...]
    deletes: tuple[bytes, ...] = ()
    bodies: tuple[Hash, ...] = ()
    bodies_dropped: tuple[Hash, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one validator, by its index in the set in force; drop it if it cannot be reached."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to all validators and followers but ourselves."""

    message: Message


@dataclass(frozen=True, slots=True)
class AskProposal:
    """We are primary with a free choice: build a block on the head and answer Proposed or NothingToPropose."""

    height: Height
    view: View


@dataclass(frozen=True, slots=True)
class AskValidation:
    """Gather the bodies, execute, compare all roots, answer Validated; ask the sender first for what is missing.

    `first` says that the rule on clocks applies: time within the drift bound of our clock, ahead of it is NOT_YET.
    The core has checked height, parent, chain, validators hash, proposer and that time is later than the parent's.
    Work on it goes on whatever view changes; it is void once its height is committed. If asked again, answer again.
    """

    block_hash: Hash
    header: Header
    wire_hashes: tuple[WireHash, ...] = field(repr=False)
    first: bool
    proposer: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The block is final: gather and execute it if that is not done, write it with its certificate, answer Committed.

    If our own execution gave other roots, drop it, execute again, and halt before writing if they still differ.
    """

    header: Header
    wire_hashes: tuple[WireHash, ...] = field(repr=False)
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Give a Tick at or soon after `at_ms`; replaces the previous SetTimer."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class RequestSync:
    """Others are at a greater height: fetch blocks up to `height` - 1 or beyond, beside voting; repeats are harmless.

    `proven` by a commit certificate, or (False) a mere claim of `sender` that lasted while we stood still: then ask
    only that validator, for little. `sender` None: anybody.
    """

    height: Height
    sender: int | None
    proven: bool


@dataclass(frozen=True, slots=True)
class RequestBody:
    """Fetch the block with this hash, committed or not, from any of `holders` (validator indexes) or anybody else."""

    block_hash: Hash
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PushTransactions:
    """We suspect the primary, or wait for a new view: send our oldest waiting transactions to all, seen or not."""


class ReportKind(StrEnum):
    """What a Report is about."""

    REJECTED = "rejected"
    PROPOSAL = "proposal"
    SUSPECTED = "suspected"
    VIEW_CHANGE = "view_change"
    VIEW_ENTERED = "view_entered"
    EVIDENCE = "evidence"
    BEHIND = "behind"
    SIGNING = "signing"


@dataclass(frozen=True, slots=True)
class Report:
    """For logs, metrics and RPC; nothing depends on it. `code` is stable.

    rejected: why a message changed nothing. proposal: made, accepted, valid, invalid, not_yet. suspected: the reason.
    view_change: sent (a promise). view_entered: by new_view or by certificate. evidence: the offence.
    behind: proven or claimed. signing: records_lost, recovering, recovered, silence_over.
    """

    kind: ReportKind
    code: str
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    message: Message | None = None


Effect: TypeAlias = (
    Persist
    | Send
    | Broadcast
    | AskProposal
    | AskValidation
    | Commit
    | SetTimer
    | RequestSync
    | RequestBody
    | PushTransactions
    | Report
)

# ---- looking inside -------------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """How far the height being decided has come here."""

    WAITING = "waiting"
    VALIDATING = "validating"
    PREPARING = "preparing"
    COMMITTING = "committing"
    DECIDED = "decided"
    VIEW_CHANGE = "view_change"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The replica as it stands, for RPC and metrics. Indexes are those of the set in force.

    `refusal` says as a stable code why nothing may be signed: not_in_force, records_missing, records_lost, recovering,
    reported (a lost quorum), behind, silent. While recovering, `signed_at_most` is the highest height at which it
    may have signed, and `recovers_at` the first whose commit may end that; None as long as they are not known. `timers`
    maps names to the ms at which they fire, on the clock of Tick.
    """

    height: Height
    view: View
    promised: View
    floor: Height
    demanded: Hash | None
    phase: Phase
    primary: int
    index: int | None
    may_sign: bool
    refusal: str | None
    signed_at_most: Height | None
    recovers_at: Height | None
    proposal: Hash | None
    prepares: tuple[int, ...]
    commits: tuple[int, ...]
    suspects: tuple[int, ...]
    suspicion: str | None
    timers: tuple[tuple[str, int], ...]
    timeout_ms: int
