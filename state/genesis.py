"""The genesis document: what a chain is born with, agreed by all institutions before its first block.

It holds the chain's name and birth time, the first validator set, the chain parameters, and the first assets and
accounts (or the hash of a state file that holds the accounts). Its hash stands in every signature made on the chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

from state.address import from_text, to_text
from state.codec import (
    decode,
    decode_amount,
    encode,
    encode_amount,
    expect_array,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, InvariantError, JsonValue, Rejected
from state.hashing import TAG_GENESIS, Hash, tagged
from state.limits import (
    ASSET_CODE_LENGTH_MAX,
    BLOCK_BYTES_MAX,
    BLOCK_UNITS_MAX,
    CHAIN_ID_LENGTH_MAX,
    DECIMALS_MAX,
    GENESIS_BYTES_MAX,
    INLINE_BALANCES_MAX,
    NAME_LENGTH_MAX,
    TRANSACTION_BYTES_MAX,
)
from state.types import Address, Amount, AssetCode, ChainContext, TimeMs, Validator, ValidatorSet

GENESIS_VERSION: Final = 1
ASSETS_MAX: Final = 1024
ACCOUNTS_INLINE_MAX: Final = 100_000
_CHAIN_ID: Final = re.compile(rf"[a-z0-9][a-z0-9.-]{{0,{CHAIN_ID_LENGTH_MAX - 1}}}\Z")
_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}\Z")
_ASSET_CODE: Final = re.compile(rf"[A-Z][A-Z0-9.]{{1,{ASSET_CODE_LENGTH_MAX - 1}}}\Z")


def check_asset_code(code: str) -> AssetCode:
    """Returns the code if it is 2 to 12 capitals, digits and dots; raises Rejected("asset_code_invalid")."""
    if not _ASSET_CODE.match(code):
        raise Rejected("asset_code_invalid", f"{code!r} is not 2 to {ASSET_CODE_LENGTH_MAX} capitals, digits, dots")
    return AssetCode(code)


def check_validator_name(name: str) -> None:
    """Raises Rejected("validator_name_invalid") unless a name is 1 to 32 of a-z, 0-9, '.', '_', '-', no sign first."""
    if not _NAME.match(name):
        raise Rejected("validator_name_invalid", f"validator name {name!r}: use a-z, 0-9, '.', '_' and '-'")


@dataclass(frozen=True, slots=True)
class ChainParameters:
    """What a chain chooses for itself. All values are integers or text, and become part of the state.

    block_bytes_max and block_units_max bound a block; leader_term is in heights (0: a primary stays until suspected);
    drift_ms bounds a proposal's time against a validator's clock; native_asset is what fees are paid in;
    open_issuance is 1 where every account may issue assets, 0 where only accounts with assets in genesis may;
    evidence_age_heights is how many heights after an offence its evidence may still enter a block; evidence_suspends
    is 1 where it takes the offender out of the validator set.
    """

    block_bytes_max: int = 2 * 1024 * 1024
    block_units_max: int = 20_000
    leader_term: int = 0
    drift_ms: int = 5_000
    native_asset: str = "QNX"
    open_issuance: int = 1
    evidence_age_heights: int = 100_000
    evidence_suspends: int = 1

    def check(self) -> None:
        """Raises Rejected("genesis_invalid") for values outside their bounds."""
        bounds = {
            "block_bytes_max": (TRANSACTION_BYTES_MAX, BLOCK_BYTES_MAX),
            "block_units_max": (4_096, BLOCK_UNITS_MAX),
            "leader_term": (0, 1 << 32),
            "drift_ms": (100, 600_000),
            "open_issuance": (0, 1),
            "evidence_age_heights": (1, 1 << 32),
            "evidence_suspends": (0, 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise Rejected("genesis_invalid", f"parameter {name} must be from {low} to {high}, not {value!r}")
        check_asset_code(self.native_asset)

    def to_value(self) -> tuple[Any, ...]:
        """Returns [[name, value] ...] in order of name."""
        return tuple((name, getattr(self, name)) for name in PARAMETER_NAMES)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ChainParameters:
        """Reads name: value pairs; absent names take defaults, unknown ones raise Rejected("genesis_invalid")."""
        for name in values:
            if name not in PARAMETER_NAMES:
                raise Rejected("genesis_invalid", f"parameter {name!r} is unknown; known: {', '.join(PARAMETER_NAMES)}")
        parameters = cls(**values)
        parameters.check()
        return parameters


PARAMETER_NAMES: Final = tuple(sorted(field.name for field in fields(ChainParameters)))


@dataclass(frozen=True, slots=True)
class GenesisAsset:
    """An asset that exists from the start; its supply is the sum of what the genesis accounts hold."""

    code: AssetCode
    decimals: int
    issuer: Address
    flags: int = 0


@dataclass(frozen=True, slots=True)
class GenesisAccount:
    """An account that holds balances from the start: (asset, amount in base units), sorted by asset."""

    address: Address
    balances: tuple[tuple[AssetCode, Amount], ...]


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file of further accounts, by hash: SHA-256 of its bytes, how many accounts, and what they hold in all."""

    sha256: Hash
    accounts: int
    balances: tuple[tuple[AssetCode, Amount], ...]


def _balances_value(balances: tuple[tuple[AssetCode, Amount], ...]) -> tuple[Any, ...]:
    return tuple((asset, encode_amount(amount)) for asset, amount in balances)


def _balances(value: Any, count_max: int) -> tuple[tuple[AssetCode, Amount], ...]:
    result: list[tuple[AssetCode, Amount]] = []
    for item in expect_array(value, count_max, "balances"):
        asset, amount = expect_tuple(item, 2, "balance")
        code = check_asset_code(expect_str(asset, ASSET_CODE_LENGTH_MAX, "asset"))
        if result and result[-1][0] >= code:
            raise DecodeError("balances must be in order of asset, each once")
        result.append((code, Amount(decode_amount(amount))))
    return tuple(result)


@dataclass(frozen=True)
class Genesis:
    """The whole document; `check` tells whether a chain can start from it."""

    chain_id: str
    time_ms: TimeMs
    validators: ValidatorSet
    parameters: ChainParameters
    assets: tuple[GenesisAsset, ...]
    accounts: tuple[GenesisAccount, ...]
    state_file: StateFile | None = None

    def check(self) -> None:
        """Raises Rejected("genesis_invalid") saying what is wrong."""
        if not _CHAIN_ID.match(self.chain_id):
            raise Rejected(
                "genesis_invalid", f"chain id {self.chain_id!r}: use lower case letters, digits, '.' and '-'"
            )
        for validator in self.validators.validators:
            try:
                check_validator_name(validator.name)
            except Rejected as error:
                raise Rejected("genesis_invalid", error.message) from None
        self.parameters.check()
        codes = [asset.code for asset in self.assets]
        if codes != sorted(set(codes)):
            raise Rejected("genesis_invalid", "assets must be in order of code, each once")
        if self.parameters.native_asset not in codes:
            raise Rejected(
                "genesis_invalid", f"the native asset {self.parameters.native_asset} is not among the assets"
            )
        addresses = [account.address for account in self.accounts]
        if addresses != sorted(set(addresses)):
            raise Rejected("genesis_invalid", "accounts must be in order of address, each once")
        supplies = self.supplies()
        for code, supply in supplies.items():
            if code not in codes:
                raise Rejected("genesis_invalid", f"asset {code} is held but not defined")
            if supply >= 1 << 128:
                raise Rejected("genesis_invalid", f"the supply of {code} does not fit 128 bits")

    def supplies(self) -> dict[AssetCode, Amount]:
        """Returns what all genesis accounts together hold of each asset, state file included."""
        totals: dict[AssetCode, int] = {asset.code: 0 for asset in self.assets}
        held: Iterable[tuple[AssetCode, Amount]] = (pair for account in self.accounts for pair in account.balances)
        for code, amount in held:
            totals[code] = totals.get(code, 0) + amount
        for code, amount in self.state_file.balances if self.state_file else ():
            totals[code] = totals.get(code, 0) + amount
        return {code: Amount(total) for code, total in totals.items()}

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array of the document."""
        state_file = None
        if self.state_file is not None:
            totals = _balances_value(self.state_file.balances)
            state_file = (self.state_file.sha256, self.state_file.accounts, totals)
        return (
            GENESIS_VERSION,
            self.chain_id,
            self.time_ms,
            self.validators.to_value(),
            self.parameters.to_value(),
            tuple((asset.code, asset.decimals, asset.issuer, asset.flags) for asset in self.assets),
            tuple((account.address, _balances_value(account.balances)) for account in self.accounts),
            state_file,
        )

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes."""
        return encode(self.to_value())

    @cached_property
    def hash(self) -> Hash:
        """The genesis hash: H(tag | canonical bytes)."""
        return tagged(TAG_GENESIS, self.encoded)

    @property
    def context(self) -> ChainContext:
        """What signatures on this chain are bound to."""
        return ChainContext(self.chain_id, self.hash)

    @classmethod
    def decode(cls, data: bytes) -> Genesis:
        """Reads and checks canonical bytes; raises DecodeError or Rejected."""
        value = expect_tuple(decode(data, bytes_max=GENESIS_BYTES_MAX), 8, "genesis")
        if value[0] != GENESIS_VERSION or type(value[0]) is not int:
            raise Rejected("version_unknown", f"genesis version {value[0]!r} is unknown; this node reads 1")
        state_file = None
        if value[7] is not None:
            digest, count, totals = expect_tuple(value[7], 3, "state file")
            state_file = StateFile(
                Hash(expect_bytes(digest, 32, "state file hash")),
                expect_int(count, "accounts"),
                _balances(totals, ASSETS_MAX),
            )
        parameters: dict[str, Any] = {}
        for item in expect_array(value[4], len(PARAMETER_NAMES), "parameters"):
            name, parameter = expect_tuple(item, 2, "parameter")
            parameters[expect_str(name, NAME_LENGTH_MAX, "parameter name")] = parameter
        genesis = cls(
            chain_id=expect_str(value[1], CHAIN_ID_LENGTH_MAX, "chain id"),
            time_ms=TimeMs(expect_int(value[2], "time")),
            validators=ValidatorSet.from_value(value[3]),
            parameters=ChainParameters.from_mapping(parameters),
            assets=tuple(_asset(item) for item in expect_array(value[5], ASSETS_MAX, "assets")),
            accounts=tuple(_account(item) for item in expect_array(value[6], ACCOUNTS_INLINE_MAX, "accounts")),
            state_file=state_file,
        )
        genesis.check()
        if genesis.encoded != data:
            raise DecodeError("the genesis document is not in its canonical form")
        return genesis

    def to_json(self) -> dict[str, JsonValue]:
        """Returns the document as people exchange it: hex keys, bech32m addresses, amounts as decimal strings."""
        state_file: JsonValue = None
        if self.state_file is not None:
            state_file = {
                "sha256": "0x" + self.state_file.sha256.hex(),
                "accounts": self.state_file.accounts,
                "balances": {code: str(amount) for code, amount in self.state_file.balances},
            }
        return {
            "version": GENESIS_VERSION,
            "chain_id": self.chain_id,
            "time_ms": self.time_ms,
            "validators": [
                {"name": v.name, "key": "0x" + v.key.hex(), "node_key": "0x" + v.node_key.hex()}
                for v in self.validators.validators
            ],
            "parameters": {name: getattr(self.parameters, name) for name in PARAMETER_NAMES},
            "assets": [
                {"code": a.code, "decimals": a.decimals, "issuer": to_text(a.issuer), "flags": a.flags}
                for a in self.assets
            ],
            "accounts": [
                {
                    "address": to_text(account.address),
                    "balances": {code: str(amount) for code, amount in account.balances},
                }
                for account in self.accounts
            ],
            "state_file": state_file,
        }

    @classmethod
    def from_json(cls, document: Any) -> Genesis:
        """Reads the JSON form, putting everything in its order; raises Rejected("genesis_invalid")."""
        try:
            return cls._from_json(document)
        except (KeyError, TypeError, ValueError, AttributeError, InvariantError) as error:
            # InvariantError: numbers and texts that JSON knows and the canonical encoding does not.
            what = f"{type(error).__name__}: {error}"
            raise Rejected("genesis_invalid", f"the genesis file lacks or misstates something ({what})") from None

    @classmethod
    def _from_json(cls, document: Any) -> Genesis:
        if document["version"] != GENESIS_VERSION:
            raise Rejected("version_unknown", f"genesis version {document['version']!r} is unknown; this node reads 1")
        state_file = None
        if document.get("state_file") is not None:
            entry = document["state_file"]
            digest = Hash(bytes.fromhex(entry["sha256"].removeprefix("0x")))
            state_file = StateFile(digest, int(entry["accounts"]), _json_balances(entry["balances"]))
        validators = [
            Validator(
                entry["name"],
                bytes.fromhex(entry["key"].removeprefix("0x")),
                bytes.fromhex(entry["node_key"].removeprefix("0x")),
            )
            for entry in document["validators"]
        ]
        assets = [
            GenesisAsset(entry["code"], entry["decimals"], from_text(entry["issuer"]), entry.get("flags", 0))
            for entry in document["assets"]
        ]
        accounts = [
            GenesisAccount(from_text(entry["address"]), _json_balances(entry["balances"]))
            for entry in document["accounts"]
        ]
        genesis = cls(
            chain_id=document["chain_id"],
            time_ms=TimeMs(document["time_ms"]),
            validators=ValidatorSet.of(validators),
            parameters=ChainParameters.from_mapping(document["parameters"]),
            assets=tuple(sorted(assets, key=lambda asset: asset.code)),
            accounts=tuple(sorted(accounts, key=lambda account: account.address)),
            state_file=state_file,
        )
        # The canonical decoder holds every rule of form: whatever JSON said must pass through it.
        return cls.decode(genesis.encoded)


def _json_balances(entry: Mapping[str, str]) -> tuple[tuple[AssetCode, Amount], ...]:
    if any(not (amount.isascii() and amount.isdecimal()) for amount in entry.values()):
        raise ValueError("amounts are decimal strings of base units")
    return tuple(sorted((AssetCode(code), Amount(int(amount))) for code, amount in entry.items()))


def _asset(value: Any) -> GenesisAsset:
    code, decimals, issuer, flags = expect_tuple(value, 4, "asset")
    return GenesisAsset(
        check_asset_code(expect_str(code, ASSET_CODE_LENGTH_MAX, "asset code")),
        expect_int(decimals, "decimals", limit=DECIMALS_MAX + 1),
        Address(expect_bytes(issuer, 32, "issuer")),
        expect_int(flags, "flags", limit=1 << 16),
    )


def _account(value: Any) -> GenesisAccount:
    address, balances = expect_tuple(value, 2, "account")
    return GenesisAccount(Address(expect_bytes(address, 32, "address")), _balances(balances, INLINE_BALANCES_MAX))
