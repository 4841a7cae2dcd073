"""Which nodes may connect now, and how each of them has behaved.

The permitted set is replaced as a whole, whenever the operator's file or the validators in force change; TLS contexts
for new connections follow. A node's conduct outlives its connections, but not its permission.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from p2p.conduct import Conduct
from p2p.hello import PermittedPeer
from p2p.identity import NODE_KEY_BYTES, NodeId, NodeKey, TlsContexts, node_id, tls_contexts
from p2p.limits import PERMITTED_MAX
from state.errors import Rejected


class Permissions:
    """The permitted nodes; the node's own key among them is ignored."""

    def __init__(self, key: NodeKey, permitted: Iterable[PermittedPeer]) -> None:
        """Takes our own key and the first permitted set; raises as `replace` does."""
        self._key = key
        self._entries: dict[NodeId, PermittedPeer] = {}
        self._conduct: dict[NodeId, Conduct] = {}
        self.changed = trio.Event()
        self.contexts: TlsContexts
        self.replace(permitted)

    def replace(self, permitted: Iterable[PermittedPeer]) -> None:
        """Puts another permitted set in force for new connections and wakes whoever waits on `changed`.

        Raises Rejected("permitted_invalid"), and changes nothing, for too many peers, a wrong key or a key named twice.
        """
        entries: dict[NodeId, PermittedPeer] = {}
        for entry in permitted:
            if len(entry.node_key) != NODE_KEY_BYTES:
                raise Rejected("permitted_invalid", f"the node key of {entry.name} must have {NODE_KEY_BYTES} bytes")
            peer_id = node_id(entry.node_key)
            if peer_id in entries:
                raise Rejected("permitted_invalid", f"{entry.name} and {entries[peer_id].name} share a node key")
            entries[peer_id] = entry
        entries.pop(self._key.id, None)
        if len(entries) > PERMITTED_MAX:
            raise Rejected("permitted_invalid", f"{len(entries)} permitted peers are more than {PERMITTED_MAX}")
        try:
            self.contexts = tls_contexts(self._key, (entry.node_key for entry in entries.values()))
        except ValueError as error:
            raise Rejected("permitted_invalid", f"a node key is no Ed25519 key: {error}") from error
        self._entries = entries
        self._conduct = {peer_id: self._conduct.get(peer_id, Conduct()) for peer_id in entries}
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    def entry(self, peer_id: NodeId) -> PermittedPeer | None:
        """Returns what is permitted to a node, None if nothing."""
        return self._entries.get(peer_id)

    def conduct(self, peer_id: NodeId) -> Conduct:
        """Returns a node's record; a node that is not permitted has an empty one that nobody keeps."""
        return self._conduct.get(peer_id) or Conduct()
