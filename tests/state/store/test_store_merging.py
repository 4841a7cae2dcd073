"""Damage that LevelDB meets when it merges files by itself is named as damage, not as a disk that refuses to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from state.store import Damaged
from state.store.database import Database
from state.store.errors import StorageFailed


def test_damage_met_in_the_background_is_named_when_something_is_written(tmp_path: Path) -> None:
    made = Database.create(tmp_path / "db")
    for turn in range(2):
        batch = made.batch()
        for number in range(2000):
            made.put(batch, f"S{number:06}".encode(), bytes([turn]) * 50)
        made.write(batch)
        made.close()
        # Opening it turns the log into a table.
        made = Database.open(tmp_path / "db")
    made.close()
    (tmp_path / "db" / "seal").unlink()
    for table in (tmp_path / "db" / "leveldb").glob("*.ldb"):
        content = bytearray(table.read_bytes())
        for place in range(0, len(content) // 2, 50):
            content[place] ^= 0xFF
        table.write_bytes(content)
    damaged = Database.open(tmp_path / "db")
    damaged.compact(b"", b"\xff")
    batch = damaged.batch()
    damaged.put(batch, b"Snew", b"value")
    with pytest.raises(Damaged) as caught:
        damaged.write(batch)
    assert caught.value.code == "store_damaged"
    with pytest.raises(StorageFailed):
        damaged.write(batch)
    damaged.close()
