"""How commands reach a running launcher: one JSON object a line, over a Unix socket in the network's home.

    -> {"op": "kill", "name": "validator-01"}
    <- {"ok": true, "result": {...}}      or      {"ok": false, "error": {"code", "message", "data"}}

A connection may carry several requests, one after the other. The socket is for the owner of the home alone.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from devnet.files import SOCKET_FILE
from state.errors import JsonValue, Rejected

LINE_BYTES_MAX: Final = 64 * 1024
ANSWER_SECONDS: Final = 120.0
_PATH_BYTES_MAX: Final = 100

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, JsonValue]]]


class _SocketPath:
    """A socket's path that the system can take: long ones are named through an open descriptor of their directory."""

    def __init__(self, home: Path) -> None:
        self._descriptor: int | None = None
        path = home.absolute() / SOCKET_FILE
        self.path = str(path)
        if len(os.fsencode(self.path)) > _PATH_BYTES_MAX:
            self._descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            self.path = f"/proc/self/fd/{self._descriptor}/{SOCKET_FILE}"

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def encode_answer(result: dict[str, JsonValue]) -> bytes:
    """Returns the line of a success."""
    return json.dumps({"ok": True, "result": result}, separators=(",", ":")).encode() + b"\n"


def encode_refusal(error: Rejected) -> bytes:
    """Returns the line of a refusal."""
    told = {"code": error.code, "message": error.message, "data": error.data}
    return json.dumps({"ok": False, "error": told}, separators=(",", ":")).encode() + b"\n"


def decode_request(line: bytes) -> dict[str, Any]:
    """Reads a request; raises Rejected("malformed")."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Rejected("malformed", "a request is one JSON object on a line") from None
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise Rejected("malformed", 'a request has an "op"')
    if not isinstance(request.get("name", ""), str):
        raise Rejected("malformed", '"name" is a text')
    return request


def decode_answer(line: bytes) -> dict[str, Any]:
    """Returns the result that an answer holds; raises what it refuses with."""
    answer = json.loads(line)
    if answer["ok"]:
        result: dict[str, Any] = answer["result"]
        return result
    error = answer["error"]
    raise Rejected(error["code"], error["message"], error["data"])


async def serve(home: Path, handle: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answers requests until it is cancelled; `handle` gets each and may raise Rejected."""
    with _SocketPath(home) as path:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listening.bind(path)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        listening.listen(16)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listening.accept()
                    nursery.start_soon(_serve_one, trio.SocketStream(connection), handle)
        finally:
            listening.close()
            with suppress(FileNotFoundError):
                os.unlink(path)


async def _serve_one(stream: trio.abc.Stream, handle: Handler) -> None:
    buffer = bytearray()
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            while len(buffer) <= LINE_BYTES_MAX:
                line, newline, rest = bytes(buffer).partition(b"\n")
                if newline:
                    buffer = bytearray(rest)
                    await stream.send_all(await _answer(line, handle))
                    continue
                data = await stream.receive_some(4096)
                if not data:
                    return
                buffer += data


async def _answer(line: bytes, handle: Handler) -> bytes:
    try:
        return encode_answer(await handle(decode_request(line)))
    except Rejected as error:
        return encode_refusal(error)


def ask(home: Path, op: str, *, timeout_s: float = ANSWER_SECONDS, **more: JsonValue) -> dict[str, Any]:
    """Sends one request to the launcher of `home` and returns its result.

    Raises Rejected("devnet_down") if none runs there, Rejected("timeout"), or what the launcher refuses with.
    """
    line = json.dumps({"op": op, **more}, separators=(",", ":")).encode() + b"\n"
    down = Rejected("devnet_down", f"no network runs in {home}: start one with `qenex devnet up --home {home}`")
    if not home.is_dir():
        raise down
    with _SocketPath(home) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
            connection.sendall(line)
            answer = _read_line(connection)
        except TimeoutError:
            raise Rejected("timeout", f"the launcher did not answer within {timeout_s:g} s") from None
        except OSError:
            raise down from None
    return decode_answer(answer)


def _read_line(connection: socket.socket) -> bytes:
    buffer = bytearray()
    while not buffer.endswith(b"\n"):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the launcher ended")
        buffer += data
    return bytes(buffer)
