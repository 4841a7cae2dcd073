"""The fixed bounds of formats and blocks, and the relations between them, checked when the module is imported.

What a chain may choose for itself stands in its parameters (state/genesis.py); these are the ceilings for all chains.
"""

from __future__ import annotations

from typing import Final

from state.errors import InvariantError

TRANSACTION_BYTES_MAX: Final = 128 * 1024
SIGNATURES_MAX: Final = 16
OPERATIONS_MAX: Final = 1024
RECIPIENTS_MAX: Final = 1024
MEMO_BYTES_MAX: Final = 128
NOT_AFTER_AHEAD_MS_MAX: Final = 24 * 3600 * 1000
LANES_MAX: Final = 16
INLINE_BALANCES_MAX: Final = 32
EXTENSIONS_MAX: Final = 16
EXTENSION_BYTES_MAX: Final = 1024
POLICY_KEYS_MAX: Final = 16
CHAIN_ID_LENGTH_MAX: Final = 32
NAME_LENGTH_MAX: Final = 32
ASSET_CODE_LENGTH_MAX: Final = 12
DECIMALS_MAX: Final = 18
EVENTS_MAX: Final = 4096

VALIDATORS_MIN: Final = 1
VALIDATORS_MAX: Final = 64
BLOCK_BYTES_MAX: Final = 4 * 1024 * 1024
BLOCK_UNITS_MAX: Final = 100_000
BLOCK_TRANSACTIONS_MAX: Final = 20_000
EVIDENCE_MAX: Final = 16
EVIDENCE_BYTES_MAX: Final = 4 * 1024
HEADER_BYTES_MAX: Final = 1024
CERTIFICATE_BYTES_MAX: Final = 256 + VALIDATORS_MAX * 80
GENESIS_BYTES_MAX: Final = 16 * 1024 * 1024

BLOCK_ENCODED_BYTES_MAX: Final = (
    BLOCK_BYTES_MAX + HEADER_BYTES_MAX + EVIDENCE_MAX * (EVIDENCE_BYTES_MAX + 8) + 8 * BLOCK_TRANSACTIONS_MAX
)


def _require(condition: bool, relation: str) -> None:
    if not condition:
        raise InvariantError(f"limits contradict each other: {relation}")


_require(TRANSACTION_BYTES_MAX * 4 <= BLOCK_BYTES_MAX, "a block holds at least four of the largest transactions")
_require(POLICY_KEYS_MAX <= SIGNATURES_MAX, "the largest policy can be satisfied by one transaction")
_require(OPERATIONS_MAX * 4 <= BLOCK_UNITS_MAX, "a block holds the heaviest transaction")
