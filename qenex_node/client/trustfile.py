"""The small file in which a light client keeps the newest header that it proved, from one run to the next.

Who goes on from it needs no older header, finds a node that shows less than was seen before, and can show both blocks
if a second one of that height turns up. It is as trusted as the genesis document: keep it where only its owner writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.forms import hexed, unhexed
from qenex_node.client.light import LIGHT_BLOCK_BYTES_MAX, LightBlock, LightClient
from qenex_node.jsonfiles import write_json
from state.codec import decode, encode
from state.errors import Rejected

VERSION: Final = 1
FILE_BYTES_MAX: Final = 2 * LIGHT_BLOCK_BYTES_MAX + 1024


def load_trust(path: Path, light: LightClient) -> LightBlock | None:
    """Trusts the block of a trust file, if there is one, and returns it.

    Raises Rejected("trust_file_invalid") for a file that is damaged or of another chain.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    try:
        if len(data) > FILE_BYTES_MAX:
            raise ValueError("it is too large")
        block = _read(json.loads(data), light.context.genesis_hash)
        light.trust(block, block.header.hash)
    except (ValueError, TypeError, KeyError, RecursionError, Rejected, VerificationFailed) as error:
        raise Rejected("trust_file_invalid", f"{path} is no trust file of this chain: {error}") from None
    return block


def _read(document: Any, genesis_hash: bytes) -> LightBlock:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r} is unknown; this program reads {VERSION}")
    if unhexed(document["genesis_hash"]) != genesis_hash:
        raise ValueError("it is of a chain with another genesis")
    return LightBlock.from_value(decode(unhexed(document["light_block"]), bytes_max=LIGHT_BLOCK_BYTES_MAX))


def save_trust(path: Path, light: LightClient, block: LightBlock) -> None:
    """Writes a proved block to a trust file, whole or not at all."""
    document = {
        "version": VERSION,
        "genesis_hash": hexed(light.context.genesis_hash),
        "height": block.header.height,
        "hash": hexed(block.header.hash),
        "light_block": hexed(encode(block.to_value())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
