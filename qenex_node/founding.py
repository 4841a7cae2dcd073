"""A genesis document together with the cards of its validators: what institutions pass around before the start.

The cards stand beside the document proper, outside its hash, so that whoever gets the file can prove that each
validator's keys were entered by their owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qenex_node.cards import Card
from qenex_node.homes import GENESIS_FILE_BYTES_MAX
from qenex_node.jsonfiles import read_json, write_json
from state.errors import DecodeError, JsonValue, Rejected
from state.genesis import Genesis
from state.types import ValidatorSet


@dataclass(frozen=True, slots=True)
class Founding:
    """A checked document and one proved card for each of its validators, in their order."""

    genesis: Genesis
    cards: tuple[Card, ...]

    @classmethod
    def of(cls, genesis: Genesis, cards: Iterable[Card]) -> Founding:
        """Returns both if they fit; raises Rejected("genesis_invalid") or Rejected("card_invalid")."""
        checked = Genesis.from_json(genesis.to_json())
        by_name = {card.validator.name: card for card in cards}
        ordered: list[Card] = []
        for validator in checked.validators.validators:
            card = by_name.pop(validator.name, None)
            if card is None or card.validator != validator:
                raise Rejected("card_invalid", f"validator {validator.name} has no card with its keys: ask for it")
            card.verify()
            ordered.append(card)
        if by_name:
            raise Rejected("card_invalid", f"no validator belongs to the card of {min(by_name)}")
        return cls(checked, tuple(ordered))

    def with_card(self, card: Card) -> Founding:
        """Returns this with one more validator; raises Rejected if its name or a key is taken."""
        if any(validator.name == card.validator.name for validator in self.genesis.validators.validators):
            raise Rejected("genesis_invalid", f"a validator named {card.validator.name} is in the document already")
        try:
            members = ValidatorSet.of([*self.genesis.validators.validators, card.validator])
        except DecodeError as error:
            raise Rejected("genesis_invalid", f"{card.validator.name} cannot be added: {error.message}") from None
        genesis = replace(self.genesis, validators=members)
        return Founding.of(genesis, (*self.cards, card))

    def to_json(self) -> dict[str, JsonValue]:
        """Returns the document with its cards."""
        cards: list[JsonValue] = [card.to_json() for card in self.cards]
        return {**self.genesis.to_json(), "cards": cards}

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Founding:
        """Reads and proves a file; raises Rejected saying what does not hold."""
        document: Any = read_json(path, GENESIS_FILE_BYTES_MAX, "genesis_invalid")
        cards = document.get("cards") if isinstance(document, dict) else None
        if not isinstance(cards, list):
            raise Rejected("card_invalid", f"{path} holds no cards: nothing proves whose keys these are")
        return cls.of(Genesis.from_json(document), [Card.from_json(card) for card in cards])
