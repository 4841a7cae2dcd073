"""The Python client of a QENEX node.

    from qenex_node.client import Client, Session, TrustedChain

    with Client("http://127.0.0.1:27101", session=Session(TrustedChain(genesis))) as client:
        done = client.transfer(key, to, 1_000, "QNX")      # returns once it is final, and raises if it failed
        print(client.balance(to, "QNX").available)          # proved against the validators of `genesis`

`Client` blocks, `AsyncClient` is for trio and has WebSockets with subscriptions. Read in this order: flows.py (how it
is built), jsonrpc.py, http.py and websocket.py (bytes), submit.py and reads.py (what it does), verify.py and light.py
(what it believes), blocking.py, concurrent.py and live.py (the faces). It needs no database and imports none.
"""

from qenex_node.client.blocking import Client
from qenex_node.client.concurrent import AsyncClient
from qenex_node.client.draft import Draft, Slot
from qenex_node.client.errors import (
    ClientError,
    Expired,
    NotFound,
    ProtocolError,
    RpcError,
    StillPending,
    TimedOut,
    TransactionFailed,
    TransportError,
    VerificationFailed,
)
from qenex_node.client.light import LightBlock, LightClient, TrustedHeader, TrustPeriod
from qenex_node.client.operations import Operations
from qenex_node.client.retry import Retry
from qenex_node.client.session import Session
from qenex_node.client.signing import Signer
from qenex_node.client.submit import Committed, Prepared, Submitted, Terms
from qenex_node.client.verify import Freshness, Proven, TrustedChain

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Committed",
    "Draft",
    "Expired",
    "Freshness",
    "LightBlock",
    "LightClient",
    "NotFound",
    "Operations",
    "Prepared",
    "Proven",
    "ProtocolError",
    "Retry",
    "RpcError",
    "Session",
    "Signer",
    "Slot",
    "StillPending",
    "Submitted",
    "Terms",
    "TimedOut",
    "TransactionFailed",
    "TransportError",
    "TrustPeriod",
    "TrustedChain",
    "TrustedHeader",
    "VerificationFailed",
]
