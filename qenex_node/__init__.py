"""The node: wires ledger, consensus and peers together and serves clients.

The folders `state`, `consensus` and `p2p` have generic names: importing this package checks that they are the node's
own and not somebody else's that stand earlier on the path.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

__version__ = "0.1.0"


def _check_neighbours() -> None:
    root = Path(__file__).resolve().parent.parent
    for name in ("state", "consensus", "p2p"):
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent.parent != root:
            raise ImportError(
                f"the package {name!r} found at {origin} is not the node's own, which stands in {root}; "
                "install qenex-node in an environment of its own"
            )


_check_neighbours()
