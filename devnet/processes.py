"""One node as a process: started so that it cannot outlive whoever started it, signalled, and seen to its end.

Theory of operation. A child asks the kernel, between fork and exec, to be killed when its parent dies (prctl
PR_SET_PDEATHSIG). The kernel keeps that promise whatever way the parent goes, even for a child that is stopped, and
needs no third process. "Parent" means the thread that forked, so only the main thread may start children. The signal
is SIGKILL: a child that is paused or hangs would sleep through any other, and a node must survive it anyway.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches the launcher alone, which ends the nodes
in order. On systems without prctl a killed launcher leaves its nodes behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from state.errors import InvariantError

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1


def death_signal() -> Callable[[], None]:
    """Returns what a child runs before exec, so that it dies with us: nothing in it may import, lock, or fail."""
    parent = os.getpid()
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    getppid, leave, kill = os.getppid, os._exit, int(signal.SIGKILL)

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, kill, 0, 0, 0)
        if getppid() != parent:
            # The parent died before the promise was made.
            leave(1)

    return bind


class NodeProcess:
    """A child process with its log."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Starts `command`; what it says goes to the end of `log`. Only the main thread may do this."""
        if threading.current_thread() is not threading.main_thread():
            raise InvariantError("a node is started by a thread that may end before it")
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=death_signal(),
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Returns None while it runs, else its exit code, negative for the signal that killed it."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Waits for the end; returns the exit code, or None if it runs on."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it was seen to end: its id may be another's by then."""
        self._process.send_signal(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Sends a signal to it and to every process that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
