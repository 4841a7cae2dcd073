"""The `qenex` command."""
