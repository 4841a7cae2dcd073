"""Asking a running node for JSON: what the watching commands (status, validators, peers) share."""

from __future__ import annotations

from typing import Any, Final

from cli.settings import Settings
from state.errors import JsonValue

ANSWER_SECONDS: Final = 5.0


def ask(settings: Settings, method: str, **params: JsonValue) -> Any:
    """Returns the result of one RPC call to a node that the settings name; raises the client's errors."""
    from qenex_node.client.blocking import Client

    with Client(*settings.rpcs, timeout_s=ANSWER_SECONDS) as client:
        return client.call(method, **params)


def ask_all(settings: Settings, *methods: str) -> list[Any]:
    """Returns the results of calls without parameters, over one connection."""
    from qenex_node.client.blocking import Client

    with Client(*settings.rpcs, timeout_s=ANSWER_SECONDS) as client:
        return [client.call(method) for method in methods]
