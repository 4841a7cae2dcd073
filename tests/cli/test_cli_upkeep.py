"""`qenex verify`, `recover`, `rollback` and `start`: what they refuse, and what they say about a database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qenex_node import keystore
from qenex_node.exitcodes import ExitCode
from qenex_node.homes import open_home
from qenex_node.keylock import hold_key
from qenex_node.keystore import inspect_key
from qenex_node.options import store_options
from state.address import to_text
from state.ledger import Ledger
from state.store import Store
from tests.cli.cli_support import Qenex


@pytest.fixture
def home(qenex: Qenex, tmp_path: Path) -> Path:
    made = qenex("testnet", "--output", tmp_path / "net", "--validators", 1, "--full-nodes", 1, "--seed", "s", "--json")
    assert made.code == 0
    return tmp_path / "net" / "validator-01"


def test_an_audit_of_a_good_database_finds_nothing(qenex: Qenex, home: Path) -> None:
    ended = qenex("verify", "--home", home, "--json")
    assert (ended.code, ended.json["ok"], ended.json["findings"]) == (0, True, [])


def test_an_audit_names_damage_and_has_its_exit_code(qenex: Qenex, home: Path) -> None:
    table = max((home / "data" / "leveldb").glob("*.ldb"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 1
    table.write_bytes(content)
    ended = qenex("verify", "--home", home, "--json")
    assert ended.code == ExitCode.AUDIT_FAILED
    assert ended.json["findings"]
    shown = qenex("verify", "--home", home)
    assert ended.json["findings"][0]["record"] in shown.out


def test_recovery_must_be_meant(qenex: Qenex, home: Path) -> None:
    ended = qenex("recover", "--home", home, "--json")
    assert ended.json["error"]["code"] == "confirmation_needed"
    begun = qenex("recover", "--home", home, "--yes", "--json").json
    assert (begun["head"], begun["signed_at_most"], begun["vote_records_created"]) == (0, None, False)
    full = qenex("recover", "--home", home.parent / "full-01", "--yes", "--json")
    assert full.json["error"]["code"] == "not_a_validator"


def test_a_rollback_must_be_meant_and_ends_at_genesis(qenex: Qenex, home: Path) -> None:
    assert qenex("rollback", "--home", home, "--json").json["error"]["code"] == "confirmation_needed"
    ended = qenex("rollback", "--home", home, "--yes", "--json")
    assert (ended.code, ended.json["error"]["code"]) == (ExitCode.REFUSED, "rollback_impossible")


@pytest.mark.parametrize("command", ["verify", "recover", "rollback", "start"])
def test_an_open_database_and_a_missing_home_are_named(qenex: Qenex, home: Path, command: str) -> None:
    confirmed = ("--yes",) if command in ("recover", "rollback") else ()
    missing = qenex(command, "--home", home / "nowhere", "--json", *confirmed)
    assert (missing.code, missing.json["error"]["code"]) == (ExitCode.HOME, "home_missing")
    node_home = open_home(home)
    store = Store.open(node_home.home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        locked = qenex(command, "--home", home, "--json", *confirmed)
    finally:
        store.close()
    assert (locked.code, locked.json["error"]["code"]) == (ExitCode.STORE_LOCKED, "store_locked")


def test_start_names_what_keeps_it_from_starting(qenex: Qenex, home: Path) -> None:
    def start() -> tuple[int, str]:
        ended = qenex("start", "--home", home, "--json")
        return ended.code, ended.json["error"]["code"]

    config = home / "config.toml"
    written = config.read_text()
    assert "min_free_bytes = 536_870_912" in written
    config.write_text(written.replace("min_free_bytes = 536_870_912", f"min_free_bytes = {2**50}"))
    assert start() == (ExitCode.DISK_LOW, "disk_low")
    config.write_text(written.replace("[rpc]", "[rpcs]"))
    assert start() == (ExitCode.CONFIG, "config_invalid")
    config.write_text(written)
    key = home / "keys" / "validator.json"
    key.chmod(0o644)
    assert start() == (ExitCode.KEY, "keystore_permissions")
    key.unlink()
    assert start() == (ExitCode.KEY, "keystore_missing")
    shutil.rmtree(home / "data")
    assert start() == (ExitCode.HOME, "chain_missing")


def test_a_validator_with_encrypted_keys_needs_its_passphrase(
    qenex: Qenex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore.write_key, "__kwdefaults__", {"cost": keystore.KdfCost(passes=1, memory_bytes=8192)})
    home, right, wrong, file = (tmp_path / name for name in ("a", "right", "wrong", "genesis.json"))
    right.write_text("correct horse")
    wrong.write_text("wrong horse")
    made = qenex("init", "--home", home, "--name", "a", "--passphrase-file", right, "--json").json
    assert made["encrypted"] is True
    owner = to_text(bytes(32))
    card = home / "validator.card.json"
    create = ("genesis", "create", "--file", file, "--chain-id", "x", "--asset", f"QNX,2,{owner}")
    assert qenex(*create, "--card", card).code == 0
    assert qenex("init", "--home", home, "--genesis", file).code == 0
    # A copied home has a database of its own, and the same key: it runs once on a machine.
    copied = tmp_path / "copied"
    shutil.copytree(home, copied)
    with hold_key(inspect_key(home / "keys" / "validator.json").public.data):
        for path in (home, copied):
            held = qenex("start", "--home", path, "--json", "--passphrase-file", right)
            assert (held.code, held.json["error"]["code"]) == (ExitCode.STORE_LOCKED, "key_in_use")
    for given, code in (((), "passphrase_needed"), (("--passphrase-file", wrong), "passphrase_wrong")):
        ended = qenex("start", "--home", home, "--json", *given)
        assert (ended.code, ended.json["error"]["code"]) == (ExitCode.PASSPHRASE, code)
