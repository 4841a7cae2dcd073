"""Every bound of the peer layer, and the relations between them, checked when the module is imported.

Sizes in bytes, times in seconds unless the name says otherwise. What is a frame kind's own (its size, its receive
budget) stands in the table of kinds in p2p/wire.py, built from these.
"""

from __future__ import annotations

from typing import Final

from state.errors import InvariantError
from state.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_ENCODED_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
    VALIDATORS_MAX,
)

KIB: Final = 1024
MIB: Final = 1024 * 1024

# Frames. A kind's size counts the payload after the length prefix.
FRAME_OVERHEAD_BYTES: Final = 64
HELLO_BYTES_MAX: Final = 4 * KIB
HELLO_ACK_BYTES_MAX: Final = 24 * KIB
REJECT_BYTES_MAX: Final = 1 * KIB
PING_BYTES_MAX: Final = 64
PEERS_BYTES_MAX: Final = 16 * KIB
CONSENSUS_BYTES_MAX: Final = 2 * MIB
TRANSACTIONS_BYTES_MAX: Final = 1 * MIB
HASHES_BYTES_MAX: Final = 512 * KIB
REQUEST_BYTES_MAX: Final = 64
BODY_BYTES_MAX: Final = BLOCK_ENCODED_BYTES_MAX + 4 * KIB
BLOCKS_BYTES_MAX: Final = BLOCK_ENCODED_BYTES_MAX + CERTIFICATE_BYTES_MAX + 4 * KIB
MANIFEST_BYTES_MAX: Final = 4 * MIB + CERTIFICATE_BYTES_MAX + 4 * KIB
CHUNK_BYTES_MAX: Final = 1 * MIB + 4 * KIB
LIGHT_BYTES_MAX: Final = 32 * KIB

# Fields.
NEIGHBOURS_MAX: Final = 256
HASHES_MAX: Final = 12_000
TRANSACTIONS_PER_FRAME_MAX: Final = 8_000
BLOCKS_PER_FRAME_MAX: Final = 512
SNAPSHOTS_PER_FRAME_MAX: Final = 16
ADDRESS_LENGTH_MAX: Final = 262
REASON_LENGTH_MAX: Final = 256
VOTE_SEEN_BYTES_MAX: Final = 16 * KIB
PROOF_BYTES_MAX: Final = 5 * KIB

# Queues and writes.
QUEUE_BYTES_MAX: Final = 16 * MIB
ANSWER_QUEUE_BYTES_MAX: Final = 4 * MIB
"""With more than this queued for a peer, its large questions stay unanswered: it asks for more than it reads."""
WRITE_BYTES_MAX: Final = 256 * KIB
READ_BYTES: Final = 64 * KIB
READ_SLICE_SECONDS: Final = 0.002
WRITE_SECONDS_MAX: Final = 20.0

# Time limits of a connection's life.
DIAL_SECONDS: Final = 5.0
TLS_SECONDS: Final = 5.0
HELLO_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
PING_INTERVAL_SECONDS: Final = 2.0
PING_QUIET_SECONDS: Final = 2.0
"""After this without an answer or anything else, a peer is not named as a neighbour any more: others may reach it."""

PING_SILENCE_SECONDS_MAX: Final = 15.0
GOSSIP_DELAY_SECONDS: Final = 0.02

# Connections.
PERMITTED_MAX: Final = 256
PENDING_MAX: Final = 128
PENDING_PER_ADDRESS_MAX: Final = 64
GREETINGS_MAX: Final = 512
GREETINGS_PER_NODE_MAX: Final = 4
DUPLICATE_SECONDS: Final = 15.0

# Reconnecting.
RETRY_SECONDS_BASE: Final = 0.1
RETRY_SECONDS_MAX: Final = 5.0
RETRY_GROWTH: Final = 2.0
RETRY_STABLE_SECONDS: Final = 10.0

# Conduct.
SCORE_BAN: Final = 100.0
SCORE_HALF_LIFE_SECONDS: Final = 60.0
POINTS_MALFORMED: Final = 100.0
POINTS_OVER_BUDGET: Final = 0.1
POINTS_REJECTED: Final = 10.0
BAN_SECONDS: Final = 60.0

# Flooding and measuring.
SEEN_MAX: Final = 65_536
FLOOD_ID_BYTES: Final = 8
OFFSET_SAMPLES: Final = 8
LOG_INTERVAL_SECONDS: Final = 1.0
LOG_SUBJECTS_MAX: Final = 1_024


def _require(condition: bool, relation: str) -> None:
    if not condition:
        raise InvariantError(f"limits contradict each other: {relation}")


_require(TRANSACTION_BYTES_MAX * 2 <= TRANSACTIONS_BYTES_MAX, "a frame holds the largest transaction")
_require(BLOCK_BYTES_MAX < BODY_BYTES_MAX, "a frame holds the largest block")
_require(CONSENSUS_BYTES_MAX >= BLOCK_TRANSACTIONS_MAX * 34 + 64 * KIB, "a proposal of the fullest block fits a frame")
_require(
    CONSENSUS_BYTES_MAX >= VALIDATORS_MAX * (2 * CERTIFICATE_BYTES_MAX + 1 * KIB),
    "a NEW-VIEW of the largest validator set fits a frame",
)
_require(QUEUE_BYTES_MAX >= 2 * BLOCKS_BYTES_MAX, "a queue takes two of the largest frames")
_require(ANSWER_QUEUE_BYTES_MAX + BLOCKS_BYTES_MAX <= QUEUE_BYTES_MAX, "an answer that is begun fits the queue")
_require(
    ANSWER_QUEUE_BYTES_MAX + max(MANIFEST_BYTES_MAX, CHUNK_BYTES_MAX) <= QUEUE_BYTES_MAX, "so does one of a snapshot"
)
_require(
    LIGHT_BYTES_MAX >= HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + VALIDATORS_MAX * 160 + FRAME_OVERHEAD_BYTES,
    "a frame holds a header with its certificate and the largest validator set",
)
_require(WRITE_BYTES_MAX < QUEUE_BYTES_MAX, "a write is a part of the queue")
_require(NEIGHBOURS_MAX * 34 + FRAME_OVERHEAD_BYTES <= PEERS_BYTES_MAX, "all neighbours fit one PEERS frame")
_require(HASHES_MAX * 34 + FRAME_OVERHEAD_BYTES <= HASHES_BYTES_MAX, "all hashes fit one frame")
_require(PERMITTED_MAX <= NEIGHBOURS_MAX, "every permitted peer can be named as a neighbour")
_require(VALIDATORS_MAX <= PERMITTED_MAX, "the largest validator set can be permitted")
_require(PROOF_BYTES_MAX + VOTE_SEEN_BYTES_MAX + FRAME_OVERHEAD_BYTES <= HELLO_ACK_BYTES_MAX, "an acknowledgement fits")
_require(PENDING_PER_ADDRESS_MAX < PENDING_MAX, "one address cannot fill the pending connections")
_require(GREETINGS_PER_NODE_MAX < GREETINGS_MAX, "one node cannot fill the greetings under way")
_require(
    DUPLICATE_SECONDS >= DIAL_SECONDS + TLS_SECONDS + HELLO_SECONDS,
    "two connections made at the same time are told from one made anew",
)
_require(PING_QUIET_SECONDS < PING_SILENCE_SECONDS_MAX, "a peer is passed by before it is dropped")
_require(PING_INTERVAL_SECONDS * 2 < PING_SILENCE_SECONDS_MAX, "one lost ping does not end a connection")
_require(RETRY_SECONDS_BASE < RETRY_SECONDS_MAX, "delays grow")
_require(POINTS_MALFORMED >= SCORE_BAN, "one malformed frame bans")
