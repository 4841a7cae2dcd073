"""Governance: validators propose and vote who is a validator; evidence of equivocation is recorded, and may suspend.

The order to read it in: records.py (what is stored), possession.py (what a new key must sign), change.py (what a change
makes of a validator set), rules.py (proposing, voting, what a block begins and ends with), plugin.py (the declaration).
"""

from state.ledger.domains.governance.plugin import PLUGIN

__all__ = ["PLUGIN"]
