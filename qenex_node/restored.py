"""What the consensus core is told when it is made: its configuration, and where the database says that it stands.

The running node makes its core from these; tools that work on a stopped validator's records see them through the same.
"""

from __future__ import annotations

from consensus.interface import Config as CoreConfig
from consensus.interface import KnownBlock, Restored
from qenex_node.config import Config
from state.genesis import Genesis
from state.store import Store
from state.types import Hash


def core_config(config: Config, genesis: Genesis, key: bytes | None) -> CoreConfig:
    """Returns the core's configuration; `key` is the validator's public key, None for an observer."""
    section = config.consensus
    return CoreConfig(
        chain_id=genesis.chain_id,
        genesis_hash=genesis.hash,
        key=key,
        leader_term=genesis.parameters.leader_term,
        drift_ms=genesis.parameters.drift_ms,
        progress_timeout_ms=section.progress_timeout_ms,
        progress_timeout_max_ms=section.progress_timeout_max_ms,
        silence_heights=section.silence_heights,
        silence_quiet_ms=section.silence_ms,
    )


def restored_from(store: Store, key: bytes | None) -> Restored:
    """Returns where the core of a validator with this key, or of an observer, starts from.

    Another key's vote records, in a data directory that was swapped or copied, are none of ours.
    """

    def load_block(block_hash: Hash) -> KnownBlock | None:
        block = store.body(block_hash)
        return None if block is None else KnownBlock(block.header, block.wire_hashes)

    return Restored(
        head=store.head,
        certificate=store.head_certificate,
        validators=store.validators,
        validators_since=store.validators_since,
        records=store.votes() if key is not None and store.votes_owner == key else None,
        load_block=load_block,
    )
