"""Consensus messages of peers, up to the core's door: read, bounded in what they cost, proved, passed on, noted.

What a message means is the core's business. A message that does not prove itself is its sender's fault, but for one of
a height for which another validator set may be in force than is known here: that is dropped, and sent again later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from consensus.messages import (
    Decided,
    Evidence,
    Message,
    NewView,
    PrePrepare,
    Status,
    decode_message,
)
from consensus.verify import verify_message
from p2p.conduct import Bucket
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node import metrics as m
from qenex_node.effort import signatures_in
from qenex_node.metrics import Metrics
from qenex_node.reach import Reach
from state.errors import Rejected
from state.store import Store
from state.types import Hash, Height, ValidatorSet

SIGNATURES_PER_SECOND: Final = 4_000
SIGNATURES_BURST: Final = 20_000


class Inbox:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        genesis_hash: Hash,
        store: Store,
        network: Callable[[], Network],
        reach: Reach,
        metrics: Metrics,
        note_height: Callable[[Peer, int], None],
    ) -> None:
        """Takes the node's parts, and who is told at what height a peer says that it is."""
        self._network = network
        self._genesis_hash = genesis_hash
        self._store = store
        self._reach = reach
        self._metrics = metrics
        self._note_height = note_height
        self._efforts: dict[str, Bucket] = {}

    def validators_at(self, height: Height) -> ValidatorSet | None:
        """Returns the set in force at a height; that of the next height for all above; None where it is not known."""
        if height > self._store.head.height:
            return self._store.validators
        try:
            return self._store.validators_at(height)
        except Rejected:
            return None

    def prove(self, data: bytes) -> Message:
        """Reads a message and proves its signatures; raises Rejected."""
        message = decode_message(data)
        verify_message(message, self._genesis_hash, self.validators_at)
        return message

    def take(self, peer: Peer, body: bytes, raw: bytes) -> Message | None:
        """Returns a message of a peer for the core, None for one that is dropped; raises Rejected for a bad one."""
        try:
            message = decode_message(body)
        except Rejected:
            self._metrics.add(m.CONSENSUS_MESSAGES, 1, "malformed")
            raise
        if not self._effort(peer).take(signatures_in(message), trio.current_time()):
            # It asks for more proofs than its share of our time allows: what matters in them is sent again.
            return None
        try:
            verify_message(message, self._genesis_hash, self.validators_at)
        except Rejected as error:
            if error.code == "validators_unknown" or self._set_unsure(message):
                return None
            self._metrics.add(m.CONSENSUS_MESSAGES, 1, "bad_signature")
            raise
        self._network().relay(Kind.CONSENSUS, raw, peer, after_transactions=isinstance(message, PrePrepare))
        self._note(peer, message)
        return message

    def _set_unsure(self, message: Message) -> bool:
        height = message.certificate.height if isinstance(message, Decided) else message.height
        return height > self._store.head.height + 1

    def _effort(self, peer: Peer) -> Bucket:
        """Returns how many signatures may be proved for a peer: p2p bounds the frames, this their cost."""
        bucket = self._efforts.get(peer.id)
        if bucket is None:
            bucket = self._efforts[peer.id] = Bucket(SIGNATURES_PER_SECOND, SIGNATURES_BURST, trio.current_time())
        return bucket

    def _note(self, peer: Peer, message: Message) -> None:
        """Keeps what greetings and block sync want to know of a message."""
        if isinstance(message, Decided | Evidence | PrePrepare | NewView):
            # Others send them again, long after whoever signed them has died.
            return
        validators = self.validators_at(message.height)
        if validators is None:
            return
        key = validators.validators[message.sender].key
        self._reach.heard(key, trio.current_time())
        if isinstance(message, Status) and key == peer.validator_key:
            self._note_height(peer, message.height - 1)
