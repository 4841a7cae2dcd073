"""net_peers: who the node is connected to."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import schemas
from qenex_node.rpc.registry import Call, Method, Result
from qenex_node.rpc.render import hexed
from state.errors import JsonValue


def peers(call: Call) -> JsonValue:
    """Answers net_peers."""
    return {
        "peers": [
            {
                "id": hexed(peer.id),
                "name": peer.name,
                "address": peer.address,
                "direction": peer.direction,
                "role": peer.role,
                "height": peer.height,
                "latency_ms": peer.latency_ms,
                "received_bytes": peer.received_bytes,
                "sent_bytes": peer.sent_bytes,
                "score": peer.score,
                "connected_since_ms": peer.connected_since_ms,
            }
            for peer in call.node.peers()
        ]
    }


METHODS: Final = (
    Method(
        "net_peers",
        "The connected peers.",
        params=(),
        result=Result("peers", schemas.fields(peers=schemas.array(schemas.PEER)), "One entry for each connection."),
        plain=peers,
    ),
)
