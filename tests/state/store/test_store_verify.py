"""The audit of a stopped node passes what is whole, and names every byte that is not as it was, or proves it unused."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import plyvel
import pytest
from store_support import LEDGER, VALIDATOR_KEYS, Chain, accounts_of, certify, contents, genesis_of

from state import slices
from state.block import vote_preimage
from state.codec import encode
from state.errors import Rejected
from state.store import Store, VoteBatch, write_state_file
from state.store.index import entry_key
from state.store.keys import CHAIN, NODE, STATE, TRANSACTION, height_bytes, name_of, place_bytes, seal
from state.store.verify import VerifyReport, verify
from state.types import VOTE_PREPARE, Certificate, View

FLIPS = 200


def make(path: Path, **options: object) -> Chain:
    """A closed chain with everything that a database can hold: pruned heights, votes, a block not committed.

    Some of it is in tables and some in the log.
    """
    chain = Chain(path, genesis_of(range(20)), keep_heights=3, **options)
    chain.store.create_votes(b"key")
    for height in range(1, 7):
        executed = chain.execute(*(chain.pay(source, source + height) for source in range(4)))
        votes = VoteBatch(puts=((b"vote%d" % (height % 4), b"v" * 40),), bodies=(executed.block,))
        chain.store.write_votes(votes)
        chain.commit(executed)
        slices.run(chain.store.prune())
        if height == 4:
            chain.reopen()
    chain.store.write_votes(VoteBatch(bodies=(chain.execute(chain.pay(0, 1)).block,)))
    chain.store.close()
    return chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Such a chain, for tests that work on copies of it."""
    return make(tmp_path_factory.mktemp("verify") / "db")


def audit(path: Path, chain: Chain) -> VerifyReport:
    return verify(path, chain.genesis, LEDGER)


def edited(chain: Chain, path: Path, change: Callable[[plyvel.DB], None]) -> VerifyReport:
    """The audit of a copy with other records."""
    shutil.copytree(chain.path, path)
    with plyvel.DB(str(path / "leveldb")) as database:
        change(database)
    (path / "seal").unlink()
    return audit(path, chain)


def test_a_whole_database_passes_and_is_not_changed(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.path, tmp_path / "db")
    told: list[tuple[str, int, int]] = []
    report = verify(tmp_path / "db", chain.genesis, LEDGER, progress=lambda *step: told.append(step))
    assert report.ok, report.findings
    assert (report.head, report.height, report.transactions, report.votes) == (6, 6, 24, 4)
    before = contents(chain.path)
    assert report.records == len(before)
    assert contents(tmp_path / "db") == before
    assert ("blocks", 6, 6) in told


@pytest.mark.parametrize("options", [{}, {"keep_heights": 1}, {"index_accounts": False}])
def test_databases_kept_in_other_ways_pass_too(tmp_path: Path, options: dict[str, object]) -> None:
    chain = Chain(tmp_path / "db", **options)
    for _ in range(4):
        chain.block(chain.pay(0, 1), chain.pay(2, 3))
        slices.run(chain.store.prune())
    chain.store.close()
    later = Chain(chain.path, chain.genesis, new=False, index_accounts=True)
    later.block()
    later.store.close()
    report = audit(chain.path, chain)
    assert report.ok, report.findings


def test_a_chain_from_a_state_file_passes_with_that_file(tmp_path: Path) -> None:
    state_file = tmp_path / "genesis.state"
    genesis = genesis_of(range(4), state_file=write_state_file(state_file, accounts_of(range(4, 30))))
    Store.create(tmp_path / "db", genesis, LEDGER, state_file=state_file).close()
    chain = Chain(tmp_path / "db", genesis, new=False)
    chain.block(chain.pay(20, 1))
    chain.store.close()
    assert verify(chain.path, genesis, LEDGER, state_file=state_file).ok
    with pytest.raises(Rejected, match="state_file_missing"):
        verify(chain.path, genesis, LEDGER)


def test_an_open_database_is_not_audited(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    with pytest.raises(Rejected, match="store_locked"):
        audit(chain.path, chain)


def test_a_changed_state_under_a_matching_checksum_is_named(chain: Chain, tmp_path: Path) -> None:
    records = contents(chain.path)
    key = next(key for key in records if key.startswith(STATE + b"\x92\xa7account"))
    report = edited(chain, tmp_path / "db", lambda database: database.put(key, seal(key, records[key][:-4] + b"!")))
    assert [(finding.record, finding.problem) for finding in report.findings] == [
        (name_of(key), "is not what executing the chain again gives")
    ]


@pytest.mark.parametrize("letter", [b"C", b"R", b"T", b"A", b"S", b"N", b"O", b"H", b"B"])
def test_a_record_that_is_gone_is_named(chain: Chain, tmp_path: Path, letter: bytes) -> None:
    key = next(key for key in contents(chain.path) if key.startswith(letter))
    report = edited(chain, tmp_path / "db", lambda database: database.delete(key))
    assert not report.ok
    assert name_of(key) in [finding.record for finding in report.findings]


@pytest.mark.parametrize(
    "key",
    [
        b"?strange",
        b"Mstrange",
        TRANSACTION + bytes(32),
        entry_key(bytes(32), 2, 1),
        NODE + height_bytes(1) + b"\x40" + bytes(32),
    ],
)
def test_a_record_too_many_is_named(chain: Chain, tmp_path: Path, key: bytes) -> None:
    value = seal(key, place_bytes(1, 1))
    report = edited(chain, tmp_path / "db", lambda database: database.put(key, value))
    assert [(finding.record, finding.problem) for finding in report.findings] == [
        (name_of(key), "does not belong to this chain")
    ]


def test_a_certificate_of_prepares_or_without_quorum_is_named(chain: Chain, tmp_path: Path) -> None:
    store = Store.open(Path(shutil.copytree(chain.path, tmp_path / "read")), chain.genesis, LEDGER, chain.options)
    header = store.header_at(4)
    store.close()
    assert header is not None
    good = certify(chain.genesis, header)
    preimage = vote_preimage(chain.genesis.hash, header.validators_hash, VOTE_PREPARE, 4, 0, header.hash)
    signatures = tuple((index, VALIDATOR_KEYS[index].sign(preimage)) for index in range(3))
    prepares = Certificate(VOTE_PREPARE, header.height, View(0), header.hash, signatures)
    for number, (certificate, why) in enumerate(
        [(prepares, "not made of COMMITs"), (replace(good, signatures=good.signatures[:2]), "fewer than the quorum")]
    ):
        key = CHAIN + height_bytes(4)
        value = seal(key, encode((header.hash, certificate.to_value())))
        report = edited(chain, tmp_path / f"db{number}", lambda database, k=key, v=value: database.put(k, v))
        assert not report.ok
        assert why in report.findings[0].problem


def test_each_of_200_flipped_bits_in_records_is_named(chain: Chain, tmp_path: Path) -> None:
    dice = random.Random(20)
    records = sorted(contents(chain.path).items())
    for number in range(FLIPS):
        key, value = dice.choice(records)
        at = dice.randrange(len(key) + len(value))
        flipped = bytearray(key + value)
        flipped[at] ^= 1 << dice.randrange(8)

        def change(database: plyvel.DB, old: bytes = key, new: bytes = bytes(flipped)) -> None:
            database.delete(old)
            database.put(new[: len(old)], new[len(old) :])

        report = edited(chain, tmp_path / str(number), change)
        named = [finding.record for finding in report.findings]
        assert not report.ok, (name_of(key), at)
        assert named
        if at >= len(key):
            assert name_of(key) in named, (name_of(key), at, report.findings)
        shutil.rmtree(tmp_path / str(number))


def test_the_records_of_a_damaged_table_are_named(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.path, tmp_path / "db")
    table = max((tmp_path / "db" / "leveldb").glob("*.ldb"), key=lambda file: file.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 1
    table.write_bytes(data)
    named = [finding.record for finding in audit(tmp_path / "db", chain).findings]
    assert named[0] == "a table of the database"
    assert len(named) > 1
    assert set(named[1:]) <= {name_of(key) for key in contents(chain.path)}


def flip_files(chain: Chain, work: Path, seed: int, pattern: str = "*") -> tuple[int, int]:
    """Flips one random bit for each of 200 audits; returns how many were named and how many proved unused."""
    dice = random.Random(seed)
    whole = contents(Path(shutil.copytree(chain.path, work / "whole")))
    files = [file for file in chain.path.rglob(pattern) if file.is_file() and file.stat().st_size]
    weights = [file.stat().st_size for file in files]
    named = unused = 0
    for _ in range(FLIPS):
        (victim,) = dice.choices(files, weights)
        shutil.copytree(chain.path, work / "db")
        file = work / "db" / victim.relative_to(chain.path)
        data = bytearray(file.read_bytes())
        at = dice.randrange(len(data))
        data[at] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        report = audit(work / "db", chain)
        if report.ok:
            assert contents(work / "db") == whole, f"{victim.name} at {at}"
            unused += 1
        else:
            assert report.findings, f"{victim.name} at {at}"
            named += 1
        shutil.rmtree(work / "db")
    return named, unused


def test_each_of_200_flipped_bits_in_files_is_named_or_unused(chain: Chain, tmp_path: Path) -> None:
    named, unused = flip_files(chain, tmp_path, seed=21)
    assert named + unused == FLIPS
    assert named > FLIPS * 3 // 4


@pytest.mark.parametrize("pattern", ["*.log", "MANIFEST-*"])
def test_each_of_200_flipped_bits_in_the_files_of_a_crashed_node_is_named_or_unused(
    chain: Chain, tmp_path: Path, pattern: str
) -> None:
    crashed = Chain.__new__(Chain)
    crashed.genesis = chain.genesis
    crashed.path = Path(shutil.copytree(chain.path, tmp_path / "crashed"))
    (crashed.path / "seal").unlink()
    named, unused = flip_files(crashed, tmp_path / "work", seed=22, pattern=pattern)
    assert (named, unused) == (FLIPS, 0)
