"""The address of a node that others reach, in networks made for the purpose."""

import socket
import subprocess
import sys

import pytest

from graphcast_batch.cluster.slurm import addresses
from graphcast_batch.cluster.slurm.addresses import own_address
from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.errors import ClusterError

ASK = """
from graphcast_batch.cluster.slurm.addresses import own_address
from graphcast_batch.cluster.slurm.allocation import Allocation
import sys
print(repr(own_address(Allocation(size=2, nodes=tuple(sys.argv[2:])), sys.argv[1])))
"""
NETWORK = """
set -e
ip link set lo up
add() { ip link add $1 type veth peer name x$1; ip addr add $2 dev $1; ip link set x$1 up; ip link set $1 up; }
add docker0 172.17.0.1/16
add first 10.9.8.7/24
add second 10.9.9.7/24
if [ "$1" = routed ]; then ip route add default via 10.9.9.1; fi
shift
exec "$@"
"""


def asked(route, *arguments):
    """What a node answers with three interfaces, the first of which is that of containers."""
    words = ["unshare", "-rn", "sh", "-c", NETWORK, "sh", route]
    told = subprocess.run(
        [*words, sys.executable, "-c", ASK, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    if any(text in told.stderr for text in ("unshare", "Operation not permitted", "not found", "Unknown device")):
        pytest.skip("no network of one's own can be made here")
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def test_without_a_default_route_the_way_to_the_head_or_to_another_node_tells_the_address():
    assert asked("none", "10.9.9.1:6379") == "'10.9.9.7'"
    assert asked("none", "", "10.9.9.3", "10.9.9.7") == "'10.9.9.7'"


def test_without_any_hint_it_is_that_of_the_first_interface_that_is_no_containers():
    assert asked("none", "") == "'10.9.8.7'"


def test_with_a_default_route_ray_finds_the_address_itself():
    assert asked("routed", "10.9.8.1:6379") == "''"


def test_a_single_node_listens_to_itself_alone():
    assert own_address(Allocation()) == "127.0.0.1"


def test_a_node_with_nothing_but_loopback_is_refused(monkeypatch):
    monkeypatch.setattr(addresses, "_toward", lambda *_: "")
    monkeypatch.setattr(addresses, "_of_interfaces", lambda: iter(()))
    with pytest.raises(
        ClusterError, match=r"the 2 nodes of a job must reach each other, but .* except loopback; bring"
    ):
        own_address(Allocation(size=2))


def test_where_there_is_ipv6_alone_ray_finds_the_address_itself(monkeypatch):
    monkeypatch.setattr(addresses, "_toward", lambda _, family=socket.AF_INET: "fd00::7" * (family == socket.AF_INET6))
    monkeypatch.setattr(addresses, "_of_interfaces", lambda: iter(()))
    assert own_address(Allocation(size=2)) == ""
