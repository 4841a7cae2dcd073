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
from qenex_node.running import run_node


async def run_node_with_clock(home: NodeHome, keys: NodeKeys) -> None:
    """Runs a node by a clock that follows the file."""
    clock = WallClock(read_offset(home.home.path))
    async with trio.open_nursery() as nursery:
        await nursery.start(_follow, home.home.path, clock)
        await run_node(home, keys, clock)
        nursery.cancel_scope.cancel()


async def _follow(
    node_home: Path, clock: WallClock, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        task_status.started()
        async for _ in signals:
            clock.offset_ms = read_offset(node_home)
