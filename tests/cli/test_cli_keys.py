"""`qenex keys`: keys are made, found, moved; private parts are shown to whoever asks for them in so many words."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.keyring import find
from cli.settings import Settings
from qenex_node import keystore
from qenex_node.exitcodes import ExitCode
from state.errors import Rejected
from state.keys import SigningKey, scheme_named
from tests.cli.cli_support import Qenex


@pytest.fixture(autouse=True)
def quick_kdf(monkeypatch: pytest.MonkeyPatch) -> None:
    # The passphrase hash is slow on purpose; its cost is no subject here.
    monkeypatch.setattr(keystore.write_key, "__kwdefaults__", {"cost": keystore.KdfCost(passes=1, memory_bytes=8192)})


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    return file


@pytest.mark.parametrize("scheme", ["ed25519", "ml-dsa-65", "ml-dsa-87"])
def test_a_key_of_each_scheme_is_made_exported_and_imported(
    qenex: Qenex, tmp_path: Path, passphrase: Path, scheme: str
) -> None:
    home = ("--home", tmp_path / "a", "--passphrase-file", passphrase)
    made = qenex("keys", "new", "hub", "--scheme", scheme, "--json", *home).json
    assert (made["scheme"], made["encrypted"]) == (scheme, True)
    assert made["address"].startswith("qx1")
    seed = qenex("keys", "export", made["address"], "--show-private-key", *home).out.strip()
    assert SigningKey(scheme_named(scheme).number, bytes.fromhex(seed[2:])).public.data.hex() in made["public_key"]
    file = tmp_path / "seed"
    file.write_text(seed)
    other = ("--home", tmp_path / "b", "--plain", "--json", "--scheme", scheme)
    assert qenex("keys", "import", "hub", "--seed-file", file, *other).code == 0
    shown = qenex("keys", "show", "hub", "--home", tmp_path / "b", "--json").json
    assert (shown["address"], shown["encrypted"]) == (made["address"], False)


def test_making_or_listing_keys_shows_no_private_part(qenex: Qenex, tmp_path: Path) -> None:
    made = qenex("keys", "new", "a", "--plain", "--home", tmp_path)
    assert "NOT ENCRYPTED" in made.err
    listed = qenex("keys", "list", "--home", tmp_path)
    seed = qenex("keys", "export", "a", "--show-private-key", "--home", tmp_path).out.strip()
    assert len(seed) == 66
    assert seed[2:] not in made.out + made.err + listed.out
    assert qenex("keys", "list", "--home", tmp_path, "--json").json[0]["name"] == "a"
    assert qenex("keys", "list", "--home", tmp_path / "nowhere", "--json").json == []


def test_an_export_must_be_meant(qenex: Qenex, tmp_path: Path) -> None:
    qenex("keys", "new", "a", "--plain", "--home", tmp_path)
    ended = qenex("keys", "export", "a", "--home", tmp_path)
    assert ended.code == ExitCode.USAGE
    assert "0x" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("new", "a", "--plain"), "file_exists"),
        (("new", "../a", "--plain"), "key_name_invalid"),
        (("new", "b"), "passphrase_needed"),
        (("show", "b"), "keystore_missing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(qenex: Qenex, tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    qenex("keys", "new", "a", "--plain", "--home", tmp_path)
    ended = qenex("keys", *arguments, "--home", tmp_path, "--json")
    assert ended.json["error"]["code"] == code
    assert ended.code != 0
    assert [file.name for file in (tmp_path / "accounts").iterdir()] == ["a.json"]


def test_a_wrong_passphrase_has_its_exit_code(qenex: Qenex, tmp_path: Path, passphrase: Path) -> None:
    qenex("keys", "new", "a", "--home", tmp_path, "--passphrase-file", passphrase)
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    ended = qenex("keys", "export", "a", "--show-private-key", "--home", tmp_path, "--passphrase-file", wrong)
    assert ended.code == ExitCode.PASSPHRASE
    assert ended.out == ""


def test_a_key_is_found_by_name_address_and_path(qenex: Qenex, tmp_path: Path) -> None:
    made = qenex("keys", "new", "a", "--plain", "--home", tmp_path, "--json").json
    settings = Settings(home_given=tmp_path)
    path = tmp_path / "accounts" / "a.json"
    assert find(settings, "a") == find(settings, made["address"]) == find(settings, str(path)) == path
    with pytest.raises(Rejected):
        find(settings, str(tmp_path / "accounts" / "b.json"))
