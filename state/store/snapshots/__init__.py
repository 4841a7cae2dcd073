"""Snapshots of the state: made while the node runs, proved against a header, restored into a new database.

The order to read it in: manifest.py (what a snapshot is and how it proves itself), directory.py (how it lies on the
disk), work.py and making.py, restoring.py.
"""

from state.store.snapshots.directory import Draft, Snapshot, newest_fetched, path_of, remove, snapshots_in, tidy
from state.store.snapshots.making import make_snapshot, snapshot_head
from state.store.snapshots.manifest import Chunk, Leaf, Manifest, prove_chunk
from state.store.snapshots.restoring import carry_votes, check_certificate, write_database
from state.store.snapshots.work import Work, run

__all__ = [
    "Chunk",
    "Draft",
    "Leaf",
    "Manifest",
    "Snapshot",
    "Work",
    "carry_votes",
    "check_certificate",
    "make_snapshot",
    "newest_fetched",
    "path_of",
    "prove_chunk",
    "remove",
    "run",
    "snapshot_head",
    "snapshots_in",
    "tidy",
    "write_database",
]
