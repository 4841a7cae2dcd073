"""Assets: what money there is. The record of one asset and what its flags mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from state.codec import decode, decode_amount, encode, encode_amount, expect_bytes, expect_int, expect_str, expect_tuple
from state.errors import Rejected
from state.genesis import check_asset_code
from state.limits import ASSET_CODE_LENGTH_MAX, DECIMALS_MAX
from state.types import Address, Amount, AssetCode

ASSET_VERSION: Final = 1
ASSET_BYTES_MAX: Final = 128

HOLDERS_MAY_BURN: Final = 1
"""Each holder may burn what it holds; without the flag only the issuer may burn."""

SUPPLY_FIXED: Final = 2
"""Nothing is ever minted after the asset was issued."""

FLAGS_KNOWN: Final = HOLDERS_MAY_BURN | SUPPLY_FIXED


def asset_key(code: str) -> bytes:
    """Returns the state key of an asset: ["asset", code]."""
    return encode(("asset", code))


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset: its code, how many decimals people see, who issues it, its flags, and how many base units exist."""

    code: AssetCode
    decimals: int
    issuer: Address
    flags: int
    supply: Amount

    def with_supply(self, supply: int) -> Asset:
        """Returns the asset with another supply."""
        return replace(self, supply=Amount(supply))

    def encode(self) -> bytes:
        """Returns the canonical record [version, code, decimals, issuer, flags, supply]."""
        supply = encode_amount(self.supply)
        return encode((ASSET_VERSION, self.code, self.decimals, self.issuer, self.flags, supply))

    @classmethod
    def decode(cls, data: bytes) -> Asset:
        """Reads a canonical record; raises DecodeError, naming an unknown version."""
        fields = expect_tuple(decode(data, bytes_max=ASSET_BYTES_MAX), 6, "asset")
        version, code, decimals, issuer, flags, supply = fields
        if type(version) is not int or version != ASSET_VERSION:
            raise Rejected("version_unknown", f"asset version {version!r} is unknown; known is {ASSET_VERSION}")
        return cls(
            check_asset_code(expect_str(code, ASSET_CODE_LENGTH_MAX, "asset code")),
            expect_int(decimals, "decimals", limit=DECIMALS_MAX + 1),
            Address(expect_bytes(issuer, 32, "issuer")),
            expect_int(flags, "flags", limit=FLAGS_KNOWN + 1),
            Amount(decode_amount(supply)),
        )
