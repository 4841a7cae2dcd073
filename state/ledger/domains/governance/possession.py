"""Proof of possession: what the keys of a new validator sign, so that nobody can propose a key that is not theirs.

Both keys sign the same: chain, name, and the pair of keys that the validator is to have.
"""

from __future__ import annotations

from typing import Final

from state.codec import encode
from state.hashing import TAG_POSSESSION, Hash
from state.keys import SigningKey

POSSESSION_FORM: Final = "qenex-validator-possession"
POSSESSION_VERSION: Final = 1


def possession_preimage(genesis_hash: Hash, name: str, key: bytes, node_key: bytes) -> bytes:
    """Returns what the consensus key and the node key of a proposed validator sign."""
    return TAG_POSSESSION + encode((POSSESSION_FORM, POSSESSION_VERSION, genesis_hash, name, key, node_key))


def prove_possession(
    genesis_hash: Hash, name: str, validator_key: SigningKey, node_key: SigningKey
) -> tuple[bytes, bytes]:
    """Returns the proofs by the consensus key and by the node key of a validator, both Ed25519."""
    message = possession_preimage(genesis_hash, name, validator_key.public.data, node_key.public.data)
    return validator_key.sign(message), node_key.sign(message)
