"""Validators who propose, vote and equivocate on a chain in memory."""

from __future__ import annotations

from typing import Any

from state.block import vote_preimage
from state.errors import JsonValue
from state.evidence import EquivocationProof, Offence, SignedHash, proposal_digest
from state.hashing import ZERO_HASH, sha256
from state.keys import SigningKey
from state.ledger.domains.governance.possession import prove_possession
from state.transaction import Operation, Transaction
from state.types import Height, ValidatorSet, View
from tests.state.ledger.world import World, key, pay


def consensus_key(number: int) -> SigningKey:
    """The consensus key of v<number>."""
    return key(9000 + number)


def node_key(number: int) -> SigningKey:
    """The node key of v<number>."""
    return key(9500 + number)


class Council:
    """A world with `count` validators, and shorthand for what they do. People are named by their numbers."""

    def __init__(self, count: int = 4, **parameters: Any) -> None:
        self.world = World({key(1).address: {"QNX": 10**9}}, validator_count=count, **parameters)
        self.sets = {0: self.world.validators, 1: self.world.validators}

    @property
    def names(self) -> list[str]:
        """Who is in force at the next height."""
        return [validator.name for validator in self.world.validators.validators]

    @property
    def height(self) -> int:
        """The head's."""
        return self.world.head.height

    def block(self, *transactions: Transaction, **more: Any) -> list[str]:
        """Makes a block of these, of a payment if there is nothing else; returns the outcomes."""
        if not transactions and not more.get("evidence"):
            transactions = (self.world.tx(key(1), pay(key(2).address, 1)),)
        receipts = self.world.block(*transactions, **more)
        self.sets[self.height + 1] = self.world.validators
        return [receipt.code for receipt in receipts]

    def blocks(self, count: int) -> None:
        """Makes so many blocks of payments."""
        for _ in range(count):
            self.block()

    def proposal(self, by: int, change: str, name: str, **fields: Any) -> Operation:
        """The operation of a proposal; `keys` are the consensus and node keys of a newcomer, with their proofs."""
        keys = fields.pop("keys", None)
        if keys is not None:
            proofs = prove_possession(self.world.genesis.hash, name, *keys)
            made = {"key": hexed(keys[0].public.data), "node_key": hexed(keys[1].public.data)}
            fields = {**made, "key_proof": hexed(proofs[0]), "node_key_proof": hexed(proofs[1]), **fields}
        given = {"by": f"v{by}", "change": change, "validator": name, "from_height": 0, "expires_ms": 0, **fields}
        return self.world.ledger.build("governance_propose", given)

    def fields_of(self, operation: Operation) -> dict[str, Any]:
        """The JSON fields of an operation."""
        told: Any = self.world.ledger.operation_to_json(operation)
        return dict(told["fields"])

    def propose(self, by: int, change: str, name: str, **fields: Any) -> Transaction:
        """A proposal signed by the consensus key of v<by>."""
        return self.world.tx(consensus_key(by), self.proposal(by, change, name, **fields))

    def vote(self, by: int, proposal: int, approve: bool = True, signer: SigningKey | None = None) -> Transaction:
        """A vote signed by the consensus key of v<by>."""
        fields: JsonValue = {"proposal": proposal, "by": f"v{by}", "approve": approve}
        return self.world.tx(signer or consensus_key(by), self.world.ledger.build("governance_vote", fields))

    def add(self, number: int, by: int = 0, **fields: Any) -> Transaction:
        """A proposal to add v<number>."""
        return self.propose(by, "add", f"v{number}", keys=(consensus_key(number), node_key(number)), **fields)

    def decide(self, proposal: Transaction, voters: tuple[int, ...] = (1, 2)) -> int:
        """Makes a block in which a proposal is made and approved by others too; returns its number."""
        number = self.next_number
        codes = self.block(proposal, *(self.vote(voter, number) for voter in voters))
        assert codes == ["ok"] * (1 + len(voters))
        return number

    @property
    def next_number(self) -> int:
        """The number of the next proposal."""
        return len(self.query("proposals", closed=True)["proposals"]) + 1

    def query(self, query: str, **params: Any) -> Any:
        """The answer of a query of governance."""
        return self.world.ledger.query(self.world, f"governance_{query}", params)

    def status(self, number: int) -> str:
        """Where a proposal stands."""
        return str(self.query("proposal", proposal=number)["status"])

    def set_at(self, height: int) -> ValidatorSet:
        """The set in force at a height."""
        return self.sets[height]

    def evidence(self, name: str, height: int, view: int = 0, offence: Offence = Offence.PREPARE) -> bytes:
        """Two signatures of a validator of that height for different blocks."""
        validators = self.set_at(height)
        index = next(i for i, validator in enumerate(validators.validators) if validator.name == name)
        return self.forged(index, height, view, offence, validators, consensus_key(int(name[1:])))

    def forged(
        self, index: int, height: int, view: int, offence: Offence, validators: ValidatorSet, signer: SigningKey
    ) -> bytes:
        """Evidence against the validator at an index of a set, signed by whomever."""
        halves = []
        for block_hash in sorted((sha256(b"one"), sha256(b"two"))):
            pre = offence is Offence.PRE_PREPARE
            digest = proposal_digest(block_hash, ZERO_HASH) if pre else block_hash
            preimage = vote_preimage(self.world.genesis.hash, validators.hash, int(offence), height, view, digest)
            halves.append(SignedHash(block_hash, ZERO_HASH, signer.sign(preimage)))
        return EquivocationProof(offence, Height(height), View(view), index, halves[0], halves[1]).encode()


def hexed(data: bytes) -> str:
    """0x-hex."""
    return "0x" + data.hex()
