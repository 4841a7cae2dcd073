"""Runs a node until it is told to stop, and begins anew with the database that state sync has made.

Between two lives of a node nobody hears its signals but what stands here.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator
from typing import Final

import trio

from qenex_node.clock import WallClock
from qenex_node.homes import NodeHome, NodeKeys
from qenex_node.logs import Log
from qenex_node.node import Node

log = Log("qenex.node")

_SIGNALS_SECONDS: Final = 0.02
_STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT})


async def run_node(home: NodeHome, keys: NodeKeys, clock: WallClock | None = None) -> None:
    """Runs a node until SIGTERM or SIGINT ends it cleanly; test networks give it a clock of their own.

    Raises Rejected for what an operator can mend, StoreError and InvariantError for what halts the node.
    """
    clock = clock or WallClock()
    node = Node(home, keys, clock)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        while True:
            try:
                await node.run()
            finally:
                node.close()
            if not node.restored or await _heard(signals) & _STOPPING:
                return
            log.info("beginning anew with the state of a snapshot")
            # What the node before was made of may be collected now.
            del node
            gc.unfreeze()
            node = Node(home, keys, clock)
            # The configuration may have been changed since the start, by a signal that came in the meantime perhaps.
            node.reload()


async def _heard(signals: AsyncIterator[int]) -> frozenset[int]:
    """Returns the signals that came while no node ran to hear them."""
    heard: set[int] = set()
    with trio.move_on_after(_SIGNALS_SECONDS):
        async for number in signals:
            heard.add(number)
    return frozenset(heard)
