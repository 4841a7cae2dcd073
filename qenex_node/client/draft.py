"""A transaction that is still being signed: a file that several people hand on, each adding signatures offline.

    draft = Draft.make(context, body, {account: slot ...})
    draft = draft.signed_by(key)        # each signer, on a machine without network
    draft = draft.merged(other)         # or side by side, put together at the end
    wire = draft.wire()                 # once enough have signed

The file holds everything that is signed, so a signer reads what it does before signing; nobody can change the body
without losing all signatures, because they are checked whenever the file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from qenex_node.client.signing import short
from state.address import from_text, to_text
from state.codec import decode, encode
from state.errors import DecodeError, JsonValue, Rejected
from state.hashing import Hash
from state.keys import SCHEMES, Policy, PublicKey, SigningKey, scheme_named, verify_signature
from state.ledger.fields import POLICY, bytes_from_hex
from state.limits import TRANSACTION_BYTES_MAX
from state.transaction import (
    Authorisation,
    Transaction,
    assemble,
    decode_transaction,
    signing_bytes,
    transaction_id,
)
from state.types import Address, ChainContext, TxId

FORMAT: Final = "qenex-transaction"
VERSION: Final = 1


@dataclass(frozen=True)
class Slot:
    """The signatures of one account: by `policy`, or by the one key whose hash is the address if it is None.

    `stored` tells that the chain has the policy, so that it need not travel.
    """

    address: Address
    policy: Policy | None = None
    stored: bool = False
    signatures: tuple[tuple[PublicKey, bytes], ...] = ()

    def admits(self, key: PublicKey) -> bool:
        """Returns whether a signature of this key counts for the account."""
        if self.policy is not None:
            return key in self.policy.keys
        return Policy.single(key).address == self.address

    @property
    def missing(self) -> int:
        """How many signatures are still needed."""
        threshold = 1 if self.policy is None else self.policy.threshold
        return max(0, threshold - len(self.signatures))

    def with_signature(self, key: PublicKey, signature: bytes) -> Slot:
        """Returns the slot with one more signature; a second one of the same key changes nothing."""
        if any(held == key for held, _ in self.signatures):
            return self
        return replace(self, signatures=(*self.signatures, (key, signature)))


@dataclass(frozen=True)
class Draft:
    """A transaction's body for one chain, and the accounts that must authorise it."""

    context: ChainContext
    body: tuple[Any, ...]
    slots: tuple[Slot, ...]

    @classmethod
    def make(cls, context: ChainContext, body: tuple[Any, ...], slots: Iterable[Slot]) -> Draft:
        """Returns the unsigned draft; slots are put in order of address, each account once."""
        by_address = {slot.address: slot for slot in slots}
        return cls(context, body, tuple(by_address[address] for address in sorted(by_address)))

    @property
    def signing_bytes(self) -> bytes:
        """What each key signs."""
        return signing_bytes(self.context, self.body)

    @property
    def id(self) -> TxId:
        """The transaction's id, which no signature changes."""
        return transaction_id(self.signing_bytes)

    @property
    def missing(self) -> tuple[tuple[Address, int], ...]:
        """The accounts that need more signatures, with how many."""
        return tuple((slot.address, slot.missing) for slot in self.slots if slot.missing)

    def signed_by(self, key: SigningKey) -> Draft:
        """Returns the draft with this key's signature wherever it counts.

        Raises Rejected("key_not_needed") if no account of the draft counts it.
        """
        if not any(slot.admits(key.public) for slot in self.slots):
            raise Rejected("key_not_needed", f"key {short(key.public)} may act for none of this transaction's accounts")
        signature = key.sign(self.signing_bytes)
        slots = (slot.with_signature(key.public, signature) if slot.admits(key.public) else slot for slot in self.slots)
        return replace(self, slots=tuple(slots))

    def merged(self, other: Draft) -> Draft:
        """Returns the draft with the signatures of both; raises Rejected("draft_differs") for another transaction."""
        if other.id != self.id or other.context != self.context:
            raise Rejected("draft_differs", "the two files are of different transactions")
        mine = {slot.address: slot for slot in self.slots}
        for slot in other.slots:
            held = mine.get(slot.address)
            if held is None or held.policy != slot.policy or held.stored != slot.stored:
                raise Rejected("draft_differs", f"the two files disagree about {to_text(slot.address)}")
            for key, signature in slot.signatures:
                held = held.with_signature(key, signature)
            mine[slot.address] = held
        return replace(self, slots=tuple(mine[slot.address] for slot in self.slots))

    def wire(self) -> bytes:
        """Returns the signed transaction; raises Rejected("signatures_missing") naming the accounts that lack some."""
        if self.missing:
            lacking = ", ".join(f"{count} for {to_text(address)}" for address, count in self.missing)
            raise Rejected("signatures_missing", f"signatures are missing: {lacking}")
        return self._assembled()

    def unsigned(self) -> bytes:
        """Returns the wire form without authorisations, as `qenex_simulate` takes it."""
        return encode((self.body, ()))

    def _assembled(self) -> bytes:
        return assemble(
            self.body,
            [
                Authorisation(slot.address, None if slot.stored else _travelling(slot), slot.signatures)
                for slot in self.slots
            ],
        )

    def transaction(self) -> Transaction:
        """Returns the signed transaction, decoded; raises Rejected as `wire` does."""
        return decode_transaction(self.wire(), self.context)

    def to_json(self) -> dict[str, JsonValue]:
        """Returns the form in which drafts are handed on."""
        slots: list[JsonValue] = []
        for slot in self.slots:
            signatures: list[JsonValue] = [
                {"scheme": SCHEMES[key.scheme].name, "key": "0x" + key.data.hex(), "signature": "0x" + signature.hex()}
                for key, signature in slot.signatures
            ]
            policy = None if slot.policy is None else POLICY.to_json(slot.policy)
            address = to_text(slot.address)
            slots.append({"address": address, "policy": policy, "stored": slot.stored, "signatures": signatures})
        return {
            "format": FORMAT,
            "version": VERSION,
            "chain_id": self.context.chain_id,
            "genesis_hash": "0x" + self.context.genesis_hash.hex(),
            "id": "0x" + self.id.hex(),
            "body": "0x" + encode(self.body).hex(),
            "authorisations": slots,
        }

    @classmethod
    def from_json(cls, document: Any) -> Draft:
        """Reads a draft and proves its signatures; raises Rejected("draft_invalid")."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise Rejected("draft_invalid", f"this is not a {FORMAT} file")
        if document.get("version") != VERSION:
            raise Rejected("version_unknown", f"draft version {document.get('version')!r} is unknown; known: {VERSION}")
        try:
            draft = _read(cls, document)
        except (KeyError, TypeError, AttributeError, DecodeError) as error:
            raise Rejected("draft_invalid", f"the transaction file lacks or misstates something: {error}") from None
        message = draft.signing_bytes
        for slot in draft.slots:
            for key, signature in slot.signatures:
                if not slot.admits(key) or not verify_signature(key, message, signature):
                    raise Rejected("draft_invalid", f"the signature of key {short(key)} is not for this transaction")
        return draft


def _travelling(slot: Slot) -> Policy | None:
    """A single key need not be spelt out; every other policy of birth must be."""
    policy = slot.policy
    return None if policy is None or len(policy.keys) == 1 else policy


def _read(cls: type[Draft], document: Mapping[str, Any]) -> Draft:
    context = ChainContext(str(document["chain_id"]), Hash(bytes_from_hex(document["genesis_hash"], "genesis_hash")))
    body = decode(bytes_from_hex(document["body"], "body"), bytes_max=TRANSACTION_BYTES_MAX)
    if type(body) is not tuple or len(body) != 9 or body[1] != context.chain_id:
        raise DecodeError("the body is not one of this chain")
    slots = []
    for entry in document["authorisations"]:
        signatures = tuple(
            (
                PublicKey.from_value((scheme_named(item["scheme"]).number, bytes_from_hex(item["key"], "key"))),
                bytes_from_hex(item["signature"], "signature"),
            )
            for item in entry["signatures"]
        )
        policy = None if entry["policy"] is None else POLICY.from_json(entry["policy"], "policy")
        slots.append(Slot(from_text(entry["address"]), policy, entry["stored"] is True, signatures))
    return cls.make(context, body, slots)
