"""A validator's public card: name, keys and address, signed with both keys as proof that their owner made it.

Institutions make their keys at home and send each other cards. The card is refused where a proof does not match, so
that nobody can enter a key into genesis that is not theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from state.codec import encode
from state.errors import JsonValue, Rejected
from state.hashing import TAG_POSSESSION
from state.keys import ED25519, SigningKey, verify_ed25519
from state.types import Validator

FORMAT: Final = "qenex-validator-card"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Card:
    """A validator's card; `p2p` is the host:port at which peers reach it, "" if it is told otherwise."""

    validator: Validator
    p2p: str
    proof: bytes
    node_proof: bytes

    def to_json(self) -> dict[str, JsonValue]:
        """Returns the form in which cards are exchanged."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.validator.name,
            "key": "0x" + self.validator.key.hex(),
            "node_key": "0x" + self.validator.node_key.hex(),
            "p2p": self.p2p,
            "proof": "0x" + self.proof.hex(),
            "node_proof": "0x" + self.node_proof.hex(),
        }

    @classmethod
    def from_json(cls, document: Any) -> Card:
        """Reads a card and proves it; raises Rejected("card_invalid") or Rejected("version_unknown")."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise Rejected("card_invalid", f"this is not a {FORMAT} document")
        if document.get("version") != VERSION:
            raise Rejected("version_unknown", f"card version {document.get('version')!r} is unknown; known: {VERSION}")
        name, p2p = document.get("name"), document.get("p2p", "")
        if not isinstance(name, str) or not isinstance(p2p, str):
            raise Rejected("card_invalid", "a card's name and p2p are texts")
        card = cls(
            Validator(name, _hex(document, "key", 32), _hex(document, "node_key", 32)),
            p2p,
            _hex(document, "proof", 64),
            _hex(document, "node_proof", 64),
        )
        card.verify()
        return card

    def verify(self) -> None:
        """Raises Rejected("card_invalid") unless both keys signed this very card."""
        message = _preimage(self.validator, self.p2p)
        for key, proof, what in (
            (self.validator.key, self.proof, "validator key"),
            (self.validator.node_key, self.node_proof, "node key"),
        ):
            if not verify_ed25519(key, message, proof):
                name = self.validator.name
                raise Rejected("card_invalid", f"the card of {name} is not signed by its {what}: ask for it again")


def make_card(name: str, validator_key: SigningKey, node_key: SigningKey, p2p: str) -> Card:
    """Returns the signed card of a validator; both keys are Ed25519."""
    if validator_key.scheme != ED25519 or node_key.scheme != ED25519:
        raise Rejected("scheme_unknown", "validator and node keys are of scheme ed25519")
    validator = Validator(name, validator_key.public.data, node_key.public.data)
    message = _preimage(validator, p2p)
    return Card(validator, p2p, validator_key.sign(message), node_key.sign(message))


def _preimage(validator: Validator, p2p: str) -> bytes:
    return TAG_POSSESSION + encode((FORMAT, VERSION, validator.name, validator.key, validator.node_key, p2p))


def _hex(document: dict[str, Any], name: str, size: int) -> bytes:
    text = document.get(name)
    try:
        if not isinstance(text, str):
            raise ValueError
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Rejected("card_invalid", f"a card's {name} is 0x-hex") from None
    if len(data) != size:
        raise Rejected("card_invalid", f"a card's {name} has {size} bytes, not {len(data)}")
    return data
