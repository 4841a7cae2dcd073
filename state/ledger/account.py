"""Accounts: the record that stands in one leaf of the state, and the leaves of balances that outgrew it.

An account that was never touched has no record, and one that holds nothing, acted never and has no stored policy has
none either. Objects of this module are shared by caches: whoever changes one changes a copy (state/ledger/overlay.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Any, Final

from state.codec import (
    decode,
    decode_amount,
    encode,
    encode_amount,
    expect_array,
    expect_blob,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, InvariantError, Rejected
from state.keys import Policy
from state.limits import (
    ASSET_CODE_LENGTH_MAX,
    EXTENSION_BYTES_MAX,
    EXTENSIONS_MAX,
    INLINE_BALANCES_MAX,
    LANES_MAX,
    NAME_LENGTH_MAX,
)

ACCOUNT_VERSION: Final = 1
BALANCE_VERSION: Final = 1
ACCOUNT_BYTES_MAX: Final = 128 * 1024
BALANCE_BYTES_MAX: Final = 64

Balance = tuple[int, int]
"""(available, held), in base units."""

NO_BALANCE: Final[Balance] = (0, 0)

_ACCOUNT_KEY: Final = encode(("account", bytes(32)))[:-32]
_BALANCE_KEY: Final = b"\x93" + encode("balance") + encode(bytes(32))[:-32]


def account_key(address: bytes) -> bytes:
    """Returns the state key of an account: ["account", address]."""
    return _ACCOUNT_KEY + address


def balance_key(address: bytes, code: str) -> bytes:
    """Returns the state key of a balance in a leaf of its own: ["balance", address, asset]."""
    return _BALANCE_KEY + address + encode(code)


class Account:
    """One account, decoded.

    `lanes[i]` is the next sequence number of lane i, without trailing zeros. `policy` is None while it is the one that
    the address is the hash of. `balances` maps asset to (available, held), never both zero; None says that the
    balances stand in leaves of their own. `extensions` are (plug-in tag, bytes), sorted by tag.
    """

    __slots__ = ("balances", "extensions", "lanes", "policy")

    def __init__(
        self,
        lanes: tuple[int, ...] = (),
        policy: Policy | None = None,
        balances: dict[str, Balance] | None = None,
        extensions: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        self.lanes = lanes
        self.policy = policy
        self.balances = balances
        self.extensions = extensions

    @classmethod
    def holding(cls, amounts: Mapping[str, int]) -> Account:
        """Returns an account that never acted and has these amounts (asset -> base units, at most 32) available."""
        if len(amounts) > INLINE_BALANCES_MAX:
            raise InvariantError(f"{len(amounts)} balances do not fit into one record")
        return cls(balances={code: (amount, 0) for code, amount in amounts.items() if amount})

    def copy(self) -> Account:
        """Returns an equal account that may be changed."""
        balances = self.balances
        return Account(self.lanes, self.policy, None if balances is None else balances.copy(), self.extensions)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Account)
            and self.lanes == other.lanes
            and self.balances == other.balances
            and self.policy == other.policy
            and self.extensions == other.extensions
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Account(lanes={self.lanes}, policy={self.policy}, balances={self.balances}, ext={self.extensions})"

    def sequence(self, lane: int) -> int:
        """Returns the next sequence number of a lane."""
        lanes = self.lanes
        return lanes[lane] if lane < len(lanes) else 0

    def advance(self, lane: int) -> None:
        """Consumes the next sequence number of a lane."""
        lanes = self.lanes
        if len(lanes) == 1 and lane == 0:
            self.lanes = (lanes[0] + 1,)
        else:
            lanes += (0,) * (lane + 1 - len(lanes))
            self.lanes = (*lanes[:lane], lanes[lane] + 1, *lanes[lane + 1 :])

    def is_empty(self) -> bool:
        """Whether there is nothing to keep: such an account has no record."""
        return not (self.lanes or self.policy or self.extensions) and self.balances is not None and not self.balances

    def encode(self) -> bytes:
        """Returns the canonical record [version, lanes, policy or nil, balances or nil, extensions]."""
        balances = self.balances
        policy = self.policy
        entries: tuple[Any, ...] | None = None
        if balances is not None:
            items = balances.items() if len(balances) < 2 else sorted(balances.items())
            entries = tuple([(code, encode_amount(free), encode_amount(held)) for code, (free, held) in items])
        return encode(
            (ACCOUNT_VERSION, self.lanes, None if policy is None else policy.to_value(), entries, self.extensions)
        )

    @classmethod
    def decode(cls, data: bytes) -> Account:
        """Reads a canonical record; raises DecodeError, naming an unknown version."""
        value = decode(data, bytes_max=ACCOUNT_BYTES_MAX)
        version, lanes, policy, balances, extensions = expect_tuple(value, 5, "account")
        if type(version) is not int or version != ACCOUNT_VERSION:
            raise Rejected("version_unknown", f"account version {version!r} is unknown; known is {ACCOUNT_VERSION}")
        for sequence in expect_array(lanes, LANES_MAX, "lanes"):
            expect_int(sequence, "sequence")
        if lanes and lanes[-1] == 0:
            raise DecodeError("lanes end with one that was used")
        account = cls(
            lanes,
            None if policy is None else Policy.from_value(policy),
            None if balances is None else _inline_balances(balances),
            _extensions(extensions),
        )
        if account.is_empty():
            raise DecodeError("an empty account has no record")
        return account


def _inline_balances(value: Any) -> dict[str, Balance]:
    balances: dict[str, Balance] = {}
    last = ""
    for item in expect_array(value, INLINE_BALANCES_MAX, "balances"):
        code, free, held = expect_tuple(item, 3, "balance")
        if expect_str(code, ASSET_CODE_LENGTH_MAX, "asset") <= last:
            raise DecodeError("balances must be in order of asset, each once")
        last = code
        balance = (decode_amount(free), decode_amount(held))
        if balance == NO_BALANCE:
            raise DecodeError("a balance of nothing is left out")
        balances[intern(code)] = balance
    return balances


def _extensions(value: Any) -> tuple[tuple[str, bytes], ...]:
    last = ""
    for item in expect_array(value, EXTENSIONS_MAX, "extensions"):
        tag, data = expect_tuple(item, 2, "extension")
        if expect_str(tag, NAME_LENGTH_MAX, "extension tag") <= last:
            raise DecodeError("extensions must be in order of tag, each once")
        last = tag
        expect_blob(data, EXTENSION_BYTES_MAX, "extension")
    return value  # type: ignore[no-any-return]


def encode_balance(balance: Balance) -> bytes:
    """Returns the record of a balance in a leaf of its own: [version, available, held]."""
    return encode((BALANCE_VERSION, encode_amount(balance[0]), encode_amount(balance[1])))


def decode_balance(data: bytes) -> Balance:
    """Reads the record of a balance in a leaf of its own; raises DecodeError."""
    version, free, held = expect_tuple(decode(data, bytes_max=BALANCE_BYTES_MAX), 3, "balance")
    if type(version) is not int or version != BALANCE_VERSION:
        raise Rejected("version_unknown", f"balance version {version!r} is unknown; known is {BALANCE_VERSION}")
    balance = (decode_amount(free), decode_amount(held))
    if balance == NO_BALANCE:
        raise DecodeError("a balance of nothing has no record")
    return balance
