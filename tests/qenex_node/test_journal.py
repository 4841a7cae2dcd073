"""What the core reports is shown where people look: counted once, with its own reasons, within bounds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.interface import Report, ReportKind
from consensus.messages import Evidence
from qenex_node import journal as journal_module
from qenex_node import metrics as m
from qenex_node.journal import Journal
from qenex_node.metrics import Metrics
from state.evidence import Offence, SignedHash
from state.hashing import ZERO_HASH, sha256
from state.types import Height, View
from tests.state.store.store_support import VALIDATORS


class Desk:
    """A journal with clocks that the test sets."""

    def __init__(self, view: int = 0) -> None:
        self.metrics = Metrics("test")
        self.now_ms, self.seconds = 1_000, 0.0
        self.recorded: dict[tuple[int, int, int, int], int] = {}
        self.journal = Journal(
            self.metrics, lambda: self.now_ms, lambda: self.seconds, lambda place: self.recorded.get(place)
        )
        self.journal.view = view

    def note(self, kind: ReportKind, code: str, message: Any = None, *, view: int = 0, **data: Any) -> None:
        snapshot: Any = SimpleNamespace(height=5, view=view)
        report = Report(kind, code, {"height": 5, "view": view, **data}, message)
        self.journal.note(report, lambda: snapshot, lambda height: VALIDATORS)


def test_a_suspicion_that_lasts_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    for _ in range(10):
        desk.note(ReportKind.SUSPECTED, "no_progress")
    desk.note(ReportKind.SUSPECTED, "no_progress", view=1)
    desk.note(ReportKind.SUSPECTED, "view_change_unanswered", view=1)
    assert desk.metrics.value(m.SUSPICIONS, "no_progress") == 2
    assert desk.metrics.value(m.SUSPICIONS, "view_change_unanswered") == 1
    assert len(caplog.records) == 3


def test_a_view_change_has_the_reasons_with_which_the_view_was_left_and_no_older_ones() -> None:
    desk = Desk(view=3)
    desk.note(ReportKind.SUSPECTED, "left_out", view=3)  # it ended by itself, long ago
    desk.note(ReportKind.VIEW_CHANGE, "sent", view=4, reason="no_progress")
    desk.note(ReportKind.VIEW_CHANGE, "sent", view=5, reason="others")
    desk.note(ReportKind.VIEW_ENTERED, "new_view", view=5)
    desk.note(ReportKind.VIEW_ENTERED, "certificate", view=6)
    shown = [(change.from_view, change.to_view, change.reasons) for change in desk.journal.view_changes]
    assert shown == [(3, 5, ("no_progress", "others")), (5, 6, ("certificate",))]
    assert desk.metrics.value(m.VIEW_CHANGES) == 2


def test_proposals_are_counted_by_what_became_of_them() -> None:
    desk = Desk()
    for code in ("made", "accepted", "valid", "invalid", "not_yet"):
        desk.note(ReportKind.PROPOSAL, code)
    counted = {code: desk.metrics.value(m.PROPOSALS, code) for code in ("made", "accepted", "invalid", "not_yet")}
    assert set(counted.values()) == {1}


def test_rejections_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    with caplog.at_level("DEBUG", "qenex.consensus"):
        for _ in range(100):
            desk.note(ReportKind.REJECTED, "not_primary")
        assert len(caplog.records) == 1
        desk.seconds = journal_module.REJECTIONS_LOG_SECONDS
        desk.note(ReportKind.REJECTED, "not_primary")
        assert caplog.records[-1].qenex_fields["left_out"] == 99  # type: ignore[attr-defined]


def test_evidence_is_numbered_named_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    for number in range(journal_module.EVIDENCE_KEPT + 5):
        first, second = (SignedHash(sha256(bytes([n])), ZERO_HASH, bytes(64)) for n in (1, 2))
        evidence = Evidence(Offence.PREPARE, Height(number + 1), View(0), 2, first, second)
        desk.note(ReportKind.EVIDENCE, "prepare", evidence)
    kept = desk.journal.evidence(0, 10**6)
    assert len(kept) == journal_module.EVIDENCE_KEPT
    assert [info.number for info in desk.journal.evidence(kept[-3].number, 10)] == [kept[-2].number, kept[-1].number]
    assert {info.validator for info in kept} == {"v2"}
    desk.recorded[(kept[-1].height, 0, 1, 2)] = 77
    assert [info.recorded_height for info in desk.journal.evidence(kept[-3].number, 10)] == [None, 77]
    # Another proof of the same offence is no news.
    third = SignedHash(sha256(b"\0"), ZERO_HASH, bytes(64))
    desk.note(ReportKind.EVIDENCE, "prepare", replace(evidence, first=third))
    assert len(desk.journal.evidence(kept[-3].number, 10)) == 2
    assert desk.metrics.value(m.EVIDENCE, "prepare") == journal_module.EVIDENCE_KEPT + 5


def test_signing_says_why_not() -> None:
    desk = Desk()
    desk.note(ReportKind.SIGNING, "records_lost")
    assert desk.journal.signing == "records_lost"
