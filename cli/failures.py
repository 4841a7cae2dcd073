"""How a command that did not succeed ends: a stable code, a message that says what to do, and the exit code.

A command raises; only here is decided what is written and with which code the process ends.
"""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Final, Protocol, runtime_checkable

import click

from cli import output
from qenex_node.exitcodes import ExitCode, exit_code_of
from state.errors import InvariantError, JsonValue, Rejected


@runtime_checkable
class StoreHalt(Protocol):
    """What the errors of the store have that other broken invariants have not."""

    code: str


_DISK_ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT)


def rejected(as_json: bool, error: Rejected) -> int:
    """Writes a refusal of ours."""
    code = exit_code_of(error.code)
    output.error(as_json, error.code, error.message, code, error.data)
    return code


def invariant(as_json: bool, error: InvariantError) -> int:
    """Writes why the node halted: its database cannot be relied on, or a rule of our own was broken (with a trace)."""
    if isinstance(error, StoreHalt):
        exit_code = exit_code_of(error.code)
        output.error(as_json, error.code, str(error), exit_code, {})
        return exit_code
    traceback.print_exception(error, file=sys.stderr)
    output.error(as_json, "invariant_broken", f"halted: {error}", ExitCode.HALTED, {})
    return ExitCode.HALTED


def interrupted(as_json: bool) -> int:
    """Writes that somebody pressed Ctrl-C."""
    output.error(as_json, "interrupted", "interrupted", ExitCode.INTERRUPTED, {})
    return ExitCode.INTERRUPTED


def usage(as_json: bool, error: click.ClickException) -> int:
    """Writes what is wrong with the command line."""
    if as_json:
        output.error(as_json, "usage", error.format_message(), ExitCode.USAGE, {})
    else:
        error.show()
    return ExitCode.USAGE


def other(as_json: bool, error: Exception) -> int:
    """Writes an error of a node, of the system, or one that nobody foresaw (with its trace)."""
    known = _of_node(error) or _of_system(error) or _of_group(as_json, error)
    if isinstance(known, int):
        return known
    if known is None:
        traceback.print_exception(error, file=sys.stderr)
        known = Rejected("unexpected", f"{type(error).__name__}: {error}"), ExitCode.UNEXPECTED
    refusal, exit_code = known
    output.error(as_json, refusal.code, refusal.message, exit_code, refusal.data)
    return exit_code


def _of_group(as_json: bool, error: Exception) -> int | None:
    """Ends as the one error inside does, where concurrent tasks failed and only one error is left to tell."""
    if not isinstance(error, ExceptionGroup) or len(error.exceptions) != 1:
        return None
    inner = error.exceptions[0]
    if isinstance(inner, InvariantError):
        return invariant(as_json, inner)
    if isinstance(inner, Rejected):
        return rejected(as_json, inner)
    return other(as_json, inner)


def _of_node(error: Exception) -> tuple[Rejected, ExitCode] | None:
    """Returns how an error that the client library raised is told."""
    # Who talks to no node has not loaded the client, and then the error is none of its own.
    if "qenex_node.client.errors" not in sys.modules:
        return None
    from qenex_node.client import errors

    if isinstance(error, errors.RpcError):
        data: dict[str, JsonValue] = {**error.data, "rpc_code": error.code}
        if isinstance(error, errors.WaitTimedOut):
            goes_on = f"`qenex tx wait {error.data.get('id', 'ID')}` waits on"
            return Rejected(error.reason, f"{error.message} {goes_on}", data), ExitCode.TIMED_OUT
        return Rejected(error.reason, error.message, data), ExitCode.REFUSED
    if isinstance(error, errors.TransactionFailed):
        return Rejected("transaction_failed", str(error)), ExitCode.FAILED
    if isinstance(error, errors.StillPending):
        tx_id = "0x" + error.tx_id.hex()
        return Rejected("timeout", f"{error} `qenex tx wait {tx_id}` waits on", {"id": tx_id}), ExitCode.TIMED_OUT
    if isinstance(error, errors.TimedOut):
        return Rejected("timeout", str(error)), ExitCode.TIMED_OUT
    if isinstance(error, errors.TransportError):
        hint = "is a node running there? `qenex start` runs one, `devnet/up` a test network, --rpc names another"
        return Rejected("node_unreachable", f"{error}; {hint}"), ExitCode.UNREACHABLE
    if isinstance(error, errors.VerificationFailed):
        data = {"lie": error.lie}
        if error.lie == "fork":
            return Rejected("fork_proved", str(error), data), ExitCode.FORK_PROVED
        return Rejected("proof_invalid", str(error), data), ExitCode.PROOF_INVALID
    if isinstance(error, errors.ClientError):
        return Rejected("protocol_error", str(error)), ExitCode.REFUSED
    return None


def _of_system(error: Exception) -> tuple[Rejected, ExitCode] | None:
    """Returns how an error of the operating system that people can act on is told."""
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EADDRINUSE:
        return Rejected("port_in_use", f"a port to listen on is taken: {error}"), ExitCode.PORT_IN_USE
    if error.errno in _DISK_ERRORS:
        return Rejected("disk_error", f"the disk refused: {error}"), ExitCode.DISK_ERROR
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return Rejected("file_unusable", str(error)), ExitCode.USAGE
    return None
