"""Evidence of equivocation on its way into a block, and where the chain has recorded what is known here.

The consensus core finds evidence, and every correct node gets it; any primary puts what is not on record yet into its
next block. What waits is work: a chain that is idle otherwise makes one block for it. So only what could stand in a
block by the committed state waits here, or an offence that is recorded already would cost view after view.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qenex_node.logs import Log
from state.block import Block, evidence_hash
from state.evidence import decode_evidence, in_block_order
from state.execution import Executor
from state.ledger.domains.governance.records import read_validator, reading
from state.store import Store

log = Log("qenex.evidence")

WAITING_MAX: Final = 256
RECORDED_MAX: Final = 1_024
SEARCHED_HEIGHTS: Final = 256
"""How far above an offence its record is looked for after a restart: it is made in one of the next blocks."""
OFFENCES_SEARCHED: Final = 8
"""Of how many offences of each validator, the newest."""

_NO_EVIDENCE: Final = evidence_hash(())
Place = tuple[int, int, int, int]
"""(height, view, kind, offender): what evidence is proof of."""


class EvidencePool:
    """Evidence by what it is proof of; of several proofs of one offence the least bytes stay.

    On all nodes the same, unless the offender signs more than consensus/evidence.py hands on: then a body is fetched.
    """

    def __init__(self, store: Store, executor: Executor) -> None:
        """Takes the chain, and who knows what may enter its next block."""
        self._store = store
        self._executor = executor
        self._waiting: dict[Place, bytes] = {}
        self._later: dict[Place, bytes] = {}
        self._recorded: dict[Place, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[bytes]:
        """What a block may hold now, in the order of a block."""
        return [item for _, item in in_block_order(self._waiting.values())]

    def recorded_at(self, place: Place) -> int | None:
        """Returns the height of the block that recorded an offence, None if none did or it is forgotten here."""
        return self._recorded.get(place)

    def take(self, item: bytes) -> None:
        """Takes evidence whose signatures were proved; drops it if it can enter no block."""
        proof = decode_evidence(item)
        place = proof.place
        held = self._waiting.get(place, self._later.get(place))
        if place in self._recorded or (held is not None and held <= item):
            return
        if proof.height > self._store.head.height + 1:
            self._put(self._later, place, item)
        elif self._executor.admits_evidence(item):
            self._put(self._waiting, place, item)

    @staticmethod
    def _put(where: dict[Place, bytes], place: Place, item: bytes) -> None:
        if place in where or len(where) < WAITING_MAX:
            where[place] = item

    def restore(self, items: Iterable[bytes]) -> list[bytes]:
        """Takes the evidence that is known from before a restart, and finds out what is recorded in the chain.

        Returns all of it, recorded or not, in the order of a block. The core lets go of what a block holds.
        """
        found = {decode_evidence(item).place: item for item in items}
        heights = {place[0] for place in found} | self._offences_of_members()
        # A chain that begins with a snapshot has no blocks up to it; the state knows what they recorded.
        first, head = self._store.base_height + 1, self._store.head.height
        searched = (range(max(low, first), min(head, low + SEARCHED_HEIGHTS) + 1) for low in heights)
        for height in sorted({height for some in searched for height in some}):
            header = self._store.header_at(height)
            if header is not None and header.evidence_hash != _NO_EVIDENCE:
                block = self._store.block_at(height)
                if block is not None:
                    self._note(block)
                    found.update((decode_evidence(item).place, item) for item in block.evidence)
        for item in found.values():
            self.take(item)
        return [item for _, item in in_block_order(found.values())]

    def _offences_of_members(self) -> set[int]:
        """Returns the heights of the newest offences that are on record of the validators in force."""
        get = reading(self._store)
        records = [read_validator(get, validator.key) for validator in self._store.validators.validators]
        newest = [record.offences[-OFFENCES_SEARCHED:] for record in records if record is not None]
        return {offence.height for offences in newest for offence in offences}

    def committed(self, block: Block) -> None:
        """Drops what a committed block recorded, and what may not enter any more; looks again at what came early."""
        if block.evidence:
            self._note(block)
        elif not self._later and block.header.height % SEARCHED_HEIGHTS:
            # Nothing that would make any of it inadmissible but the passing of many heights.
            return
        again = [*self._waiting.values(), *self._later.values()]
        self._waiting, self._later = {}, {}
        for item in again:
            self.take(item)

    def _note(self, block: Block) -> None:
        for item in block.evidence:
            place = decode_evidence(item).place
            self._recorded[place] = block.header.height
            log.warning("evidence recorded", block=block.header.height, height=place[0], view=place[1])
        while len(self._recorded) > RECORDED_MAX:
            del self._recorded[next(iter(self._recorded))]
