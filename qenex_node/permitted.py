"""Who may connect to this node, and whom it dials: plain functions of the validator sets and the operator's file.

Validators in force may always connect. One whose change is accepted but not yet in force may, as a full node, so that
it has the whole chain when its height comes. One that was removed goes on as a full node, with its node key; one whose
node key was replaced does not, with the old key: a key is replaced because it is not to be trusted any more. The
operator names further full nodes, and refuses nodes by key that no set in force protects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2p.hello import PermittedPeer
from p2p.identity import NodeId, node_id
from p2p.limits import PERMITTED_MAX
from p2p.network import Target
from qenex_node.config import Config
from state.errors import InvariantError
from state.limits import VALIDATORS_MAX
from state.types import ValidatorSet

FORMER_MAX: Final = 64
"""How many former validators may connect: the newest. Each is a certificate that TLS has to look through."""

if FORMER_MAX + VALIDATORS_MAX > PERMITTED_MAX:
    raise InvariantError("former validators must leave room for the largest set in force")


def permitted_peers(
    in_force: ValidatorSet, coming: Iterable[tuple[str, bytes]], former: Iterable[ValidatorSet], config: Config
) -> list[PermittedPeer]:
    """Returns who may connect.

    `coming` are names and node keys of accepted changes; `former` are the sets before the one in force, newest first.
    """
    found = {v.node_key: PermittedPeer(v.name, v.node_key, v.key) for v in in_force.validators}
    for entry in config.full_nodes:
        found.setdefault(entry.node_key, PermittedPeer(entry.name, entry.node_key, None))
    for name, node_key in coming:
        found.setdefault(node_key, PermittedPeer(name, node_key, None))
    names = {v.name for v in in_force.validators}
    denied = config.denied_node_keys
    count = 0
    for validators in former:
        for validator in validators.validators:
            if validator.node_key in found or validator.name in names or validator.node_key in denied:
                continue
            if count == FORMER_MAX or len(found) >= PERMITTED_MAX:
                return list(found.values())
            names.add(validator.name)
            found[validator.node_key] = PermittedPeer(validator.name, validator.node_key, None)
            count += 1
    return list(found.values())


def targets(
    permitted: Iterable[PermittedPeer], learned: Mapping[NodeId, str], config: Config, own_node_key: bytes
) -> tuple[list[Target], list[str]]:
    """Returns whom to dial, and the names in `p2p.peers` that nobody has who may connect.

    `learned` are the addresses that validators in force have told of themselves: the operator's word comes first.
    """
    entries = list(permitted)
    keys = {entry.name: entry.node_key for entry in reversed(entries)}
    found: dict[NodeId, set[str]] = {}
    unknown: list[str] = []
    for peer in config.peers:
        key = bytes.fromhex(peer.who[2:]) if peer.who.startswith("0x") else keys.get(peer.who)
        if key is None:
            unknown.append(peer.who)
        elif key != own_node_key:
            found.setdefault(node_id(key), set()).add(f"{peer.host}:{peer.port}")
    for entry in entries:
        peer_id = node_id(entry.node_key)
        if entry.validator_key is not None and entry.node_key != own_node_key and peer_id in learned:
            found.setdefault(peer_id, {learned[peer_id]})
    return [Target(peer_id, address) for peer_id, at in found.items() for address in sorted(at)], unknown
