"""The memory that processes may use is that of the machine, of their cgroups, or what the scheduler gave."""

import pytest

from graphcast_batch.cluster import usable_memory
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.setup import machine_memory
from graphcast_batch.setup.machine_memory import cgroup_limits, machine_bytes, physical_bytes

UNLIMITED = 9223372036854771712
"""What version 1 has in the place of no limit."""
OF_VERSION_1 = "9:memory:/slurm/uid_0/job_7\n1:name=systemd:/init.scope\n"
HYBRID = "4:memory,hugetlb:/slurm/uid_0/job_7\n0::/\n"


@pytest.fixture
def cgroups(tmp_path):
    """Writes the files of cgroups as Linux has them."""

    def write(membership, **limits):
        (tmp_path / "cgroup").write_text(membership)
        for path, limit in limits.items():
            file = tmp_path / "fs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")
        (tmp_path / "fs").mkdir(exist_ok=True)
        return tmp_path / "cgroup", tmp_path / "fs"

    return write


@pytest.mark.parametrize(
    ("membership", "limits", "least"),
    [
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": 8000}, 8000),
        ("0::/job/step", {"job/step/memory.max": 500, "job/memory.max": 8000}, 500),
        ("0::/", {"memory.max": 8000}, 8000),
        ("0::/", {}, None),
        ("0::/of/the/host", {"memory.max": 8000}, 8000),  # as a container sees its own
        ("0::/../..", {"memory.max": 8000}, 8000),
        (OF_VERSION_1, {"memory/slurm/uid_0/job_7/memory.limit_in_bytes": 300, "memory/memory.limit_in_bytes": 9}, 9),
        (OF_VERSION_1, {"memory/slurm/uid_0/memory.limit_in_bytes": 300}, 300),
        (HYBRID, {"memory/slurm/uid_0/job_7/memory.limit_in_bytes": 300, "unified/memory.max": "max"}, 300),
        ("", {}, None),
    ],
)
def test_the_limits_of_a_cgroup_and_of_those_around_it_count(cgroups, membership, limits, least):
    assert min(cgroup_limits(*cgroups(membership, **limits)), default=None) == least


def test_no_limit_of_version_1_is_none(cgroups, monkeypatch):
    membership, mounted = cgroups(OF_VERSION_1, **{"memory/memory.limit_in_bytes": UNLIMITED})
    monkeypatch.setattr(machine_memory, "_MEMBERSHIP", membership)
    monkeypatch.setattr(machine_memory, "_MOUNTED", mounted)

    assert machine_bytes() == physical_bytes()


def test_where_there_are_no_cgroups_the_memory_is_that_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_memory, "_MEMBERSHIP", tmp_path / "none")

    assert machine_bytes() == physical_bytes()


@pytest.mark.parametrize(
    ("given", "limit", "expected"),
    [
        ({}, 10 * 2**30, 10),
        ({"SLURM_MEM_PER_NODE": "4096"}, 10 * 2**30, 4),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}, 10 * 2**30, 3),
        ({"SLURM_MEM_PER_NODE": "0"}, 10 * 2**30, 10),  # all that the node has
        ({"SLURM_MEM_PER_NODE": "16G"}, 10 * 2**30, 10),
    ],
)
def test_the_least_of_machine_limits_and_job_may_be_used(monkeypatch, given, limit, expected):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(usable_memory, "machine_bytes", lambda: limit)

    assert usable_bytes() == expected * 2**30
