"""Headers of a chain whose validator set changes as a test says, with real signatures, and forgeries of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from qenex_node.client.light import LightBlock
from state.block import evidence_hash, receipts_root, tx_root, vote_preimage
from state.genesis import ChainParameters, Genesis, GenesisAsset
from state.hashing import sha256
from state.keys import ED25519, SigningKey
from state.types import VOTE_COMMIT, Certificate, Header, Validator, ValidatorSet

START_MS = 1_700_000_000_000
KEYS: dict[int, SigningKey] = {}
SEED_OF: dict[bytes, int] = {}


def key_of(number: int) -> SigningKey:
    """The consensus key of the validator with this number."""
    if number not in KEYS:
        KEYS[number] = SigningKey(ED25519, sha256(b"light %d" % number))
        SEED_OF[KEYS[number].public.data] = number
    return KEYS[number]


def set_of(numbers: Iterable[int]) -> ValidatorSet:
    """The validator set of these numbers."""
    return ValidatorSet.of(Validator(f"v{n:04}", key_of(n).public.data, sha256(b"node %d" % n)) for n in numbers)


def genesis_of(numbers: Iterable[int]) -> Genesis:
    """A genesis with these validators."""
    issuer = sha256(b"issuer")
    return Genesis("light-1", START_MS, set_of(numbers), ChainParameters(), (GenesisAsset("QNX", 6, issuer),), ())


def certificate_of(
    genesis_hash: bytes, header: Header, validators: ValidatorSet, signers: Iterable[int], kind: int = VOTE_COMMIT
) -> Certificate:
    """The votes of the set's members with these numbers."""
    preimage = vote_preimage(genesis_hash, validators.hash, kind, header.height, 0, header.hash)
    wanted = set(signers)
    signatures = tuple(
        (index, key_of(SEED_OF[member.key]).sign(preimage))
        for index, member in enumerate(validators.validators)
        if SEED_OF[member.key] in wanted
    )
    return Certificate(kind, header.height, 0, header.hash, signatures)


class Heights:
    """Light blocks 1 to len(sets): `sets[i]` are the numbers of the validators of height i + 1."""

    def __init__(self, sets: Sequence[frozenset[int]], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.sets = list(sets)
        self.genesis = genesis_of(sets[0])
        self.blocks: list[LightBlock] = []
        parent = sha256(b"block 0")
        for height, numbers in enumerate(sets, 1):
            following = sets[min(height, len(sets) - 1)]
            header = self.header(height, parent, numbers, following)
            self.blocks.append(self.signed(header, numbers))
            parent = header.hash

    def header(self, height: int, parent: bytes, numbers: Iterable[int], following: Iterable[int]) -> Header:
        """A header of this chain's form."""
        return Header(
            version=1,
            chain_id=self.genesis.chain_id,
            height=height,
            time_ms=START_MS + height * 1000,
            parent_hash=parent,
            tx_root=tx_root([sha256(b"tx %d" % height)]),
            receipts_root=receipts_root(()),
            state_root=sha256(b"state %d" % height),
            validators_hash=set_of(numbers).hash,
            next_validators_hash=set_of(following).hash,
            proposer=key_of(min(numbers)).public.data,
            evidence_hash=evidence_hash(()),
            units_used=1,
        )

    def signed(self, header: Header, numbers: Iterable[int], signers: Iterable[int] | None = None) -> LightBlock:
        """The light block of a header, signed by these members, or by a quorum by chance."""
        validators = set_of(numbers)
        members = sorted(numbers)
        chosen = self.random.sample(members, validators.quorum) if signers is None else list(signers)
        return LightBlock(header, certificate_of(self.genesis.hash, header, validators, chosen), validators)

    def at(self, height: int) -> LightBlock:
        """The light block of a height."""
        return self.blocks[height - 1]

    def forged(self, height: int, numbers: Iterable[int], signers: Iterable[int], following=None) -> LightBlock:
        """Another block of a height, of a set as the forger likes, signed by those whose keys the forger has."""
        true = self.at(height).header
        header = self.header(height, true.parent_hash, numbers, following or numbers)
        return self.signed(replace(header, state_root=sha256(b"forged")), numbers, signers)


def drive(wanted, answer):
    """Carries a bisection out with `answer(height)`; returns the proved block and the heights that were asked for."""
    asked = []
    try:
        height = next(wanted)
        while True:
            asked.append(height)
            height = wanted.send(answer(height))
    except StopIteration as end:
        return end.value, asked
