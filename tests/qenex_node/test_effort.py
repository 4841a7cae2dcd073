"""The effort that is charged for a message is the number of signatures that proving it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consensus.messages import decode_message
from consensus.verify import verify_message
from qenex_node.effort import signatures_in
from state.hashing import Hash
from state.types import Validator, ValidatorSet

VECTORS = json.loads(
    (Path(__file__).parents[1] / "conformance" / "vectors" / "consensus.json").read_text(encoding="utf-8")
)
VALIDATORS = ValidatorSet.of(
    Validator(entry["name"], bytes.fromhex(entry["key"].removeprefix("0x")), bytes([place]) * 32)
    for place, entry in enumerate(VECTORS["validators"])
)


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["what"])
def test_every_signature_that_is_proved_was_charged(vector: dict[str, Any]) -> None:
    proved: list[bytes] = []

    def note(key: bytes, message: bytes, signature: bytes) -> bool:
        proved.append(signature)
        return True

    message = decode_message(bytes.fromhex(vector["encoded"].removeprefix("0x")))
    verify_message(message, Hash(bytes(32)), lambda height: VALIDATORS, note)
    assert len(proved) == signatures_in(message)
