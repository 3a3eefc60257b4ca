"""Diagnose a machine, a cluster and a folder before a run: what works, what does not, and what to do about it."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, Literal

from graphcast_batch.cluster.diagnostics.diagnosis import Diagnosis
from graphcast_batch.cluster.diagnostics.run_needs import Nodes, of_cache, of_run
from graphcast_batch.cluster.diagnostics.survey import GREETING, PRIZES, SWAPPED, Survey, answer, survey
from graphcast_batch.cluster.slurm.allocation import Allocation, allocation, unused_nodes
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import AllocationError

Everywhere = Callable[..., Sequence[Any]]
"""Calls a function on all nodes at the same time, with the number of the node and further arguments; returns results in
the order of the numbers, and for a call that failed its exception."""
_LOCAL: Final = frozenset(
    ("bcachefs", "btrfs", "devtmpfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)
"""File systems that one node alone mounts."""
_IN_MEMORY: Final = frozenset(("devtmpfs", "ramfs", "tmpfs"))
_SHARED_BYTES: Final = 2**29
"""Size of the object store of a Ray that a run starts."""
_LEAST_FILES, _MANY_FILES = 1024, 4096
"""Open files of a process: a limit below the first is a problem, one below the second is worth a note."""
_MOST_SKEW_SECONDS: Final = 5.0
"""The reserve before a job's end is twelve times as long; leases go by the folder's clock alone."""
_LONG_WAIT_SECONDS: Final = 5.0
_MOST_NAMED: Final = 5
_FOR_GPUS: Final = "install graphcast-batch[cuda13] or [cuda12] to fit the driver, and leave JAX_PLATFORMS unset"


def here(function: Callable[..., Any], *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as `Everywhere`
    """Call a function on this node alone; an `Everywhere` without a cluster."""
    return [function(0, *arguments)]


def diagnose(
    place: Path, config: RunConfig | None, resources: Mapping[str, float] | None = None, everywhere: Everywhere = here
) -> list[Diagnosis]:
    """Check all that a run relies on.

    Args:
        place: the folder that contains, or will contain, the store; nothing is left there.
        config: configuration of the run; None to check the machine and the folder alone.
        resources: resources of the Ray cluster, by Ray's names; None if there is none yet.
        everywhere: calls a function on each node.
    """
    given, findings = _scheduler(os.environ, time.time())
    greeting = uuid.uuid4().hex
    with _meeting(place, greeting) as (folder, fault):
        if fault:
            text = f"{place} must be writable, but is not: {fault}; correct that or choose another"
            findings.append(Diagnosis("problem", "folder", text))
        results = everywhere(survey, folder, greeting)
        findings.append(_ray(resources, len(results), given))
        surveys = [result for result in results if isinstance(result, Survey)]
        findings += [
            Diagnosis("problem", "nodes", f"a node cannot be examined: {result}; see that graphcast-batch is there")
            for result in results
            if not isinstance(result, Survey)
        ]
        findings += of_nodes(surveys, resources)
        if folder:
            findings += of_folder(surveys, _answers(folder, greeting, len(results)), given)
    return [*findings, _skew(everywhere), *of_run(place, config, _nodes(surveys, resources)), of_cache(config)]


def _nodes(surveys: Sequence[Survey], resources: Mapping[str, float] | None) -> Nodes:
    """Return what a run has: a cluster of Ray, or the cores of this machine."""
    gpus = sum(one.gpus for one in surveys)
    memory = min((one.usable_bytes for one in surveys), default=0)
    cpus = sum(one.given.cpus or one.cores for one in surveys) if resources is None else int(resources.get("CPU", 0))
    return Nodes(len(surveys), cpus, gpus if resources is None else int(resources.get("GPU", 0)), memory)


def of_nodes(surveys: Sequence[Survey], resources: Mapping[str, float] | None) -> list[Diagnosis]:
    """Check each node by itself and compare the nodes with each other."""
    findings = [_versions(surveys)] if surveys else []
    for look in (_devices, _temporary, _memory, _shared_memory, _open_files):
        findings += _grouped({number: look(one) for number, one in enumerate(surveys)}, surveys)
    seen = sum(one.gpus for one in surveys)
    gpus = None if resources is None else int(resources.get("GPU", 0))
    if gpus and seen < gpus:
        text = f"Ray has {gpus} GPUs to hand out, but JAX sees {seen} on its nodes; {_FOR_GPUS}"
        findings.append(Diagnosis("problem", "devices", text))
    if gpus == 0 and seen:
        text = f"JAX sees {seen} GPUs, but Ray has none to hand out: start Ray with --num-gpus to use them"
        findings.append(Diagnosis("note", "devices", text))
    return findings


def of_folder(surveys: Sequence[Survey], answers: int, given: Allocation | None) -> list[Diagnosis]:
    """Check how the folder behaved while all nodes used it.

    Args:
        surveys: what was found on all nodes.
        answers: number of nodes whose file was seen on the doctor's node.
        given: what the scheduler gave; None if that cannot be read.
    """
    unasked = (given.size if given else 1) - len(surveys)
    findings = _grouped({number: _visited(one, unasked) for number, one in enumerate(surveys)}, surveys)
    if not surveys or any(one.visit.fault for one in surveys):
        return findings
    wins = Counter(prize for one in surveys for prize in one.visit.won)
    torn = sum(one.visit.torn for one in surveys)
    offset = max((one.visit.clock for one in surveys), key=abs)
    return [
        *findings,
        _shared(surveys, answers),
        _once(wins),
        _complete(torn),
        _late(
            "file clock", "note", offset, "the folder's clock and a node's", "nothing relies on it but what is logged"
        ),
    ]


def _scheduler(environment: Mapping[str, str], now: float) -> tuple[Allocation | None, list[Diagnosis]]:
    try:
        given = allocation(environment)
    except AllocationError as error:
        return None, [Diagnosis("problem", "scheduler", str(error))]
    if given.scheduler == "none":
        return given, [Diagnosis("ok", "scheduler", "none: this machine alone, or a cluster of Ray")]
    parts = [f"{given.scheduler} job {given.job}".strip(), f"node {given.rank + 1} of {given.size}"]
    parts += [f"{count} {unit}" for count, unit in ((given.cpus, "CPUs"), (given.gpus, "GPUs")) if count is not None]
    parts += [f"{given.memory_bytes / 1e9:.3g} GB"] if given.memory_bytes else []
    if given.end is None:
        advice = "a run does not know when its job ends: set SLURM_JOB_END_TIME from squeue, as slurm/*.sbatch does"
        return given, [Diagnosis("note", "scheduler", f"{', '.join(parts)}; {advice}")]
    return given, [Diagnosis("ok", "scheduler", f"{', '.join(parts)}, {(given.end - now) / 60:.0f} min left")]


def _ray(resources: Mapping[str, float] | None, nodes: int, given: Allocation | None) -> Diagnosis:
    if resources is None:
        text = "no cluster: a run starts Ray on this machine"
        idle = unused_nodes(given, 1) if given else ""
        return Diagnosis("note", "ray", f"{text}; {idle}") if idle else Diagnosis("ok", "ray", text)
    text = f"{nodes} nodes, {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs"
    if given and nodes < given.size:
        text += f", but the job has {given.size} nodes; see what Ray says on those that have not joined"
        return Diagnosis("problem", "ray", text)
    return Diagnosis("ok", "ray", text)


def _versions(surveys: Sequence[Survey]) -> Diagnosis:
    first = surveys[0]
    differing = {
        name: f"{version} on {first.host}, {one.versions.get(name)} on {one.host}"
        for one in surveys
        for name, version in first.versions.items()
        if one.versions.get(name) != version
    }
    if differing:
        versions = "; ".join(f"{name}: {text}" for name, text in differing.items())
        return Diagnosis(
            "problem", "versions", f"all nodes must have the same, but have {versions}; install them alike"
        )
    return Diagnosis("ok", "versions", ", ".join(f"{name} {version}" for name, version in first.versions.items()))


def _devices(one: Survey) -> Diagnosis:
    if one.blind:
        return Diagnosis("problem", "devices", f"JAX sees no device: {one.blind}; repair the installation of jax")
    counts = Counter(f"{platform} ({kind})" for platform, kind in one.devices)
    text = ", ".join(f"{count} x {name}" for name, count in counts.items())
    if one.gpus < (one.given.gpus or 0):
        text = f"the scheduler gives {one.given.gpus} GPUs, but JAX sees {text}; {_FOR_GPUS}"
        return Diagnosis("problem", "devices", text)
    if one.nvidia and not one.gpus:
        text = f"there are {one.nvidia} NVIDIA GPUs, but JAX sees {text}: to use them, {_FOR_GPUS}"
        return Diagnosis("note", "devices", text)
    return Diagnosis("ok", "devices", text)


def _temporary(one: Survey) -> Diagnosis:
    if not one.temporary:
        return Diagnosis("problem", "temporary", one.temporary_fault)
    if one.temporary_fault:
        text = f"Ray's sockets and logs go to {one.temporary}, as {one.temporary_fault}; set TMPDIR to a short path"
        return Diagnosis("note", "temporary", text)
    return Diagnosis("ok", "temporary", one.temporary)


def _memory(one: Survey) -> Diagnosis:
    text, given = f"{one.memory_bytes / 1e9:.3g} GB", one.given.memory_bytes
    if given is not None:
        text += f", {given / 1e9:.3g} GB of it for this job"
    if one.usable_bytes < min(one.memory_bytes, given or one.memory_bytes):
        text += f"; a limit of its cgroup leaves {one.usable_bytes / 1e9:.3g} GB"
    return Diagnosis("ok", "memory", text)


def _shared_memory(one: Survey) -> Diagnosis:
    text = f"{one.shared_bytes / 1e9:.3g} GB free in /dev/shm"
    if one.shared_bytes < _SHARED_BYTES:
        text += f", and Ray's object store is {_SHARED_BYTES / 1e9:.3g} GB: it is kept on the disk, which is slower"
        return Diagnosis("note", "shared memory", f"{text}; a container takes --shm-size=1g")
    return Diagnosis("ok", "shared memory", text)


def _open_files(one: Survey) -> Diagnosis:
    text = f"a process may have {one.open_files} files open"
    if one.open_files < _MANY_FILES:
        state: Literal["note", "problem"] = "problem" if one.open_files < _LEAST_FILES else "note"
        return Diagnosis(state, "open files", f"{text}; for many workers set: ulimit -n {_MANY_FILES}, or more")
    return Diagnosis("ok", "open files", text)


def _visited(one: Survey, unasked: int) -> Diagnosis:
    """Check the file system of the folder, which matters most where some nodes could not be asked."""
    met = one.visit
    advice = "put the store on a disk that all nodes share"
    if met.fault:
        return Diagnosis("problem", "folder", f"{met.fault}; {advice}")
    text = f"{met.kind or 'unknown file system'} at {met.mount}"
    if unasked > 0 and met.kind in _LOCAL:
        text = f"all nodes of the job must share the store, but it is on a disk of one ({text}); {advice}"
        return Diagnosis("problem", "folder", text)
    if met.kind in _IN_MEMORY:
        return Diagnosis("note", "folder", f"{text}: it takes memory, and is gone when the machine restarts")
    return Diagnosis("ok", "folder", text)


def _shared(surveys: Sequence[Survey], answers: int) -> Diagnosis:
    missing, longest = len(surveys) - answers, max(one.visit.waited for one in surveys)
    if missing:
        text = f"what {missing} of {len(surveys)} nodes write is not seen on this one"
        return Diagnosis("problem", "shared", f"{text}; put the store on a disk that all nodes share")
    text = f"a file is seen on all nodes ({len(surveys)}) after {longest:.1f} s at most"
    return Diagnosis("note" if longest > _LONG_WAIT_SECONDS else "ok", "shared", text)


def _once(wins: Mapping[int, int]) -> Diagnosis:
    wrong = [prize for prize in range(PRIZES) if wins.get(prize, 0) != 1]
    if wrong:
        text = (
            f"a file must be created by one process alone, but {len(wrong)} of {PRIZES} were by several or none; two "
            "workers could have the same Case: use another file system, or one driver at a time"
        )
        return Diagnosis("problem", "exclusive", text)
    return Diagnosis("ok", "exclusive", "a file that many create at once is created by one of them")


def _complete(torn: int) -> Diagnosis:
    if torn:
        text = f"a file that is renamed onto another must be seen complete, but {torn} reads returned parts of both"
        return Diagnosis("problem", "rename", f"{text}; use another file system")
    return Diagnosis("ok", "rename", "a file that is renamed onto another is seen complete")


def _skew(everywhere: Everywhere) -> Diagnosis:
    """Check by how much the clocks of nodes surely differ from this one's, apart from the duration of a call."""
    before = time.time()
    clocks = [clock for clock in everywhere(_clock) if isinstance(clock, float)]
    after = time.time()
    offsets = [min(clock - before, 0.0) + max(clock - after, 0.0) for clock in clocks]
    skew = max(offsets, key=abs, default=0.0)
    return _late(
        "clocks", "problem", skew, "the clocks of nodes", "jobs may end before their run has; run NTP or chrony"
    )


def _clock(_number: int) -> float:
    return time.time()


def _late(what: str, state: Literal["note", "problem"], seconds: float, whose: str, remedy: str) -> Diagnosis:
    if abs(seconds) <= _MOST_SKEW_SECONDS:
        return Diagnosis("ok", what, f"{whose} agree to {max(abs(seconds), 0.1):.1f} s")
    text = f"{whose} must agree to {_MOST_SKEW_SECONDS:.0f} s, but differ by {seconds:.1f} s"
    return Diagnosis(state, what, f"{text}; {remedy}")


def _grouped(found: Mapping[int, Diagnosis], surveys: Sequence[Survey]) -> list[Diagnosis]:
    """Merge equal findings of nodes, and name their nodes unless all nodes have the same finding."""
    groups: dict[Diagnosis, list[str]] = {}
    for number, finding in found.items():
        groups.setdefault(finding, []).append(surveys[number].host)
    if len(groups) == 1:
        return list(groups)
    return [
        Diagnosis(finding.state, finding.what, f"{_named(hosts)}: {finding.text}") for finding, hosts in groups.items()
    ]


def _named(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _MOST_NAMED} more" if len(hosts) > _MOST_NAMED else ""
    return ", ".join(hosts[:_MOST_NAMED]) + more


@contextmanager
def _meeting(place: Path, greeting: str) -> Iterator[tuple[Path | None, str]]:
    """Make a folder for the nodes, in which a file is replaced again and again; yield None and a reason on failure."""
    folder, stop = place / f".doctor-{uuid.uuid4().hex}", threading.Event()
    try:
        folder.mkdir()
        _swap(folder, 0)
        (folder / GREETING).write_text(greeting, encoding="utf-8")
    except OSError as error:
        rmtree(folder, ignore_errors=True)
        yield None, str(error)
        return
    swapping = threading.Thread(target=_keep_swapping, args=(folder, stop), daemon=True)
    swapping.start()
    try:
        yield folder, ""
    finally:
        stop.set()
        swapping.join()
        rmtree(folder, ignore_errors=True)


def _keep_swapping(folder: Path, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.002):
        number += 1
        try:
            _swap(folder, number)
        except OSError:
            return  # the nodes fail there as well


def _swap(folder: Path, number: int) -> None:
    draft = folder / ".swapped"
    draft.write_bytes(bytes([ord("a") + number % 26]) * 65536)
    draft.replace(folder / SWAPPED)


def _answers(folder: Path, greeting: str, nodes: int) -> int:
    """Return the number of nodes whose file is seen here, after waiting for a limited time."""
    until = time.monotonic() + _LONG_WAIT_SECONDS
    while True:
        there = set(os.listdir(folder))
        seen = [number for number in range(nodes) if answer(number) in there]
        if len(seen) == nodes or time.monotonic() > until:
            return sum((folder / answer(number)).read_text(encoding="utf-8") == greeting for number in seen)
        time.sleep(0.1)
