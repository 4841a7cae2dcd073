"""The audit of a database that was restored from a snapshot which is no longer kept: proved without executing again.

What the chain began with here is gone, so its blocks cannot be executed again. All else is proved: each header follows
its parent, has the certificate of the set that the one before it names, and commits to the transactions, evidence and
receipts that are stored; each signature of a transaction holds; the newest state is, record by record, what the newest
header commits to. A quorum signed that header, and with it that executing the blocks gives this state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from state.block import Block, receipts_root, verify_certificate
from state.errors import InvariantError, Rejected
from state.genesis import Genesis
from state.hashing import sha256
from state.ledger.validators import Rule, rule_at, rules_back
from state.store import chain
from state.store.database import Database, View, viewing
from state.store.errors import Damaged
from state.store.keys import STATE, after, name_of, unseal
from state.transaction import decode_transaction, verify_signatures
from state.tree.node import KEY_NIBBLES, VERSION_BYTES
from state.tree.walk import walk
from state.types import VOTE_COMMIT, Header

if TYPE_CHECKING:
    from state.store.verify import VerifyReport


def verify_restored(database: Database, genesis: Genesis, report: VerifyReport) -> bool:
    """Audits chain and newest state, from the height that the chain begins with on; returns whether it came to the end.

    What is not as it must be is noted in `report`.
    """
    try:
        with viewing(database) as view:
            rules = list(rules_back(_State(view)))
        header = _certified(database, genesis, rules, report.base)
        for height in range(report.base + 1, report.head + 1):
            following = _certified(database, genesis, rules, height)
            if following.parent_hash != header.hash or following.validators_hash != header.next_validators_hash:
                raise Damaged(f"the header of height {height}", "does not follow from the one before it")
            _check_content(database, genesis, following, report)
            header = following
        _check_state(database, report)
    except (InvariantError, Rejected) as error:
        report.add_error("the chain", error)
        return False
    return True


class _State:
    """The newest state, as the history of validator sets is read from it."""

    def __init__(self, view: View) -> None:
        self._view = view

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key, or None."""
        return self._view.state(state_key)


def _certified(database: Database, genesis: Genesis, rules: Sequence[Rule], height: int) -> Header:
    """Returns the header of a height, which a quorum of the set that it names committed."""
    block_hash, certificate = chain.read_commit(database, height)
    header = chain.need_header(database, block_hash)
    if certificate is None or header.height != height or certificate.kind != VOTE_COMMIT:
        raise Damaged(f"the record of height {height}", "does not hold a certificate of COMMITs for its header")
    sets = [rule_at(rules, at).validators for at in (height, height + 1)]
    if [validators.hash for validators in sets] != [header.validators_hash, header.next_validators_hash]:
        raise Damaged("the history of validator sets", f"holds other sets than the header of height {height} names")
    verify_certificate(certificate, genesis.hash, sets[0])
    return header


def _check_content(database: Database, genesis: Genesis, header: Header, report: VerifyReport) -> None:
    block: Block = chain.read_block(database, header)
    receipts = chain.read_receipts(database, header.height)
    if receipts_root(receipts) != header.receipts_root:
        raise Damaged(f"the receipts of height {header.height}", "are not those that the header commits to")
    for index, wire in enumerate(block.transactions):
        tx = decode_transaction(wire, genesis.context)
        verify_signatures(tx)
        if chain.read_place_of(database, tx.id) != (header.height, index):
            report.add(f"place of transaction 0x{tx.id.hex()}", "is not where the transaction stands")
        report.transactions += 1


def _check_state(database: Database, report: VerifyReport) -> None:
    """Proves the newest tree, and that the state's records are its leaves and nothing else."""
    with viewing(database) as view:
        leaves = {v.key_hash: v.node_key[:VERSION_BYTES] for v in walk(view, report.head) if v.key_hash is not None}
        for key, sealed in view.scan(STATE, after(STATE)):
            try:
                value = unseal(key, sealed)
            except Damaged:
                # It is named already, with all other records that do not match their checksums.
                continue
            key_hash = sha256(key[len(STATE) :])
            version = leaves.pop(key_hash, None)
            row = None if version is None else view.get(version + bytes([KEY_NIBBLES]) + key_hash)
            if row is None or row[1:] != value:
                report.add(name_of(key), "is not what the newest header commits to")
    for missing in leaves:
        report.add(f"state record with the key hash 0x{missing.hex()}", "is missing")
