"""Is a message true: are all its signatures, and those of the certificates inside it, by the validators they name?

Runs before the core sees a message, so the core itself never touches cryptography. Knows signatures and quorums of
votes; not views, floors or anything else that depends on where a replica stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from consensus.messages import (
    Decided,
    Evidence,
    Kind,
    Message,
    NewView,
    PrePrepare,
    SignedMessage,
    ViewChange,
    proposal_digest,
    signing_preimage,
)
from state.block import verify_certificate, vote_preimage
from state.errors import Rejected
from state.hashing import Hash
from state.keys import verify_ed25519
from state.types import Certificate, Height, ValidatorSet

ValidatorsAt: TypeAlias = Callable[[Height], ValidatorSet | None]
"""The validator set in force at a height; for heights above the next one, the set in force at the next one, because a
message of another set then fails by its signature; None where it is not known (pruned)."""


def verify_message(message: Message, genesis_hash: Hash, validators_at: ValidatorsAt) -> None:
    """Proves every signature in `message`, those of embedded certificates and VIEW-CHANGEs included.

    Raises Rejected with code `signature_invalid`, `certificate_invalid`, `sender_unknown` or `validators_unknown`.
    """
    if isinstance(message, Decided):
        _verify_certificate(message.certificate, genesis_hash, validators_at)
        return
    if isinstance(message, Evidence):
        _verify_evidence(message, genesis_hash, validators_at)
        return
    _verify_signature(message, genesis_hash, validators_at)
    if isinstance(message, PrePrepare):
        if message.certificate is not None:
            _verify_certificate(message.certificate, genesis_hash, validators_at)
    elif isinstance(message, ViewChange):
        _verify_certificates(message, genesis_hash, validators_at)
    elif isinstance(message, NewView):
        for change in message.view_changes:
            _verify_signature(change, genesis_hash, validators_at)
            _verify_certificates(change, genesis_hash, validators_at)


def _verify_certificates(message: ViewChange, genesis_hash: Hash, validators_at: ValidatorsAt) -> None:
    for certificate in (message.committed, message.prepared):
        if certificate is not None:
            _verify_certificate(certificate, genesis_hash, validators_at)


def _verify_certificate(certificate: Certificate, genesis_hash: Hash, validators_at: ValidatorsAt) -> None:
    verify_certificate(certificate, genesis_hash, _set_at(certificate.height, validators_at))


def _verify_signature(message: SignedMessage, genesis_hash: Hash, validators_at: ValidatorsAt) -> None:
    validators = _set_at(message.height, validators_at)
    key = _key(validators, message.sender)
    if not verify_ed25519(key, signing_preimage(message, genesis_hash, validators.hash), message.signature):
        raise Rejected(
            "signature_invalid",
            f"{message.kind.name}: the signature is not that of {validators.validators[message.sender].name}",
        )


def _verify_evidence(message: Evidence, genesis_hash: Hash, validators_at: ValidatorsAt) -> None:
    validators = _set_at(message.height, validators_at)
    key = _key(validators, message.offender)
    for half in (message.first, message.second):
        digest = half.block_hash
        if message.offence is Kind.PRE_PREPARE:
            digest = proposal_digest(half.block_hash, half.certificate_hash)
        preimage = vote_preimage(
            genesis_hash, validators.hash, int(message.offence), message.height, message.view, digest
        )
        if not verify_ed25519(key, preimage, half.signature):
            raise Rejected("signature_invalid", "evidence: a signature is not that of the validator it accuses")


def _set_at(height: Height, validators_at: ValidatorsAt) -> ValidatorSet:
    validators = validators_at(height)
    if validators is None:
        raise Rejected("validators_unknown", f"the validator set of height {height} is not known here")
    return validators


def _key(validators: ValidatorSet, index: int) -> bytes:
    if index >= validators.n:
        raise Rejected("sender_unknown", f"validator index {index} is not in the set of {validators.n}")
    return validators.validators[index].key
