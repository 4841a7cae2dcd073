"""What methods share that answer for a height: which one is meant, and the state there."""

from __future__ import annotations

from dataclasses import dataclass

from qenex_node.rpc.errors import HEIGHT_AHEAD, HEIGHT_PRUNED, NOT_FOUND, RpcError
from qenex_node.rpc.params import BLOCK_REF, HEIGHT
from qenex_node.rpc.reads import ChainReads
from qenex_node.rpc.registry import Call, Param
from qenex_node.rpc.render import hexed
from state.ledger import StateReader
from state.types import Hash

AT_HEIGHT = Param("height", HEIGHT, "the height whose state is meant; the head's if left out", None)
BLOCK = Param("block", BLOCK_REF, 'a height, a block hash, or "latest"', None)


@dataclass(frozen=True, slots=True)
class StateAt:
    """The state at one height as a reader."""

    store: ChainReads
    height: int

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key."""
        return self.store.get_at(self.height, state_key)


def check_height(store: ChainReads, height: int) -> int:
    """Returns the height if it is committed; raises RpcError(HEIGHT_AHEAD)."""
    head_height = store.head.height
    if height > head_height:
        message = f"height {height} is not committed yet; the head is {head_height}"
        raise RpcError(HEIGHT_AHEAD, message, {"height": height, "head_height": head_height})
    return height


def block_height(call: Call, reference: int | bytes | None) -> int:
    """Returns the height that a block reference means; None is the head. Raises RpcError."""
    store = call.node.store
    if reference is None:
        return store.head.height
    if isinstance(reference, int):
        return check_height(store, reference)
    height = store.height_of(Hash(reference))
    if height is None:
        raise RpcError(
            NOT_FOUND, "no committed block has this hash", {"hash": hexed(reference)}, reason="block_unknown"
        )
    return height


def check_state(store: ChainReads, height: int | None) -> int:
    """Returns the height whose state is meant; raises RpcError if it is not committed or no longer kept."""
    if height is None:
        return store.head.height
    check_height(store, height)
    oldest = store.oldest_state_height
    if height < oldest:
        message = f"the state of height {height} is pruned; the oldest kept is {oldest}. Ask an archive node"
        raise RpcError(HEIGHT_PRUNED, message, {"height": height, "oldest_height": oldest})
    return height


def state_at(call: Call, height: int | None) -> tuple[int, StateReader]:
    """Returns the height that is meant and its state; None is the head. Raises RpcError."""
    store = call.node.store
    known = check_state(store, height)
    if known == store.head.height:
        return known, call.node.state
    return known, StateAt(store, known)
