"""Changes of the validator set as a test network makes them: by governance, with the plain keys of its validators.

Each validator's operator is the account of its consensus key, which lies open in a test network: so one process can
propose, and vote for all. Everything goes through the RPC of running nodes, like the transactions of any operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qenex_node.client.blocking import Client
from qenex_node.testnet import Network, derived_key
from state.errors import InvariantError, Rejected
from state.keys import SigningKey
from state.ledger.domains.governance.possession import prove_possession
from state.types import Hash, ValidatorSet

WAIT_MS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Changed:
    """A change that was accepted: its proposal, and the height from which it is in force unless others come first."""

    proposal: int
    from_height: int


class Council:
    """All validators of a test network, deciding together."""

    def __init__(self, network: Network, client: Client) -> None:
        """Takes the network, and a client of nodes that run; the client stays its owner's."""
        self._network = network
        self._client = client

    def add(self, name: str, from_height: int = 0) -> Changed:
        """Has the node with this name become a validator; its keys are those that the network's seed gives it."""
        return self._decide("add", name, from_height, self._new_keys(name, name))

    def remove(self, name: str, from_height: int = 0) -> Changed:
        """Has a validator leave the set."""
        return self._decide("remove", name, from_height, {})

    def replace(self, name: str, successor: str, from_height: int = 0) -> Changed:
        """Gives a validator the keys of the node `successor`: rotation, by a second machine that takes over."""
        return self._decide("replace", name, from_height, self._new_keys(name, successor))

    def _new_keys(self, name: str, keys_of: str) -> dict[str, Any]:
        key, node_key = (derived_key(self._network.seed, purpose, keys_of) for purpose in ("validator", "node"))
        key_proof, node_key_proof = prove_possession(Hash(self._network.genesis_hash), name, key, node_key)
        return {
            "key": key.public.data,
            "node_key": node_key.public.data,
            "key_proof": key_proof,
            "node_key_proof": node_key_proof,
        }

    def _decide(self, change: str, name: str, from_height: int, keys: dict[str, Any]) -> Changed:
        """Proposes a change and votes for it until a quorum has."""
        client = self._client
        validators = client.validators()
        voters = self._voters(validators)
        none = dict.fromkeys(("key", "node_key", "key_proof", "node_key_proof", "operator"))
        fields = {"by": voters[0][0], "change": change, "validator": name, "from_height": from_height, "expires_ms": 0}
        proposal = client.session.operations.governance_propose(**(none | keys | fields))
        committed = client.submit_and_wait(voters[0][1], [proposal], wait_ms=WAIT_MS)
        number = self._number_in(committed.receipt)
        for voter, key in voters[1 : validators.quorum]:
            self._vote(voter, key, number)
        told: Any = client.call("ledger_governance_proposal", proposal=number)
        if told["status"] not in ("accepted", "in_force"):
            raise Rejected("proposal_not_accepted", f"{change} {name} was not accepted: {told}")
        return Changed(number, int(told["from_height"]))

    def _voters(self, validators: ValidatorSet) -> list[tuple[str, SigningKey]]:
        """Returns the validators in force with their keys, which go by the nodes' names, not by the validators'."""
        seed = self._network.seed
        keys = [derived_key(seed, "validator", node.name) for node in self._network.nodes]
        by_public = {key.public.data: key for key in keys}
        return [(v.name, by_public[v.key]) for v in validators.validators if v.key in by_public]

    def _vote(self, voter: str, key: SigningKey, number: int) -> None:
        vote = self._client.session.operations.governance_vote(proposal=number, by=voter, approve=True)
        self._client.submit_and_wait(key, [vote], wait_ms=WAIT_MS)

    @staticmethod
    def _number_in(receipt: Mapping[str, Any]) -> int:
        for event in receipt["events"]:
            if event["kind"] == "governance_proposed":
                return int(event["fields"]["proposal"])
        raise InvariantError("a proposal succeeded and no event tells its number")
