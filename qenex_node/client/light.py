"""Light verification: any header of the chain, proved from genesis through every change of the validator set.

It asks for *light blocks* (header, certificate, the set in force at that height) and believes nobody that gives them.
From a trusted header at height t to a block at height h there are two ways, and bisection between them:

    adjacent  h = t + 1: the set is the one that the trusted header names as next, and a quorum of it signed.
    skipping  h > t + 1: a quorum of the block's own set signed, and more than f of those signers, at least f + 1,
              are by their consensus keys members of the trusted set, f being that of the trusted set.

Why skipping is safe: of f + 1 members of the trusted set at least one is correct. It signed COMMIT over a preimage that
holds genesis hash, height and hash of the new set, and a correct validator signs for a height only under the set that
its own chain has in force there: so the set is real. Of a real set a quorum's COMMITs make a block final. The quorum
alone proves nothing, for anyone can make up a set and sign as all of it. What skipping takes, adjacent steps take too:
they would arrive at the same block, the only one that is final at its height.

Nothing here reads a clock, and no step is timed: blocks are final at once and have no forks to wait out. What time does
change is who holds old keys. Whoever holds the keys of more than f members of some former set, long after they were
removed, can sign a second chain from that set's time on; a client whose newest trusted header is older than the
removal cannot tell the two apart, by any rule. A `TrustPeriod` bounds that: a trusted header older than this is not
gone on from, and a newer one must be given by height and hash. Without it, removed validators must destroy their keys.

Like a flow, bisection is a generator: it yields the height that it needs and is sent the light block. It knows no
connection; over RPC `qenex_getLightBlock` answers it, a node asks its peers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from qenex_node.client.errors import VerificationFailed
from state.block import verify_certificate
from state.codec import expect_tuple
from state.errors import InvariantError, Rejected
from state.genesis import Genesis
from state.hashing import Hash
from state.limits import CERTIFICATE_BYTES_MAX, HEADER_BYTES_MAX, VALIDATORS_MAX
from state.types import VOTE_COMMIT, Certificate, ChainContext, Header, Height, ValidatorSet

LIGHT_BLOCK_BYTES_MAX: Final = HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + VALIDATORS_MAX * 160
"""Of an encoded light block, with the longest names."""

TRUSTED_MAX: Final = 4096
"""How many headers a client remembers: two for each set that it met. Beyond it the oldest after genesis go."""


@dataclass(frozen=True, slots=True)
class LightBlock:
    """What somebody says of a height: header, certificate, and the set in force there. Nothing of it is proved."""

    header: Header
    certificate: Certificate
    validators: ValidatorSet

    def to_value(self) -> tuple[Any, ...]:
        """Returns the canonical array [header, certificate, validators]."""
        return (self.header.to_value(), self.certificate.to_value(), self.validators.to_value())

    @classmethod
    def from_value(cls, value: Any) -> LightBlock:
        """Reads the canonical array; raises DecodeError."""
        header, certificate, validators = expect_tuple(value, 3, "light block")
        return cls(Header.from_value(header), Certificate.from_value(certificate), ValidatorSet.from_value(validators))


@dataclass(frozen=True, slots=True)
class TrustedHeader:
    """What is known for certain of a height. `hash` is None for block 0 alone, whose state may be in a file."""

    height: Height
    hash: Hash | None
    time_ms: int
    validators: ValidatorSet
    next_validators_hash: Hash

    @classmethod
    def of_genesis(cls, genesis: Genesis) -> TrustedHeader:
        """Returns what the genesis document says of height 0."""
        return cls(Height(0), None, genesis.time_ms, genesis.validators, genesis.validators.hash)

    @classmethod
    def of(cls, block: LightBlock) -> TrustedHeader:
        """Returns what is known of a light block's height once the block is proved."""
        header = block.header
        return cls(header.height, header.hash, header.time_ms, block.validators, header.next_validators_hash)


Wanted = Generator[Height, LightBlock, LightBlock]
"""Yields heights, is sent their light blocks, returns the proved one."""


def check_own(context: ChainContext, block: LightBlock) -> None:
    """Proves that a light block is whole in itself: a quorum of the set that it shows signed COMMIT for its header.

    That the set is real is not proved by this. Raises VerificationFailed.
    """
    header, certificate, validators = block.header, block.certificate, block.validators
    if header.chain_id != context.chain_id:
        raise VerificationFailed("chain", f"the block is of chain {header.chain_id!r}, trusted is {context.chain_id!r}")
    if header.height == 0:
        raise VerificationFailed("height", "block 0 has no certificate: it follows from the genesis document")
    if header.validators_hash != validators.hash:
        raise VerificationFailed("validators", "the block names another validator set than the one that was given")
    if certificate.kind != VOTE_COMMIT:
        raise VerificationFailed("certificate", "the votes are PREPAREs, which make nothing final")
    if certificate.block_hash != header.hash or certificate.height != header.height:
        raise VerificationFailed("header", f"the header of height {header.height} is not what the quorum signed")
    try:
        verify_certificate(certificate, context.genesis_hash, validators)
    except Rejected as why:
        raise VerificationFailed("certificate", why.message) from None


def overlap(trusted: ValidatorSet, block: LightBlock) -> int:
    """Returns how many signers of a block are members of the trusted set, by their consensus keys."""
    members = block.validators.validators
    return sum(trusted.index_of(members[index].key) is not None for index, _ in block.certificate.signatures)


def verify_adjacent(context: ChainContext, trusted: TrustedHeader, block: LightBlock) -> TrustedHeader:
    """Proves the block right above a trusted header; raises VerificationFailed."""
    check_own(context, block)
    return _adjacent(trusted, block)


def verify_skipping(context: ChainContext, trusted: TrustedHeader, block: LightBlock) -> TrustedHeader | None:
    """Proves a block above a trusted header, whatever lies between them.

    Returns None if too few of the trusted set signed it: that is no lie, a block in between must be proved first.
    Right above the trusted header the rule is the adjacent one. Raises VerificationFailed.
    """
    check_own(context, block)
    return _step(trusted, block)


def _step(trusted: TrustedHeader, block: LightBlock) -> TrustedHeader | None:
    """Goes from a trusted header to a block that is whole in itself, if the overlap allows."""
    if block.header.height == trusted.height + 1:
        return _adjacent(trusted, block)
    if overlap(trusted.validators, block) <= trusted.validators.f:
        return None
    _check_later(trusted, block)
    return TrustedHeader.of(block)


def _adjacent(trusted: TrustedHeader, block: LightBlock) -> TrustedHeader:
    header = block.header
    if header.height != trusted.height + 1:
        raise VerificationFailed("height", f"height {header.height} is not right above {trusted.height}")
    if header.validators_hash != trusted.next_validators_hash:
        raise VerificationFailed(
            "validators", f"height {trusted.height} hands over to another set than that of the next"
        )
    if trusted.hash is not None and header.parent_hash != trusted.hash:
        raise VerificationFailed("link", f"height {header.height} does not follow the block before it")
    _check_later(trusted, block)
    return TrustedHeader.of(block)


def _check_later(trusted: TrustedHeader, block: LightBlock) -> None:
    header = block.header
    if header.height <= trusted.height:
        raise VerificationFailed("height", f"height {header.height} is not above the trusted {trusted.height}")
    if header.time_ms <= trusted.time_ms:
        raise VerificationFailed("header", f"height {header.height} is not later than height {trusted.height}")


def prove_header(context: ChainContext, trusted: TrustedHeader, height: Height) -> Wanted:
    """Proves the header of a height above a trusted one, in as few steps as the overlaps of the sets allow.

    Asks for the wanted height first; wherever a step is too long, for the middle of it. Whoever lies is refused after
    at most as many blocks as halving the distance takes, because adjacent blocks leave no choice. Raises
    VerificationFailed, by the name of the lie.
    """
    waiting = [(yield from _fetch(context, height))]
    while True:
        block = waiting[-1]
        reached = _step(trusted, block)
        if reached is None:
            middle = Height((trusted.height + block.header.height) // 2)
            waiting.append((yield from _fetch(context, middle)))
            continue
        trusted = reached
        waiting.pop()
        if not waiting:
            return block


def _fetch(context: ChainContext, height: Height) -> Wanted:
    block = yield height
    if block.header.height != height:
        raise VerificationFailed("height", f"asked for height {height}, answered for {block.header.height}")
    check_own(context, block)
    return block


@dataclass(frozen=True, slots=True)
class TrustPeriod:
    """A trusted header whose block is older than `trusted_within_ms` by this clock is not gone on from."""

    trusted_within_ms: int
    now_ms: Callable[[], int]


class LightClient:
    """A chain's headers as far as they are trusted, from its genesis document on."""

    def __init__(self, genesis: Genesis, period: TrustPeriod | None = None) -> None:
        """Takes the genesis document, which must come from a source that is trusted."""
        self.context: ChainContext = genesis.context
        self._period = period
        self._trusted: list[TrustedHeader] = [TrustedHeader.of_genesis(genesis)]

    @property
    def highest(self) -> TrustedHeader:
        """The highest trusted header."""
        return self._trusted[-1]

    def nearest(self, height: int) -> TrustedHeader:
        """Returns the highest trusted header at or below a height."""
        return self._trusted[bisect_right(self._trusted, Height(height), key=_height) - 1]

    def trust(self, block: LightBlock, block_hash: bytes) -> TrustedHeader:
        """Trusts a block because its hash comes from a trusted source; raises VerificationFailed if it is another."""
        if block.header.hash != block_hash:
            found = f"0x{block.header.hash.hex()}"
            raise VerificationFailed("header", f"the block of height {block.header.height} has the hash {found}")
        check_own(self.context, block)
        known = self.nearest(block.header.height)
        if known.height == block.header.height:
            _check_same(known, block)
        return self.remember(TrustedHeader.of(block))

    def verify(self, block: LightBlock) -> TrustedHeader | None:
        """Proves a block in one step from the nearest trusted header below it; None if `bisect` is needed.

        A block of a height that is trusted already must be the same one. Raises VerificationFailed,
        Rejected("trust_expired").
        """
        check_own(self.context, block)
        base = self.nearest(block.header.height)
        if base.height == block.header.height:
            _check_same(base, block)
            return base
        self._check_age(base)
        reached = _step(base, block)
        return None if reached is None else self.remember(reached)

    def bisect(self, height: int) -> Wanted:
        """Proves the header of a height from the nearest trusted one below it, and remembers it; see `prove_header`.

        Raises VerificationFailed, Rejected("trust_expired").
        """
        base = self.nearest(height)
        if base.height == height:
            block = yield from _fetch(self.context, base.height)
            _check_same(base, block)
            return block
        self._check_age(base)
        block = yield from prove_header(self.context, base, Height(height))
        self.remember(TrustedHeader.of(block))
        return block

    def _check_age(self, base: TrustedHeader) -> None:
        period = self._period
        if period is not None and period.now_ms() - base.time_ms > period.trusted_within_ms:
            raise Rejected(
                "trust_expired",
                f"the trusted block of height {base.height} is older than allowed: give a newer one by height and hash",
                {"height": base.height, "time_ms": base.time_ms},
            )

    def remember(self, reached: TrustedHeader) -> TrustedHeader:
        """Adds a proved header. Of each run of headers with one set, the first and the newest are kept."""
        at = bisect_right(self._trusted, reached.height, key=_height)
        below = self._trusted[at - 1]
        if below.height == reached.height:
            if below.hash is not None and below.hash != reached.hash:
                raise InvariantError(f"two headers of height {reached.height} were to be trusted")
            return reached
        self._trusted.insert(at, reached)
        if at >= 2 and _same_set(self._trusted[at - 2], below) and _same_set(below, reached):
            del self._trusted[at - 1]
        if len(self._trusted) > TRUSTED_MAX:
            del self._trusted[1]
        return reached


def _height(trusted: TrustedHeader) -> Height:
    return trusted.height


def _same_set(first: TrustedHeader, second: TrustedHeader) -> bool:
    return first.validators.hash == second.validators.hash == first.next_validators_hash


def _check_same(trusted: TrustedHeader, block: LightBlock) -> None:
    if trusted.hash is not None and block.header.hash != trusted.hash:
        raise VerificationFailed("fork", f"two blocks of height {trusted.height} are certified")
