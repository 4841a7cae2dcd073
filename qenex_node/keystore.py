"""Private keys at rest: one JSON file a key, encrypted under a passphrase, or plain where that is said loudly.

Encryption is AES-256-GCM under a key that argon2id (RFC 9106) makes of the passphrase; all other fields are bound in as
associated data, so that a key file cannot be passed off as another's. A checksum over the whole file tells damage from
a wrong passphrase. The version selects the format: an unknown one is refused by name. Plain files exist for test
networks: they hold the seed as it is, and say so.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.pwhash import argon2id

from state.codec import encode
from state.errors import InvariantError, Rejected
from state.hashing import sha256
from state.keys import SCHEMES, SEED_BYTES, PublicKey, SigningKey, scheme_named

FORMAT: Final = "qenex-key"
VERSION: Final = 1
ENCRYPTED: Final = "argon2id+aes-256-gcm"
PLAIN: Final = "none"
PLAIN_WARNING: Final = "NOT ENCRYPTED: for test networks only, whoever reads this file owns the key"
PURPOSES: Final = ("validator", "node", "account")
FILE_BYTES_MAX: Final = 64 * 1024
PASSPHRASE_BYTES_MAX: Final = 4096
KDF_MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024
KDF_PASSES_MAX: Final = 16
_NONCE_BYTES: Final = 12

Passphrase: TypeAlias = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What one guess at a passphrase costs: passes over so much memory."""

    passes: int
    memory_bytes: int


COST: Final = KdfCost(passes=3, memory_bytes=128 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key file says without its passphrase."""

    path: Path
    name: str
    purpose: str
    public: PublicKey
    encrypted: bool

    @property
    def scheme(self) -> str:
        """The signature scheme's name."""
        return SCHEMES[self.public.scheme].name


def write_key(
    path: Path,
    key: SigningKey,
    *,
    name: str,
    purpose: str,
    passphrase: bytes | None,
    cost: KdfCost = COST,
) -> KeyInfo:
    """Writes a new key file with mode 0600, whole or not at all; None as passphrase writes it plain.

    Raises Rejected("file_exists") rather than overwrite, Rejected("passphrase_empty"), Rejected("purpose_unknown").
    """
    if purpose not in PURPOSES:
        raise Rejected("purpose_unknown", f"a key's purpose is one of {', '.join(PURPOSES)}, not {purpose!r}")
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "purpose": purpose,
        "scheme": SCHEMES[key.scheme].name,
        "public_key": "0x" + key.public.data.hex(),
    }
    if passphrase is None:
        document |= {"protection": PLAIN, "warning": PLAIN_WARNING, "seed": "0x" + key.seed.hex()}
    else:
        document |= _sealed(document, key.seed, passphrase, cost)
    document["checksum"] = _checksum(document)
    _write_new(path, (json.dumps(document, indent=2) + "\n").encode())
    return KeyInfo(path, name, purpose, key.public, passphrase is not None)


def inspect_key(path: Path) -> KeyInfo:
    """Reads what a key file says openly; raises Rejected as `read_key` does, but for the passphrase."""
    return _info(path, _document(path))


def read_key(path: Path, passphrase: Passphrase | None) -> SigningKey:
    """Returns the private key; `passphrase` is asked only if the file is encrypted.

    Raises Rejected: "keystore_missing", "keystore_damaged", "version_unknown", "keystore_permissions" (a plain file
    that others may read), "passphrase_needed", "passphrase_wrong".
    """
    document = _document(path)
    info = _info(path, document)
    if info.encrypted:
        if passphrase is None:
            raise Rejected("passphrase_needed", f"{path} is encrypted: give its passphrase by file or descriptor")
        seed = _opened(path, document, passphrase())
    else:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Rejected("keystore_permissions", f"{path} is not encrypted and others may read it: chmod 600 it")
        seed = _hex(path, document, "seed", SEED_BYTES)
    key = SigningKey(info.public.scheme, seed)
    if key.public != info.public:
        raise _damaged(path, "the private key does not belong to the public key")
    return key


def passphrase_from(*, file: Path | None = None, descriptor: int | None = None) -> bytes:
    """Reads a passphrase from a file or an open descriptor, one line end taken off; it may not be empty.

    Raises Rejected("passphrase_unreadable") or Rejected("passphrase_empty").
    """
    try:
        if descriptor is not None:
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(PASSPHRASE_BYTES_MAX + 2)
        elif file is not None:
            with file.open("rb") as stream:
                data = stream.read(PASSPHRASE_BYTES_MAX + 2)
        else:
            raise Rejected("passphrase_needed", "give a passphrase by file or descriptor")
    except OSError as error:
        raise Rejected("passphrase_unreadable", f"the passphrase cannot be read: {error}") from None
    passphrase = data.removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase or len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise Rejected("passphrase_empty", f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")
    return passphrase


def _sealed(document: dict[str, Any], seed: bytes, passphrase: bytes, cost: KdfCost) -> dict[str, Any]:
    if not passphrase:
        raise Rejected("passphrase_empty", "a passphrase may not be empty")
    salt, nonce = secrets.token_bytes(argon2id.SALTBYTES), secrets.token_bytes(_NONCE_BYTES)
    fields: dict[str, Any] = {
        "protection": ENCRYPTED,
        "kdf": {"passes": cost.passes, "memory_bytes": cost.memory_bytes, "salt": "0x" + salt.hex()},
        "nonce": "0x" + nonce.hex(),
    }
    key = argon2id.kdf(32, passphrase, salt, cost.passes, cost.memory_bytes)
    sealed = AESGCM(key).encrypt(nonce, seed, _canonical(document | fields))
    return fields | {"ciphertext": "0x" + sealed.hex()}


def _opened(path: Path, document: dict[str, Any], passphrase: bytes) -> bytes:
    kdf = document.get("kdf")
    if not isinstance(kdf, dict):
        raise _damaged(path, "kdf is missing")
    passes, memory = kdf.get("passes"), kdf.get("memory_bytes")
    if type(passes) is not int or type(memory) is not int:
        raise _damaged(path, "kdf.passes and kdf.memory_bytes are whole numbers")
    if not (1 <= passes <= KDF_PASSES_MAX and argon2id.MEMLIMIT_MIN <= memory <= KDF_MEMORY_BYTES_MAX):
        raise _damaged(path, f"kdf costs are beyond {KDF_PASSES_MAX} passes over {KDF_MEMORY_BYTES_MAX} bytes")
    salt = _hex(path, kdf, "salt", argon2id.SALTBYTES)
    nonce = _hex(path, document, "nonce", _NONCE_BYTES)
    ciphertext = _hex(path, document, "ciphertext", SEED_BYTES + 16)
    bound = {name: value for name, value in document.items() if name not in ("ciphertext", "checksum")}
    key = argon2id.kdf(32, passphrase, salt, passes, memory)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, _canonical(bound))
    except InvalidTag:
        raise Rejected("passphrase_wrong", f"the passphrase does not open {path}") from None


def _canonical(value: Any) -> bytes:
    """Returns one byte form of a JSON value, maps in order of key."""
    return encode(_ordered(value))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _ordered(value[key])) for key in sorted(value))
    return value


def _checksum(document: dict[str, Any]) -> str:
    return "0x" + sha256(_canonical(document)).hex()


def _damaged(path: Path, why: str) -> Rejected:
    return Rejected("keystore_damaged", f"{path} is damaged ({why}): restore it from a backup")


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Rejected("keystore_missing", f"there is no key file {path}") from None
    except OSError as error:
        raise Rejected("keystore_unreadable", f"{path} cannot be read: {error}") from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f"it is not a {FORMAT} file")
    if document.get("version") != VERSION or type(document["version"]) is not int:
        version = document.get("version")
        raise Rejected("version_unknown", f"{path}: key file version {version!r} is unknown; this node reads {VERSION}")
    checksum = document.pop("checksum", None)
    if not all(isinstance(value, str | int | dict) for value in document.values()):
        raise _damaged(path, "a field has the wrong type")
    try:
        matches = _checksum(document) == checksum
    except (InvariantError, RecursionError) as error:
        raise _damaged(path, "a field has the wrong type") from error
    if not matches:
        raise _damaged(path, "its checksum does not match")
    return document


def _info(path: Path, document: dict[str, Any]) -> KeyInfo:
    name, purpose, protection = (document.get(field) for field in ("name", "purpose", "protection"))
    if not isinstance(name, str) or not isinstance(purpose, str):
        raise _damaged(path, "name or purpose is missing")
    if protection not in (ENCRYPTED, PLAIN):
        raise Rejected(
            "protection_unknown", f"{path}: protection {protection!r} is unknown; known: {ENCRYPTED}, {PLAIN}"
        )
    scheme = scheme_named(str(document.get("scheme")))
    public = PublicKey(scheme.number, _hex(path, document, "public_key", scheme.key_bytes))
    return KeyInfo(path, name, purpose, public, protection == ENCRYPTED)


def _hex(path: Path, fields: dict[str, Any], name: str, size: int) -> bytes:
    text = fields.get(name)
    try:
        if not isinstance(text, str) or not text.startswith("0x"):
            raise ValueError
        data = bytes.fromhex(text[2:])
    except ValueError:
        raise _damaged(path, f"{name} is not 0x-hex") from None
    if len(data) != size:
        raise _damaged(path, f"{name} has {len(data)} bytes, not {size}")
    return data


def _write_new(path: Path, data: bytes) -> None:
    """Writes a file that was not there, durably: a crash leaves it whole or absent."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
    except FileExistsError:
        raise Rejected("file_exists", f"{path} exists already and is not overwritten") from None
    finally:
        temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
