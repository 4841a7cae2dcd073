"""What a key file promises: it opens for its passphrase alone, stays private and whole, and names its faults."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from qenex_node.keystore import (
    PLAIN_WARNING,
    KdfCost,
    inspect_key,
    passphrase_from,
    read_key,
    write_key,
)
from state.errors import Rejected
from state.keys import ED25519, ML_DSA_65, ML_DSA_87, SigningKey

SECRET = b"correct horse"
# The passphrase hash is slow on purpose; its cost is no subject here.
QUICK = KdfCost(passes=1, memory_bytes=8192)


def write(path: Path, passphrase: bytes | None = SECRET, scheme: int = ED25519) -> SigningKey:
    key = SigningKey(scheme, bytes(range(32)))
    write_key(path, key, name="hub", purpose="account", passphrase=passphrase, cost=QUICK)
    return key


def code_of(path: Path, passphrase: bytes | None = SECRET) -> str:
    with pytest.raises(Rejected) as caught:
        read_key(path, None if passphrase is None else lambda: passphrase)
    return caught.value.code


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    for name, value in changes.items():
        document[name] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("scheme", [ED25519, ML_DSA_65, ML_DSA_87])
def test_a_key_of_each_scheme_comes_back(tmp_path: Path, scheme: int) -> None:
    path = tmp_path / "key.json"
    key = write(path, scheme=scheme)
    again = read_key(path, lambda: SECRET)
    assert (again.scheme, again.seed, again.public) == (scheme, key.seed, key.public)
    info = inspect_key(path)
    assert (info.name, info.purpose, info.public, info.encrypted) == ("hub", "account", key.public, True)


def test_an_encrypted_file_holds_no_seed_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key = write(path)
    assert key.seed.hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key.json"]


def test_a_plain_file_says_so_loudly(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key = write(path, passphrase=None)
    assert json.loads(path.read_text())["warning"] == PLAIN_WARNING
    assert read_key(path, None).seed == key.seed
    assert not inspect_key(path).encrypted


def test_a_plain_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write(path, passphrase=None)
    path.chmod(0o640)
    assert code_of(path) == "keystore_permissions"


def test_a_wrong_passphrase_is_told_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write(path)
    assert code_of(path, b"wrong") == "passphrase_wrong"
    assert code_of(path, None) == "passphrase_needed"


@pytest.mark.parametrize("field", ["name", "purpose", "scheme", "public_key", "ciphertext", "nonce", "kdf", "checksum"])
def test_any_changed_field_is_damage(tmp_path: Path, field: str) -> None:
    path = tmp_path / "key.json"
    write(path)
    edit(path, **{field: "ml-dsa-65" if field == "scheme" else "changed"})
    assert code_of(path) == "keystore_damaged"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "other"}', b"[" * 5000, b'"' + b"x" * 70_000]
)
def test_what_is_no_key_file_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    assert code_of(path) == "keystore_damaged"


@pytest.mark.parametrize("extra", [1.5, None, [1], {"deep": {"deeper": 1.5}}, -1])
def test_a_field_of_a_wrong_type_is_damage(tmp_path: Path, extra: Any) -> None:
    path = tmp_path / "key.json"
    write(path)
    edit(path, extra=extra)
    assert code_of(path) == "keystore_damaged"


def test_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write(path)
    edit(path, version=2)
    with pytest.raises(Rejected, match="key file version 2 is unknown") as caught:
        read_key(path, None)
    assert caught.value.code == "version_unknown"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert code_of(tmp_path / "key.json") == "keystore_missing"


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write(path)
    before = path.read_bytes()
    with pytest.raises(Rejected) as caught:
        write(path)
    assert caught.value.code == "file_exists"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["key.json"]


def test_a_passphrase_is_read_from_a_file_or_a_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(b"with a space \r\n")
    assert passphrase_from(file=file) == b"with a space "
    reading, writing = os.pipe()
    os.write(writing, SECRET + b"\n")
    os.close(writing)
    assert passphrase_from(descriptor=reading) == SECRET
    os.close(reading)


def test_an_empty_or_unreadable_passphrase_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    for file, code in ((empty, "passphrase_empty"), (tmp_path / "nowhere", "passphrase_unreadable")):
        with pytest.raises(Rejected) as caught:
            passphrase_from(file=file)
        assert caught.value.code == code
    with pytest.raises(Rejected) as caught:
        write(tmp_path / "key.json", passphrase=b"")
    assert caught.value.code == "passphrase_empty"
