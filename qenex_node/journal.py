"""What the consensus core reports, put where people look: the log, the metrics, and short lists for RPC."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from consensus.interface import Report, ReportKind, Snapshot
from consensus.messages import Evidence
from consensus.verify import ValidatorsAt
from qenex_node import metrics as m
from qenex_node.evidence import Place
from qenex_node.logs import Log, RateLimited
from qenex_node.metrics import Metrics
from qenex_node.rpc.view import EvidenceInfo, ViewChangeInfo
from state.evidence import EquivocationProof

log = Log("qenex.consensus")

VIEW_CHANGES_KEPT: Final = 64
EVIDENCE_KEPT: Final = 1_024
REJECTIONS_LOG_SECONDS: Final = 5.0


class Journal:
    """Takes the core's reports; keeps the newest view changes and pieces of evidence, both bounded."""

    def __init__(
        self,
        metrics: Metrics,
        now_ms: Callable[[], int],
        monotonic_seconds: Callable[[], float],
        recorded_at: Callable[[Place], int | None],
    ) -> None:
        """Takes the metrics, the wall clock for what people read, a steady clock for the log's rate, and who knows
        which block recorded an offence.

        `view` is where the core stands; it is set before the first report.
        """
        self.view = 0
        self._metrics = metrics
        self._now_ms = now_ms
        self._monotonic_seconds = monotonic_seconds
        self._rejections = RateLimited(REJECTIONS_LOG_SECONDS)
        self._reasons: dict[str, None] = {}
        self._suspected = ""
        self._evidence_count = 0
        self.view_changes: deque[ViewChangeInfo] = deque(maxlen=VIEW_CHANGES_KEPT)
        self._recorded_at = recorded_at
        self._evidence: deque[tuple[EvidenceInfo, Place]] = deque(maxlen=EVIDENCE_KEPT)
        self.signing = ""

    def evidence(self, after: int, limit: int) -> Sequence[EvidenceInfo]:
        """Returns up to `limit` pieces of evidence with numbers above `after`, in order."""
        found = [(info, place) for info, place in self._evidence if info.number > after][:limit]
        return [replace(info, recorded_height=self._recorded_at(place)) for info, place in found]

    def note(self, report: Report, snapshot: Callable[[], Snapshot], validators_at: ValidatorsAt) -> None:
        """Takes one report."""
        match report.kind:
            case ReportKind.REJECTED:
                left_out = self._rejections.allow(report.code, self._monotonic_seconds())
                if left_out is not None:
                    log.debug("message rejected", code=report.code, left_out=left_out, **report.data)
            case ReportKind.PROPOSAL:
                self._proposal(report)
            case ReportKind.SUSPECTED:
                self._suspected_anew(report)
            case ReportKind.VIEW_CHANGE:
                self._reasons[str(report.data["reason"])] = None
                log.warning("leaving the view", **report.data)
            case ReportKind.VIEW_ENTERED:
                self._view_entered(report, snapshot())
            case ReportKind.EVIDENCE:
                if isinstance(report.message, Evidence):
                    self.take_evidence(report.message, validators_at)
            case ReportKind.BEHIND:
                log.debug("behind", code=report.code, **report.data)
            case ReportKind.SIGNING:
                self.signing = report.code
                log.warning("signing", code=report.code, **report.data)

    def _suspected_anew(self, report: Report) -> None:
        """Counts a suspicion once, though the core repeats it each second while it lasts."""
        suspected = f"{report.code} {report.data['height']} {report.data['view']}"
        if suspected != self._suspected:
            self._suspected = suspected
            self._metrics.add(m.SUSPICIONS, 1, report.code)
            log.warning("the primary is suspected", reason=report.code, **report.data)

    def validators_changed(self, view: int) -> None:
        """Takes another validator set, whose views begin anew."""
        self.view = view
        self._reasons.clear()

    def _proposal(self, report: Report) -> None:
        if report.code != "valid":
            self._metrics.add(m.PROPOSALS, 1, report.code)
        if report.code == "invalid":
            log.warning("invalid proposal", **report.data)

    def _view_entered(self, report: Report, snapshot: Snapshot) -> None:
        self._metrics.add(m.VIEW_CHANGES, 1)
        self.view_changes.append(
            ViewChangeInfo(
                height=snapshot.height,
                from_view=self.view,
                to_view=snapshot.view,
                time_ms=self._now_ms(),
                reasons=tuple(self._reasons) or (report.code,),
            )
        )
        self._reasons.clear()
        self.view = snapshot.view
        log.warning("view entered", view=snapshot.view, height=snapshot.height, by=report.code)

    def take_evidence(self, evidence: EquivocationProof, validators_at: ValidatorsAt) -> None:
        """Takes evidence of an offence that is new to this process: found now, or before a restart. A smaller proof of
        one that is known is no news."""
        place = evidence.place
        if any(place == known for _, known in self._evidence):
            return
        self._evidence_count += 1
        validators = validators_at(evidence.height)
        known = validators is not None and evidence.offender < validators.n
        name = validators.validators[evidence.offender].name if validators is not None and known else "unknown"
        kind = evidence.offence.name.lower()
        info = EvidenceInfo(
            number=self._evidence_count,
            validator=name,
            kind=kind,
            height=evidence.height,
            view=evidence.view,
            first=evidence.first.signature,
            second=evidence.second.signature,
        )
        self._evidence.append((info, place))
        self._metrics.add(m.EVIDENCE, 1, kind)
        log.error("equivocation proved", validator=name, kind=kind, height=evidence.height, view=evidence.view)
