"""The file by which a test network sets a node's clock apart from the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CLOCK_FILE: Final = "clock_offset_ms"


def write_offset(node_home: Path, offset_ms: int) -> None:
    """Sets what the node's clock is to be ahead of the machine's, in ms; negative is behind."""
    path = node_home / CLOCK_FILE
    temporary = path.with_name(f".{CLOCK_FILE}.new")
    temporary.write_text(f"{offset_ms}\n")
    temporary.replace(path)


def read_offset(node_home: Path) -> int:
    """Returns the offset, 0 where none was set."""
    try:
        return int((node_home / CLOCK_FILE).read_text())
    except FileNotFoundError:
        return 0
