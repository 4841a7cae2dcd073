"""The store: what the node knows of its chain and state on the disk, as of one head.

It is the executor's StateSource. A commit goes in three steps, so that only the middle one need leave the event loop:

    prepared = commit(executed, certificate)      in slices: gathers one batch
    prepared.write()                              one synced, atomic write; in a worker thread
    advance(prepared)                             on the loop: the head moves

Between the second and the third, reads still answer as of the old head: the newest state is read from a view of the
database that only `advance` replaces, and heights above the head count as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from state.block import Block
from state.errors import InvariantError, Rejected
from state.execution import ExecutedBlock
from state.genesis import Genesis
from state.hashing import Hash, sha256
from state.ledger import Ledger, Receipt
from state.ledger.validators import FIRST_HEIGHT, Rule, rule_at, rules_back
from state.slices import Slices
from state.store import chain, index
from state.store.commit import PreparedCommit, gather
from state.store.database import CACHE_BYTES_DEFAULT, WRITE_BUFFER_BYTES_DEFAULT, Database, Rows, View, viewing
from state.store.genesis import Progress, write_genesis
from state.store.opening import check_format, check_head, check_rule, check_state
from state.store.pruning import Pruner
from state.store.votes import Records, VoteBatch, VoteRecords
from state.tree.proof import Proof
from state.tree.prove import prove
from state.tree.read import read
from state.types import VOTE_COMMIT, Address, Certificate, Header, Height, TxId, ValidatorSet

ACCOUNT_TRANSACTIONS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a node keeps its database.

    keep_heights: how many of the newest states are kept; None keeps all (an archive). index_accounts: whether the
    transactions of each account are listed. cache_bytes, write_buffer_bytes: LevelDB's memory. durable: False only
    for a database that is thrown away.
    """

    keep_heights: int | None = None
    index_accounts: bool = True
    cache_bytes: int = CACHE_BYTES_DEFAULT
    write_buffer_bytes: int = WRITE_BUFFER_BYTES_DEFAULT
    durable: bool = True

    def __post_init__(self) -> None:
        if self.keep_heights is not None and self.keep_heights < 1:
            raise Rejected("config_invalid", "keep_heights must be at least 1: the newest state is needed")


DEFAULT_OPTIONS: Final = StoreOptions()


class Store:
    """An open database with its head. Everything but `PreparedCommit.write`, `write_votes`, `prune` and `reclaim`
    belongs to one thread."""

    def __init__(self, database: Database, genesis: Genesis, ledger: Ledger, options: StoreOptions) -> None:
        """Use `open` or `create`."""
        self.database = database
        self._options = options
        check_format(database, genesis)
        self.base_height = Height(chain.read_base(database))
        height, block_hash = chain.read_head(database)
        self.head: Header = chain.need_header(database, block_hash)
        self._view: View = database.view()
        self._rules: list[Rule] = [check_rule(self, self.head)]
        self.head_certificate: Certificate | None = check_head(
            database, self, genesis.hash, self.head, height, self.base_height
        )
        self.nodes = Rows(database)
        self._pruner = Pruner(database, options.keep_heights)
        check_state(self.nodes, self, self.head, ledger)
        self._votes = VoteRecords(database)
        self._bodies = chain.stored_bodies(database, self.head.height)
        self._bodies.pop(block_hash, None)
        self.accounts_indexed_from: int | None = index.prepare(database, options.index_accounts, self.head.height + 1)
        # Growing a batch of some MiB anew for each block costs 10 ms of page faults; a used one keeps its memory.
        self._spare_batch: Any = None

    @classmethod
    def create(
        cls,
        path: Path,
        genesis: Genesis,
        ledger: Ledger,
        *,
        state_file: Path | None = None,
        options: StoreOptions = DEFAULT_OPTIONS,
        progress: Progress | None = None,
    ) -> Store:
        """Makes the database of a chain at height 0, without vote records, and opens it.

        Raises Rejected: "store_exists", "state_file_missing", "state_file_wrong", "genesis_invalid". What was begun
        is then left behind, and refused at opening; the caller may remove it.
        """
        database = Database.create(
            path,
            cache_bytes=options.cache_bytes,
            write_buffer_bytes=options.write_buffer_bytes,
            durable=options.durable,
        )
        try:
            write_genesis(
                database,
                genesis,
                ledger,
                state_file=state_file,
                index_accounts=options.index_accounts,
                progress=progress,
            )
            return cls(database, genesis, ledger, options)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open(cls, path: Path, genesis: Genesis, ledger: Ledger, options: StoreOptions = DEFAULT_OPTIONS) -> Store:
        """Opens a database and checks its head: block, certificate, state root.

        Raises Rejected: "store_missing", "store_locked", "store_incomplete", "version_unknown", "wrong_chain"; Damaged
        naming what is damaged; StorageFailed.
        """
        database = Database.open(
            path,
            cache_bytes=options.cache_bytes,
            write_buffer_bytes=options.write_buffer_bytes,
            durable=options.durable,
        )
        try:
            return cls(database, genesis, ledger, options)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Closes the database; waits for a `reclaim` that is under way."""
        self._pruner.stop()
        self._view.close()
        self.database.close()

    def give_way(self) -> None:
        """Closes the database and lets the new one beside it take its place; see state/store/replacement.py."""
        self._pruner.stop()
        self._view.close()
        self.database.give_way()

    # Committing

    def commit(self, executed: ExecutedBlock, certificate: Certificate) -> Slices[PreparedCommit]:
        """Gathers everything that committing a block on the head writes; nothing is written yet.

        The certificate's signatures are the caller's to prove. Blocks of this height that were stored and lost go.
        """
        header = executed.block.header
        block_hash = header.hash
        if header.parent_hash != self.head.hash or header.height != self.head.height + 1:
            raise InvariantError(f"block {header.height} does not follow the head {self.head.height}")
        if certificate.kind != VOTE_COMMIT or certificate.block_hash != block_hash:
            raise InvariantError(f"block {header.height} was to be committed with the certificate of another block")
        batch, self._spare_batch = self._spare_batch or self.database.batch(), None
        batch.clear()
        return (
            yield from gather(
                self.database,
                batch,
                executed,
                certificate,
                bodies=dict(self._bodies),
                indexed=self.accounts_indexed_from is not None,
                garbage_bytes=self._pruner.garbage,
            )
        )

    def advance(self, prepared: PreparedCommit) -> None:
        """Makes a written commit the head that reads answer by."""
        header = prepared.header
        if not prepared.written or header.parent_hash != self.head.hash:
            raise InvariantError(f"the head was to move to block {header.height}, which is not written or not its next")
        view, self._view = self._view, self.database.view()
        view.close()
        for block_hash in (header.hash, *prepared.dropped):
            self._bodies.pop(block_hash, None)
        prepared.batch.clear()
        self._spare_batch = prepared.batch
        self.head = header
        self.head_certificate = prepared.certificate
        if prepared.validators_next.hash != header.validators_hash:
            self._rules.insert(0, Rule(Height(header.height + 1), prepared.validators_next))
        self._pruner.garbage += prepared.garbage_bytes

    # Votes, and bodies of blocks that are not committed

    @property
    def votes_exist(self) -> bool:
        """Whether vote records were created here."""
        return self._votes.exist

    @property
    def votes_owner(self) -> bytes | None:
        """The consensus key whose vote records these are; None where there are none."""
        return self._votes.owner

    def create_votes(self, owner: bytes, first: Records = ()) -> None:
        """Creates a key's vote records, in the place of another key's, with these as the first, in one write.

        Raises Rejected("votes_exist") if it has records here.
        """
        self._votes.create(owner, first)

    def votes(self) -> dict[bytes, bytes]:
        """Returns all vote records; raises Damaged."""
        return self._votes.all()

    def stage_votes(self, batch: Any, puts: Records) -> None:
        """Puts vote records into a batch that is written with other changes; the store must be opened anew then."""
        self._votes.stage(batch, VoteBatch(puts=puts))

    def write_votes(self, votes: VoteBatch) -> None:
        """Makes vote records and bodies durable in one synced write; safe in a worker thread.

        A body that is stored already, or of a height that is committed, is not written.
        """
        with self._votes.lock:
            batch = self.database.batch()
            checks = self._votes.stage(batch, votes) if votes.puts or votes.deletes else None
            bodies = self._put_bodies(batch, votes.bodies)
            if checks is None and not bodies:
                return
            self.database.write(batch)
            if checks is not None:
                self._votes.written(checks)
            self._bodies.update(bodies)

    def _put_bodies(self, batch: Any, bodies: Iterable[Block]) -> dict[Hash, int]:
        new: dict[Hash, int] = {}
        for block in bodies:
            header = block.header
            if header.height > self.head.height and header.hash not in self._bodies and header.hash not in new:
                chain.put_block(batch, block)
                new[header.hash] = header.height
        return new

    def body(self, block_hash: Hash) -> Block | None:
        """Returns a stored block, committed or not."""
        header = chain.read_header(self.database, block_hash)
        if header is None or not self._has_block(header.height):
            return None
        return chain.read_block(self.database, header)

    def uncommitted_bodies(self) -> Mapping[Hash, int]:
        """Returns hash -> height of the blocks that are stored and not committed."""
        return dict(self._bodies)

    # Validators

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at the height after the head."""
        return self._rules[0].validators

    @property
    def validators_since(self) -> Height:
        """The first height of the unbroken rule of `validators`."""
        return self._rules[0].first

    def validators_at(self, height: int) -> ValidatorSet:
        """Returns the set in force at a height, at most the one after the head; raises Rejected("height_unknown").

        The state knows all former sets, also those of heights whose blocks are not here.
        """
        if not 0 <= height <= self.head.height + 1:
            raise self._unknown(height)
        return self._rule_at(height).validators

    def _rule_at(self, height: int) -> Rule:
        if height < self._rules[-1].first > FIRST_HEIGHT:
            self._rules = list(rules_back(self))
        return rule_at(self._rules, height)

    # The newest state

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key after the head, or None."""
        return self._view.state(state_key)

    # The chain

    def header_at(self, height: int) -> Header | None:
        """Returns the header of a committed height, None above the head; raises Rejected("block_pruned")."""
        if not 0 <= height <= self.head.height:
            return None
        if height < self.base_height:
            raise self._block_pruned(height)
        if height == self.head.height:
            return self.head
        return chain.need_header(self.database, chain.read_commit(self.database, height)[0])

    def block_at(self, height: int) -> Block | None:
        """Returns the block of a committed height, None above the head; raises Rejected("block_pruned")."""
        header = self.header_at(height)
        if header is None:
            return None
        self._check_block(height)
        return chain.read_block(self.database, header)

    def height_of(self, block_hash: Hash) -> int | None:
        """Returns the height of a committed block, None for others."""
        header = chain.read_header(self.database, block_hash)
        if header is None or header.height > self.head.height:
            return None
        committed = chain.read_commit(self.database, header.height)[0]
        return header.height if committed == block_hash else None

    def certificate_at(self, height: int) -> Certificate | None:
        """Returns the certificate of a committed height; None for height 0 and above the head.

        Raises Rejected("block_pruned").
        """
        if not 0 < height <= self.head.height:
            return None
        if height < self.base_height:
            raise self._block_pruned(height)
        return chain.read_commit(self.database, height)[1]

    def receipts_at(self, height: int) -> tuple[Receipt, ...]:
        """Returns the receipts of a committed height, in block order.

        Raises Rejected: "height_unknown", "block_pruned", as all do that read what is in blocks.
        """
        return tuple(chain.decode_receipt(height, data) for data in self.receipt_bytes_at(height))

    def receipt_bytes_at(self, height: int) -> tuple[bytes, ...]:
        """Returns the encoded receipts of a committed height."""
        self._check_committed(height)
        self._check_block(height)
        return chain.read_receipts(self.database, height)

    def receipt_at(self, height: int, index: int) -> Receipt | None:
        """Returns one receipt without decoding the others, None beyond the last."""
        receipts = self.receipt_bytes_at(height)
        return chain.decode_receipt(height, receipts[index]) if 0 <= index < len(receipts) else None

    def transaction_at(self, height: int, index: int) -> bytes | None:
        """Returns the wire bytes of one transaction without proving its whole block, None beyond the last."""
        self._check_committed(height)
        self._check_block(height)
        block_hash, _ = chain.read_commit(self.database, height)
        return chain.read_wire(self.database, height, block_hash, index)

    def locate(self, tx_id: bytes) -> tuple[int, int] | None:
        """Returns (height, index) of a committed transaction, or None."""
        place = chain.read_place_of(self.database, TxId(tx_id))
        return None if place is None or place[0] > self.head.height else place

    def account_transactions(
        self, address: bytes, before: tuple[int, int] | None, limit: int
    ) -> tuple[tuple[int, int], ...]:
        """Returns places (height, index) of transactions that touched an account, newest first, at most 1000.

        `before` is the last place of the page before. The index begins at `accounts_indexed_from`. Raises
        Rejected("index_off") without one.
        """
        if self.accounts_indexed_from is None:
            raise Rejected("index_off", "this node keeps no index of accounts' transactions: ask another")
        end = (self.head.height + 1, 0)
        found: list[tuple[int, int]] = []
        for place in index.places(self.database, Address(address), min(before or end, end)):
            if len(found) >= min(limit, ACCOUNT_TRANSACTIONS_MAX):
                break
            found.append(place)
        return tuple(found)

    # States of kept heights

    @property
    def oldest_state_height(self) -> int:
        """The lowest height whose state can still be read and proved."""
        return self._pruner.oldest

    def get_at(self, height: int, state_key: bytes) -> bytes | None:
        """Returns the value under a state key at a height; raises Rejected("height_pruned"), ("height_unknown")."""
        with viewing(self.database) as view:
            self._check_kept(height)
            return read(view, height, sha256(state_key))

    def prove(self, height: int, state_key: bytes) -> Proof:
        """Returns the proof of what a state key has at a height; raises as `get_at` does."""
        with viewing(self.database) as view:
            self._check_kept(height)
            return prove(view, height, sha256(state_key))

    # Upkeep

    def prune(self) -> Slices[int]:
        """Forgets states beyond `keep_heights`; returns how many rows went. Safe in a worker thread."""
        return self._pruner.prune(self.head.height)

    @property
    def heights_to_prune(self) -> int:
        """How many heights `prune` would forget."""
        return self._pruner.behind(self.head.height)

    def reclaim_due(self, *, idle: bool) -> bool:
        """Whether enough of the database is waste for `reclaim`; an idle node does it sooner."""
        return self._pruner.reclaim_due(idle=idle)

    def reclaim(self) -> None:
        """Gets the space of deleted and overwritten records back. For a worker thread: takes seconds."""
        self._pruner.reclaim()

    def stop_reclaiming(self) -> None:
        """Makes a `reclaim` under way end within some tenths of a second, and waits for it; `close` does so too."""
        self._pruner.stop()

    # Shared

    def _has_block(self, height: int) -> bool:
        """Whether the block of a height that is committed here is kept."""
        return height > self.base_height or not self.base_height

    def _check_block(self, height: int) -> None:
        if not self._has_block(height):
            raise self._block_pruned(height)

    def _block_pruned(self, height: int) -> Rejected:
        return Rejected(
            "block_pruned",
            f"the block of height {height} is not kept: this node was restored from a snapshot of height "
            f"{self.base_height} and has the blocks above it; ask another",
            {"height": height, "base_height": self.base_height},
        )

    def _unknown(self, height: int) -> Rejected:
        return Rejected(
            "height_unknown", f"height {height} is not committed; the head is {self.head.height}", {"height": height}
        )

    def _check_committed(self, height: int) -> None:
        if not 0 <= height <= self.head.height:
            raise self._unknown(height)

    def _check_kept(self, height: int) -> None:
        self._check_committed(height)
        oldest = self._pruner.oldest
        if height < oldest:
            raise Rejected(
                "height_pruned",
                f"the state of height {height} is no longer kept; the oldest is {oldest}: ask an archive node",
                {"oldest_state_height": oldest},
            )
