"""A stored tree in memory that keeps what it should hold beside it, and the shapes of keys that tests need."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from state.hashing import Hash, sha256
from state.slices import run
from state.tree.cache import PageCache
from state.tree.hashes import leaf_hash, subtree_root
from state.tree.update import TreeUpdate, commit_to_cache, update

Changes = Mapping[bytes, bytes | None]


def spec_root(content: Mapping[bytes, bytes]) -> Hash:
    """The root by definition of a content given by key hash."""
    return subtree_root([(key, leaf_hash(key, sha256(content[key]))) for key in content])


class StoredTree:
    """Rows committed version after version, the stale rows of each, and the content that each should have."""

    def __init__(self, cache_pages: int = 0) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.stale: dict[int, list[bytes]] = {}
        self.contents: dict[int, dict[bytes, bytes]] = {}
        self.cache = PageCache(cache_pages)
        self.version: int | None = None

    def get(self, node_key: bytes) -> bytes | None:
        return self.rows.get(node_key)

    @property
    def content(self) -> dict[bytes, bytes]:
        return {} if self.version is None else self.contents[self.version]

    def prepare(self, version: int, changes: Changes) -> TreeUpdate:
        """The update as it would be committed."""
        return run(update(self, self.version, version, changes, self.cache))

    def commit(self, changes: Changes, version: int | None = None) -> TreeUpdate:
        """Applies `changes` as the next version."""
        if version is None:
            version = 0 if self.version is None else self.version + 1
        done = self.prepare(version, changes)
        put = [node_key for node_key, _ in done.puts]
        assert len(set(put)) == len(put)
        assert self.rows.keys().isdisjoint(put)
        self.rows.update(done.puts)
        self.stale[version] = done.stale
        after = self.content | {key: value for key, value in changes.items() if value is not None}
        for key, value in changes.items():
            if value is None:
                after.pop(key, None)
        self.contents[version] = after
        self.version = version
        commit_to_cache(self.cache, done)
        return done


def _key(prefix: tuple[int, int], end: int) -> bytes:
    """A key that shares `prefix[0]` nibbles with all others of the same `prefix[1]`."""
    length, fill = prefix
    nibbles = format(fill, "x") * length + sha256(bytes([end])).hex()
    return bytes.fromhex(nibbles[:63] + format(end & 15, "x"))


PREFIXES = st.sampled_from([(0, 0), (0, 0), (1, 0), (3, 0), (4, 15), (30, 0), (62, 15), (63, 0), (63, 7)])
KEYS = st.builds(_key, PREFIXES, st.integers(0, 40))
VALUES = st.one_of(st.none(), st.sampled_from([b"", b"a", b"b", b"c" * 200]))
BATCHES = st.lists(st.dictionaries(KEYS, VALUES, max_size=24), min_size=1, max_size=12)
CONTENTS = st.dictionaries(KEYS, st.sampled_from([b"", b"a", b"b" * 90]), max_size=60)


def keys_of(count: int, label: bytes = b"key") -> list[bytes]:
    """Distinct key hashes, ascending."""
    return sorted(sha256(label + number.to_bytes(4, "big")) for number in range(count))


def is_page_key(node_key: bytes) -> bool:
    """A page's row key is longer than a root record's and says a depth short of a whole path."""
    return len(node_key) > 8 and node_key[8] < 64
