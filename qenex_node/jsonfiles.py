"""JSON documents in files: read with a bound, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from state.errors import Rejected


def read_json(path: Path, bytes_max: int, code: str) -> Any:
    """Returns a JSON document from a file; raises Rejected(code) if there is none or it is too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise Rejected(code, f"{path} cannot be read: {error}") from None
    if len(data) > bytes_max:
        raise Rejected(code, f"{path} has more than {bytes_max} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Rejected(code, f"{path} is not JSON") from None


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
