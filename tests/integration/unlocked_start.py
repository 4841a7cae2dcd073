"""`qenex start` as it were on another machine, where no lock of this one is seen: python unlocked_start.py HOME."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from cli.main import main
from qenex_node import keylock

if __name__ == "__main__":
    keylock.hold_key = lambda key: nullcontext()  # type: ignore[assignment, return-value]
    sys.argv = ["qenex", "start", "--home", sys.argv[1]]
    main()
