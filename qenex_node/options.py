"""What the configuration means to each part: the parts' own option types, made from the keys that concern them.

The configuration knows no part and no part knows the configuration; they meet here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qenex_node.config import Config
from qenex_node.mempool import MempoolLimits
from qenex_node.rpc.limits import RpcLimits

if TYPE_CHECKING:
    from qenex_node.snapshots import SnapshotOptions
    from qenex_node.statesync import StateSyncOptions
    from state.store import StoreOptions


def store_options(config: Config) -> StoreOptions:
    """Returns what the configuration says about the database."""
    # The database's library is needed by those who open one, not by everyone who reads a configuration.
    from state.store import StoreOptions

    section = config.storage
    return StoreOptions(
        keep_heights=section.keep_heights or None,
        index_accounts=section.index_accounts,
        cache_bytes=section.cache_bytes,
        write_buffer_bytes=section.write_buffer_bytes,
    )


def snapshot_options(config: Config) -> SnapshotOptions:
    """Returns what the configuration says about snapshots."""
    from qenex_node.snapshots import SnapshotOptions

    section = config.snapshots
    return SnapshotOptions(section.interval_heights, section.keep, config.storage.min_free_bytes)


def state_sync_options(config: Config) -> StateSyncOptions:
    """Returns how a node that is behind uses them: an archive, which is to have every block, never does."""
    from qenex_node.statesync import StateSyncOptions

    gap_heights = config.sync.snapshot_gap_heights if config.storage.keep_heights else 0
    return StateSyncOptions(gap_heights, config.storage.min_free_bytes)


def mempool_limits(config: Config) -> MempoolLimits:
    """Returns the mempool's bounds."""
    section = config.mempool
    return MempoolLimits(
        count_max=section.count_max,
        bytes_max=section.bytes_max,
        account_count_max=section.account_count_max,
        account_bytes_max=section.account_bytes_max,
        sequence_ahead_max=section.sequence_ahead_max,
    )


def rpc_limits(config: Config) -> RpcLimits:
    """Returns what clients may take."""
    section = config.rpc
    return RpcLimits(
        body_bytes_max=section.body_bytes_max,
        batch_max=section.batch_max,
        connections_max=section.connections_max,
        connections_per_address_max=section.connections_per_address_max,
        subscriptions_max=section.subscriptions_max,
        subscriptions_per_connection_max=section.subscriptions_per_connection_max,
        outbox_bytes_max=section.outbox_bytes_max,
        wait_ms_max=section.wait_ms_max,
        idle_timeout_s=float(section.idle_seconds_max),
    )
