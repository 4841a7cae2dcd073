"""The tree's rows live in LevelDB beside other data, and a reopened database gives every version back."""

from __future__ import annotations

from pathlib import Path

import plyvel
from tree_support import keys_of, spec_root

from state.slices import run
from state.tree.build import build
from state.tree.read import read, root
from state.tree.update import update
from state.tree.walk import walk


def test_versions_committed_to_leveldb_are_read_after_reopening(tmp_path: Path) -> None:
    keys = keys_of(500)
    contents = [dict.fromkeys(keys[:400], b"genesis")]
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    rows = database.prefixed_db(b"n")
    with rows.write_batch(transaction=True) as batch:
        for node_key, row in build(sorted(contents[0].items()), 0):
            batch.put(node_key, row)
    for version in range(1, 5):
        changes = dict.fromkeys(keys[version::7], b"%d" % version) | dict.fromkeys(keys[version::11])
        done = run(update(rows, version - 1, version, changes))
        with rows.write_batch(transaction=True, sync=True) as batch:
            for node_key, row in done.puts:
                batch.put(node_key, row)
        merged = contents[-1] | changes
        contents.append({key: value for key, value in merged.items() if value is not None})
    database.close()

    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=False)
    rows = database.prefixed_db(b"n")
    for version, content in enumerate(contents):
        assert root(rows, version) == spec_root(content)
        assert {seen.key_hash: seen.value for seen in walk(rows, version) if seen.key_hash} == content
        assert [read(rows, version, key) for key in keys] == [content.get(key) for key in keys]
    database.close()
