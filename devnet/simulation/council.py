"""The people behind the validators: they propose at planned times who comes and who goes, and approve what is proposed.

Each acts by transactions of the operator account of one validator, as any client would, on what the chain says. Those
of faulty validators sit still, so that a change needs a quorum of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devnet.simulation.chain import Chain
from devnet.simulation.settings import ADD, Reform
from devnet.simulation.world import DEADLINE_MS, START_MS, World, name_of
from state.errors import JsonValue
from state.keys import SigningKey
from state.ledger.domains.governance.possession import prove_possession
from state.ledger.domains.governance.records import operator_of, read_agenda, read_validator, reading
from state.transaction import Operation, Transaction, body_value, decode_transaction, sign_transaction
from state.types import Address, ValidatorSet

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster


class Council:
    """The operators of all validators of a run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sequences: dict[Address, int] = {}
        self._voted: set[tuple[int, str]] = set()
        self._height = 0
        self._keys = {operator_of(key): secret for key, secret in cluster.world.secrets.items()}

    def propose(self, reform: Reform) -> None:
        """Lets somebody correct in force propose a change."""
        cluster = self._cluster
        chain = cluster.newest_chain()
        proposers = self._voters(chain)
        if not proposers:
            return
        name, signer = proposers[reform.at_us % len(proposers)]
        target = self._name(chain.validators, reform.who)
        cluster.trace(-1, "{} proposes to {} {}", name, reform.change, target)
        fields: JsonValue = {
            "by": name,
            "change": reform.change,
            "validator": target,
            "from_height": chain.head.height + reform.ahead if reform.ahead else 0,
            "expires_ms": 0,
            **self._proofs(reform, target),
        }
        cluster.count(f"proposed to {reform.change}")
        self._submit(signer, cluster.world.ledger.build("governance_propose", fields))

    def committed(self, chain: Chain) -> None:
        """Looks at a chain that has grown: whoever has not voted on an open proposal does so."""
        if chain.head.height <= self._height:
            return
        self._height = chain.head.height
        agenda = read_agenda(reading(chain))
        for pending in agenda.open:
            for name, signer in self._voters(chain):
                if (pending.number, name) not in self._voted:
                    self._voted.add((pending.number, name))
                    vote: JsonValue = {"proposal": pending.number, "by": name, "approve": True}
                    self._submit(signer, self._cluster.world.ledger.build("governance_vote", vote))

    def _voters(self, chain: Chain) -> list[tuple[str, SigningKey]]:
        """Returns the correct validators in force, each with the key of its operator."""
        found = []
        for validator in chain.validators.validators:
            record = read_validator(reading(chain), validator.key)
            if record is not None and self._cluster.is_correct(self._cluster.who_of(validator.key)):
                found.append((validator.name, self._keys[record.operator]))
        return found

    def _name(self, validators: ValidatorSet, who: int) -> str:
        """Returns under which name an identity is a validator, or would be one."""
        index = validators.index_of(self._cluster.world.keys[who])
        return name_of(who) if index is None else validators.validators[index].name

    def _proofs(self, reform: Reform, name: str) -> dict[str, str]:
        new = reform.who if reform.change == ADD else reform.by
        if new is None:
            return {}
        world: World = self._cluster.world
        key, node_key = world.secrets[world.keys[new]], world.node_keys[new]
        proofs = prove_possession(world.genesis.hash, name, key, node_key)
        values = (key.public.data, node_key.public.data, *proofs)
        names = ("key", "node_key", "key_proof", "node_key_proof")
        return {field: "0x" + value.hex() for field, value in zip(names, values, strict=True)}

    def _submit(self, signer: SigningKey, operation: Operation) -> None:
        sequence = self._sequences.get(signer.address, 0)
        self._sequences[signer.address] = sequence + 1
        context = self._cluster.world.genesis.context
        body = body_value(context, signer.address, 0, sequence, START_MS + DEADLINE_MS, [operation])
        self._cluster.clients.submit(self._transaction(body, signer), self._cluster.schedule.now_us)

    def _transaction(self, body: tuple[Any, ...], signer: SigningKey) -> Transaction:
        context = self._cluster.world.genesis.context
        return decode_transaction(sign_transaction(context, body, {signer.address: [signer]}), context)
