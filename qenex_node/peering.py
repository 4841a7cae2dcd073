"""Keeps the peer layer in step with the validators in force and the operator's file: who may connect, whom it dials.

Addresses of validators come from `p2p.peers` and from the validators themselves, who tell where they listen when they
connect: so one that joined later is dialed, too, when the connection with it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import islice
from typing import Final

from p2p.hello import PermittedPeer
from p2p.identity import NodeId
from p2p.limits import PERMITTED_MAX
from p2p.network import Network
from p2p.peer import Peer
from p2p.transport import split_address
from qenex_node.config import Config
from qenex_node.logs import Log
from qenex_node.permitted import permitted_peers, targets
from state.errors import Rejected
from state.ledger.domains.governance.records import AGENDA_KEY, accepted_node_keys
from state.ledger.overlay import StateReader
from state.ledger.validators import VALIDATORS_KEY, rules_back

log = Log("qenex.p2p")

SETS_MAX: Final = 256
"""How many validator sets are looked through for former validators, the newest first."""


class Peering:
    """See the module's docstring."""

    def __init__(self, state: Callable[[], StateReader], node_key: bytes, config: Config) -> None:
        """Takes how to read the committed state, our node key, and the configuration; `network` is set before use."""
        self.network: Network
        self.config = config
        self._state = state
        self._node_key = node_key
        self._learned: dict[NodeId, str] = {}
        self._unknown: frozenset[str] = frozenset()
        self._followed = self.permitted()

    def permitted(self) -> list[PermittedPeer]:
        """Returns who may connect now."""
        state = self._state()
        in_force, *former = (rule.validators for rule in islice(rules_back(state), SETS_MAX))
        return permitted_peers(in_force, accepted_node_keys(state), former, self.config)

    def follow(self) -> None:
        """Takes what the validators in force and the file say now.

        Raises Rejected("permitted_invalid"), and changes nothing, if that cannot be.
        """
        permitted = self.permitted()
        if permitted != self._followed:
            self.network.set_permitted(permitted)
            self._followed = permitted
        self.dial()

    def reload(self, config: Config) -> None:
        """Takes another configuration; raises as `follow` does, and stays with the one before."""
        before, self.config = self.config, config
        try:
            self.follow()
        except Rejected:
            self.config = before
            raise

    def committed(self, changed: Container[bytes]) -> None:
        """Follows a block that was committed, if it changed (by state key) what matters here."""
        if VALIDATORS_KEY not in changed and AGENDA_KEY not in changed:
            return
        try:
            self.follow()
        except Rejected as error:
            # Only the operator's own list can make it too long: consensus goes on with the peers that there are.
            log.error("not all that the chain lets connect may", code=error.code, why=error.message)

    def learn(self, peer: Peer) -> None:
        """Notes where a peer says that it listens."""
        address = peer.listen_address
        if not address or self._learned.get(peer.id) == address:
            return
        try:
            split_address(address)
        except Rejected:
            return
        if len(self._learned) >= PERMITTED_MAX:
            self._learned.clear()
        self._learned[peer.id] = address
        self.dial()

    def dial(self) -> None:
        """Tells the peer layer whom to dial, and the operator whom not, for nobody who may connect has that name."""
        dialed, unknown = targets(self.permitted(), self._learned, self.config, self._node_key)
        self.network.set_targets(dialed)
        for name in sorted(set(unknown) - self._unknown):
            log.warning("p2p.peers names nobody who may connect: it is not dialed until it may", peer=name)
        self._unknown = frozenset(unknown)
