"""Find how much memory of this node the processes of a run may use."""

import os

from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.setup.machine_memory import machine_bytes


def usable_bytes() -> int:
    """Return the least of the machine's memory, the limits of cgroups, and what the scheduler gave, in bytes.

    Raises:
        AllocationError: a variable of the scheduler cannot be read.
    """
    return min(machine_bytes(), allocation(os.environ).memory_bytes or machine_bytes())
