"""Transactions: their canonical form, ids, signatures and the checks that need no state.

A transaction is [body, authorisations]. Its id is the hash of what is signed (nobody can change it); its wire hash
covers the signatures too. Whether the keys that signed may act for an account is decided at execution, not here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from state.codec import (
    decode,
    decode_amount,
    encode,
    encode_amount,
    expect_array,
    expect_blob,
    expect_bytes,
    expect_int,
    expect_str,
    expect_tuple,
)
from state.errors import DecodeError, Rejected
from state.hashing import TAG_TRANSACTION, TAG_WIRE, tagged
from state.keys import SCHEMES, Policy, PublicKey, SigningKey, verify_signature
from state.limits import (
    CHAIN_ID_LENGTH_MAX,
    LANES_MAX,
    MEMO_BYTES_MAX,
    NAME_LENGTH_MAX,
    OPERATIONS_MAX,
    RECIPIENTS_MAX,
    SIGNATURES_MAX,
    TRANSACTION_BYTES_MAX,
)
from state.types import Address, Amount, ChainContext, TimeMs, TxId, WireHash

TRANSACTION_VERSION: Final = 1
_ITEMS_MAX: Final = max(OPERATIONS_MAX, RECIPIENTS_MAX)
"""The longest array in a transaction."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it travels: kind, version of that kind's rules, and fields as the plug-in orders them."""

    kind: str
    version: int
    fields: tuple[Any, ...]

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array [kind, version, fields]."""
        return (self.kind, self.version, self.fields)


@dataclass(frozen=True, slots=True)
class Authorisation:
    """Signatures for one account; `policy` travels while the account's own is not stored.

    None stands for the stored policy or, where none is stored and one key signed, for that single key.
    """

    address: Address
    policy: Policy | None
    signatures: tuple[tuple[PublicKey, bytes], ...]

    def to_value(self) -> tuple[Any, ...]:
        """Returns [address, policy or nil, [[key, signature] ...]]."""
        policy = None if self.policy is None else self.policy.to_value()
        return (
            self.address,
            policy,
            tuple((key.to_value(), signature) for key, signature in self.signatures),
        )


@dataclass(slots=True, eq=False)
class Transaction:
    """A decoded transaction. Treated as immutable; not frozen only because that doubles the cost of making one.

    `not_after_ms` is compared with block time. `fee_max` is in base units of the native asset. `wire` is the whole
    canonical encoding. `parsed` is the ledger's cache of typed operations.
    """

    chain_id: str
    sender: Address
    lane: int
    sequence: int
    not_after_ms: TimeMs
    payer: Address | None
    fee_max: Amount
    operations: tuple[Operation, ...]
    memo: bytes
    authorisations: tuple[Authorisation, ...]
    wire: bytes
    wire_hash: WireHash
    id: TxId
    signing_bytes: bytes
    parsed: Any = None

    @property
    def signature_count(self) -> int:
        """How many signatures it carries."""
        return sum(len(authorisation.signatures) for authorisation in self.authorisations)

    def authorisation_of(self, address: bytes) -> Authorisation | None:
        """Returns the authorisation given for `address`, or None."""
        for authorisation in self.authorisations:
            if authorisation.address == address:
                return authorisation
        return None


def wire_hash_of(wire: bytes) -> WireHash:
    """Returns the hash of a whole encoded transaction."""
    return WireHash(tagged(TAG_WIRE, wire))


def body_value(
    context: ChainContext,
    sender: Address,
    lane: int,
    sequence: int,
    not_after_ms: int,
    operations: Iterable[Operation],
    *,
    payer: Address | None = None,
    fee_max: int = 0,
    memo: bytes = b"",
) -> tuple[Any, ...]:
    """Returns the canonical array of a transaction's body."""
    return (
        TRANSACTION_VERSION,
        context.chain_id,
        sender,
        (lane, sequence),
        not_after_ms,
        payer,
        encode_amount(fee_max),
        tuple(operation.to_value() for operation in operations),
        memo,
    )


def signing_bytes(context: ChainContext, body: tuple[Any, ...]) -> bytes:
    """Returns what each signature signs: tag | genesis hash | encoded body."""
    return TAG_TRANSACTION + context.genesis_hash + encode(body)


def assemble(body: tuple[Any, ...], authorisations: Iterable[Authorisation]) -> bytes:
    """Returns the wire bytes of a body with its authorisations, put in order of address and key."""
    ordered = sorted(authorisations, key=lambda authorisation: authorisation.address)
    values = [
        Authorisation(a.address, a.policy, tuple(sorted(a.signatures, key=lambda pair: pair[0]))).to_value()
        for a in ordered
    ]
    return encode((body, tuple(values)))


def sign_transaction(
    context: ChainContext,
    body: tuple[Any, ...],
    signers: Mapping[Address, Iterable[SigningKey]],
    policies: Mapping[Address, Policy] | None = None,
) -> bytes:
    """Returns the wire bytes of `body` signed for each address by its keys.

    `policies` holds the policies that must travel: those of accounts with more than one key whose policy is not stored.
    """
    message = signing_bytes(context, body)
    travelling = policies or {}
    return assemble(
        body,
        [
            Authorisation(address, travelling.get(address), tuple((key.public, key.sign(message)) for key in keys))
            for address, keys in signers.items()
        ],
    )


def decode_transaction(wire: bytes, context: ChainContext) -> Transaction:
    """Reads a transaction's wire bytes and checks everything that needs neither state nor signatures.

    Raises DecodeError for what is not the canonical form, Rejected("wrong_chain") for another chain's transaction,
    Rejected("scheme_unknown") for a key of an unregistered scheme.
    """
    tx = _decode(wire, context)
    _check_authorised(tx)
    return tx


def decode_for_simulation(wire: bytes, context: ChainContext) -> Transaction:
    """Reads a transaction that may also be unsigned, [body, []]; raises as `decode_transaction` does."""
    tx = _decode(wire, context)
    if tx.authorisations:
        _check_authorised(tx)
    return tx


def _check_authorised(tx: Transaction) -> None:
    if tx.authorisation_of(tx.sender) is None:
        raise Rejected("not_authorised", "the sender's authorisation is missing")
    if tx.payer is not None and tx.authorisation_of(tx.payer) is None:
        raise Rejected("not_authorised", "the payer's authorisation is missing")


def _decode(wire: bytes, context: ChainContext) -> Transaction:
    if len(wire) > TRANSACTION_BYTES_MAX:
        raise Rejected(
            "transaction_too_large",
            f"a transaction has at most {TRANSACTION_BYTES_MAX} bytes, this one {len(wire)}",
        )
    body, authorisations = expect_tuple(
        decode(wire, bytes_max=TRANSACTION_BYTES_MAX, items_max=_ITEMS_MAX), 2, "transaction"
    )
    version, chain_id, sender, place, not_after, payer, fee_max, operations, memo = expect_tuple(body, 9, "body")
    if version != TRANSACTION_VERSION or type(version) is not int:
        raise Rejected(
            "version_unknown",
            f"transaction version {version!r} is unknown; this node reads {TRANSACTION_VERSION}",
        )
    if chain_id != context.chain_id:
        expect_str(chain_id, CHAIN_ID_LENGTH_MAX, "chain id")
        raise Rejected("wrong_chain", f"the transaction is for chain {chain_id!r}, this is {context.chain_id!r}")
    lane, sequence = expect_tuple(place, 2, "lane and sequence")
    message = signing_bytes(context, body)
    items = expect_array(operations, OPERATIONS_MAX, "operations")
    if not items:
        raise DecodeError("a transaction has at least one operation")
    return Transaction(
        chain_id=chain_id,
        sender=Address(expect_bytes(sender, 32, "sender")),
        lane=expect_int(lane, "lane", limit=LANES_MAX),
        sequence=expect_int(sequence, "sequence", limit=(1 << 64) - 1),
        not_after_ms=TimeMs(expect_int(not_after, "not-after")),
        payer=None if payer is None else Address(expect_bytes(payer, 32, "payer")),
        fee_max=Amount(decode_amount(fee_max)),
        operations=tuple(_operation(item) for item in items),
        memo=expect_blob(memo, MEMO_BYTES_MAX, "memo"),
        authorisations=_authorisations(authorisations),
        wire=wire,
        wire_hash=wire_hash_of(wire),
        id=transaction_id(message),
        signing_bytes=message,
    )


def transaction_id(message: bytes) -> TxId:
    """Returns the id for the bytes that are signed: their SHA-256 (they begin with the transaction tag)."""
    return TxId(tagged(message))


def _operation(value: Any) -> Operation:
    kind, version, fields = expect_tuple(value, 3, "operation")
    if type(fields) is not tuple:
        raise DecodeError("an operation's fields are an array")
    return Operation(
        expect_str(kind, NAME_LENGTH_MAX, "operation kind"), expect_int(version, "operation version"), fields
    )


def _authorisations(value: Any) -> tuple[Authorisation, ...]:
    result: list[Authorisation] = []
    signatures_left = SIGNATURES_MAX
    for item in expect_array(value, SIGNATURES_MAX, "authorisations"):
        address, policy, pairs = expect_tuple(item, 3, "authorisation")
        expect_bytes(address, 32, "authorisation address")
        if result and result[-1].address >= address:
            raise DecodeError("authorisations must be in order of address, each once")
        signatures = tuple(_signature(pair) for pair in expect_array(pairs, signatures_left, "signatures"))
        if not signatures:
            raise DecodeError("an authorisation has at least one signature")
        if len(signatures) > 1 and any(a[0] >= b[0] for a, b in itertools.pairwise(signatures)):
            raise DecodeError("signatures must be in order of key, each once")
        signatures_left -= len(signatures)
        travelling = None if policy is None else Policy.from_value(policy)
        result.append(Authorisation(address, travelling, signatures))
    return tuple(result)


def _signature(value: Any) -> tuple[PublicKey, bytes]:
    key_value, signature = expect_tuple(value, 2, "key and signature")
    key = PublicKey.from_value(key_value)
    return key, expect_bytes(signature, SCHEMES[key.scheme].signature_bytes, "signature")


def verify_signatures(tx: Transaction) -> None:
    """Proves every signature that it carries; raises Rejected("bad_signature") naming the first bad one."""
    message = tx.signing_bytes
    for authorisation in tx.authorisations:
        for key, signature in authorisation.signatures:
            if not verify_signature(key, message, signature):
                raise Rejected(
                    "bad_signature",
                    f"the signature of key {key.data[:8].hex()}... does not match: wrong key, chain or content",
                )
