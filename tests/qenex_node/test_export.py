"""A stream of blocks holds what the store has, goes on where it was cut off, and proves itself; any change is found."""

import json
from dataclasses import replace

import pytest

from qenex_node import exportcheck
from qenex_node.export import FRAMES, JSON_LINES, Entry, Reader, begun, entries, export_to, resume
from qenex_node.exportcheck import StreamCheck
from state.errors import Rejected
from state.hashing import sha256
from tests.qenex_node.client.light_support import Heights
from tests.state.store.store_support import Chain, certify


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    made = Chain(tmp_path_factory.mktemp("export") / "db")
    for number in range(5):
        made.block(made.pay(number, 100 + number), made.pay(number + 1, 3))
    yield made
    made.store.close()


def written(chain, path, form, start=1, end=5):
    export_to(path, chain.store, chain.genesis.context, form, start, end)
    return path


def read(chain, path):
    with path.open("rb") as stream:
        return list(Reader(stream, chain.genesis.context))


def check(chain, *items):
    checker = StreamCheck(chain.genesis)
    checker.take(items)
    return checker.result()


def refused(chain, *items):
    with pytest.raises(Rejected) as caught:
        check(chain, *items)
    assert caught.value.code == "audit_failed"
    return caught.value.data["height"], caught.value.data["lie"]


@pytest.mark.parametrize("form", [FRAMES, JSON_LINES])
def test_a_stream_holds_the_blocks_of_the_store_and_proves_itself(chain, tmp_path, form):
    path = written(chain, tmp_path / "stream", form)
    found = read(chain, path)
    assert [entry.block for entry in found] == [chain.store.block_at(height) for height in range(1, 6)]
    assert [entry.receipts for entry in found] == [chain.store.receipt_bytes_at(height) for height in range(1, 6)]
    assert [entry.validators is None for entry in found] == [False, True, True, True, True]
    done = check(chain, *found)
    assert (done.first, done.last, done.blocks, done.transactions) == (1, 5, 5, 10)
    assert done.last_hash == chain.store.head.hash


@pytest.mark.parametrize("form", [FRAMES, JSON_LINES])
def test_wherever_a_stream_is_cut_off_it_goes_on_to_the_same_bytes(chain, tmp_path, form):
    whole = written(chain, tmp_path / "whole", form).read_bytes()
    path = tmp_path / "cut"
    for size in range(len(whole) // 3, len(whole), len(whole) // 13):
        path.write_bytes(whole[:size])
        known = begun(path, chain.genesis.context)
        first, count = resume(path, chain.store, chain.genesis.context, 1, 5)
        assert first == (known.last_height or 0) + 1
        assert count == 6 - first
        assert [entry.block for entry in read(chain, path)] == [chain.store.block_at(h) for h in range(1, 6)]
        assert check(chain, *read(chain, path)).blocks == 5
    assert resume(path, chain.store, chain.genesis.context, 1, 5) == (6, 0)
    path.write_bytes(whole[:-3])
    with pytest.raises(Rejected, match="export_cut_off"):
        read(chain, path)


def test_a_file_that_is_there_is_not_written_over(chain, tmp_path):
    path = written(chain, tmp_path / "stream", FRAMES)
    with pytest.raises(Rejected, match="file_exists"):
        written(chain, path, FRAMES)


def changed(entry: Entry, **header):
    return replace(entry, block=replace(entry.block, header=replace(entry.block.header, **header)))


LIES = {
    "header": lambda chain, e: changed(e[2], state_root=sha256(b"x")),
    "receipt": lambda chain, e: replace(e[2], receipts=e[2].receipts[:1]),
    "certificate": lambda chain, e: replace(
        e[2], certificate=replace(e[2].certificate, signatures=e[2].certificate.signatures[:2])
    ),
    "height": lambda chain, e: e[3],
    "link": lambda chain, e: replace(
        parted := changed(e[2], parent_hash=sha256(b"x")),
        certificate=certify(chain.genesis, parted.block.header),
    ),
    "validators": lambda chain, e: replace(e[2], validators=Heights([frozenset(range(4))]).at(1).validators),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_named_with_its_height(chain, lie):
    found = list(entries(chain.store, 1, 5))
    found[2] = LIES[lie](chain, found)
    assert refused(chain, *found) == (4 if lie == "height" else 3, lie)


def test_a_transaction_whose_signature_does_not_hold_is_named(chain, monkeypatch):
    def forged(tx):
        raise Rejected("signature_invalid", "not theirs")

    monkeypatch.setattr(exportcheck, "verify_signatures", forged)
    assert refused(chain, *entries(chain.store, 1, 5)) == (1, "signature_invalid")


def test_a_part_of_the_chain_is_checked_by_itself_where_genesis_validators_signed_it(chain):
    done = check(chain, *entries(chain.store, 3, 5))
    assert (done.first, done.last) == (3, 5)


def test_streams_are_checked_one_after_the_other(chain):
    checker = StreamCheck(chain.genesis)
    checker.take(entries(chain.store, 1, 2))
    checker.take(entries(chain.store, 3, 5))
    assert checker.result().blocks == 5
    gap = StreamCheck(chain.genesis)
    gap.take(entries(chain.store, 1, 2))
    with pytest.raises(Rejected, match="audit_failed"):
        gap.take(entries(chain.store, 4, 5))


def test_an_empty_stream_proves_nothing(chain):
    with pytest.raises(Rejected, match="audit_failed"):
        check(chain)


def test_another_chain_another_version_and_what_is_no_stream_are_named(chain, tmp_path):
    path = written(chain, tmp_path / "frames", FRAMES)
    other = Heights([frozenset(range(4))]).genesis.context
    with path.open("rb") as stream, pytest.raises(Rejected, match="wrong_chain"):
        Reader(stream, other)
    lines = written(chain, tmp_path / "lines", JSON_LINES).read_bytes().split(b"\n")
    opening = json.loads(lines[0])

    def refused_with(*content):
        path.write_bytes(b"\n".join(content))
        with pytest.raises(Rejected) as caught:
            read(chain, path)
        return caught.value.code

    assert refused_with(json.dumps(opening | {"version": 2}).encode(), b"") == "version_unknown"
    assert refused_with(json.dumps(opening | {"format": "x"}).encode(), b"") == "export_invalid"
    assert refused_with(lines[0], lines[1].replace(b'"height":1', b'"height":2'), b"") == "export_invalid"
    assert refused_with(lines[0], b"{}", b"") == "export_invalid"
    assert refused_with(b"") == "export_invalid"
    assert refused_with(b"\xff\xff\xff\xff" + bytes(9)) == "export_invalid"
    assert refused_with(bytes(300)) == "export_invalid"


def test_no_height_beyond_the_head_is_written(chain, tmp_path):
    with pytest.raises(Rejected, match="height_unknown"):
        export_to(tmp_path / "s", chain.store, chain.genesis.context, FRAMES, 5, 6)
