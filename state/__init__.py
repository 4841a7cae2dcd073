"""The ledger: transactions, blocks, canonical encoding, rules, the Merkle tree and their storage."""
