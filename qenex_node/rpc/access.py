"""Who may talk to the listener: the Host and Origin checks that keep other web pages' scripts out.

A page of a hostile site can make a browser send requests to a node on the same machine or network. It cannot hide its
Origin, and where it rebinds its own DNS name to our address, it cannot hide that name in Host. An IP address as Host
is always answered: rebinding needs a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


class Access:
    """The names that the node is called by, and the web origins that may call it."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """Takes host names beside localhost and all IP addresses, and origins like https://wallet.example."""
        self._hosts = frozenset({b"localhost", *(host.lower().encode() for host in hosts)})
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._hosts_known: dict[bytes, bool] = {}

    def host_allowed(self, host: bytes) -> bool:
        """Returns whether a Host header's value, with or without a port, names this node."""
        known = self._hosts_known.get(host)
        if known is None:
            known = self._host_allowed(host)
            if known and len(self._hosts_known) < 64:
                self._hosts_known[host] = known
        return known

    def _host_allowed(self, host: bytes) -> bool:
        bracketed = host.startswith(b"[")
        name = host[1:].partition(b"]")[0] if bracketed else host.partition(b":")[0]
        name = name.lower()
        if name in self._hosts:
            return True
        try:
            ip_address(name.decode("ascii"))
        except ValueError:
            return False
        return True

    def origin_allowed(self, origin: bytes) -> bool:
        """Returns whether a page of this origin may call."""
        return origin.lower() in self._origins
