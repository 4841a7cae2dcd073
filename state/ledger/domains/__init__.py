"""The domains of the ledger, one file each: the operations that it knows, by the contract of state/ledger/plugin.py."""
