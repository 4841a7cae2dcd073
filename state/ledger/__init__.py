"""The ledger: accounts, assets and the domains of operations on them.

The order to read it in: account.py and asset.py (what is stored), overlay.py (a block in the making), context.py (the
only door to it), plugin.py with fields.py (what a domain declares), domains/ (the domains), authorisation.py and
entry.py (what may enter a block), run.py (a block's transactions), ledger.py (the whole, as others see it).
"""

from state.ledger.account import Account
from state.ledger.asset import Asset
from state.ledger.ledger import DEFAULT_PLUGINS, AdmissionResult, Ledger
from state.ledger.overlay import AccountCache, StateReader
from state.ledger.plugin import OperationFailed, Plugin
from state.ledger.receipt import Event, Receipt
from state.ledger.run import FEE_POOL, BlockRun, Environment

__all__ = [
    "DEFAULT_PLUGINS",
    "FEE_POOL",
    "Account",
    "AccountCache",
    "AdmissionResult",
    "Asset",
    "BlockRun",
    "Environment",
    "Event",
    "Ledger",
    "OperationFailed",
    "Plugin",
    "Receipt",
    "StateReader",
]
