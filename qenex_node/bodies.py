"""Block bodies by their hash: those at hand, those on the disk, and fetching from peers what is neither.

The consensus core names blocks by hash and asks for those that it lacks. Whoever is asked answers with any block it
has, committed or not. A body that nobody asked for is dropped; one that does not match its hash cannot be mistaken for
another, as the hash is computed here. All that is fetched belongs to one height, and goes when that is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from p2p.limits import ANSWER_QUEUE_BYTES_MAX
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node.commits import Commits
from qenex_node.logs import Log
from qenex_node.proposals import Proposals
from state.block import Block
from state.errors import Rejected
from state.store import Store
from state.types import Hash

log = Log("qenex.bodies")

BODY_RETRY_SECONDS: Final = 0.5
BODIES_FETCHED_MAX: Final = 4


class Bodies:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        store: Store,
        commits: Commits,
        proposals: Proposals,
        peers: Callable[[], Sequence[Peer]],
        spawn: Callable[..., None],
        available: Callable[[Block], None],
    ) -> None:
        """Takes the node's parts, the connected peers, how a task is begun, and who is told of a wanted body."""
        self._peers = peers
        self._spawn = spawn
        self._store = store
        self._commits = commits
        self._proposals = proposals
        self._available = available
        self._fetched: dict[Hash, Block] = {}
        self._wanted: dict[Hash, trio.CancelScope] = {}
        self._needed_last: Hash | None = None
        self._came = trio.Event()

    def at_hand(self, block_hash: Hash) -> Block | None:
        """Returns a block of the height being decided that was executed or fetched here."""
        executed = self._commits.executed(block_hash)
        return executed.block if executed is not None else self._fetched.get(block_hash)

    def height_committed(self) -> None:
        """Lets go of what was fetched, and stops asking: the height is decided."""
        self._fetched.clear()
        for scope in self._wanted.values():
            scope.cancel()
        self._wanted.clear()

    def on_request(self, peer: Peer, block_hash: Hash) -> None:
        """Sends a block that is here, committed or not."""
        if peer.queued_bytes > ANSWER_QUEUE_BYTES_MAX:
            # It asks for more than it reads.
            return
        block = self.at_hand(block_hash) or self._store.body(block_hash)
        if block is not None:
            peer.send(Kind.BODY, block.encoded)

    def on_body(self, peer: Peer, body: bytes) -> None:
        """Takes a block that was asked for; one that does not match its hash is the sender's fault."""
        if not self._wanted:
            return
        block = Block.decode(body)
        scope = self._wanted.get(block.header.hash)
        if scope is None or scope.cancel_called:
            return
        scope.cancel()
        self._spawn(self._take, peer, block)

    def want(self, block_hash: Hash, holders: frozenset[bytes]) -> None:
        """Gets a block: from the disk at once, or from peers, those with the validator keys in `holders` first.

        One too many takes the place of the one that is asked for longest: faulty primaries may have proposed as many
        as there is room for that nobody ever gives.
        """
        if block_hash in self._wanted:
            return
        stored = self.at_hand(block_hash) or self._store.body(block_hash)
        if stored is not None:
            self._fetched[block_hash] = stored
            self._available(stored)
            return
        if len(self._wanted) >= BODIES_FETCHED_MAX:
            self._wanted.pop(next(iter(self._wanted))).cancel()
        scope = self._wanted[block_hash] = trio.CancelScope()
        self._spawn(self._fetch, block_hash, holders, scope)

    async def get(self, block_hash: Hash, holders: frozenset[bytes]) -> Block:
        """Returns a block, fetched as `want` does, for as long as it takes: who waits is cancelled with its height.

        Only for the one that was needed last it is asked again after it had to make room.
        """
        self._needed_last = block_hash
        self.want(block_hash, holders)
        while (block := self.at_hand(block_hash) or self._store.body(block_hash)) is None:
            if self._needed_last == block_hash:
                self.want(block_hash, holders)
            with trio.move_on_after(BODY_RETRY_SECONDS):
                await self._came.wait()
        return block

    async def _fetch(self, block_hash: Hash, holders: frozenset[bytes], scope: trio.CancelScope) -> None:
        """Asks for a block until it comes or its height is decided: first those who should hold it, then everyone."""
        everyone = not holders
        with scope:
            while True:
                for peer in self._peers():
                    if everyone or peer.validator_key in holders:
                        peer.send(Kind.BODY_REQUEST, block_hash)
                everyone = True
                await trio.sleep(BODY_RETRY_SECONDS)

    async def _take(self, peer: Peer, block: Block) -> None:
        block_hash = block.header.hash
        try:
            await self._proposals.take_body(block)
        except Rejected as error:
            log.warning("a body with a bad transaction", peer=peer.name, block=block_hash, why=str(error))
        self._wanted.pop(block_hash, None)
        if block.header.height != self._store.head.height + 1:
            return
        self._fetched[block_hash] = block
        came, self._came = self._came, trio.Event()
        came.set()
        self._available(block)
