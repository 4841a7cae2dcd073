"""What validators say to each other: the messages, their canonical encodings, and what each signature signs.

A message is a frozen value; a signature covers every field of it, through `state.block.vote_preimage`, with the genesis
hash and the hash of the validator set in force at the message's height. `sender` is the signer's index in that set.
Form is checked by `decode_message`, truth by consensus/verify.py; what a message means is the replica's business.

PRE-PREPARE, PREPARE, COMMIT, VIEW-CHANGE and NEW-VIEW are those of PBFT (Castro and Liskov, OSDI 1999, sections 4.2 and
4.4). SUSPECT, STATUS, DECIDED and EVIDENCE are described in docs/consensus.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, TypeAlias

from state.block import tx_root, vote_preimage
from state.codec import decode, encode, expect_array, expect_blob, expect_bytes, expect_int, expect_tuple
from state.errors import DecodeError
from state.evidence import MESSAGE_KIND, EquivocationProof, evidence_from_value, proposal_digest
from state.hashing import TAG_CONSENSUS, ZERO_HASH, Hash, tagged
from state.limits import BLOCK_TRANSACTIONS_MAX, VALIDATORS_MAX
from state.types import VOTE_COMMIT, VOTE_PREPARE, Certificate, Header, Height, View, WireHash

MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024 - 64
HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
# One below the codec's limit, so that "the next" height or view can always be written down.
NUMBER_LIMIT: Final = (1 << 64) - 1


class Kind(IntEnum):
    """The first field of every encoded message, and for signed ones the kind in the signature's preimage."""

    PREPARE = VOTE_PREPARE
    COMMIT = VOTE_COMMIT
    PRE_PREPARE = 3
    SUSPECT = 4
    VIEW_CHANGE = 5
    NEW_VIEW = 6
    STATUS = 7
    DECIDED = 8
    EVIDENCE = MESSAGE_KIND


@dataclass(frozen=True, slots=True)
class Vote:
    """A PREPARE or COMMIT of one validator for one block in one view (PBFT 4.2)."""

    kind: Kind
    height: Height
    view: View
    block_hash: Hash
    sender: int
    signature: bytes = field(default=b"", repr=False)

    @property
    def digest(self) -> Hash:
        """What the signature covers beside kind, height and view."""
        return self.block_hash

    def to_value(self) -> tuple[Any, ...]:
        """Returns [kind, height, view, block hash, sender, signature]."""
        return (int(self.kind), self.height, self.view, self.block_hash, self.sender, self.signature)

    @classmethod
    def from_value(cls, value: Any) -> Vote:
        """Reads the canonical array; raises DecodeError."""
        kind, height, view, block_hash, sender, signature = expect_tuple(value, 6, "vote")
        return cls(
            Kind(kind),
            _height(height),
            _view(view),
            _hash(block_hash, "block hash"),
            _sender(sender),
            _signed(signature),
        )


@dataclass(frozen=True)
class PrePrepare:
    """A primary's proposal for (height, view): a header and the wire hashes of its transactions (PBFT 4.2).

    `certificate` is None for a first proposal; a re-proposal carries the prepared certificate of a lower view that
    exempts it from the rules on proposer and clock. The block hash covers header and, through the header's
    transaction root, the wire hashes; the digest adds the certificate.
    """

    height: Height
    view: View
    header: Header
    wire_hashes: tuple[WireHash, ...] = field(repr=False)
    certificate: Certificate | None
    sender: int
    signature: bytes = field(default=b"", repr=False)
    kind = Kind.PRE_PREPARE

    @property
    def block_hash(self) -> Hash:
        """The proposed block's hash."""
        return self.header.hash

    @cached_property
    def certificate_hash(self) -> Hash:
        """The hash of the certificate, zero for none: with the block hash all that equivocation evidence needs."""
        return ZERO_HASH if self.certificate is None else tagged(TAG_CONSENSUS, self.certificate.encode())

    @cached_property
    def digest(self) -> Hash:
        """What the signature covers beside kind, height and view."""
        return proposal_digest(self.block_hash, self.certificate_hash)

    def to_value(self) -> tuple[Any, ...]:
        """Returns [3, height, view, header, wire hashes in one byte string, certificate or nil, sender, signature]."""
        return (
            int(self.kind),
            self.height,
            self.view,
            self.header.to_value(),
            b"".join(self.wire_hashes),
            _value_or_none(self.certificate),
            self.sender,
            self.signature,
        )

    @classmethod
    def from_value(cls, value: Any) -> PrePrepare:
        """Reads the canonical array; raises DecodeError, also when header and wire hashes do not belong together."""
        _, height, view, header_value, wires, certificate, sender, signature = expect_tuple(value, 8, "PRE-PREPARE")
        header = Header.from_value(header_value)
        if header.height != height:
            raise DecodeError("a PRE-PREPARE's height must be its header's")
        expect_blob(wires, BLOCK_TRANSACTIONS_MAX * HASH_BYTES, "wire hashes")
        if len(wires) % HASH_BYTES:
            raise DecodeError("wire hashes must have 32 bytes each")
        hashes = tuple([WireHash(wires[i : i + HASH_BYTES]) for i in range(0, len(wires), HASH_BYTES)])
        if tx_root(hashes) != header.tx_root:
            raise DecodeError("the wire hashes are not those of the header")
        message = cls(
            _height(height),
            _view(view),
            header,
            hashes,
            _certificate_or_none(certificate),
            _sender(sender),
            _signed(signature),
        )
        proof = message.certificate
        if proof is not None and (
            proof.kind != Kind.PREPARE
            or proof.height != height
            or proof.view >= message.view
            or proof.block_hash != header.hash
        ):
            raise DecodeError(
                "a re-proposal's certificate must be PREPAREs for its block at its height in a lower view"
            )
        return message


@dataclass(frozen=True, slots=True)
class Suspect:
    """A validator's word that `view` makes no progress at `height` or has a faulty primary. No promise: it votes on."""

    height: Height
    view: View
    sender: int
    signature: bytes = field(default=b"", repr=False)
    kind = Kind.SUSPECT

    @property
    def digest(self) -> Hash:
        """Nothing but kind, height and view is said, so zero."""
        return ZERO_HASH

    def to_value(self) -> tuple[Any, ...]:
        """Returns [4, height, view, sender, signature]."""
        return (int(self.kind), self.height, self.view, self.sender, self.signature)

    @classmethod
    def from_value(cls, value: Any) -> Suspect:
        """Reads the canonical array; raises DecodeError."""
        _, height, view, sender, signature = expect_tuple(value, 5, "SUSPECT")
        return cls(_height(height), _view(view), _sender(sender), _signed(signature))


@dataclass(frozen=True)
class ViewChange:
    """A validator's promise to vote in no view below `view`, with what it holds at `height` (PBFT 4.4).

    `committed` is the commit certificate of height - 1 (None only at height 1); `prepared` is the prepared certificate
    with the highest view that it holds at `height`, or None.
    """

    height: Height
    view: View
    committed: Certificate | None
    prepared: Certificate | None
    sender: int
    signature: bytes = field(default=b"", repr=False)
    kind = Kind.VIEW_CHANGE

    @cached_property
    def digest(self) -> Hash:
        """What the signature covers beside kind, height and view."""
        return tagged(TAG_CONSENSUS, encode((_value_or_none(self.committed), _value_or_none(self.prepared))))

    def to_value(self) -> tuple[Any, ...]:
        """Returns [5, height, view, commit certificate or nil, prepared certificate or nil, sender, signature]."""
        return (
            int(self.kind),
            self.height,
            self.view,
            _value_or_none(self.committed),
            _value_or_none(self.prepared),
            self.sender,
            self.signature,
        )

    @classmethod
    def from_value(cls, value: Any) -> ViewChange:
        """Reads the canonical array; raises DecodeError, also for certificates of another kind, height or view."""
        kind, height, view, committed, prepared, sender, signature = expect_tuple(value, 7, "VIEW-CHANGE")
        if kind != Kind.VIEW_CHANGE:
            raise DecodeError("a VIEW-CHANGE has kind 5")
        message = cls(
            _height(height),
            _view(view),
            _certificate_or_none(committed),
            _certificate_or_none(prepared),
            _sender(sender),
            _signed(signature),
        )
        message.check_form()
        return message

    def check_form(self) -> None:
        """Raises DecodeError unless the certificates are of the kinds, heights and views that the message claims."""
        if self.view == 0:
            raise DecodeError("nobody changes to view 0")
        below = self.committed
        if (below is None) != (self.height == 1):
            raise DecodeError("a VIEW-CHANGE carries the commit certificate of the height below, if there is one")
        if below is not None and (below.kind != Kind.COMMIT or below.height != self.height - 1):
            raise DecodeError("a VIEW-CHANGE's commit certificate must be of the height below")
        held = self.prepared
        if held is not None and (held.kind != Kind.PREPARE or held.height != self.height or held.view >= self.view):
            raise DecodeError("a VIEW-CHANGE's prepared certificate must be of its height and a lower view")


@dataclass(frozen=True)
class NewView:
    """The new primary's proof that a quorum changed to `view` (PBFT 4.4); `height` is h*, the highest they prove.

    `view_changes` are in order of their senders. It carries no proposals: everybody recomputes what must be proposed.
    """

    height: Height
    view: View
    view_changes: tuple[ViewChange, ...]
    sender: int
    signature: bytes = field(default=b"", repr=False)
    kind = Kind.NEW_VIEW

    @cached_property
    def digest(self) -> Hash:
        """What the signature covers beside kind, height and view."""
        return tagged(TAG_CONSENSUS, encode(tuple(change.to_value() for change in self.view_changes)))

    def to_value(self) -> tuple[Any, ...]:
        """Returns [6, height, view, [VIEW-CHANGE ...], sender, signature]."""
        changes = tuple(change.to_value() for change in self.view_changes)
        return (int(self.kind), self.height, self.view, changes, self.sender, self.signature)

    @classmethod
    def from_value(cls, value: Any) -> NewView:
        """Reads the canonical array; raises DecodeError."""
        _, height, view, changes, sender, signature = expect_tuple(value, 6, "NEW-VIEW")
        items = tuple(ViewChange.from_value(item) for item in expect_array(changes, VALIDATORS_MAX, "VIEW-CHANGEs"))
        return cls(_height(height), _view(view), items, _sender(sender), _signed(signature))


@dataclass(frozen=True, slots=True)
class Status:
    """Where a validator stands, so that others see what it lacks. A claim: it proves nothing.

    `height` is being decided; `view` is the last entered, `promised` the greatest entered or promised; `proposal` is
    the block hash accepted in (height, view), or None; bit i of `prepares` and `commits` says that it holds validator
    i's vote of that (height, view).
    """

    height: Height
    view: View
    promised: View
    proposal: Hash | None
    prepares: int
    commits: int
    sender: int
    signature: bytes = field(default=b"", repr=False)
    kind = Kind.STATUS

    @property
    def digest(self) -> Hash:
        """What the signature covers beside kind, height and view."""
        return tagged(TAG_CONSENSUS, encode((self.promised, self.proposal, self.prepares, self.commits)))

    def to_value(self) -> tuple[Any, ...]:
        """Returns [7, height, view, promised, proposal or nil, prepares, commits, sender, signature]."""
        return (
            int(self.kind),
            self.height,
            self.view,
            self.promised,
            self.proposal,
            self.prepares,
            self.commits,
            self.sender,
            self.signature,
        )

    @classmethod
    def from_value(cls, value: Any) -> Status:
        """Reads the canonical array; raises DecodeError."""
        _, height, view, promised, proposal, prepares, commits, sender, signature = expect_tuple(value, 9, "STATUS")
        return cls(
            _height(height),
            _view(view),
            _view(promised),
            None if proposal is None else _hash(proposal, "proposal"),
            expect_int(prepares, "PREPAREs held"),
            expect_int(commits, "COMMITs held"),
            _sender(sender),
            _signed(signature),
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """A commit certificate on its way to somebody who lacks it. It needs no signature: it proves itself."""

    certificate: Certificate
    kind = Kind.DECIDED

    def to_value(self) -> tuple[Any, ...]:
        """Returns [8, certificate]."""
        return (int(self.kind), self.certificate.to_value())

    @classmethod
    def from_value(cls, value: Any) -> Decided:
        """Reads the canonical array; raises DecodeError."""
        _, certificate = expect_tuple(value, 2, "DECIDED")
        message = cls(Certificate.from_value(certificate))
        if message.certificate.kind != Kind.COMMIT:
            raise DecodeError("DECIDED carries a commit certificate")
        return message


@dataclass(frozen=True, slots=True)
class Evidence(EquivocationProof):
    """A proof of equivocation (state/evidence.py) on its way between validators, in the form that blocks hold too."""

    kind = Kind.EVIDENCE

    @classmethod
    def from_value(cls, value: Any) -> Evidence:
        """Reads the canonical array; raises DecodeError unless the two halves name different blocks, in order."""
        proof = evidence_from_value(value)
        return cls(proof.offence, proof.height, proof.view, proof.offender, proof.first, proof.second)


SignedMessage: TypeAlias = Vote | PrePrepare | Suspect | ViewChange | NewView | Status
Message: TypeAlias = SignedMessage | Decided | Evidence

_READERS: Final[dict[int, Callable[[Any], Message]]] = {
    Kind.PREPARE: Vote.from_value,
    Kind.COMMIT: Vote.from_value,
    Kind.PRE_PREPARE: PrePrepare.from_value,
    Kind.SUSPECT: Suspect.from_value,
    Kind.VIEW_CHANGE: ViewChange.from_value,
    Kind.NEW_VIEW: NewView.from_value,
    Kind.STATUS: Status.from_value,
    Kind.DECIDED: Decided.from_value,
    Kind.EVIDENCE: Evidence.from_value,
}


def encode_message(message: Message) -> bytes:
    """Returns the canonical bytes of a message: an array that begins with its kind."""
    return encode(message.to_value())


def decode_message(data: bytes) -> Message:
    """Returns the message with these canonical bytes, its form checked and its truth not; raises DecodeError."""
    value = decode(data, bytes_max=MESSAGE_BYTES_MAX)
    if type(value) is not tuple or not value or type(value[0]) is not int or value[0] not in _READERS:
        raise DecodeError("a consensus message is an array that begins with a known kind")
    return _READERS[value[0]](value)


def signing_preimage(message: SignedMessage, genesis_hash: Hash, validators_hash: Hash) -> bytes:
    """Returns what `message.signature` signs, for the chain and the validator set in force at the message's height."""
    return vote_preimage(genesis_hash, validators_hash, int(message.kind), message.height, message.view, message.digest)


def certificate_of(votes: Sequence[Vote]) -> Certificate:
    """Returns the certificate that these votes make: one kind, height, view and block, from different senders."""
    first = votes[0]
    signatures = tuple((vote.sender, vote.signature) for vote in sorted(votes, key=lambda vote: vote.sender))
    return Certificate(int(first.kind), first.height, first.view, first.block_hash, signatures)


def _value_or_none(certificate: Certificate | None) -> tuple[Any, ...] | None:
    return None if certificate is None else certificate.to_value()


def _certificate_or_none(value: Any) -> Certificate | None:
    return None if value is None else Certificate.from_value(value)


def _height(value: Any) -> Height:
    if value == 0:
        raise DecodeError("nobody votes on height 0: it is genesis")
    return Height(expect_int(value, "height", limit=NUMBER_LIMIT))


def _view(value: Any) -> View:
    return View(expect_int(value, "view", limit=NUMBER_LIMIT))


def _hash(value: Any, what: str) -> Hash:
    return Hash(expect_bytes(value, HASH_BYTES, what))


def _sender(value: Any) -> int:
    return expect_int(value, "sender", limit=VALIDATORS_MAX)


def _signed(value: Any) -> bytes:
    return expect_bytes(value, SIGNATURE_BYTES, "signature")
