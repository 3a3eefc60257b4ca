"""Find how much memory the processes on this machine may use: that of the machine, or less by limits of cgroups.

Containers, Slurm and systemd limit the memory of processes by cgroups; a process that exceeds a limit is killed. See
https://docs.kernel.org/admin-guide/cgroup-v2.html, "memory.max", and for version 1
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, "memory.limit_in_bytes".
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOUNTED: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def machine_bytes() -> int:
    """Return the memory that the processes on this machine may use, in bytes."""
    return min([physical_bytes(), *cgroup_limits(_MEMBERSHIP, _MOUNTED)])


def physical_bytes() -> int:
    """Return the memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup_limits(membership: Path, mounted: Path) -> list[int]:
    """Return the limits of memory, in bytes, of the cgroups that this process is in, and of those around them.

    Args:
        membership: file that names the cgroups of the process, as ``/proc/self/cgroup`` does.
        mounted: folder where the hierarchies of cgroups are mounted.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return []
    groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return [limit for _, controllers, name in groups for limit in _limits(controllers, name, mounted)]


def _limits(controllers: str, name: str, mounted: Path) -> Iterator[int]:
    """Yield the limits of one cgroup and of those around it."""
    if "memory" in controllers.split(","):
        root, file = mounted / "memory", "memory.limit_in_bytes"
    elif not controllers:  # version 2, alone or beside hierarchies of version 1
        root, file = next((place for place in (mounted / "unified", mounted) if place.is_dir()), mounted), "memory.max"
    else:
        return
    # In a container the name may be that outside of it, where none of these folders but the root is seen.
    inner = root / name.lstrip("/")
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # no such file, or ``max``, which is no limit
            yield int((folder / file).read_text())
        if folder == root:
            return
