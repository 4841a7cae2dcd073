"""With which code the `qenex` command ends, and which refusal leads to which. docs/operations.md has it as a table.

Supervisors may restart on 1, 31 and 33; all other codes from 10 on need a person first.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The codes; numbers are stable."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIG = 10
    HOME = 11
    GENESIS = 12
    KEY = 13
    PASSPHRASE = 14
    STORE_DAMAGED = 20
    STORE_LOCKED = 21
    VOTES_MISSING = 22
    VERSION_UNKNOWN = 23
    OWN_VOTE_SEEN = 24
    HALTED = 30
    PORT_IN_USE = 31
    DISK_LOW = 32
    DISK_ERROR = 33
    UNREACHABLE = 40
    REFUSED = 41
    FAILED = 42
    TIMED_OUT = 43
    PROOF_INVALID = 44
    AUDIT_FAILED = 45
    FORK_PROVED = 46
    INTERRUPTED = 130


MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "Done; for `start`: stopped by SIGTERM or SIGINT, cleanly.",
    ExitCode.UNEXPECTED: "An error that the program does not know; the log has its trace.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.CONFIG: "The configuration is wrong or cannot be read.",
    ExitCode.HOME: "The home directory is missing, incomplete, or there already.",
    ExitCode.GENESIS: "The genesis document, its state file or a validator's card is wrong.",
    ExitCode.KEY: "A key file is missing, damaged, or readable by others.",
    ExitCode.PASSPHRASE: "The passphrase is missing or wrong.",
    ExitCode.STORE_DAMAGED: 'The database is damaged; nothing was repaired. See "The store is damaged".',
    ExitCode.STORE_LOCKED: "Another process has the database open, or runs with the same validator key.",
    ExitCode.VOTES_MISSING: 'The vote records are missing. See "The vote records are lost".',
    ExitCode.VERSION_UNKNOWN: "A file is of a version that this program does not know.",
    ExitCode.OWN_VOTE_SEEN: 'A vote of its own key was seen that its records lack. See "Two processes with one key".',
    ExitCode.HALTED: "The node halted rather than break a rule of its own; its log says which. Look before restarting.",
    ExitCode.PORT_IN_USE: "A port to listen on is taken.",
    ExitCode.DISK_LOW: "There is less free disk space than `storage.min_free_bytes`.",
    ExitCode.DISK_ERROR: "The disk refused to read or write.",
    ExitCode.UNREACHABLE: "No node answers at the address.",
    ExitCode.REFUSED: "The request or transaction was refused; the message says why.",
    ExitCode.FAILED: "The transaction is in a block and failed there; its receipt says why.",
    ExitCode.TIMED_OUT: "The wait ended first; what was asked for may still happen.",
    ExitCode.PROOF_INVALID: "What a node answered or a snapshot holds does not verify against the trusted validators.",
    ExitCode.AUDIT_FAILED: "`verify` or `export --check` found something that is not as it must be.",
    ExitCode.FORK_PROVED: "Two different blocks of one height are both certified. Keep both, and call all operators.",
    ExitCode.INTERRUPTED: "Interrupted from the keyboard.",
}

_CODES: Final[dict[str, ExitCode]] = {
    "config_invalid": ExitCode.CONFIG,
    "home_missing": ExitCode.HOME,
    "home_exists": ExitCode.HOME,
    "chain_missing": ExitCode.HOME,
    "chain_exists": ExitCode.HOME,
    "genesis_invalid": ExitCode.GENESIS,
    "genesis_wrong": ExitCode.GENESIS,
    "card_invalid": ExitCode.GENESIS,
    "state_file_missing": ExitCode.GENESIS,
    "state_file_wrong": ExitCode.GENESIS,
    "keystore_missing": ExitCode.KEY,
    "keystore_damaged": ExitCode.KEY,
    "keystore_unreadable": ExitCode.KEY,
    "keystore_permissions": ExitCode.KEY,
    "protection_unknown": ExitCode.KEY,
    "passphrase_needed": ExitCode.PASSPHRASE,
    "passphrase_wrong": ExitCode.PASSPHRASE,
    "passphrase_empty": ExitCode.PASSPHRASE,
    "passphrase_unreadable": ExitCode.PASSPHRASE,
    "store_damaged": ExitCode.STORE_DAMAGED,
    "store_unclean": ExitCode.STORE_DAMAGED,
    "store_missing": ExitCode.HOME,
    "store_incomplete": ExitCode.HOME,
    "store_exists": ExitCode.HOME,
    "storage_failed": ExitCode.DISK_ERROR,
    "store_locked": ExitCode.STORE_LOCKED,
    "key_in_use": ExitCode.STORE_LOCKED,
    "key_lock_unusable": ExitCode.STORE_LOCKED,
    "votes_missing": ExitCode.VOTES_MISSING,
    "version_unknown": ExitCode.VERSION_UNKNOWN,
    "own_vote_seen": ExitCode.OWN_VOTE_SEEN,
    "port_in_use": ExitCode.PORT_IN_USE,
    "disk_low": ExitCode.DISK_LOW,
    "disk_error": ExitCode.DISK_ERROR,
    "node_unreachable": ExitCode.UNREACHABLE,
    "timeout": ExitCode.TIMED_OUT,
    "proof_invalid": ExitCode.PROOF_INVALID,
    "snapshot_invalid": ExitCode.PROOF_INVALID,
    "snapshot_damaged": ExitCode.PROOF_INVALID,
    "chunk_invalid": ExitCode.PROOF_INVALID,
    "header_unproved": ExitCode.PROOF_INVALID,
    "certificate_invalid": ExitCode.PROOF_INVALID,
    "audit_failed": ExitCode.AUDIT_FAILED,
    "export_invalid": ExitCode.AUDIT_FAILED,
    "export_cut_off": ExitCode.AUDIT_FAILED,
    "fork_proved": ExitCode.FORK_PROVED,
}


def exit_code_of(code: str) -> ExitCode:
    """Returns how the command ends for a refusal with this code; REFUSED for all that have no code of their own."""
    return _CODES.get(code, ExitCode.REFUSED)


def table() -> str:
    """Returns the Markdown table of exit codes for docs/operations.md."""
    rows = ["| code | name | meaning |", "|---|---|---|"]
    rows += [f"| {code.value} | `{code.name.lower()}` | {MEANINGS[code]} |" for code in ExitCode]
    return "\n".join(rows)
