"""Which ports a network takes: those asked for, those it had, or free ones.

Free ports are taken from below the range that the system gives to outgoing connections. A port from that range may be
taken by any connection while its node is down, even by a peer that dials it and so connects to itself.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from qenex_node.testnet import PORTS_PER_NODE, NodePorts, ports_from
from state.errors import Rejected

FIRST_PORT: Final = 12_000
OUTGOING_FIRST_DEFAULT: Final = 32_768
ATTEMPTS_MAX: Final = 200
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Returns whether a listener can be opened on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def taken(ports: NodePorts) -> list[int]:
    """Returns which ports of a node are not free."""
    return [port for port in (ports.p2p, ports.rpc, ports.metrics) if not is_free(port)]


def free_ports(count: int) -> tuple[NodePorts, ...]:
    """Returns free ports for `count` nodes; raises Rejected("port_in_use") if none are found."""
    wanted = count * PORTS_PER_NODE
    end = _outgoing_first()
    if end - FIRST_PORT <= wanted:
        end = 65_536
    for _ in range(ATTEMPTS_MAX):
        base = random.randrange(FIRST_PORT, end - wanted)
        if all(is_free(port) for port in range(base, base + wanted)):
            return ports_from(base, count)
    raise Rejected("port_in_use", f"no {wanted} free ports in a row were found: give --base-port")


def asked_ports(base: int, count: int) -> tuple[NodePorts, ...]:
    """Returns the ports from `base` on; raises Rejected("port_in_use") naming those that are not free."""
    ports = ports_from(base, count)
    busy = [str(port) for place in ports for port in taken(place)]
    if busy:
        raise Rejected("port_in_use", f"ports {', '.join(busy)} are taken: choose another --base-port")
    return ports


def _outgoing_first() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return OUTGOING_FIRST_DEFAULT
