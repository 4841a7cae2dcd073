"""The load generator: signed transfers at a rate or as fast as they are taken, measured, and audited afterwards."""
