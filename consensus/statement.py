"""More than f validators lost their vote records: what every operator reports, and the one statement they make of it.

Plain values and pure functions; an operator's tool carries the bytes. All members of the set in force take part, each
with its node stopped: a *report* says where its home stands, and bars that home from signing; all reports together are
the *statement*; applied, it binds the core to `Terms` (records.py), under which docs/consensus.md shows that no block
that was final is lost. What is assumed of the reports stands there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from consensus.core import Core, Signer
from consensus.interface import Config, Restored
from consensus.records import (
    REPORT_KEY,
    TERMS_HEIGHTS,
    Memory,
    Record,
    Signing,
    SigningState,
    Terms,
    decode_records,
    evidence_key,
    report_record,
    signing_record,
    terms_record,
)
from consensus.rules import Rules
from consensus.verify import ValidatorsAt, Verify
from state.block import verify_certificate, vote_preimage
from state.codec import decode, encode, expect_array, expect_bool, expect_bytes, expect_int, expect_tuple
from state.errors import DecodeError, Rejected
from state.hashing import TAG_CONSENSUS, Hash, tagged
from state.keys import verify_ed25519
from state.limits import CERTIFICATE_BYTES_MAX, VALIDATORS_MAX
from state.types import VOTE_COMMIT, Certificate, Height, ValidatorSet, View

REPORT_VERSION: Final = 1
REPORT_BYTES_MAX: Final = CERTIFICATE_BYTES_MAX + 512
STATEMENT_BYTES_MAX: Final = VALIDATORS_MAX * REPORT_BYTES_MAX + 64
# A kind of signature beside those of messages.Kind; a report is no message.
REPORT_KIND: Final = 10
# One liar must not use up all views: nobody honest is this many view changes ahead of all others.
VIEWS_AHEAD_MAX: Final = 1 << 32


@dataclass(frozen=True)
class Report:
    """Where one validator's home stands. `promised` is the greatest view that it entered or promised.

    `since` is the first height of the unbroken rule of the set in force; `certificate` proves the head, None at height
    0; `lost` says that the vote records do not hold all that this validator may have signed.
    """

    genesis_hash: Hash
    validators_hash: Hash
    since: Height
    sender: int
    head_height: Height
    head_hash: Hash
    certificate: Certificate | None
    promised: View
    lost: bool
    signature: bytes = field(default=b"", repr=False)

    @cached_property
    def preimage(self) -> bytes:
        """What the signature covers: every field."""
        digest = tagged(TAG_CONSENSUS, encode(self._unsigned()))
        return vote_preimage(
            self.genesis_hash, self.validators_hash, REPORT_KIND, self.head_height, self.promised, digest
        )

    def _unsigned(self) -> tuple[Any, ...]:
        return (
            REPORT_VERSION,
            self.genesis_hash,
            self.validators_hash,
            self.since,
            self.sender,
            self.head_height,
            self.head_hash,
            None if self.certificate is None else self.certificate.to_value(),
            self.promised,
            self.lost,
        )

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array: version, the fields in their order here, signature."""
        return (*self._unsigned(), self.signature)

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return encode(self.to_value())

    @classmethod
    def from_value(cls, value: Any) -> Report:
        """Reads the canonical array; raises DecodeError, naming an unknown version."""
        fields = expect_tuple(value, 11, "report")
        if type(fields[0]) is not int or fields[0] != REPORT_VERSION:
            raise DecodeError(f"report version {fields[0]!r} is unknown; this program reads version {REPORT_VERSION}")
        report = cls(
            Hash(expect_bytes(fields[1], 32, "genesis hash")),
            Hash(expect_bytes(fields[2], 32, "validators hash")),
            Height(expect_int(fields[3], "since")),
            expect_int(fields[4], "sender", limit=VALIDATORS_MAX),
            Height(expect_int(fields[5], "head height")),
            Hash(expect_bytes(fields[6], 32, "head hash")),
            None if fields[7] is None else Certificate.from_value(fields[7]),
            View(expect_int(fields[8], "promised view")),
            expect_bool(fields[9], "lost"),
            expect_bytes(fields[10], 64, "signature"),
        )
        proof = report.certificate
        if (proof is None) != (report.head_height == 0):
            raise DecodeError("a report proves its head by the head's certificate; genesis needs none")
        if proof is not None and (proof.kind, proof.height, proof.block_hash) != (
            VOTE_COMMIT,
            report.head_height,
            report.head_hash,
        ):
            raise DecodeError("a report's certificate must be COMMITs for its head")
        return report

    @classmethod
    def decode(cls, data: bytes) -> Report:
        """Reads canonical bytes; raises DecodeError."""
        return cls.from_value(decode(data, bytes_max=REPORT_BYTES_MAX))


@dataclass(frozen=True)
class Statement:
    """The reports of all members of the set in force, in order of their indexes."""

    reports: tuple[Report, ...]

    @cached_property
    def head(self) -> Report:
        """The report with the highest head: upon it the chain goes on."""
        return max(self.reports, key=lambda report: report.head_height)

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The validators that kept their records."""
        return tuple(report.sender for report in self.reports if not report.lost)

    @cached_property
    def wiped(self) -> tuple[int, ...]:
        """The validators that lost theirs."""
        return tuple(report.sender for report in self.reports if report.lost)

    @cached_property
    def view(self) -> View:
        """The view in which the chain goes on: above all that those who kept records entered or promised."""
        return View(max(report.promised for report in self.reports if not report.lost) + 1)

    @cached_property
    def digest(self) -> Hash:
        """What operators compare before they apply it."""
        return tagged(TAG_CONSENSUS, self.encode())

    @cached_property
    def terms(self) -> Terms:
        """What it binds every member of the set to."""
        return Terms(self.head.since, self.head.head_height, self.view, self.kept, self.digest)

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return encode(tuple(report.to_value() for report in self.reports))

    @classmethod
    def decode(cls, data: bytes) -> Statement:
        """Reads canonical bytes, form alone; `check_statement` tells whether it counts. Raises DecodeError."""
        value = decode(data, bytes_max=STATEMENT_BYTES_MAX)
        return cls(tuple(Report.from_value(item) for item in expect_array(value, VALIDATORS_MAX, "reports")))


@dataclass(frozen=True, slots=True)
class RecordsChange:
    """What to write into the vote records, and what to delete from them, in one synced write."""

    puts: tuple[Record, ...]
    deletes: tuple[bytes, ...] = ()


def make_report(config: Config, restored: Restored, sign: Signer) -> Report:
    """Returns the report of a stopped validator's home. It counts only once `report_change` of it is durable.

    Raises Rejected("not_in_force") for a key that is not in the set, and "report_behind" for records above the head.
    """
    validators = restored.validators
    sender = None if config.key is None else validators.index_of(config.key)
    if sender is None:
        raise Rejected("not_in_force", "only members of the validator set in force report")
    core = _readable(config, restored, sign)
    lost = core is None or not core.records_exist or core.signing.state is not SigningState.OPEN
    if core is not None and not lost and core.signing.from_height > core.height:
        raise Rejected(
            "report_behind",
            f"this validator signed at height {core.signing.from_height} and its head is {restored.head.height}: "
            "let it catch up first, or run `qenex recover` on it, which makes it one that lost its records",
        )
    report = Report(
        config.genesis_hash,
        validators.hash,
        restored.validators_since,
        sender,
        restored.head.height,
        restored.head.hash,
        restored.certificate,
        View(0) if core is None or lost else core.promised,
        lost,
    )
    return replace(report, signature=sign(report.preimage))


def report_change(report: Report) -> RecordsChange:
    """Returns what makes a report binding: nothing is signed from then on, until a statement that holds it."""
    return RecordsChange((report_record(report.encode()),))


def withdrawal() -> RecordsChange:
    """Returns what takes a report back: the home signs as before, and no statement that holds the report counts."""
    return RecordsChange((), (REPORT_KEY,))


def check_report(
    report: Report,
    genesis_hash: Hash,
    validators: ValidatorSet,
    validators_at: ValidatorsAt,
    verify: Verify = verify_ed25519,
) -> None:
    """Proves a report's signature and head. Raises Rejected("report_invalid") or ("statement_sets_differ")."""
    if report.genesis_hash != genesis_hash:
        raise Rejected("report_invalid", "the report is of another chain")
    if report.validators_hash != validators.hash:
        raise Rejected(
            "statement_sets_differ",
            f"validator index {report.sender} stands at height {report.head_height} under another validator set than "
            "the one in force here: start whichever node is behind, so that it catches up, and report again",
        )
    if report.sender >= validators.n:
        raise Rejected("report_invalid", f"validator index {report.sender} is not in the set")
    member = validators.validators[report.sender]
    if not verify(member.key, report.preimage, report.signature):
        raise Rejected("report_invalid", f"the report's signature is not that of {member.name}")
    if report.certificate is not None:
        at_head = validators_at(report.head_height)
        if at_head is None:
            raise Rejected("report_invalid", f"the validator set of height {report.head_height} is not known here")
        verify_certificate(report.certificate, genesis_hash, at_head, verify)


def check_statement(
    statement: Statement,
    genesis_hash: Hash,
    validators: ValidatorSet,
    since: Height,
    validators_at: ValidatorsAt,
    verify: Verify = verify_ed25519,
) -> None:
    """Proves that a statement counts for the set in force since `since`.

    Raises Rejected with code `statement_reports` (missing or twice), `statement_fork`, `statement_too_few_kept` or
    `statement_view`, and whatever `check_report` raises.
    """
    reports = statement.reports
    for report in reports:
        check_report(report, genesis_hash, validators, validators_at, verify)
        if report.since != since:
            raise Rejected("statement_sets_differ", "a report is of another reign of the same validator set")
    if [report.sender for report in reports] != list(range(validators.n)):
        there = {report.sender for report in reports}
        missing = [member.name for index, member in enumerate(validators.validators) if index not in there]
        raise Rejected(
            "statement_reports",
            f"a statement holds one report of each validator, in order; missing: {', '.join(missing) or 'none'}",
            {"missing": [*missing]},
        )
    heads = {report.head_height: report.head_hash for report in reports}
    for report in reports:
        if heads[report.head_height] != report.head_hash:
            raise Rejected("statement_fork", f"two blocks are certified at height {report.head_height}: do not go on")
    if len(statement.wiped) >= validators.quorum:
        raise Rejected(
            "statement_too_few_kept",
            f"{len(statement.wiped)} of {validators.n} lost their records: a quorum of {validators.quorum} may have "
            "made a block final that nobody remembers",
        )
    promised = sorted((report.promised for report in reports if not report.lost), reverse=True)
    if promised[0] > (promised[1] if len(promised) > 1 else 0) + VIEWS_AHEAD_MAX:
        raise Rejected("statement_view", f"one report claims view {promised[0]}, far above all others")


def statement_of(reports: Sequence[Report]) -> Statement:
    """Returns the statement that these reports make, not yet checked."""
    return Statement(tuple(sorted(reports, key=lambda report: report.sender)))


def statement_change(statement: Statement, config: Config, restored: Restored, now_ms: int) -> RecordsChange:
    """Returns what applies a checked statement to a stopped validator's records; nothing if it is applied already.

    `now_ms` is the time of day, in ms since 1970 UTC. Raises Rejected("statement_not_ours") unless it holds this home's
    own last report, and "statement_older" for one that is behind the statement applied before.
    """
    memory = _memory(restored)
    terms = statement.terms
    if memory.terms is not None and memory.terms.digest == terms.digest:
        return RecordsChange(())
    sender = None if config.key is None else restored.validators.index_of(config.key)
    own = next((report for report in statement.reports if report.sender == sender), None)
    if own is None or memory.report != own.encode():
        raise Rejected(
            "statement_not_ours",
            "the statement does not hold the last report of this very home: it may have signed since. Report again, "
            "all of you, and make a new statement",
        )
    before = memory.terms
    if before is not None and before.since == terms.since and terms.head_height < before.head_height:
        raise Rejected("statement_older", f"a statement from height {before.head_height} is in force here")
    if not own.lost:
        return RecordsChange((terms_record(terms),), (REPORT_KEY,))
    # What is left of the lost records counts for nothing: it could only keep this validator from heights below its own.
    signing = Signing(SigningState.RECOVERING, Height(1), Height(terms.head_height + TERMS_HEIGHTS - 1), now_ms)
    puts = (terms_record(terms), signing_record(signing))
    kept = {key for key, _ in puts} | {evidence_key(item) for item in memory.evidence}
    return RecordsChange(puts, tuple(key for key in sorted(restored.records or {}) if key not in kept))


def _readable(config: Config, restored: Restored, sign: Signer) -> Core | None:
    """Returns the core as it would start from these records, None if they are damaged."""
    try:
        return Core(config, restored, sign, Rules())
    except Rejected as error:
        if error.code != "vote_records_damaged":
            raise
        return None


def _memory(restored: Restored) -> Memory:
    """Returns what concerns a statement in the records, as far as they can be read."""
    memory = Memory()
    for key, value in (restored.records or {}).items():
        try:
            found = decode_records({key: value})
        except Rejected:
            continue
        memory = replace(
            memory,
            terms=found.terms or memory.terms,
            report=found.report or memory.report,
            evidence=memory.evidence + found.evidence,
        )
    return memory
