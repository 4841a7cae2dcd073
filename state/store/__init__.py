"""The database of a node: chain, state and vote records in one LevelDB.

The order to read it in: keys.py (what is stored), files.py and database.py (how it is opened, read and written),
chain.py, index.py, votes.py, genesis.py, commit.py and pruning.py (what is written and read), opening.py (what every
opening proves), store.py (the whole, as the node sees it), rollback.py (the newest block taken back), replacement.py
and snapshots/ (making a state that can be passed on, and beginning anew with one), and verify.py with
verify_restored.py (proving all of it anew).
"""

from state.store.commit import PreparedCommit
from state.store.database import CACHE_BYTES_DEFAULT, WRITE_BUFFER_BYTES_DEFAULT
from state.store.errors import Damaged, StorageFailed, StoreError
from state.store.files import copy_store, free_bytes
from state.store.genesis import genesis_header, write_state_file
from state.store.store import DEFAULT_OPTIONS, Store, StoreOptions
from state.store.votes import VoteBatch

__all__ = [
    "CACHE_BYTES_DEFAULT",
    "DEFAULT_OPTIONS",
    "WRITE_BUFFER_BYTES_DEFAULT",
    "Damaged",
    "PreparedCommit",
    "StorageFailed",
    "Store",
    "StoreError",
    "StoreOptions",
    "VoteBatch",
    "copy_store",
    "free_bytes",
    "genesis_header",
    "write_state_file",
]
