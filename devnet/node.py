"""A node whose clock can be set apart from the machine's while it runs: for tests only, `qenex start` cannot.

The offset stands in a file of the node's home, in ms; the node reads it at its start and on SIGUSR1.
"""

from __future__ import annotations

import signal
from pathlib import Path

import trio

from devnet.clock import read_offset
from qenex_node.clock import WallClock
from qenex_node.homes import NodeHome, NodeKeys
from qenex_node.node import Node


async def run_node_with_clock(home: NodeHome, keys: NodeKeys) -> None:
    """Runs a node as `qenex_node.node.run_node` does, by a clock that follows the file."""
    clock = WallClock(read_offset(home.home.path))
    node = Node(home, keys, clock)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_follow, home.home.path, clock)
            await node.run()
            nursery.cancel_scope.cancel()
    finally:
        node.close()


async def _follow(
    node_home: Path, clock: WallClock, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        task_status.started()
        async for _ in signals:
            clock.offset_ms = read_offset(node_home)
