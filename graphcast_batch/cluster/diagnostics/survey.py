"""Examine one node for the doctor: its packages, its resources, and how files in a shared folder behave there.

The survey runs on all nodes at the same time, so that they use the folder at once.
"""

import errno
import os
import platform
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path
from typing import Final

from graphcast_batch.cluster import ray_folder
from graphcast_batch.cluster.file_systems import file_system
from graphcast_batch.cluster.slurm.allocation import Allocation, allocation
from graphcast_batch.cluster.visible_devices import visible_devices
from graphcast_batch.errors import AllocationError, ClusterError
from graphcast_batch.files.durable import folder_clock, publish
from graphcast_batch.setup.machine_memory import machine_bytes, physical_bytes

GREETING: Final = "greeting"
"""Name of the file that is written into the folder before the nodes examine it."""
SWAPPED: Final = "swapped"
"""Name of the file that is replaced by renaming while nodes read it; in each version all bytes are the same."""
PRIZES: Final = 16
"""Number of files that all nodes try to create."""
_TAKERS: Final = 4
_PATIENCE_SECONDS: Final = 20.0
"""How long a file may stay unseen: NFS caches the contents of a folder for up to a minute, mostly for a few seconds."""
_READS: Final = 100
_PACKAGES: Final = ("graphcast-batch", "jax", "jaxlib", "ray", "zarr", "numpy", "xarray")


@dataclass(frozen=True)
class Visit:
    """How the folder behaved on one node.

    Attributes:
        kind: kind of the file system, such as nfs4; empty if it is not known.
        mount: where the file system is mounted.
        fault: why the node could not work there; empty if it could.
        waited: seconds until the node saw the greeting.
        won: numbers of the files that this node created, of those that all nodes tried to create.
        torn: number of reads of the replaced file that returned a mixture of two versions.
        clock: seconds by which the clock of the folder is ahead of the node's.
    """

    kind: str = ""
    mount: str = ""
    fault: str = ""
    waited: float = 0.0
    won: tuple[int, ...] = ()
    torn: int = 0
    clock: float = 0.0


@dataclass(frozen=True)
class Survey:
    """What was found on one node.

    Attributes:
        host: name of the node.
        versions: versions of Python and packages.
        given: what the scheduler gave there.
        devices: platform and kind of the devices that JAX sees.
        blind: why JAX sees no device; empty if it could be asked.
        nvidia: number of NVIDIA's device files, one for each GPU.
        cores: number of cores that processes may use.
        memory_bytes: memory of the node.
        usable_bytes: memory that processes may use there, by the scheduler and by limits of cgroups.
        shared_bytes: free bytes in /dev/shm.
        open_files: how many files a process may have open.
        temporary: where a run or `launch` keeps Ray's sockets and logs; empty if nowhere.
        temporary_fault: why that is nowhere, or not where the environment says; empty if it is.
        visit: how the folder behaved.
    """

    host: str
    versions: Mapping[str, str]
    given: Allocation
    devices: tuple[tuple[str, str], ...]
    blind: str
    nvidia: int
    cores: int
    memory_bytes: int
    usable_bytes: int
    shared_bytes: int
    open_files: int
    temporary: str
    temporary_fault: str
    visit: Visit

    @property
    def gpus(self) -> int:
        """Number of GPUs that JAX sees."""
        return sum(platform in ("gpu", "cuda", "rocm") for platform, _ in self.devices)


def survey(number: int, folder: Path | None, greeting: str) -> Survey:
    """Examine this node, and use a folder together with the other nodes.

    Args:
        number: number of the node, which is part of the names of its files.
        folder: the folder that all nodes use; None if there is none.
        greeting: text that the greeting file in the folder must have.
    """
    devices, blind = visible_devices()
    temporary, temporary_fault = _for_ray()
    given = _given()
    return Survey(
        host=socket.gethostname(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        given=given,
        devices=devices,
        blind=blind,
        nvidia=len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdecimal()]),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=physical_bytes(),
        usable_bytes=min(machine_bytes(), given.memory_bytes or machine_bytes()),
        shared_bytes=_free("/dev/shm"),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        temporary=temporary,
        temporary_fault=temporary_fault,
        visit=visit(number, folder, greeting) if folder else Visit(),
    )


def visit(number: int, folder: Path, greeting: str) -> Visit:
    """Use a folder as the workers of a run do, and check what they rely on; see `survey`."""
    kind, mount = file_system(folder)
    met = Visit(kind, str(mount))
    try:
        waited = _wait_for(folder / GREETING, greeting)
        if waited is None:
            return replace(met, fault=f"does not see a file that was written into {folder} on another node")
        won = _take(folder, number)
        torn = sum(_is_torn(folder / SWAPPED) for _ in range(_READS))
        draft = folder / f".{number}"
        draft.write_text(greeting, encoding="utf-8")
        draft.rename(folder / answer(number))
        return replace(met, waited=waited, won=won, torn=torn, clock=folder_clock(folder) - time.time())
    except OSError as error:
        return replace(met, fault=f"cannot work in {folder}: {error}")


def answer(number: int) -> str:
    """Return the name of the file by which a node answers in the folder."""
    return f"answer-{number}"


def unwritable(folder: Path) -> str:
    """Return why a folder cannot be written; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return str(error)
    return ""


def _for_ray() -> tuple[str, str]:
    """Return where Ray's folder can be made, and why not where the environment says."""
    try:
        found = ray_folder.usable()
    except ClusterError as error:
        return "", str(error)
    wanted = ray_folder.candidates()[0]
    return found, "" if found == wanted else f"{wanted} is too long for Ray's sockets, or cannot be written"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _given() -> Allocation:
    try:
        return allocation(os.environ)
    except AllocationError:  # reported for the node of the doctor
        return Allocation()


def _free(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _wait_for(path: Path, text: str) -> float | None:
    """Return the seconds until a file has a certain text; None if it does not have it in time."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < _PATIENCE_SECONDS:
        # NFS remembers for a while that a file was missing; a listing of the folder is always new.
        with suppress(FileNotFoundError):
            if path.name in os.listdir(path.parent) and path.read_text(encoding="utf-8") == text:
                return waited
        time.sleep(0.1)
    return None


def _take(folder: Path, number: int) -> tuple[int, ...]:
    """Return the numbers of the files that this node created; it tries each several times at once."""

    def first(prize: int, taker: int) -> bool:
        try:
            publish(folder / f"prize-{prize}", f"{number}.{taker}".encode(), durably=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(_TAKERS) as takers:
        tried = [takers.map(first, range(PRIZES), repeat(taker)) for taker in range(_TAKERS)]
        return tuple(prize for wins in tried for prize, won in enumerate(wins) if won)


def _is_torn(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: the file was replaced while it was read
            return False
        raise
    return not content or len(set(content)) > 1
