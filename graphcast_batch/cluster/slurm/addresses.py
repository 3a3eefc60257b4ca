"""Find the address of this node that the other nodes of its job can reach."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Final

import psutil

from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.errors import ClusterError

_ANYWHERE: Final = "8.8.8.8"
"""Address to which Ray looks up the route (ray 2.60); nothing is sent."""
_ANYWHERE_IPV6: Final = "2001:4860:4860::8888"
"""The same where there is no IPv4."""
_PORT: Final = 53
_NOT_BETWEEN_NODES: Final = ("docker", "virbr", "br-", "veth", "lxc", "cni", "flannel", "podman")
"""Beginnings of the names of network interfaces between a host and its containers or virtual machines; used last."""
LOOPBACK: Final = "127.0.0.1"


def own_address(here: Allocation, head: str = "") -> str:
    """Return the address that Ray must use on this node; empty if Ray finds it by itself.

    Ray takes the address of the default route and, without one, that of the host name, which is a loopback address on
    many systems.

    Args:
        here: the job and this node's place in it.
        head: HOST:PORT of the cluster's head; empty on the node that runs the head.

    Raises:
        ClusterError: this node has no address that others can reach.
    """
    if here.size == 1:
        return LOOPBACK
    if _toward(_ANYWHERE):
        return ""
    others = [head.rpartition(":")[0], *here.nodes, os.environ.get("MASTER_ADDR", "")]
    routed = (_toward(other) for other in others if other)
    found = next(filter(None, routed), "") or next(_of_interfaces(), "")
    if not found and not _toward(_ANYWHERE_IPV6, socket.AF_INET6):
        raise ClusterError(
            f"the {here.size} nodes of a job must reach each other, but {socket.gethostname()} has no network address "
            "except loopback; bring its network up, or start the command on one node without launch"
        )
    return found


def _toward(host: str, family: socket.AddressFamily = socket.AF_INET) -> str:
    """Return the address from which packets to a host are sent; empty if that is loopback, or there is no route."""
    try:
        target = socket.getaddrinfo(host, _PORT, family, socket.SOCK_DGRAM)[0][4]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            source = str(probe.getsockname()[0])
    except OSError:
        return ""
    return source if _is_usable(source) else ""


def _of_interfaces() -> Iterator[str]:
    """Yield the addresses of the network interfaces that are up, those between nodes first."""
    stats = psutil.net_if_stats()
    up = [name for name in psutil.net_if_addrs() if name in stats and stats[name].isup]
    for name in sorted(up, key=lambda name: name.startswith(_NOT_BETWEEN_NODES)):
        for each in psutil.net_if_addrs()[name]:
            if each.family == socket.AF_INET and _is_usable(each.address):
                yield each.address


def _is_usable(address: str) -> bool:
    known = ipaddress.ip_address(address)
    return not (known.is_loopback or known.is_link_local or known.is_unspecified)
