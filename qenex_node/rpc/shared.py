"""What all connections of the RPC listener share."""

from __future__ import annotations

from dataclasses import dataclass, field

from qenex_node.rpc.access import Access
from qenex_node.rpc.connections import Connections
from qenex_node.rpc.dispatch import Dispatcher
from qenex_node.rpc.limits import RpcLimits
from qenex_node.rpc.metrics import RpcMetrics
from qenex_node.rpc.subscriptions import SubscriptionCount
from qenex_node.rpc.view import NodeView


@dataclass(frozen=True, slots=True)
class Shared:
    """The node, what answers messages, who may call, the bounds, and the counts of what is in use."""

    node: NodeView
    dispatcher: Dispatcher
    access: Access
    limits: RpcLimits
    metrics: RpcMetrics
    connections: Connections
    subscription_count: SubscriptionCount = field(default_factory=SubscriptionCount)
