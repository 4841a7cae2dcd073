"""Block sync: a node that is behind fetches certified blocks in ranges from its peers, beside voting.

A peer's claim of a height only makes it worth asking. What it sends counts after its certificate is proved against
the validator set in force at that height; a peer that claims much and delivers nothing, or delivers what does not
verify, is passed over for a while and counted against. Each node tells its direct peers its own height: full nodes, and
validators that may not sign, say nothing in consensus, and whoever is joined with them alone must know to ask them.

Signatures of transactions are not proved again here: a quorum of validators, hence at least one correct one, has proved
them before it voted. `qenex verify` proves them all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from p2p.limits import ANSWER_QUEUE_BYTES_MAX, POINTS_REJECTED
from p2p.network import Network
from p2p.peer import Peer
from p2p.wire import Kind
from qenex_node.logs import Log
from state.block import Block, verify_certificate
from state.errors import DecodeError, Rejected
from state.types import VOTE_COMMIT, Certificate, Hash, Header, ValidatorSet

log = Log("qenex.sync")

RANGE_BLOCKS_MAX: Final = 64
RANGE_BYTES_MAX: Final = 1024 * 1024
ANSWER_SECONDS_MAX: Final = 4.0
SHUN_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 0.4
REQUESTS_IN_FLIGHT_MAX: Final = 3
TELL_SECONDS: Final = 1.0


class Chain(Protocol):
    """The committed chain, as sync reads and serves it."""

    @property
    def head(self) -> Header: ...

    @property
    def base_height(self) -> int: ...

    @property
    def validators(self) -> ValidatorSet: ...

    def block_at(self, height: int) -> Block | None: ...

    def certificate_at(self, height: int) -> Certificate | None: ...


CommitCertified = Callable[[Block, Certificate], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Range:
    """One request under way: `count` blocks from `start` on, asked of `peer`."""

    start: int
    count: int
    peer: Peer
    answered: trio.Event
    items: tuple[tuple[bytes, bytes], ...] = ()


class BlockSync:
    """See the module's docstring."""

    def __init__(self, chain: Chain, genesis_hash: Hash, commit: CommitCertified) -> None:
        """Takes the chain, and what writes a certified block; `network` is set before `run`."""
        self.network: Network
        self._chain = chain
        self._genesis_hash = genesis_hash
        self._commit = commit
        self._noted = trio.Event()
        self._ranges: dict[str, _Range] = {}
        self._shunned: dict[str, float] = {}
        self._span = RANGE_BLOCKS_MAX
        self.paused = False
        self.held = False
        """While state sync tries to be quicker; see qenex_node/statesync.py."""
        self.syncing = False
        self._proven_height = 0

    @property
    def target_height(self) -> int:
        """The height that this node should be at: proved by a certificate, or claimed by more than f validators.

        A lone claim would let one liar make every node say that it is behind. Only a node that is joined with so few
        validators takes the highest claim there is.
        """
        peers = self.network.connected()
        claims = sorted((peer.height for peer in peers if peer.validator_key is not None), reverse=True)
        f = self._chain.validators.f
        claimed = claims[f] if len(claims) > f else max((peer.height for peer in peers), default=0)
        return max(self._proven_height, claimed)

    @property
    def catching_up(self) -> bool:
        """Whether blocks, or a snapshot in their stead, are being fetched."""
        return self.syncing or self.held

    def note_height(self, peer: Peer, height: int) -> None:
        """Notes what height a peer claims to be at."""
        peer.note_height(height)
        if height > self._chain.head.height:
            self._noted.set()

    def pause(self) -> None:
        """Stops fetching after the block at hand."""
        self.paused = True

    def resume(self) -> None:
        """Goes on after `pause`."""
        self.paused = False
        self._noted.set()

    def release(self) -> None:
        """Goes on after it was held."""
        self.held = False
        self._noted.set()

    def hurry(self, height: int) -> None:
        """Notes that a certificate proves the chain to be at `height`: no patience is needed."""
        self._proven_height = max(self._proven_height, height)
        self._noted.set()

    def on_block_request(self, peer: Peer, start: int, count: int) -> None:
        """Answers with consecutive blocks and certificates from `start` on, as many as fit; none if it has none."""
        if peer.queued_bytes > ANSWER_QUEUE_BYTES_MAX:
            # It asks for more than it reads.
            return
        items: list[tuple[bytes, bytes]] = []
        size = 0
        last = min(self._chain.head.height, start + min(count, RANGE_BLOCKS_MAX) - 1)
        # Up to its base a restored node has no blocks; asked for those, it answers with none, and others are asked.
        for height in range(max(start, 1), last + 1) if start > self._chain.base_height else ():
            block, certificate = self._chain.block_at(height), self._chain.certificate_at(height)
            if block is None or certificate is None:
                break
            item = (block.encoded, certificate.encode())
            size += len(item[0]) + len(item[1])
            if items and size > RANGE_BYTES_MAX:
                break
            items.append(item)
        peer.send(Kind.BLOCKS, tuple(items))

    def on_blocks(self, peer: Peer, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Takes the answer to a request; an answer that nobody waits for is dropped."""
        waiting = self._ranges.get(peer.id)
        if waiting is not None and not waiting.answered.is_set():
            waiting.items = tuple(items)
            waiting.answered.set()

    async def run(self) -> None:
        """Tells our height and follows the peers', catching up when the chain leaves us behind, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_telling)
            nursery.start_soon(self._keep_following)

    async def _keep_telling(self) -> None:
        told = self._chain.head.height
        while True:
            await trio.sleep(TELL_SECONDS)
            height = self._chain.head.height
            if height != told:
                told = height
                for peer in self.network.connected():
                    peer.send(Kind.STATUS, height)

    async def _keep_following(self) -> None:
        while True:
            await self._noted.wait()
            self._noted = trio.Event()
            before = self._chain.head.height
            if self._proven_height <= before:
                # The ordinary messages of the next height are probably on their way: ask only if nothing moves.
                await trio.sleep(PATIENCE_SECONDS)
                best = self._best_height()
                if self._chain.head.height > before and best - self._chain.head.height <= 1:
                    continue
                if best <= self._chain.head.height:
                    continue
            self.syncing = True
            try:
                await self._catch_up()
            finally:
                self.syncing = False

    def _usable(self) -> list[Peer]:
        now = trio.current_time()
        self._shunned = {peer_id: until for peer_id, until in self._shunned.items() if until > now}
        head = self._chain.head.height
        if self.paused or self.held:
            return []
        return [p for p in self.network.connected() if p.height > head and p.id not in self._shunned]

    def _best_height(self) -> int:
        return max((peer.height for peer in self._usable()), default=0)

    async def _catch_up(self) -> None:
        """Fetches and commits until no usable peer claims more than is here."""
        while peers := self._usable():
            target_height = self.target_height
            requests: list[_Range] = []
            start = self._chain.head.height + 1
            # Whoever alone claims more than the others is asked last: it may be lying.
            peers.sort(key=lambda p: (p.height > target_height, p.pings.latency_ms or 0, p.id))
            for peer in peers[:REQUESTS_IN_FLIGHT_MAX]:
                if start > peer.height:
                    continue
                requests.append(self._request(peer, start, min(self._span, peer.height - start + 1)))
                start += self._span
            for request in requests:
                await self._take(request)
            self._fit_span(requests)
            self._ranges.clear()

    def _fit_span(self, requests: Sequence[_Range]) -> None:
        """Asks for as many blocks as an answer holds: of a longer range the next peer's part would not join on."""
        for request in requests:
            if 0 < len(request.items) < request.count:
                self._span = len(request.items)
                return
        self._span = min(self._span * 2, RANGE_BLOCKS_MAX)

    def _request(self, peer: Peer, start: int, count: int) -> _Range:
        request = _Range(start, count, peer, trio.Event())
        self._ranges[peer.id] = request
        peer.send(Kind.BLOCK_REQUEST, (start, count))
        return request

    async def _take(self, request: _Range) -> None:
        """Waits for one answer and commits what continues the chain; shuns the peer if it is of no use."""
        with trio.move_on_after(ANSWER_SECONDS_MAX):
            await request.answered.wait()
        if not request.items:
            self._shun(request.peer, "claims blocks that it does not send", 0)
            return
        if request.start > self._chain.head.height + 1:
            return
        for block_bytes, certificate_bytes in request.items:
            try:
                block, certificate = self._check(block_bytes, certificate_bytes)
            except Rejected as error:
                self._shun(request.peer, f"sent a block that does not verify: {error.code}", POINTS_REJECTED)
                return
            if block.header.height <= self._chain.head.height:
                continue
            if self.paused or self.held:
                return
            await self._commit(block, certificate)

    def _check(self, block_bytes: bytes, certificate_bytes: bytes) -> tuple[Block, Certificate]:
        block = Block.decode(block_bytes)
        certificate = Certificate.decode(certificate_bytes)
        header, head = block.header, self._chain.head
        if certificate.block_hash != header.hash or certificate.height != header.height:
            raise DecodeError("the certificate is for another block")
        if header.height <= head.height:
            return block, certificate
        if header.height != head.height + 1 or header.parent_hash != head.hash:
            raise DecodeError("the block does not continue the chain")
        verify_commit(certificate, self._genesis_hash, self._chain.validators)
        return block, certificate

    def _shun(self, peer: Peer, why: str, points: float) -> None:
        log.warning("peer passed over for block sync", peer=peer.name, why=why)
        self._shunned[peer.id] = trio.current_time() + SHUN_SECONDS
        if points:
            self.network.report(peer, points, why)


def verify_commit(certificate: Certificate, genesis_hash: Hash, validators: ValidatorSet) -> None:
    """Proves a certificate of q COMMITs; raises Rejected("certificate_invalid")."""
    if certificate.kind != VOTE_COMMIT:
        raise Rejected("certificate_invalid", "a certificate of PREPAREs commits nothing")
    verify_certificate(certificate, genesis_hash, validators)
