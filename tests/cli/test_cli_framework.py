"""What holds for every command: quick help, one form of answers and errors, documented exit codes, completion."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import COMMANDS
from qenex_node.client import errors
from qenex_node.exitcodes import ExitCode
from state.errors import InvariantError, Rejected
from state.store.errors import Damaged, StorageFailed
from tests.cli.cli_support import Qenex

ROOT = Path(__file__).parents[2]


def every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []

    def walk(path: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(f"{path} {name}", inner)
        else:
            found.append((path, command))

    for name, entry in COMMANDS.items():
        walk(name, import_module(entry.module).command)
    return found


def test_every_command_of_the_table_loads_under_its_name_and_takes_json_and_home() -> None:
    for path, command in every_command():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--home"} <= options, path
        assert command.help, path


def test_help_is_quick_and_loads_no_command() -> None:
    started = time.perf_counter()
    script = (
        "import sys; from cli.main import run; code = run(['--help']);"
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('nacl', 'cryptography', 'plyvel', 'rich', 'trio')];"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Run the node." in ended.stdout
    assert time.perf_counter() - started < 3


def test_a_wrong_command_line_is_usage_in_both_forms(qenex: Qenex) -> None:
    plain = qenex("nowhere")
    assert (plain.code, plain.out) == (2, "")
    assert "No such command 'nowhere'" in plain.err
    ended = qenex("nowhere", "--json")
    assert ended.code == 2
    assert ended.json["error"]["code"] == "usage"
    assert ended.json["error"]["exit_code"] == 2


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `qenex completion bash` raise something."""

    def arrange(error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(import_module("cli.commands.completion"), "get_completion_class", fail)

    return arrange


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (Rejected("config_invalid", "no"), ExitCode.CONFIG, "config_invalid"),
        (Rejected("never_heard_of", "no"), ExitCode.REFUSED, "never_heard_of"),
        (InvariantError("broken"), ExitCode.HALTED, "invariant_broken"),
        (Damaged("header 5", "is missing"), ExitCode.STORE_DAMAGED, "store_damaged"),
        (StorageFailed("writing", "full"), ExitCode.DISK_ERROR, "storage_failed"),
        (OSError(98, "Address already in use"), ExitCode.PORT_IN_USE, "port_in_use"),
        (OSError(28, "No space left on device"), ExitCode.DISK_ERROR, "disk_error"),
        (FileNotFoundError(2, "No such file", "x"), ExitCode.USAGE, "file_unusable"),
        (errors.TransportError("refused", sent=False), ExitCode.UNREACHABLE, "node_unreachable"),
        (errors.TimedOut("slow", sent=True), ExitCode.TIMED_OUT, "timeout"),
        (errors.RequestRejected(-32000, "no", {"reason": "sequence_used"}), ExitCode.REFUSED, "sequence_used"),
        (errors.WaitTimedOut(-32006, "no", {"reason": "timeout"}), ExitCode.TIMED_OUT, "timeout"),
        (errors.ProtocolError("what"), ExitCode.REFUSED, "protocol_error"),
        (ExceptionGroup("tasks", [Damaged("header 5", "is missing")]), ExitCode.STORE_DAMAGED, "store_damaged"),
        (
            ExceptionGroup("tasks", [ExceptionGroup("more", [OSError(98, "taken")])]),
            ExitCode.PORT_IN_USE,
            "port_in_use",
        ),
        (ExceptionGroup("tasks", [ValueError("a"), ValueError("b")]), ExitCode.UNEXPECTED, "unexpected"),
        (ZeroDivisionError("oops"), ExitCode.UNEXPECTED, "unexpected"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
    ],
)
def test_each_failure_has_its_exit_code_and_one_form(
    qenex: Qenex, raising: Any, error: BaseException, exit_code: ExitCode, code: str
) -> None:
    raising(error)
    ended = qenex("completion", "bash", "--json")
    assert ended.code == exit_code
    assert ended.json["error"] == {
        "code": code,
        "message": ended.json["error"]["message"],
        "exit_code": exit_code,
        "data": ended.json["error"]["data"],
    }
    plain = qenex("completion", "bash")
    assert plain.out == ""
    assert plain.err.splitlines()[-1].startswith("qenex: ")
    assert plain.err.splitlines()[-1].endswith(f"({code})")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(qenex: Qenex, shell: str) -> None:
    ended = qenex("completion", shell)
    assert ended.code == 0
    assert "_QENEX_COMPLETE" in ended.out


def test_completion_answers_with_commands_and_options() -> None:
    def complete(words: str, position: int) -> str:
        environment = os.environ | {
            "_QENEX_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
        script = "import sys; sys.argv[0] = 'qenex'; from cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        ).stdout

    assert "plain,validators" in complete("qenex va", 1).splitlines()
    assert "plain,--scheme" in complete("qenex keys new --sch", 3).splitlines()


def test_whoever_closes_our_output_early_gets_no_trace() -> None:
    script = f"{sys.executable} -c 'from cli.main import main; main()' completion bash | true"
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
