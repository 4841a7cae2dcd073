"""What a log line promises: one event with its fields, machine-readable, without secrets and without forged lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qenex_node.logs import MASK, VALUE_LENGTH_MAX, Log, RateLimited, set_level, setup
from state.keys import SigningKey


@contextmanager
def captured(form: str, level: str = "info", node: str = "") -> Iterator[io.StringIO]:
    stream = io.StringIO()
    undo = setup(form, level, node=node, stream=stream)
    try:
        yield stream
    finally:
        undo()
        logging.getLogger("qenex").setLevel(logging.NOTSET)


def test_a_human_line_has_time_level_source_event_and_fields() -> None:
    with captured("human") as stream:
        Log("qenex.sync").info("fell behind", height=12, peer="bank-b", note="two words", hash=b"\x01")
    line = stream.getvalue()
    assert line.endswith('INFO    sync: fell behind height=12 peer=bank-b note="two words" hash=0x01\n')
    assert line[10] == "T"
    assert line[23] == "Z"


def test_a_json_line_is_one_object() -> None:
    with captured("json", node="bank-a") as stream:
        Log("qenex.sync").warning("fell behind", height=12, event="mine", names=("a", "b"), ok=True, none=None)
    (line,) = stream.getvalue().splitlines()
    document = json.loads(line)
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "source": "sync",
        "event": "fell behind",
        "node": "bank-a",
        "height": 12,
        "field_event": "mine",
        "names": ["a", "b"],
        "ok": True,
        "none": None,
    }


def test_plain_logging_below_the_root_comes_out_too() -> None:
    with captured("json") as stream:
        logging.getLogger("qenex.p2p").info("joined %s", "bank-b")
    assert json.loads(stream.getvalue())["event"] == "joined bank-b"


@pytest.mark.parametrize("form", ["human", "json"])
def test_secrets_are_masked(form: str) -> None:
    key = SigningKey.generate()
    with captured(form) as stream:
        Log("qenex.x").info("made", seed=key.seed, passphrase="hunter2", private_key=key.seed, key=key)
    assert key.seed.hex() not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert MASK in stream.getvalue()


@pytest.mark.parametrize("form", ["human", "json"])
def test_nobody_forges_a_line_or_floods_one(form: str) -> None:
    with captured(form) as stream:
        Log("qenex.x").info("said\n2026", reason="a\r\nb\x1b[31m" + "x" * 100_000)
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < VALUE_LENGTH_MAX + 200


@pytest.mark.parametrize("form", ["human", "json"])
def test_an_exception_comes_with_its_trace(form: str) -> None:
    with captured(form) as stream:
        try:
            raise ValueError("inner")
        except ValueError as error:
            Log("qenex.x").exception("failed", error, height=3)
    assert "ValueError: inner" in stream.getvalue()


def test_the_level_can_change_while_running() -> None:
    with captured("human", "warning") as stream:
        log = Log("qenex.x")
        log.info("hidden")
        set_level("debug")
        log.debug("seen")
    assert "hidden" not in stream.getvalue()
    assert "seen" in stream.getvalue()


def test_a_rate_limit_lets_one_line_through_and_counts_the_rest() -> None:
    limited = RateLimited(1.0, subjects_max=2)
    assert [limited.allow("a", now) for now in (0.0, 0.1, 0.9, 1.0, 1.5)] == [0, None, None, 2, None]
    assert limited.allow("b", 1.5) == 0


def test_a_rate_limit_remembers_a_bounded_number_of_subjects() -> None:
    limited = RateLimited(1.0, subjects_max=2)
    for subject in ("a", "b", "c"):
        assert limited.allow(subject, 0.0) == 0
    assert len(limited._last) <= 2
