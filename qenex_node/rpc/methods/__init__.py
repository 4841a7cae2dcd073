"""The methods of a node: all declarations, in the order in which documents show them."""

from __future__ import annotations

from qenex_node.rpc.methods import (
    accounts,
    chain,
    consensus,
    discover,
    ledger,
    mempool,
    net,
    simulate,
    subscriptions,
    transactions,
)
from qenex_node.rpc.registry import Registry
from state.ledger import Ledger


def registry(rules: Ledger, version: str) -> Registry:
    """Returns all methods of a node whose ledger has these rules; `version` is the node's own."""
    methods = Registry(
        (
            *chain.METHODS,
            *transactions.METHODS,
            *simulate.METHODS,
            *accounts.METHODS,
            *ledger.methods(rules),
            *mempool.METHODS,
            *net.METHODS,
            *consensus.METHODS,
            *subscriptions.METHODS,
        )
    )
    methods.add(discover.method(methods, version))
    return methods
