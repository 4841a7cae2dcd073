"""A snapshot proves itself: whatever is changed, left out, added or put in another order is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_support import GENESIS, header_of, snapshot_of
from store_support import VALIDATORS, certify

from state import slices
from state.codec import decode, encode
from state.errors import Rejected
from state.hashing import sha256
from state.store.snapshots import Manifest, Snapshot, manifest, prove_chunk
from state.store.snapshots.restoring import check_certificate
from state.types import VOTE_PREPARE, ValidatorSet


def records(count: int, size: int = 8) -> dict[bytes, bytes]:
    return {b"key %d" % n: b"%d" % n * size for n in range(count)}


def skewed(count: int) -> dict[bytes, bytes]:
    """Records whose key hashes all begin with the same eight bits, and one elsewhere."""
    found: dict[bytes, bytes] = {b"elsewhere": b"x" * 50}
    number = 0
    while len(found) <= count:
        key = b"key %d" % number
        if sha256(key)[0] == 0xA7:
            found[key] = b"v" * 40
        number += 1
    return found


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES_MAX", 400)


def leaves_of(snapshot: Snapshot) -> dict[bytes, bytes]:
    """All that the chunks hold, each proved."""
    found: dict[bytes, bytes] = {}
    for chunk in snapshot.manifest.chunks:
        leaves = slices.run(prove_chunk(chunk, snapshot.read_chunk(chunk.number)))
        found |= {key: value for _, key, value in leaves}
    return found


STATES = {
    "one record": {b"only": b"value"},
    "two records": {b"one": b"1", b"two": b"2"},
    "many records": records(500),
    "records of very different sizes": {b"key %d" % n: bytes(n * 7 % 300) for n in range(200)},
    "skewed": skewed(60),
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("state_bytes", [0, 200 << 20])
def test_a_snapshot_holds_the_whole_state_in_chunks_that_fit(tmp_path: Path, name: str, state_bytes: int) -> None:
    snapshot = snapshot_of(tmp_path, STATES[name], state_bytes)
    assert leaves_of(snapshot) == STATES[name]
    for chunk in snapshot.manifest.chunks:
        data = snapshot.read_chunk(chunk.number)
        assert len(data) <= 400 or len(decode(data, bytes_max=10_000)) == 2


@pytest.mark.usefixtures("small_chunks")
def test_the_same_state_gives_the_same_snapshot_however_it_was_sorted(tmp_path: Path) -> None:
    made = [
        snapshot_of(tmp_path / str(place), skewed(40) | records(200), state_bytes)
        for place, state_bytes in enumerate((0, 30 << 20, 10 << 30))
    ]
    assert len({snapshot.manifest.hash for snapshot in made}) == 1
    assert len({tuple(map(s.read_chunk, range(len(s.manifest.chunks)))) for s in made}) == 1


@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=40), min_size=1, max_size=40))
@settings(max_examples=15, deadline=None)
def test_any_state_comes_out_as_it_went_in(state: dict[bytes, bytes]) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "CHUNK_BYTES_MAX", 120)
        snapshot = snapshot_of(Path(directory), state)
        assert leaves_of(snapshot) == state
        assert Manifest.decode(snapshot.manifest.encoded) == snapshot.manifest


@pytest.mark.usefixtures("small_chunks")
def test_any_byte_changed_in_a_chunk_is_seen(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, records(100))
    dice = random.Random(1)
    for chunk in dice.sample(snapshot.manifest.chunks, 6):
        data = snapshot.read_chunk(chunk.number)
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1 << dice.randrange(8)
            with pytest.raises(Rejected, match="chunk_invalid"):
                slices.run(prove_chunk(chunk, bytes(changed)))


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_in_another_order_short_long_or_of_another_place_is_refused(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, records(100))
    chunk = max(snapshot.manifest.chunks, key=lambda c: len(snapshot.read_chunk(c.number)))
    items = decode(snapshot.read_chunk(chunk.number), bytes_max=10_000)
    other = next(c for c in snapshot.manifest.chunks if c != chunk)
    swapped = (*items[2:4], *items[:2], *items[4:])
    wrong: dict[str, Any] = {
        "swapped": swapped,
        "short": items[2:],
        "doubled": (*items[:2], *items),
        "longer": (*items, *decode(snapshot.read_chunk(other.number), bytes_max=10_000)[:2]),
        "odd": items[:-1],
        "empty": (),
        "of numbers": tuple(range(len(items))),
    }
    for value in wrong.values():
        with pytest.raises(Rejected, match="chunk_invalid"):
            slices.run(prove_chunk(chunk, encode(value)))
    with pytest.raises(Rejected, match="chunk_invalid"):
        slices.run(prove_chunk(other, snapshot.read_chunk(chunk.number)))


@pytest.mark.usefixtures("small_chunks")
def test_any_part_changed_in_a_manifest_is_seen(tmp_path: Path) -> None:
    whole = snapshot_of(tmp_path, skewed(40)).manifest
    assert b"" in whole.parts
    assert {len(part) for part in whole.parts if part is not None} == {0, 32, 64}
    for at, part in enumerate(whole.parts):
        # Less, more, nothing, a split more, and another hash, in each place.
        others: list[tuple[bytes | None, ...]] = [(), (part, part), (None,), (b"",), (bytes(32),), (bytes(64),)]
        for other in others:
            parts = (*whole.parts[:at], *other, *whole.parts[at + 1 :])
            if parts == whole.parts:
                continue
            with pytest.raises(Rejected, match="snapshot_invalid"):
                Manifest.of(whole.header, VALIDATORS, VALIDATORS, parts)


def test_the_hash_of_an_inner_node_cannot_be_passed_off_as_a_lone_leaf() -> None:
    """Were an only leaf given by its hash, the whole state could be said to be one leaf that nobody can deliver."""
    state = {b"one": b"1", b"two": b"2"}
    header = header_of(state.items())
    root = header.state_root
    assert Manifest.of(header, VALIDATORS, VALIDATORS, (root,)).chunks
    nothing: tuple[bytes | None, ...] = (b"",) * 15
    with pytest.raises(Rejected, match="snapshot_invalid"):
        Manifest.of(header, VALIDATORS, VALIDATORS, (None, root, *nothing))


def test_a_manifest_of_another_form_version_or_set_is_refused(tmp_path: Path) -> None:
    whole = snapshot_of(tmp_path, records(3)).manifest
    version, header, members, following, parts = decode(whole.encoded, bytes_max=100_000)
    fewer = ValidatorSet(VALIDATORS.validators[:3])
    wrong = {
        "version_unknown": (2, header, members, following, parts),
        "malformed": (version, header, members, following),
        "snapshot_invalid": (version, header, fewer.to_value(), following, parts),
    }
    for code, value in wrong.items():
        with pytest.raises(Rejected, match=code):
            Manifest.decode(encode(value))
    with pytest.raises(Rejected, match="malformed: the next validator set"):
        Manifest.decode(encode((version, header, members, members, parts)))
    with pytest.raises(Rejected, match="malformed: a part"):
        Manifest.decode(encode((version, header, members, following, (bytes(33),))))
    with pytest.raises(Rejected, match="not canonical"):
        Manifest.decode(whole.encoded[:-1])


def test_a_set_that_changes_is_given_and_proved(tmp_path: Path) -> None:
    whole = snapshot_of(tmp_path, records(3)).manifest
    fewer = ValidatorSet(VALIDATORS.validators[:3])
    header = replace(whole.header, next_validators_hash=fewer.hash)
    changing = Manifest.of(header, VALIDATORS, fewer, whole.parts)
    assert Manifest.decode(changing.encoded).validators_next == fewer
    with pytest.raises(Rejected, match="snapshot_invalid"):
        Manifest.of(header, VALIDATORS, VALIDATORS, whole.parts)


def test_a_certificate_of_another_block_kind_or_chain_is_refused(tmp_path: Path) -> None:
    whole = snapshot_of(tmp_path, records(3)).manifest
    right = certify(GENESIS, whole.header)
    check_certificate(whole, right, GENESIS)
    other = certify(GENESIS, replace(whole.header, time_ms=whole.header.time_ms + 1))
    for wrong in (other, replace(right, kind=VOTE_PREPARE), replace(right, signatures=right.signatures[:2])):
        with pytest.raises(Rejected, match=r"snapshot_invalid|certificate_invalid"):
            check_certificate(whole, wrong, GENESIS)
    with pytest.raises(Rejected, match="wrong_chain"):
        check_certificate(whole, right, replace(GENESIS, chain_id="another"))
