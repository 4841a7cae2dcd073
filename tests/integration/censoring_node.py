"""A whole validator that leaves out one account's transactions whenever it proposes: the process of test_censorship.py.

    python censoring_node.py HOME VICTIM

All else it does as any node: its blocks are valid, and it votes for those of others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from qenex_node.homes import open_home, read_keys
from qenex_node.proposals import Proposals
from qenex_node.running import run_node
from state.transaction import Transaction


def main(home: Path, victim: bytes) -> None:
    honest = Proposals._within_budget

    def without_victim(self: Proposals) -> Iterator[Transaction]:
        return (tx for tx in honest(self) if tx.sender != victim)

    Proposals._within_budget = without_victim  # type: ignore[method-assign]
    node_home = open_home(home)
    trio.run(run_node, node_home, read_keys(node_home, None))


if __name__ == "__main__":
    main(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))
