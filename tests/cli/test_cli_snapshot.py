"""`qenex snapshot create | list | verify | restore`: what they answer and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qenex_node.config import Config, NodeSection
from qenex_node.exitcodes import ExitCode
from qenex_node.homes import create_home
from tests.cli.cli_support import Qenex
from tests.state.store.store_support import VALIDATORS, Chain, genesis_of


def home_of(path: Path, blocks: int) -> Path:
    """The home of a full node that stopped at this height."""
    create_home(path, Config(node=NodeSection(name="full", role="full")), passphrase=None)
    chain = Chain(path / "data", genesis_of())
    for _ in range(blocks):
        chain.block()
    chain.store.close()
    (path / "genesis.json").write_text(json.dumps(chain.genesis.to_json()))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_of(tmp_path / "home", 3)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return home_of(tmp_path / "new", 0)


def test_a_snapshot_is_made_listed_proved_and_restored_elsewhere(qenex: Qenex, home: Path, new: Path) -> None:
    assert qenex("snapshot", "list", "--home", home).out == "There are none.\n"
    made = qenex("snapshot", "create", "--home", home, "--json").json
    assert (made["height"], made["chunks"]) == (3, 1)
    assert qenex("snapshot", "create", "--home", home, "--json").json == made
    assert qenex("snapshot", "list", "--home", home, "--json").json == {"snapshots": [made]}
    assert made["manifest_hash"] in qenex("snapshot", "list", "--home", home).out
    assert qenex("snapshot", "verify", 3, "--home", home, "--json").json == {"ok": True, **made}

    restored = qenex("snapshot", "restore", made["path"], "--home", new, "--json")
    assert restored.json == {"home": str(new), "head_before": 0, "head": 3, "vote_records": False}
    audit = qenex("verify", "--home", new, "--json").json
    assert (audit["ok"], audit["base"], audit["head"]) == (True, 3, 3)
    again = qenex("snapshot", "restore", made["path"], "--home", new, "--json")
    assert (again.code, again.json["error"]["code"]) == (ExitCode.REFUSED, "snapshot_behind")
    assert qenex("rollback", "--home", new, "--yes", "--json").json["error"]["code"] == "rollback_impossible"


def test_restoring_a_snapshot_says_what_to_do_next(qenex: Qenex, home: Path, new: Path) -> None:
    made = qenex("snapshot", "create", "--home", home, "--json").json
    assert (
        f"Next: qenex start --home {new}; it fetches" in qenex("snapshot", "restore", made["path"], "--home", new).out
    )


def test_what_does_not_hold_is_refused_by_name_and_changes_nothing(qenex: Qenex, home: Path, new: Path) -> None:
    made = qenex("snapshot", "create", "--home", home, "--json").json
    right, wrong = made["block_hash"], "0x" + "11" * 32
    for command in ("verify", "restore"):
        ended = qenex("snapshot", command, made["path"], "--home", new, "--block-hash", wrong, "--json")
        assert (ended.code, ended.json["error"]["code"]) == (ExitCode.PROOF_INVALID, "header_unproved")
        ended = qenex("snapshot", command, made["path"], "--home", new, "--block-hash", "0x12", "--json")
        assert ended.json["error"]["code"] == "hash_invalid"
        ended = qenex("snapshot", command, 77, "--home", new, "--json")
        assert ended.json["error"]["code"] == "snapshot_missing"
    chunk = Path(made["path"]) / "chunks" / "000000"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    for command in ("verify", "restore"):
        ended = qenex("snapshot", command, made["path"], "--home", new, "--json")
        assert (ended.code, ended.json["error"]["code"]) == (ExitCode.PROOF_INVALID, "snapshot_damaged")
    chunk.write_bytes(whole)
    assert qenex("verify", "--home", new, "--json").json["base"] == 0
    assert qenex("snapshot", "restore", made["path"], "--home", new, "--block-hash", right).code == 0


def test_a_snapshot_of_height_0_and_one_that_is_damaged_are_named(qenex: Qenex, home: Path, new: Path) -> None:
    assert qenex("snapshot", "create", "--home", new, "--json").json["error"]["code"] == "snapshot_empty"
    made = qenex("snapshot", "create", "--home", home, "--json").json
    (Path(made["path"]) / "manifest").write_bytes(b"")
    (shown,) = qenex("snapshot", "list", "--home", home, "--json").json["snapshots"]
    assert shown["error"]["code"] == "snapshot_damaged"
    assert "snapshot_damaged" in qenex("snapshot", "list", "--home", home).out


def test_a_snapshot_of_another_chain_is_refused(qenex: Qenex, home: Path, new: Path) -> None:
    made = qenex("snapshot", "create", "--home", home, "--json").json
    other = genesis_of(people=range(3))
    assert other.validators == VALIDATORS
    (new / "genesis.json").write_text(json.dumps(other.to_json()))
    ended = qenex("snapshot", "verify", made["path"], "--home", new, "--json")
    assert (ended.code, ended.json["error"]["code"]) == (ExitCode.PROOF_INVALID, "certificate_invalid")
