"""The local network: launcher, load generator, and what is needed to test a network."""
