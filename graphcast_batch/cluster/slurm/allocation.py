"""Read what a scheduler gave a process from its environment: the nodes of the job, and the resources of this node.

Slurm's variables are those of sbatch(1), salloc(1) and srun(1), "OUTPUT ENVIRONMENT VARIABLES"; those of a step of srun
take precedence over those of its job. Other launchers set what torchrun sets (PyTorch's "Environment Variables" of
``torch.distributed.run``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final, Literal

from graphcast_batch.errors import AllocationError

_MOST_HOSTS: Final = 64 * 1024
"""The most hosts that Slurm itself expands (MAX_RANGE in its src/common/hostlist.c)."""
_LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035, 2.3.4)."""
_NUMBER: Final = re.compile(r"\d{1,15}", re.ASCII)
_HOSTS: Final = re.compile(r"(?:[^\s,\[\]]|\[[^\s\[\]]*\])+")
_BRACKET: Final = re.compile(r"\[[^]]*\]")
_INSIDE: Final = re.compile(r"\[([^]]*)\]")
_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_REPEATED: Final = re.compile(r"(\d{1,9})(?:\(x(\d{1,9})\))?", re.ASCII)
_MEMORY: Final = re.compile(r"(\d{1,12})([KMGT]?)B?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"K": 2**10, "M": 2**20, "": 2**20, "G": 2**30, "T": 2**40}
"""Bytes of the units of memory; MiB without a unit (sbatch(1), --mem)."""
_OF_A_TYPE: Final = re.compile(r"(?:[^\s,:]+:)?(\d{1,6})", re.ASCII)
_NO_DEVICES: Final = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES where there is no GPU, by CUDA and by older versions of Slurm."""


@dataclass(frozen=True)
class Allocation:
    """The resources of a job, and the place of this process in it.

    Attributes:
        scheduler: the scheduler; ``torch`` stands for every launcher that sets the variables of torchrun.
        job: id of the job such as "1234", of an array task "1234_5"; empty where there is no scheduler.
        nodes: host names in the scheduler's order; empty where unknown.
        size: number of nodes.
        rank: number of this process's node, from 0.
        cpus: number of CPUs of this node that the job may use; None where unknown.
        gpus: number of GPUs of this node that the job may use; None where unknown.
        memory_bytes: memory of this node that the job may use; None where unknown.
        start: when the job began, seconds since 1970, UTC; None where unknown.
        end: when the scheduler will kill the job, seconds since 1970, UTC; None where unknown.
        restarts: how often the job was requeued.
        task: number of this task within a job array, as the user gave it; None outside an array.
        tasks: number of tasks of the job array; None outside an array.
    """

    scheduler: Literal["slurm", "torch", "none"] = "none"
    job: str = ""
    nodes: tuple[str, ...] = ()
    size: int = 1
    rank: int = 0
    cpus: int | None = None
    gpus: int | None = None
    memory_bytes: int | None = None
    start: float | None = None
    end: float | None = None
    restarts: int = 0
    task: int | None = None
    tasks: int | None = None

    def __post_init__(self) -> None:
        if self.rank >= self.size:
            raise AllocationError(
                f"the number of this node must be below the number of nodes, {self.size}, but is {self.rank}; the "
                "environment may be left over from another job: start from a new shell"
            )
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise AllocationError(
                f"SLURM_JOB_END_TIME must be after SLURM_JOB_START_TIME, {self.start:.0f}, but is {self.end:.0f}; "
                "unset both, or set them from squeue"
            )


def allocation(environment: Mapping[str, str]) -> Allocation:
    """Read the environment of a job; values that it lacks are None, and without a scheduler there is one node.

    Args:
        environment: environment variables of a batch script, a step or a shell.

    Raises:
        AllocationError: a variable cannot be read, or two contradict each other.
    """
    if environment.get("SLURM_JOB_ID"):
        return _of_slurm(environment)
    if environment.get("WORLD_SIZE"):
        return _of_torch(environment)
    return Allocation()


def unused_nodes(given: Allocation, nodes: int) -> str:
    """Return how to use the nodes of a job that a Ray cluster does not have; empty if it has all.

    Args:
        given: the job.
        nodes: number of nodes of the Ray cluster.
    """
    if nodes >= given.size:
        return ""
    return (
        f"Ray has {nodes} of the {given.size} nodes of this job, and the others stay idle; to use all of them, start "
        "the command on each with srun --ntasks-per-node=1 graphcast-batch launch --folder FOLDER -- COMMAND, or "
        f"submit the config with graphcast-batch submit --nodes {given.size}"
    )


def hosts(nodelist: str) -> tuple[str, ...]:
    """Expand a list of nodes such as ``n[1-3,05-07],gpu01`` in the order of ``scontrol show hostnames``.

    Unlike with that command, text may follow the last bracket of a name.

    Raises:
        AllocationError: the text is not such a list, or has more hosts than Slurm would expand.
    """
    found: list[str] = []
    place = 0
    while match := _HOSTS.match(nodelist, place):
        found += _expanded(match[0], nodelist, _MOST_HOSTS - len(found))
        place = match.end() + 1
        if match.end() == len(nodelist):
            return tuple(found)
        if nodelist[match.end()] != ",":
            break
    raise _unreadable("a list of nodes", "be such as n[1-3,05-07],gpu01", nodelist)


def _expanded(pattern: str, nodelist: str, room: int) -> list[str]:
    """Return the hosts of one element of a list."""
    texts = _BRACKET.split(pattern)
    brackets = [_ranges("a list of nodes", inner, nodelist) for inner in _INSIDE.findall(pattern)]
    count = prod(sum(last - first + 1 for first, last, _ in ranges) for ranges in brackets)
    if count > room or sum(map(len, texts)) + len(brackets) > _LONGEST_NAME:
        raise AllocationError(
            f"a list of nodes must expand to at most {_MOST_HOSTS} hosts with names of at most {_LONGEST_NAME} "
            f"characters, but {_shown(nodelist)} has more; look at SLURM_JOB_NODELIST"
        )
    if not brackets:
        return [pattern]
    numbers = [[f"{n:0{width}}" for low, high, width in part for n in range(low, high + 1)] for part in brackets]
    # Slurm's order: the last bracket is the fastest to change, then the first, the second and so on.
    combined = product(*reversed(numbers[:-1]), numbers[-1])
    return [_woven(texts, (*reversed(chosen[:-1]), chosen[-1], "")) for chosen in combined]


def _woven(texts: Sequence[str], numbers: Sequence[str]) -> str:
    return "".join(part for pair in zip(texts, numbers, strict=True) for part in pair)


def _ranges(name: str, inner: str, whole: str) -> list[tuple[int, int, int]]:
    """Return first and last number and the least number of digits of each range in a list such as ``1-3,05-07``."""
    found = []
    for part in inner.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not match or last < first:
            raise _unreadable(name, "count in rising ranges such as 1-3,05-07", whole)
        found.append((first, last, len(match[1])))
    return found


def _of_slurm(environment: Mapping[str, str]) -> Allocation:
    job_nodes, job_size = _nodes(environment, "JOB")
    nodes, size = _nodes(environment, "STEP")
    # A batch script inherits the step's variables of the shell that submitted it (found on Slurm 22.05).
    in_step = bool(nodes) and set(nodes) <= set(job_nodes) and _number(environment, "SLURM_NNODES") in (None, size)
    if not in_step:
        nodes, size = job_nodes, job_size
    rank = _number(environment, "SLURM_NODEID") or 0
    place = job_nodes.index(nodes[rank]) if rank < len(nodes) and nodes[rank] in job_nodes else rank
    cpus = _number(environment, "SLURM_CPUS_ON_NODE", 1) or _cpus(environment, place, job_size)
    gpus = _gpus(environment, "SLURM_STEP_GPUS" if in_step else "SLURM_JOB_GPUS")
    task = _number(environment, "SLURM_ARRAY_TASK_ID")
    return Allocation(
        scheduler="slurm",
        job=_job(environment, task),
        nodes=nodes,
        size=size or 1,
        rank=rank,
        cpus=cpus,
        gpus=gpus,
        memory_bytes=_memory(environment, cpus, gpus),
        start=_time(environment, "SLURM_JOB_START_TIME"),
        end=_time(environment, "SLURM_JOB_END_TIME"),
        restarts=_number(environment, "SLURM_RESTART_COUNT") or 0,
        task=task,
        tasks=_number(environment, "SLURM_ARRAY_TASK_COUNT", 1),
    )


def _of_torch(environment: Mapping[str, str]) -> Allocation:
    """Read the variables of torchrun, which count processes, equally many on each node."""
    here = _number(environment, "LOCAL_WORLD_SIZE", 1) or 1
    processes = _number(environment, "WORLD_SIZE", 1) or 1
    number, node = _number(environment, "RANK"), _number(environment, "GROUP_RANK")
    if number is None or number >= processes or processes % here:
        raise AllocationError(
            f"WORLD_SIZE, {processes}, must be above RANK and a multiple of LOCAL_WORLD_SIZE, {here}, but RANK is "
            f"{'not set' if number is None else number}; start one copy on each node, or unset WORLD_SIZE"
        )
    size = processes // here
    master = environment.get("MASTER_ADDR", "")
    return Allocation(
        scheduler="torch",
        nodes=(master,) if master and size == 1 else (),
        size=size,
        rank=number // here if node is None else node,
        gpus=_visible(environment),
    )


def _nodes(environment: Mapping[str, str], whose: Literal["STEP", "JOB"]) -> tuple[tuple[str, ...], int | None]:
    """Return names and number of the nodes of a step or job; no names and None where they are not set."""
    listed, counted = f"SLURM_{whose}_NODELIST", f"SLURM_{whose}_NUM_NODES"
    text, count = environment.get(listed, ""), _number(environment, counted, 1)
    if not text:
        return (), count
    names = hosts(text)
    if count not in (None, len(names)):
        raise _unreadable(counted, f"be the number of nodes in {listed}, {len(names)}", str(count))
    return names, len(names)


def _job(environment: Mapping[str, str], task: int | None) -> str:
    job = _number(environment, "SLURM_JOB_ID", 1)
    array = _number(environment, "SLURM_ARRAY_JOB_ID", 1)
    if (task is None) != (array is None):
        raise AllocationError(
            "SLURM_ARRAY_JOB_ID and SLURM_ARRAY_TASK_ID must both be set or neither, but only one is; it may be left "
            "over from another job: unset it"
        )
    return str(job) if task is None else f"{array}_{task}"


def _cpus(environment: Mapping[str, str], place: int, nodes: int | None) -> int | None:
    """Return the CPUs of one node of the job, from a list for all nodes such as ``2(x3),1``."""
    name = "SLURM_JOB_CPUS_PER_NODE"
    text = environment.get(name, "")
    if not text:
        return None
    runs = [(int(match[1]), int(match[2] or 1)) for match in _matches(_REPEATED, name, "be such as 2(x3),1", text)]
    if nodes is not None and sum(count for _, count in runs) != nodes:
        raise _unreadable(name, f"give the CPUs of {nodes} nodes", text)
    for cpus, count in runs:
        if place < count:
            return cpus
        place -= count
    return None


def _gpus(environment: Mapping[str, str], listed: str) -> int | None:
    """Return the GPUs of this node: as counted, else by their numbers, else as requested, else as visible to CUDA."""
    counted = _number(environment, "SLURM_GPUS_ON_NODE")
    if counted is not None:
        return counted
    if text := environment.get(listed, ""):
        return sum(last - first + 1 for first, last, _ in _ranges(listed, text, text))
    name = "SLURM_GPUS_PER_NODE"
    if text := environment.get(name, ""):
        return sum(int(match[1]) for match in _matches(_OF_A_TYPE, name, "be such as 2 or a100:2,h100:4", text))
    return _visible(environment)


def _visible(environment: Mapping[str, str]) -> int | None:
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    return 0 if text.strip() in _NO_DEVICES else len(text.split(","))


def _memory(environment: Mapping[str, str], cpus: int | None, gpus: int | None) -> int | None:
    """Return the memory of this node in bytes, which Slurm gives for the node, for each CPU or for each GPU."""
    names = {"SLURM_MEM_PER_NODE": 1, "SLURM_MEM_PER_CPU": cpus, "SLURM_MEM_PER_GPU": gpus}
    present = [name for name in names if environment.get(name)]
    if len(present) > 1:
        raise AllocationError(
            f"only one of {', '.join(names)} must be set, but {' and '.join(present)} are; one may be left over from "
            "another job: unset it"
        )
    for name in present:
        match = _MEMORY.fullmatch(environment[name])
        if not match:
            raise _unreadable(name, "be a number of MiB, or such as 4G", environment[name])
        share, count = int(match[1]) * _UNITS[match[2].upper()], names[name]
        return share * count if share and count else None  # 0 stands for all that the node has: sbatch(1), --mem
    return None


def _matches(pattern: re.Pattern[str], name: str, expected: str, text: str) -> list[re.Match[str]]:
    """Match each part of a list with a pattern."""
    matches = [match for part in text.split(",") if (match := pattern.fullmatch(part))]
    if len(matches) <= text.count(","):
        raise _unreadable(name, expected, text)
    return matches


def _time(environment: Mapping[str, str], name: str) -> float | None:
    seconds = _number(environment, name)
    return None if seconds is None else float(seconds)


def _number(environment: Mapping[str, str], name: str, least: int = 0) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or int(text) < least:
        raise _unreadable(name, f"be a whole number of at least {least}", text)
    return int(text)


def _unreadable(name: str, expected: str, found: str) -> AllocationError:
    return AllocationError(f"{name} must {expected}, but is {_shown(found)}; unset it, or leave it to the scheduler")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
