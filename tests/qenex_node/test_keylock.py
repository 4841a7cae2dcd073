"""One process a validator key: by a lock that nobody else can take, or hold against it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from qenex_node import keylock
from qenex_node.keylock import hold_key
from state.errors import Rejected
from state.hashing import sha256

KEY, OTHER = b"k" * 32, b"o" * 32


def refusal(key: bytes, directory: Path | None = None) -> str | None:
    try:
        with hold_key(key, directory):
            return None
    except Rejected as error:
        return error.code


def test_a_key_is_held_once_and_is_free_again_afterwards(tmp_path: Path) -> None:
    with hold_key(KEY, tmp_path / "locks"):
        assert refusal(KEY, tmp_path / "locks") == "key_in_use"
        assert refusal(OTHER, tmp_path / "locks") is None
    assert refusal(KEY, tmp_path / "locks") is None


def test_a_name_that_any_user_may_take_keeps_no_validator_from_starting(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as squatter:
        squatter.bind("\0qenex/validator/" + sha256(KEY).hex())
        assert refusal(KEY) is None


def test_a_directory_in_which_others_may_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("open", "link", "file"):
        assert refusal(KEY, tmp_path / name) == "key_lock_unusable"


def test_a_user_without_a_home_has_a_directory_of_its_own_that_a_squatter_does_not_make_it_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> SimpleNamespace:
        raise KeyError(uid)

    monkeypatch.setattr(keylock.pwd, "getpwuid", nobody)
    monkeypatch.setattr(keylock, "_WITHOUT_HOME", tmp_path)
    with hold_key(KEY):
        assert refusal(KEY) == "key_in_use"
    (tmp_path / f"qenex-{os.geteuid()}").chmod(0o777)
    assert refusal(KEY) == "key_lock_unusable"


def test_the_directory_is_the_same_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keylock.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=str(tmp_path)))
    with hold_key(KEY):
        for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
            monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
        assert refusal(KEY) == "key_in_use"
