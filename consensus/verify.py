"""Is a message true: are all its signatures, and those of the certificates inside it, by the validators they name?

Runs before the core sees a message, so the core itself never touches cryptography. Knows signatures and quorums of
votes; not views, floors or anything else that depends on where a replica stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from consensus.messages import (
    Decided,
    Evidence,
    Message,
    NewView,
    PrePrepare,
    SignedMessage,
    ViewChange,
    signing_preimage,
)
from state.block import verify_certificate
from state.errors import Rejected
from state.evidence import verify_evidence
from state.hashing import Hash
from state.keys import verify_ed25519
from state.types import Certificate, Height, ValidatorSet

ValidatorsAt: TypeAlias = Callable[[Height], ValidatorSet | None]
"""The validator set in force at a height; for heights above the next one, the set in force at the next one, because a
message of another set then fails by its signature; None where it is not known (pruned)."""


Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Whether (public key, preimage, signature) belong together."""


def verify_message(
    message: Message, genesis_hash: Hash, validators_at: ValidatorsAt, verify: Verify = verify_ed25519
) -> None:
    """Proves every signature in `message`, those of embedded certificates and VIEW-CHANGEs included.

    `verify` is the signature scheme: Ed25519, but for a simulator that has no forger to fear.
    Raises Rejected with code `signature_invalid`, `certificate_invalid`, `sender_unknown`, `validators_unknown` or
    `new_view_form`.
    """
    _Proof(genesis_hash, validators_at, verify).message(message)


@dataclass(frozen=True, slots=True)
class _Proof:
    genesis_hash: Hash
    validators_at: ValidatorsAt
    verify: Verify

    def message(self, message: Message) -> None:
        if isinstance(message, Decided):
            self._certificates(message.certificate)
        elif isinstance(message, Evidence):
            verify_evidence(message, self.genesis_hash, self._set_at(message.height), self.verify)
        elif isinstance(message, NewView):
            self._new_view_form(message)
            self._signature(message)
            for change in message.view_changes:
                self._signature(change)
                self._certificates(change.committed, change.prepared)
        else:
            self._signature(message)
            if isinstance(message, PrePrepare):
                self._certificates(message.certificate)
            elif isinstance(message, ViewChange):
                self._certificates(message.committed, message.prepared)

    def _new_view_form(self, message: NewView) -> None:
        """Refuses for free what would take up to a hundred signatures to prove and could never be valid."""
        validators = self._set_at(message.height)
        senders = [change.sender for change in message.view_changes]
        if senders != sorted(set(senders)) or not validators.quorum <= len(senders) <= validators.n:
            raise Rejected("new_view_form", "a NEW-VIEW holds VIEW-CHANGEs of a quorum or more, in order, each once")
        if any(change.view != message.view or change.height > message.height for change in message.view_changes):
            raise Rejected("new_view_form", "a NEW-VIEW holds VIEW-CHANGEs to its own view, and none above its height")

    def _certificates(self, *certificates: Certificate | None) -> None:
        for certificate in certificates:
            if certificate is not None:
                validators = self._set_at(certificate.height)
                verify_certificate(certificate, self.genesis_hash, validators, self.verify)

    def _signature(self, message: SignedMessage) -> None:
        validators = self._set_at(message.height)
        key = _key(validators, message.sender)
        if not self.verify(key, signing_preimage(message, self.genesis_hash, validators.hash), message.signature):
            raise Rejected(
                "signature_invalid",
                f"{message.kind.name}: the signature is not that of {validators.validators[message.sender].name}",
            )

    def _set_at(self, height: Height) -> ValidatorSet:
        validators = self.validators_at(height)
        if validators is None:
            raise Rejected("validators_unknown", f"the validator set of height {height} is not known here")
        return validators


def _key(validators: ValidatorSet, index: int) -> bytes:
    if index >= validators.n:
        raise Rejected("sender_unknown", f"validator index {index} is not in the set of {validators.n}")
    return validators.validators[index].key
