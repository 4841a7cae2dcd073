"""Peers: identity, TLS, framing, gossip and block transfer."""
