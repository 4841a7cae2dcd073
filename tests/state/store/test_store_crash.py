"""What was durable is there after `kill -9`, what was not is not there at all; a failed write halts by name."""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_support import LEDGER, Chain, certify

from state import slices
from state.store import StorageFailed, VoteBatch
from state.store.verify import verify


def test_killed_while_committing_it_stands_where_it_said(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    chain.store.create_votes(b"key")
    chain.store.close()
    dice = random.Random(3)
    script = Path(__file__).with_name("committing_node.py")
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, str(script), str(chain.path)], stdout=subprocess.PIPE, text=True
        ) as node:
            assert node.stdout is not None
            lines = dice.randrange(4, 40)
            said = dict(line.split() for line in (node.stdout.readline() for _ in range(lines)) if line)
            node.kill()
            said |= dict(line.split() for line in node.stdout if line.endswith("\n"))
        chain = Chain(chain.path, new=False)
        head = chain.store.head.height
        assert head - int(said.get("committed", said["ready"])) in (0, 1)
        votes = chain.store.votes()
        voted = int.from_bytes(votes[b"voted"], "big")
        assert voted - int(said["voted"]) in (0, 1)
        assert voted in (head, head + 1)
        assert votes[b"at %d" % (voted % 5)] == b"x" * voted
        assert set(chain.store.uncommitted_bodies().values()) <= {head + 1}
        assert len(chain.store.uncommitted_bodies()) == voted - head
        chain.store.close()
    assert head > 5
    report = verify(chain.path, chain.genesis, LEDGER)
    assert report.ok, report.findings


def test_a_write_that_fails_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    chain.store.create_votes(b"key")
    chain.block()
    executed = chain.execute(*(chain.pay(0, 1, sequence=n) for n in range(1, 400)))
    prepared = slices.run(chain.store.commit(executed, certify(chain.genesis, executed.block.header)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(StorageFailed, match="storage_failed: writing") as caught:
            prepared.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.code == "storage_failed"
    assert not prepared.written
    assert chain.store.head.height == 1
    with pytest.raises(StorageFailed, match="an earlier write failed"):
        chain.store.write_votes(VoteBatch(puts=((b"a", b"1"),)))
    chain.reopen()
    assert chain.store.head.height == 1
    assert chain.store.votes() == {}
    chain.block()
    chain.store.close()
    assert verify(chain.path, chain.genesis, LEDGER).ok


def test_a_log_that_a_power_failure_cut_anywhere_leaves_a_whole_earlier_state(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db", keep_heights=3)
    chain.store.create_votes(b"key")
    for height in range(1, 9):
        executed = chain.execute(chain.pay(0, 1))
        chain.store.write_votes(VoteBatch(puts=((b"voted", height.to_bytes(8, "big")),), bodies=(executed.block,)))
        chain.commit(executed)
        slices.run(chain.store.prune())
    chain.store.close()
    (chain.path / "seal").unlink()
    (log,) = (chain.path / "leveldb").glob("*.log")
    dice = random.Random(5)
    heads = set()
    for number in range(60):
        copy = Path(shutil.copytree(chain.path, tmp_path / str(number)))
        size = dice.randrange(200, log.stat().st_size)
        with (copy / "leveldb" / log.name).open("r+b") as stream:
            stream.truncate(size)
        report = verify(copy, chain.genesis, LEDGER)
        assert report.ok, (size, report.findings)
        heads.add(report.head)
    assert heads >= set(range(8))
