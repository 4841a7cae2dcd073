"""What a validator must never forget of its own votes, as bytes: the vote records, their keys and strict decoding.

Theory of operation. Before a vote leaves, what would keep this validator from contradicting it is durable: for each
(height, view) of the height being decided a *round* (the proposal it took, its PREPARE, its COMMIT with the prepared
certificate that allows it), the *entry* into its view (the NEW-VIEW or commit certificate), its *promise* (the latest
VIEW-CHANGE), whether it may sign at all, and evidence. The store keeps them as opaque pairs; block bodies stand beside
them, by hash. A record of another format version, or one that does not decode, is named and stops the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from consensus.messages import (
    MESSAGE_BYTES_MAX,
    Evidence,
    Kind,
    NewView,
    PrePrepare,
    ViewChange,
    Vote,
)
from state.codec import decode, encode, expect_array, expect_blob, expect_bytes, expect_int, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import Hash
from state.limits import VALIDATORS_MAX
from state.types import Certificate, Height, View

RECORDS_VERSION: Final = 1
RECORD_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 1024
KEY_BYTES_MAX: Final = 128

ENTRY_KEY: Final = encode(("entry",))
PROMISE_KEY: Final = encode(("promise",))
SIGNING_KEY: Final = encode(("signing",))
REPORT_KEY: Final = encode(("report",))
TERMS_KEY: Final = encode(("terms",))

# A validator that lost its records had a head of one above the statement's at most, so votes of two above, and an old
# VIEW-CHANGE of that height counts for one more.
TERMS_HEIGHTS: Final = 3

Record = tuple[bytes, bytes]

_FIRST: Final = Height(1)


@dataclass(frozen=True, slots=True)
class TakenProposal:
    """A PRE-PREPARE without its block, which is stored by hash: enough to make the same message again."""

    block_hash: Hash
    certificate: Certificate | None
    sender: int
    signature: bytes

    @classmethod
    def of(cls, message: PrePrepare) -> TakenProposal:
        """Returns what must be kept of a PRE-PREPARE beside the block."""
        return cls(message.block_hash, message.certificate, message.sender, message.signature)


@dataclass(frozen=True, slots=True)
class Round:
    """Our own part in one (height, view). `prepared` is the certificate that our COMMIT rests on."""

    height: Height
    view: View
    proposal: TakenProposal
    prepare: Vote | None = None
    commit: Vote | None = None
    prepared: Certificate | None = None


class SigningState(IntEnum):
    """Whether this validator may sign: yes, not before `recover`, or not before recovery has come to its height."""

    OPEN = 0
    BARRED = 1
    RECOVERING = 2


@dataclass(frozen=True, slots=True)
class Signing:
    """May this validator sign, and from which height on.

    In RECOVERING `signed_at_most` is the highest height at which it could have signed, None until the chain's time has
    passed `started_ms` by twice the drift bound.
    """

    state: SigningState = SigningState.OPEN
    from_height: Height = _FIRST
    signed_at_most: Height | None = None
    started_ms: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a statement on a lost quorum binds us to, while the validator set in force since `since` rules.

    Nothing is signed up to `head_height`, nor in a view below `view`; a NEW-VIEW for one of the next heights counts
    only with VIEW-CHANGEs of all of `kept`, the validators that kept their records. `digest` is the statement's.
    """

    since: Height
    head_height: Height
    view: View
    kept: tuple[int, ...]
    digest: Hash

    @property
    def last_height(self) -> Height:
        """The last height for which a NEW-VIEW needs all that kept their records."""
        return Height(self.head_height + TERMS_HEIGHTS)


@dataclass(frozen=True, slots=True)
class Memory:
    """All vote records, decoded. `since` beside entry and promise is the first height of the set they belong to.

    `report` is what was reported of a lost quorum and is not followed by a statement yet.
    """

    rounds: dict[tuple[Height, View], Round] = field(default_factory=dict)
    entry: tuple[Height, NewView | Certificate] | None = None
    promise: tuple[Height, ViewChange] | None = None
    signing: Signing = Signing()
    evidence: tuple[Evidence, ...] = ()
    terms: Terms | None = None
    report: bytes | None = None

    @property
    def height_max(self) -> Height:
        """The greatest height at which a record shows us to have signed, 0 for none: never sign below it again."""
        heights = [height for height, _ in self.rounds]
        if self.promise is not None:
            heights.append(self.promise[1].height)
        return max(heights, default=Height(0))


def recovery_records(head_height: Height | None, started_ms: int) -> tuple[Record, ...]:
    """Returns what `recover` writes into the vote records of a validator that lost them, beside what is left there.

    `head_height` is the head of an intact chain; None where the chain may have lost its end too. `started_ms` is the
    time of day, in ms since 1970 UTC, at which recovery starts.
    """
    signed_at_most = None if head_height is None else Height(head_height + 1)
    return (signing_record(Signing(SigningState.RECOVERING, Height(1), signed_at_most, started_ms)),)


def rollback_records(records: Mapping[bytes, bytes], head_height: Height) -> tuple[Record, ...]:
    """Returns what `rollback` writes when it takes the block of `head_height` off the chain, beside what is there.

    Records of decided heights are gone by then, so nothing is signed again up to the height that was the head.
    """
    signing = decode_records(records).signing
    return (signing_record(replace(signing, from_height=Height(max(signing.from_height, head_height + 1)))),)


def round_key(height: Height, view: View) -> bytes:
    """Returns the key of a round's record."""
    return encode(("round", height, view))


def round_record(item: Round) -> Record:
    """Returns the record of a round."""
    taken = item.proposal
    value = (
        (taken.block_hash, _certificate_value(taken.certificate), taken.sender, taken.signature),
        None if item.prepare is None else item.prepare.to_value(),
        None if item.commit is None else item.commit.to_value(),
        _certificate_value(item.prepared),
    )
    return round_key(item.height, item.view), _versioned(value)


def entry_record(since: Height, entry: NewView | Certificate) -> Record:
    """Returns the record of how the view in force was entered."""
    by_new_view = isinstance(entry, NewView)
    return ENTRY_KEY, _versioned((since, by_new_view, entry.to_value()))


def promise_record(since: Height, promise: ViewChange) -> Record:
    """Returns the record of our latest VIEW-CHANGE."""
    return PROMISE_KEY, _versioned((since, promise.to_value()))


def signing_record(signing: Signing) -> Record:
    """Returns the record of whether we may sign."""
    value = (int(signing.state), signing.from_height, signing.signed_at_most, signing.started_ms)
    return SIGNING_KEY, _versioned(value)


def terms_record(terms: Terms) -> Record:
    """Returns the record of what a statement binds us to."""
    value = (terms.since, terms.head_height, terms.view, terms.kept, terms.digest)
    return TERMS_KEY, _versioned(value)


def report_record(report: bytes) -> Record:
    """Returns the record of a report on a lost quorum, by its canonical bytes."""
    return REPORT_KEY, _versioned(report)


def evidence_key(item: Evidence) -> bytes:
    """Returns the key of an evidence record: one for each offence of a validator in a (height, view)."""
    return encode(("evidence", int(item.offence), item.height, item.view, item.offender))


def evidence_record(item: Evidence) -> Record:
    """Returns the record of evidence."""
    return evidence_key(item), _versioned(item.to_value())


def decode_records(records: Mapping[bytes, bytes]) -> Memory:
    """Reads all vote records; raises Rejected("vote_records_damaged") naming the first that cannot be read."""
    memory = Memory()
    for key in sorted(records):
        try:
            memory = _read(memory, key, records[key])
        except (DecodeError, ValueError) as error:
            raise Rejected(
                "vote_records_damaged",
                f"vote record {key.hex()} cannot be read ({error}): restore nothing, run `qenex recover`",
            ) from error
    return memory


def _read(memory: Memory, key: bytes, data: bytes) -> Memory:
    name = decode(key, bytes_max=KEY_BYTES_MAX)
    version, value = expect_tuple(decode(data, bytes_max=RECORD_BYTES_MAX), 2, "record")
    if version != RECORDS_VERSION:
        raise DecodeError(f"format version {version!r} is unknown; this node reads version {RECORDS_VERSION}")
    if type(name) is not tuple or not name:
        raise DecodeError("a record's key is an array that begins with its name")
    match name[0]:
        case "round":
            item = _round(name, value)
            memory.rounds[(item.height, item.view)] = item
            return memory
        case "entry":
            since, by_new_view, entry = expect_tuple(value, 3, "entry")
            read = NewView.from_value(entry) if by_new_view is True else Certificate.from_value(entry)
            return replace(memory, entry=(Height(expect_int(since, "since")), read))
        case "promise":
            since, change = expect_tuple(value, 2, "promise")
            return replace(memory, promise=(Height(expect_int(since, "since")), ViewChange.from_value(change)))
        case "signing":
            return replace(memory, signing=_signing(value))
        case "terms":
            return replace(memory, terms=_terms(value))
        case "report":
            return replace(memory, report=expect_blob(value, RECORD_BYTES_MAX, "report"))
        case "evidence":
            found = Evidence.from_value(value)
            if evidence_key(found) != key:
                raise DecodeError("evidence under another key")
            return replace(memory, evidence=(*memory.evidence, found))
    raise DecodeError(f"record {name[0]!r} is unknown")


def _round(name: tuple[Any, ...], value: Any) -> Round:
    _, height, view = expect_tuple(name, 3, "round key")
    taken, prepare, commit, prepared = expect_tuple(value, 4, "round")
    block_hash, certificate, sender, signature = expect_tuple(taken, 4, "proposal")
    proposal = TakenProposal(
        Hash(expect_bytes(block_hash, 32, "block hash")),
        _certificate(certificate),
        expect_int(sender, "sender", limit=VALIDATORS_MAX),
        expect_bytes(signature, 64, "signature"),
    )
    item = Round(
        Height(expect_int(height, "height")),
        View(expect_int(view, "view")),
        proposal,
        None if prepare is None else Vote.from_value(prepare),
        None if commit is None else Vote.from_value(commit),
        _certificate(prepared),
    )
    for vote, kind in ((item.prepare, Kind.PREPARE), (item.commit, Kind.COMMIT)):
        if vote is not None and (vote.kind, vote.height, vote.view) != (kind, item.height, item.view):
            raise DecodeError("a round holds a vote of another place")
    if (item.commit is None) != (item.prepared is None):
        raise DecodeError("a COMMIT stands with the certificate that allows it")
    return item


def _signing(value: Any) -> Signing:
    state, from_height, signed_at_most, started_ms = expect_tuple(value, 4, "signing")
    return Signing(
        SigningState(expect_int(state, "signing state", limit=len(SigningState))),
        Height(expect_int(from_height, "height")),
        None if signed_at_most is None else Height(expect_int(signed_at_most, "height")),
        expect_int(started_ms, "time"),
    )


def _terms(value: Any) -> Terms:
    since, head_height, view, kept, digest = expect_tuple(value, 5, "terms")
    return Terms(
        Height(expect_int(since, "since")),
        Height(expect_int(head_height, "height")),
        View(expect_int(view, "view")),
        tuple(expect_int(item, "index") for item in expect_array(kept, VALIDATORS_MAX, "kept")),
        Hash(expect_bytes(digest, 32, "digest")),
    )


def _versioned(value: Any) -> bytes:
    return encode((RECORDS_VERSION, value))


def _certificate_value(certificate: Certificate | None) -> tuple[Any, ...] | None:
    return None if certificate is None else certificate.to_value()


def _certificate(value: Any) -> Certificate | None:
    return None if value is None else Certificate.from_value(value)
