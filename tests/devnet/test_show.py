"""What the launcher shows: the table's cells, the lines in a pipe, the JSON events, and the counts behind them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from devnet.fleet import Member
from devnet.show import COLUMNS, JsonShow, LineShow, row, table
from devnet.watch import Counts, Sample, Watch, unready
from qenex_node.testnet import NetworkNode, NodePorts

READY = Sample(
    "validator-01",
    "validator",
    "running",
    pid=5,
    height=12,
    head="0xaa",
    view=1,
    primary="validator-02",
    ready=True,
    peers=3,
    tx_per_s=1234.4,
    finality_ms=12.34,
    cpu=0.5,
    rss_anon=50 * 2**20,
)
DEAD = Sample("validator-02", "validator", "killed")
WAITING = Sample("validator-03", "validator", "running", height=12, reasons=("no_quorum",))


def test_a_row_has_a_cell_for_each_column_and_dashes_for_what_is_unknown() -> None:
    assert row(READY) == (
        "validator-01", "ready", "12", "1", "validator-02", "1234", "12.3 ms", "3", "50 MiB", "50%",
    )  # fmt: skip
    assert row(DEAD) == ("validator-02", "killed", *["-"] * 8)
    assert row(WAITING)[1] == "no_quorum"
    assert len(COLUMNS) == len(row(READY))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_fits_a_terminal_without_cutting_a_word(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(table("net", [READY, DEAD, WAITING], width))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in drawn
    assert max(map(len, drawn.splitlines())) <= width
    for word in ("validator-02", "no_quorum", "height", "12.3 ms"):
        assert word in drawn
    assert all(column in drawn for column in COLUMNS) is (width >= 100)


def test_json_events_are_one_object_a_line_and_status_comes_only_with_news() -> None:
    stream = io.StringIO()
    show = JsonShow(stream)
    show.event("ready", "all are ready", seconds=1.5)
    show.status([READY, DEAD])
    show.status([READY, DEAD])
    show.status([DEAD, DEAD])
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["ready", "status", "status"]
    assert events[0]["message"] == "all are ready"
    assert events[1]["nodes"][0]["height"] == 12


def test_lines_in_a_pipe_do_not_repeat_heights_that_did_not_move() -> None:
    stream = io.StringIO()
    show = LineShow(stream)
    show.status([READY, DEAD])
    show.status([READY, DEAD])
    assert stream.getvalue() == "heights: validator-01 12, validator-02 -; 1234 tx/s\n"


def test_counts_are_read_from_metrics_over_all_outcomes() -> None:
    text = """# HELP qenex_chain_transactions_total Transactions
qenex_chain_transactions_total{outcome="ok"} 7.0
qenex_chain_transactions_total{outcome="failed"} 1.0
qenex_chain_finality_seconds_bucket{le="0.001"} 3.0
qenex_chain_finality_seconds_sum 0.25
qenex_chain_finality_seconds_count 8.0
"""
    assert Counts.parse(text) == Counts(8.0, 0.25, 8.0)


def test_who_is_not_ready_is_told_with_the_reason_unless_its_clock_was_set_apart() -> None:
    node = NetworkNode("validator-02", "validator", Path(), NodePorts(1, 2, 3))
    off = replace(READY, name="validator-02", ready=False, reasons=("clock_off",))
    watches = [Watch(Member(node)) for _ in range(5)]
    for watch, sample in zip(watches, [READY, WAITING, DEAD, off, off], strict=True):
        watch.sample = sample
    watches[4].member.own_clock = True
    assert unready(watches[:3]) == {"validator-03": ["no_quorum"], "validator-02": ["does not answer"]}
    assert unready(watches[3:4]) == {"validator-02": ["clock_off"]}
    assert unready(watches[4:]) == {}
