"""What is proved each time a database is opened: its format, and the head with its certificate, validators and state.

All raise Damaged naming the record at fault; only the format and the chain are refused as Rejected.
"""

from __future__ import annotations

from state.block import verify_certificate
from state.codec import decode
from state.errors import InvariantError, Rejected
from state.genesis import PARAMETER_NAMES, Genesis
from state.hashing import Hash, sha256
from state.ledger import Ledger
from state.ledger.context import parameter_key
from state.ledger.overlay import StateReader
from state.ledger.validators import VALIDATORS_KEY, Rule, read_rule, rule_at, rules_back
from state.store import chain
from state.store.database import Database, Rows
from state.store.errors import Damaged
from state.store.keys import FORMAT_VERSION, META_CHAIN, META_FORMAT, STATE, name_of
from state.tree.node import decode_page, page_key
from state.tree.read import load_root, read
from state.types import VOTE_COMMIT, Certificate, Header


def check_format(database: Database, genesis: Genesis) -> None:
    """Raises Rejected: "store_incomplete", "version_unknown", "wrong_chain".

    The version is looked at first: another format may keep anything else in another way.
    """
    content = database.get(META_FORMAT)
    if content is None:
        raise Rejected("store_incomplete", f"the making of {database.path} was broken off: remove it and make it again")
    version = decode(content, bytes_max=16)
    if version != FORMAT_VERSION:
        raise Rejected(
            "version_unknown", f"the database has format {version!r}; this node reads format {FORMAT_VERSION}"
        )
    if database.need(META_CHAIN) != genesis.hash:
        raise Rejected("wrong_chain", f"{database.path} is the database of a chain with another genesis")


def check_rule(reader: StateReader, head: Header) -> Rule:
    """Returns the validator set in force, proved against the head, with its place in the history of sets."""
    record = name_of(STATE + VALIDATORS_KEY)
    try:
        rule = read_rule(reader)
        if rule.validators.hash != head.next_validators_hash or rule.first > head.height + 1:
            raise Damaged(record, "is not the validator set that the head names for the next height")
        if next(rules_back(reader)) != rule:
            raise Damaged(record, "is not what the history of validator sets says")
    except Damaged:
        raise
    except (InvariantError, Rejected) as error:
        raise Damaged(record, f"is damaged: {error}") from error
    return rule


def check_head(
    database: Database, reader: StateReader, genesis_hash: Hash, header: Header, height: int, base_height: int
) -> Certificate | None:
    """Returns the certificate of the head's `header`, which the record of the head has at `height`; proves both."""
    if header.height != height:
        raise Damaged("the record of the head", "names a block of another height")
    if height > base_height or not base_height:
        chain.read_block(database, header)
    elif height < base_height:
        raise Damaged("the record of the head", f"lies below {base_height}, which the chain begins with here")
    committed, certificate = chain.read_commit(database, height)
    if committed != header.hash:
        raise Damaged(f"the record of height {height}", "is of another block than the head")
    if certificate is None:
        if header.parent_hash != genesis_hash:
            raise Damaged("the header of height 0", "does not name the genesis document")
        return None
    try:
        validators = rule_at(rules_back(reader), height).validators
        if validators.hash != header.validators_hash:
            raise Damaged("the history of validator sets", f"holds another set for height {height} than its header")
        verify_certificate(certificate, genesis_hash, validators)
    except Damaged:
        raise
    except (InvariantError, Rejected) as error:
        raise Damaged(f"the certificate of height {height}", f"does not hold: {error}") from error
    if certificate.kind != VOTE_COMMIT:
        raise Damaged(f"the certificate of height {height}", "is not made of COMMITs")
    return certificate


def check_state(nodes: Rows, reader: StateReader, header: Header, ledger: Ledger) -> None:
    """Proves the root of the head's state, and a few records against it: the chain's parameters."""
    try:
        root = load_root(nodes, header.height)
        if root is None or root[0] != header.state_root:
            raise Damaged(f"the tree's root of height {header.height}", "is not the state root of its header")
        if root[2] is None:
            place = page_key(root[1], 0, b"")
            decode_page(place, nodes.get(place) or b"")
        for name in PARAMETER_NAMES:
            key = parameter_key(name)
            if read(nodes, header.height, sha256(key)) != reader.get(key):
                raise Damaged(name_of(STATE + key), "is not what the state root commits to")
            ledger.read_parameter(reader, name)
    except Damaged:
        raise
    except (InvariantError, Rejected) as error:
        raise Damaged(f"the state of height {header.height}", f"is damaged: {error}") from error
