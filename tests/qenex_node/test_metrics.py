"""What the metrics promise: Prometheus's conventions, every series from the start, none made by outsiders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from p2p.counters import Counters
from p2p.wire import Kind
from qenex_node import metrics as m
from qenex_node.metrics import Metrics, RpcCounters
from state.errors import InvariantError


def exposed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in m.DECLARED]
    assert len(set(names)) == len(names)
    for metric in m.DECLARED:
        assert re.fullmatch(r"qenex_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.doc.endswith(".")
        assert not re.search(r"_(ms|millis|mb|kb|minutes)(_|$)", metric.name)


def test_every_series_is_zero_from_the_start() -> None:
    metrics = Metrics("1.0", rpc_methods=["qenex_status"], rpc_errors=["busy"])
    values = exposed(metrics)
    build = ("qenex_build_info", (("version", "1.0"),))
    assert values.pop(build) == 1
    assert set(values.values()) == {0}
    for metric in m.DECLARED:
        name = metric.name + ("_count" if metric.kind == "histogram" else "")
        assert any(series[0] == name for series in [*values, build])
    assert ("qenex_rpc_requests_total", (("method", "qenex_status"), ("outcome", "error"))) in values


def test_what_is_counted_set_and_observed_comes_out() -> None:
    metrics = Metrics("1.0")
    metrics.add(m.CHAIN_BLOCKS, 2, "sync")
    metrics.set(m.CHAIN_HEIGHT, 7)
    for seconds in (0.001, 0.004, 99.0):
        metrics.observe(m.COMMIT_SECONDS, seconds)
    values = exposed(metrics)
    assert values["qenex_chain_blocks_total", (("way", "sync"),)] == 2
    assert values["qenex_chain_height", ()] == 7
    assert values["qenex_chain_commit_seconds_bucket", (("le", "0.001"),)] == 1
    assert values["qenex_chain_commit_seconds_bucket", (("le", "0.005"),)] == 2
    assert values["qenex_chain_commit_seconds_bucket", (("le", "+Inf"),)] == 3
    assert values["qenex_chain_commit_seconds_count", ()] == 3
    assert values["qenex_chain_commit_seconds_sum", ()] == pytest.approx(99.005)


def test_an_undeclared_label_value_counts_as_other_and_makes_no_series() -> None:
    metrics = Metrics("1.0")
    before = len(exposed(metrics))
    for number in range(1000):
        metrics.add(m.MEMPOOL_REJECTED, 1, f"made_up_{number}")
    assert metrics.value(m.MEMPOOL_REJECTED, m.OTHER) == 1000
    assert len(exposed(metrics)) == before


@pytest.mark.parametrize("labels", [("nowhere",), (), ("sync", "sync")])
def test_a_wrong_label_is_our_own_bug(labels: tuple[str, ...]) -> None:
    with pytest.raises(InvariantError, match="qenex_chain_blocks_total"):
        Metrics("1.0").add(m.CHAIN_BLOCKS, 1, *labels)


def test_two_nodes_in_one_process_count_apart() -> None:
    first, second = Metrics("1.0"), Metrics("1.0")
    first.add(m.VIEW_CHANGES, 1)
    assert (first.value(m.VIEW_CHANGES), second.value(m.VIEW_CHANGES)) == (1, 0)


def test_what_peers_count_is_read_when_asked_for() -> None:
    metrics, counters = Metrics("1.0"), Counters()
    metrics.source(m.p2p_source(counters.values))
    counters.count("bytes_in", Kind.PING.name.lower(), 5)
    counters.count("bans", "total")
    values = exposed(metrics)
    assert values["qenex_p2p_bytes_total", (("direction", "in"), ("kind", "ping"))] == 5
    assert values["qenex_p2p_bans_total", ()] == 1


def test_rpc_answers_are_counted_by_method_and_error() -> None:
    metrics = Metrics("1.0", rpc_methods=["qenex_status"], rpc_errors=["busy"])
    rpc = RpcCounters(metrics)
    rpc.answered("qenex_status", "ok", 3, 0.5)
    rpc.answered("qenex_status", "busy", 1, 0.25)
    rpc.answered("made up", "parse_error", 1, 0.0)
    rpc.connections("http", 1)
    rpc.dropped("connections_max")
    assert metrics.value(m.RPC_REQUESTS, "qenex_status", "ok") == 3
    assert metrics.value(m.RPC_REQUEST_SECONDS, "qenex_status") == 0.75
    assert (metrics.value(m.RPC_ERRORS, "busy"), metrics.value(m.RPC_ERRORS, m.OTHER)) == (1, 1)
    assert metrics.value(m.RPC_DROPPED, "connections_max") == 1


def test_clock_offsets_tell_the_median_and_the_farthest() -> None:
    assert [value for _, _, value in m.clock_offsets([10.0, -2500.0, 20.0])] == [0.01, -2.5]
    assert [value for _, _, value in m.clock_offsets([])] == [0.0, 0.0]


def test_process_and_disk_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    metrics = Metrics("1.0")
    metrics.source(m.process_source)
    metrics.source(m.disk_source(tmp_path))
    values = exposed(metrics)
    assert values["qenex_process_memory_bytes", (("kind", "anonymous"),)] > 1_000_000
    assert values["qenex_process_open_descriptors", ()] > 2
    assert values["qenex_store_bytes", ()] == 1000
    assert values["qenex_disk_free_bytes", ()] > 0
