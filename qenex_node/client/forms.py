"""The JSON forms of chain values, read strictly: what does not fit is a `ProtocolError`, never a surprise later on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qenex_node.client.errors import ProtocolError
from qenex_node.client.light import LightBlock
from qenex_node.client.verify import Proven
from state.address import from_text
from state.codec import AMOUNT_LIMIT, encode
from state.errors import InvariantError, Rejected
from state.hashing import Hash
from state.keys import Policy
from state.ledger.fields import POLICY
from state.tree.proof import Proof
from state.types import Address, Certificate, Header, TxId, Validator, ValidatorSet

T = TypeVar("T")


def reading(what: str, read: Callable[[Any], T], value: Any) -> T:
    """Returns `read(value)`; whatever is missing or wrong in it becomes a ProtocolError that names `what`."""
    try:
        return read(value)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, Rejected, InvariantError) as error:
        raise ProtocolError(f"the node's {what} cannot be read: {type(error).__name__}: {error}") from None


def hexed(data: bytes) -> str:
    """Returns 0x-hex."""
    return "0x" + data.hex()


def unhexed(text: Any) -> bytes:
    """Returns the bytes of 0x-hex."""
    if type(text) is not str or not text.startswith("0x"):
        raise ValueError("bytes are written as 0x-hex")
    data = bytes.fromhex(text[2:])
    if len(text) != 2 + 2 * len(data):
        raise ValueError("bytes are written as 0x-hex, without blanks")
    return data


def hash_of(text: Any) -> Hash:
    """Returns a hash of 32 bytes."""
    data = unhexed(text)
    if len(data) != 32:
        raise ValueError("a hash has 32 bytes")
    return Hash(data)


def id_of(text: Any) -> TxId:
    """Returns a transaction's id."""
    return TxId(hash_of(text))


def amount_of(text: Any) -> int:
    """Returns an amount in base units."""
    if type(text) is not str or not text.isascii() or not text.isdecimal() or len(text) > 39:
        raise ValueError("an amount is a decimal string")
    amount = int(text)
    if amount >= AMOUNT_LIMIT:
        raise ValueError("an amount is below 2**128")
    return amount


def integer(value: Any) -> int:
    """Returns a whole number that is not negative."""
    if type(value) is not int or value < 0:
        raise ValueError("expected a whole number")
    return value


def text(value: Any) -> str:
    """Returns text."""
    if type(value) is not str:
        raise TypeError("expected text")
    return value


def address(value: Any) -> Address:
    """Returns an address from bech32m text."""
    return from_text(text(value))


def policy(value: Any) -> Policy | None:
    """Returns a policy, None for null."""
    return None if value is None else POLICY.from_json(value, "policy")


def header(value: Any) -> Header:
    """Returns a header; its `hash` field is not believed but made anew from the others."""
    return Header.from_value(
        (
            value["version"],
            value["chain_id"],
            value["height"],
            value["time_ms"],
            hash_of(value["parent_hash"]),
            hash_of(value["tx_root"]),
            hash_of(value["receipts_root"]),
            hash_of(value["state_root"]),
            hash_of(value["validators_hash"]),
            hash_of(value["next_validators_hash"]),
            hash_of(value["proposer"]),
            hash_of(value["evidence_hash"]),
            value["units_used"],
        )
    )


def certificate(value: Any) -> Certificate | None:
    """Returns a certificate, None for null."""
    if value is None:
        return None
    signatures = tuple((entry["validator"], unhexed(entry["signature"])) for entry in value["signatures"])
    read = (value["kind"], value["height"], value["view"], hash_of(value["block_hash"]), signatures)
    return Certificate.from_value(read)


def validators(value: Any) -> ValidatorSet:
    """Returns a validator set in the order that was given."""
    return ValidatorSet(
        tuple(
            Validator.from_value((member["name"], unhexed(member["key"]), unhexed(member["node_key"])))
            for member in value["validators"]
        )
    )


def light_block(value: Any) -> LightBlock:
    """Returns a light block."""
    signed = certificate(value["certificate"])
    if signed is None:
        raise ValueError("a light block has a certificate")
    return LightBlock(header(value["header"]), signed, validators(value["validators"]))


def proven(value: Any) -> Proven:
    """Returns a value with its proof, header and certificate."""
    return Proven(
        None if value["value"] is None else unhexed(value["value"]),
        Proof.from_json(value["proof"]),
        header(value["header"]),
        certificate(value["certificate"]),
    )


def state_key(parts: tuple[Any, ...]) -> bytes:
    """Returns the state key of its parts, like ("account", address)."""
    return encode(parts)
