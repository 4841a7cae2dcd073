"""Committed blocks and what is in them: from the feed while they are new, else from the store."""

from __future__ import annotations

from time import perf_counter
from typing import Final

import trio

from qenex_node.rpc import render
from qenex_node.rpc.errors import NOT_FOUND, RpcError
from qenex_node.rpc.render import Json
from qenex_node.rpc.view import NodeView
from state.block import Block
from state.errors import InvariantError
from state.ledger.receipt import Receipt
from state.transaction import decode_transaction

SLICE_S: Final = 0.002


def block_at(node: NodeView, height: int) -> Block:
    """Returns the block of a committed height; raises RpcError(NOT_FOUND) where the node does not keep it."""
    recent = node.feed.recent(height)
    if recent is not None:
        return recent.block
    block = node.store.block_at(height)
    if block is None:
        raise RpcError(
            NOT_FOUND, f"the block of height {height} is not kept", {"height": height}, reason="block_unknown"
        )
    return block


def receipt_at(node: NodeView, height: int, index: int) -> Receipt:
    """Returns the receipt of a committed transaction."""
    recent = node.feed.recent(height)
    if recent is not None:
        return Receipt.decode(recent.receipt_bytes[index])
    receipt = node.store.receipt_at(height, index)
    if receipt is None:
        raise InvariantError(f"height {height} has no receipt {index}")
    return receipt


def receipts_at(node: NodeView, height: int, start: int, end: int) -> list[Receipt]:
    """Returns the receipts from index `start` up to `end` of a committed height."""
    recent = node.feed.recent(height)
    encoded = node.store.receipt_bytes_at(height) if recent is None else recent.receipt_bytes
    return [Receipt.decode(data) for data in encoded[start:end]]


def wire_at(node: NodeView, height: int, index: int) -> bytes:
    """Returns the wire bytes of a committed transaction."""
    recent = node.feed.recent(height)
    wire = node.store.transaction_at(height, index) if recent is None else recent.block.transactions[index]
    if wire is None:
        raise InvariantError(f"height {height} has no transaction {index}")
    return wire


def committed_transaction(node: NodeView, height: int, index: int, wire: bytes, receipt: Receipt) -> Json:
    """Returns a committed transaction with its place and receipt."""
    return {
        "height": height,
        "index": index,
        "transaction": render.transaction(node.ledger, decode_transaction(wire, node.context)),
        "receipt": node.ledger.receipt_to_json(receipt),
    }


class Pauses:
    """Lets others run whenever a few milliseconds of work were done."""

    def __init__(self) -> None:
        self._end = perf_counter() + SLICE_S

    async def pause(self) -> None:
        """Lets others run if it is time to."""
        if perf_counter() > self._end:
            await trio.lowlevel.checkpoint()
            self._end = perf_counter() + SLICE_S
