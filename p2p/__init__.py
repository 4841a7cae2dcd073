"""The peers of a node: identity, mutually pinned TLS, framing, queues, conduct, flooding.

Knows which keys are permitted and how bytes reach them; knows nothing of what the bytes mean to consensus, mempool or
ledger, which it hands to the node's `Handler` and takes from it.
"""
