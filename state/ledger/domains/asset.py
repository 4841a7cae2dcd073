"""Assets: issuing them, and creating and destroying their units. Their supply is conserved by every block."""

from __future__ import annotations

from collections.abc import Iterator

from state.codec import encode
from state.errors import InvariantError, Rejected
from state.genesis import Genesis
from state.ledger.asset import FLAGS_KNOWN, HOLDERS_MAY_BURN, SUPPLY_FIXED
from state.ledger.context import BlockView, Context
from state.ledger.fields import (
    ADDRESS,
    AMOUNT,
    AMOUNT_OR_ZERO,
    ASSET_CODE,
    OPTIONAL_ADDRESS,
    IntegerType,
    Values,
    record,
)
from state.ledger.overlay import StateReader, read_asset
from state.ledger.plugin import EventType, OperationType, Plugin, Query, Role, Rules
from state.limits import DECIMALS_MAX
from state.slices import Slices
from state.types import Address

NAMESPACE = "issuer"
"""Records ["issuer", address] -> 1: accounts that may issue assets where issuance is not open to all."""

_DECIMALS = IntegerType(DECIMALS_MAX + 1)
_FLAGS = IntegerType(FLAGS_KNOWN + 1)
_SLICE_ACCOUNTS = 512

_ISSUE = record(
    ("code", ASSET_CODE, "the new asset's code, which nobody has used"),
    ("decimals", _DECIMALS, "how many decimals people see"),
    ("flags", _FLAGS, "1: holders may burn; 2: the supply is fixed; 3: both"),
    ("supply", AMOUNT_OR_ZERO, "how much the issuer has of it at once, in base units"),
    ("issuer", OPTIONAL_ADDRESS, "the account that issues it, which must authorise; none: the sender"),
)
_MINT = record(
    ("asset", ASSET_CODE, "the asset"),
    ("to", ADDRESS, "the account to credit"),
    ("amount", AMOUNT, "how much to create, in base units"),
)
_BURN = record(
    ("source", OPTIONAL_ADDRESS, "the account to debit, which must authorise; none: the sender"),
    ("asset", ASSET_CODE, "the asset"),
    ("amount", AMOUNT, "how much to destroy, in base units"),
)


def _issue_authorisers(sender: Address, values: Values) -> tuple[Address, ...]:
    return (values[4] or sender,)


def _may_issue(context: Context, values: Values, address: Address) -> bool:
    """The issuer itself holds the role, where issuance is open or it is registered as an issuer."""
    if address != (values[4] or context.sender):
        return False
    return bool(context.parameter("open_issuance") or context.get(address))


def _issue(context: Context, values: Values) -> None:
    code, decimals, flags, supply, named = values
    issuer = named or context.sender
    if context.asset_exists(code):
        context.fail("asset_exists", f"there is an asset {code} already: choose another code")
    context.create_asset(code, decimals, issuer, flags)
    context.touch(issuer)
    context.emit("asset_issued", code, decimals, issuer, flags)
    if supply:
        context.mint(issuer, code, supply)


def _is_issuer(context: Context, values: Values, address: Address) -> bool:
    return context.asset(values[0]).issuer == address


def _mint(context: Context, values: Values) -> None:
    code, target, amount = values
    if context.asset(code).flags & SUPPLY_FIXED:
        context.fail("supply_fixed", f"the supply of {code} was fixed when it was issued")
    context.mint(target, code, amount)


def _may_burn(context: Context, values: Values, address: Address) -> bool:
    asset = context.asset(values[1])
    return bool(asset.flags & HOLDERS_MAY_BURN) or asset.issuer == address


def _burn_authorisers(sender: Address, values: Values) -> tuple[Address, ...]:
    return (values[0] or sender,)


def _burn(context: Context, values: Values) -> None:
    source, code, amount = values
    context.burn(source or context.sender, code, amount)


def _genesis(genesis: Genesis) -> Iterator[tuple[bytes, bytes]]:
    for issuer in sorted({asset.issuer for asset in genesis.assets}):
        yield encode((NAMESPACE, issuer)), encode(1)


def _supply_conserved(view: BlockView) -> Slices[None]:
    """What accounts gained in all must be what the supplies grew by, asset by asset."""
    gained: dict[str, int] = {}
    for count, (_, before, now) in enumerate(view.accounts(), 1):
        for code, (free, held) in (now.balances or {}).items():
            gained[code] = gained.get(code, 0) + free + held
        if before is not None:
            for code, (free, held) in (before.balances or {}).items():
                gained[code] = gained.get(code, 0) - free - held
        if count % _SLICE_ACCOUNTS == 0:
            yield
    for (_, code), (free, held), (free_now, held_now) in view.balances():
        gained[code] = gained.get(code, 0) + free_now + held_now - free - held
    for old, asset in view.assets():
        gained[asset.code] = gained.get(asset.code, 0) - asset.supply + (0 if old is None else old.supply)
    wrong = [code for code in sorted(gained) if gained[code]]
    if wrong:
        excess = ", ".join(f"{gained[code]} {code}" for code in wrong)
        raise InvariantError(f"block {view.height} does not conserve supply: accounts have too much by {excess}")
    yield


def _asset(reader: StateReader, values: Values) -> Values:
    asset = read_asset(reader, values[0])
    if asset is None:
        raise Rejected("not_found", f"there is no asset {values[0]}")
    return (asset.code, asset.decimals, asset.issuer, asset.flags, asset.supply)


PLUGIN = Plugin(
    name="asset",
    summary="assets and their supply",
    operations=(
        OperationType(
            "issue_asset",
            "make a new asset",
            {1: Rules(_ISSUE, _issue, authorisers=_issue_authorisers, role=Role("issuer", _may_issue))},
        ),
        OperationType(
            "mint",
            "create units of an asset; its issuer must authorise",
            {1: Rules(_MINT, _mint, authorisers=lambda sender, values: (), role=Role("issuer", _is_issuer))},
        ),
        OperationType(
            "burn",
            "destroy units of an asset; its issuer must authorise unless holders may burn",
            {1: Rules(_BURN, _burn, authorisers=_burn_authorisers, role=Role("issuer or holder", _may_burn))},
        ),
    ),
    queries=(
        Query(
            "get",
            "the record of an asset",
            record(("asset", ASSET_CODE, "its code")),
            record(
                ("code", ASSET_CODE, "its code"),
                ("decimals", _DECIMALS, "how many decimals people see"),
                ("issuer", ADDRESS, "the account that issues it"),
                ("flags", _FLAGS, "1: holders may burn; 2: the supply is fixed"),
                ("supply", AMOUNT_OR_ZERO, "how many base units exist"),
            ),
            _asset,
        ),
    ),
    events=(
        EventType(
            "asset_issued",
            "a new asset was made",
            record(
                ("code", ASSET_CODE, "its code"),
                ("decimals", _DECIMALS, "how many decimals people see"),
                ("issuer", ADDRESS, "the account that issues it"),
                ("flags", _FLAGS, "1: holders may burn; 2: the supply is fixed"),
            ),
        ),
    ),
    errors={
        "asset_exists": "an asset with this code exists already",
        "supply_fixed": "the asset's supply was fixed when it was issued",
    },
    namespace=NAMESPACE,
    genesis=_genesis,
    block_invariant=_supply_conserved,
)
