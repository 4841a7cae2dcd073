"""The node: wires ledger, consensus and peers together and serves clients."""
