"""qenex_getAccount, qenex_getBalance, qenex_getAsset and qenex_getProof: the state, now or at a height."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import render, schemas
from qenex_node.rpc.errors import HEIGHT_AHEAD, HEIGHT_PRUNED, NOT_FOUND, RpcError
from qenex_node.rpc.methods.heights import AT_HEIGHT, check_state, state_at
from qenex_node.rpc.params import ADDRESS, ASSET, STATE_KEY
from qenex_node.rpc.registry import Call, Method, Param, Result
from state.address import to_text
from state.codec import encode
from state.errors import JsonValue
from state.limits import LANES_MAX
from state.types import Address

EXAMPLE_ADDRESS: Final = to_text(bytes(32))
HEIGHT_ERRORS: Final = (HEIGHT_AHEAD, HEIGHT_PRUNED)


def get_account(call: Call, address: bytes, height: int | None) -> JsonValue:
    """Answers qenex_getAccount."""
    node = call.node
    at, reader = state_at(call, height)
    record = node.ledger.read_account(reader, address)
    next_free = None
    if at == node.store.head.height:
        next_free = [node.mempool.next_free(Address(address), lane) for lane in range(LANES_MAX)]
    return {"height": at, **render.account(node.ledger, address, record, next_free)}


def get_balance(call: Call, address: bytes, asset: str, height: int | None) -> JsonValue:
    """Answers qenex_getBalance."""
    at, reader = state_at(call, height)
    balance = call.node.ledger.read_balance(reader, address, asset)
    return {"height": at, "address": to_text(address), "asset": asset, **render.balance(balance)}


def get_asset(call: Call, code: str, height: int | None) -> JsonValue:
    """Answers qenex_getAsset."""
    at, reader = state_at(call, height)
    asset = call.node.ledger.read_asset(reader, code)
    if asset is None:
        raise RpcError(NOT_FOUND, f"there is no asset {code} at height {at}", {"asset": code}, reason="asset_unknown")
    return {"height": at, **render.asset(asset)}


def get_proof(call: Call, key: bytes | tuple[bytes | str | int, ...], height: int | None) -> JsonValue:
    """Answers qenex_getProof."""
    store = call.node.store
    at = check_state(store, height)
    state_key = key if isinstance(key, bytes) else encode(key)
    value = store.get(state_key) if at == store.head.height else store.get_at(at, state_key)
    header = store.header_at(at)
    if header is None:
        raise RpcError(NOT_FOUND, f"the header of height {at} is not kept", reason="header_unknown")
    return {
        "height": at,
        "key": render.hexed(state_key),
        "value": None if value is None else render.hexed(value),
        "proof": store.prove(at, state_key).to_json(),
        "header": render.header(header),
        "certificate": render.certificate(store.certificate_at(at)),
    }


METHODS: Final = (
    Method(
        "qenex_getAccount",
        "An account: its lanes, policy and balances. One that was never used shows as it would begin.",
        params=(Param("address", ADDRESS, "the account"), AT_HEIGHT),
        result=Result(
            "account",
            schemas.ACCOUNT,
            "`lanes[i]` is the next sequence of lane i in the state; `next_free[i]` counts what waits in the "
            "mempool too (null for past heights). `balances` is null when the account holds more assets than fit into "
            "its record: ask qenex_getBalance for each.",
        ),
        errors=HEIGHT_ERRORS,
        example=(EXAMPLE_ADDRESS,),
        plain=get_account,
    ),
    Method(
        "qenex_getBalance",
        "What an account has of one asset.",
        params=(Param("address", ADDRESS, "the account"), Param("asset", ASSET, "the asset's code"), AT_HEIGHT),
        result=Result(
            "balance",
            schemas.fields(
                height=schemas.HEIGHT_SCHEMA,
                address=schemas.ADDRESS_SCHEMA,
                asset=schemas.TEXT,
                available=schemas.AMOUNT_SCHEMA,
                held=schemas.AMOUNT_SCHEMA,
            ),
            "Base units; `held` is the account's, but reserved by some domain.",
        ),
        errors=HEIGHT_ERRORS,
        example=(EXAMPLE_ADDRESS, "QNX"),
        plain=get_balance,
    ),
    Method(
        "qenex_getAsset",
        "An asset: decimals, issuer, flags, supply.",
        params=(Param("asset", ASSET, "the asset's code"), AT_HEIGHT),
        result=Result("asset", schemas.ASSET, "The supply is in base units."),
        errors=(NOT_FOUND, *HEIGHT_ERRORS),
        example=("QNX",),
        plain=get_asset,
    ),
    Method(
        "qenex_getProof",
        "What the state holds under a key, with everything needed to check it against a known validator set.",
        params=(
            Param(
                "key",
                STATE_KEY,
                'a state key: an array like ["account", "qx1..."], ["asset", "QNX"], ["balance", "qx1...", "QNX"], '
                '["parameter", "drift_ms"] or ["validators"], or its canonical encoding as 0x-hex',
            ),
            AT_HEIGHT,
        ),
        result=Result(
            "proof",
            schemas.PROOF,
            "`value` is null where the key is absent, which the proof then shows. Check the certificate's signatures, "
            "that it is for the header's hash, and that the proof leads from key and value to the header's state_root.",
        ),
        errors=HEIGHT_ERRORS,
        example=(["account", EXAMPLE_ADDRESS],),
        plain=get_proof,
    ),
)
