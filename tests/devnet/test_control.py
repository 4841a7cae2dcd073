"""The control socket's protocol, without a launcher."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from devnet import control
from state.errors import JsonValue, Rejected


async def with_server(home: Path, ask: Any) -> Any:
    async def handle(request: dict[str, Any]) -> dict[str, JsonValue]:
        if request["op"] == "refuse":
            raise Rejected("no", "not today", {"why": 1})
        return {"echo": request["op"], "name": request.get("name", "")}

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, home, handle)
        with trio.fail_after(5):
            result = await trio.to_thread.run_sync(ask)
        nursery.cancel_scope.cancel()
    return result


def test_a_request_is_answered_and_a_refusal_keeps_code_message_and_data(tmp_path: Path) -> None:
    def ask() -> dict[str, Any]:
        with pytest.raises(Rejected) as refused:
            control.ask(tmp_path, "refuse")
        assert (refused.value.code, refused.value.message, refused.value.data) == ("no", "not today", {"why": 1})
        return control.ask(tmp_path, "kill", name="a")

    assert trio.run(with_server, tmp_path, ask) == {"echo": "kill", "name": "a"}


def test_a_home_with_a_long_path_works_too(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    home.mkdir()
    assert trio.run(with_server, home, lambda: control.ask(home, "stop"))["echo"] == "stop"


def test_several_requests_may_share_a_connection_and_garbage_is_refused(tmp_path: Path) -> None:
    def talk() -> list[bytes]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "control.sock"))
            connection.sendall(b'{"op":"a"}\nnonsense\n{"name":"x"}\n[]\n{"op":"b","name":5}\n')
            answers = b""
            while answers.count(b"\n") < 5:
                answers += connection.recv(4096)
            return answers.splitlines()

    first, *others = trio.run(with_server, tmp_path, talk)
    assert control.decode_answer(first) == {"echo": "a", "name": ""}
    for answer in others:
        with pytest.raises(Rejected) as refused:
            control.decode_answer(answer)
        assert refused.value.code == "malformed"


def test_only_the_owner_may_command(tmp_path: Path) -> None:
    mode = trio.run(with_server, tmp_path, lambda: (tmp_path / "control.sock").stat().st_mode & 0o777)
    assert mode == 0o600


def test_without_a_launcher_the_answer_says_how_to_start_one(tmp_path: Path) -> None:
    for home in (tmp_path, tmp_path / "missing"):
        with pytest.raises(Rejected) as refused:
            control.ask(home, "kill", name="a")
        assert refused.value.code == "devnet_down"
        assert "devnet up" in refused.value.message
