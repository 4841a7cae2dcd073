"""The Jellyfish Merkle tree of the state: hashes, stored pages, bulk update, proofs and their verifier.

The order to read it in: hashes.py (what the root means), node.py (how a tree is stored), read.py, update.py, build.py,
walk.py, then proof.py (what an outsider checks) with prove.py, and cache.py. Nothing here knows a database: nodes come
from a `Reader`, and changes are handed back as lists for whoever commits them.
"""
