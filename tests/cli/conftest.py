"""Runs a command line as the console script does, but in this process."""

from __future__ import annotations

import pytest

from cli.main import run
from tests.cli.cli_support import Ended, Qenex


@pytest.fixture
def qenex(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Qenex:
    """Runs `qenex ARGUMENTS` in this process."""
    for name in ("QENEX_HOME", "QENEX_RPC", "QENEX_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(int(code), captured.out, captured.err)

    return call
