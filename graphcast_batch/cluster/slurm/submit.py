"""Submit jobs to Slurm, and find out what has become of them."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.cluster.file_systems import file_system
from graphcast_batch.cluster.slurm.batch_script import Job, Kind, script, time_seconds
from graphcast_batch.errors import SubmissionError

__all__ = ["JOBS", "Job", "JobState", "Kind", "check_shared", "jobs", "script", "submit", "time_seconds"]

JOBS: Final = "slurm"
"""Name of the folder in a store for the scripts of its jobs, their output, and the files by which their nodes meet."""
_IN_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs")
"""File systems in the memory of one machine."""


def submit(job: Job) -> str:
    """Submit a job with sbatch, and keep its script in the job's folder.

    Returns:
        the job's id.

    Raises:
        SubmissionError: there is no Slurm here, its partition lacks what is asked for, or it refuses the job.
    """
    if job.folder is None:
        raise ValueError("a job that is submitted must have a folder")
    text = script(job)
    _check(dict(job.flags))
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubmissionError(f"{job.folder} must hold the job's files, but cannot be made: {error}") from error
    done = _call("sbatch", "--parsable", text=text)
    if done.returncode:
        raise SubmissionError(f"sbatch has refused the job: {done.stderr.strip()}; print its script with --dry-run")
    name = done.stdout.strip().partition(";")[0]
    (job.folder / f"{name}-{job.kind}.sbatch").write_text(text, encoding="utf-8")
    return name


@dataclass(frozen=True)
class JobState:
    """The state of a job that was submitted for a store.

    Attributes:
        job: id of the job.
        kind: what the job does.
        state: Slurm's name for its state, for an array the number of tasks in each state; empty if Slurm has forgotten
            the job, or is not installed here.
    """

    job: str
    kind: str
    state: str


def jobs(store: Path) -> list[JobState]:
    """Return the jobs that were submitted for a store, in the order of their ids."""
    scripts = [re.fullmatch(r"(\d+)-(\w+)\.sbatch", path.name) for path in (store / JOBS).glob("*.sbatch")]
    found = sorted((int(match[1]), match[2]) for match in scripts if match)
    states = _states([str(job) for job, _ in found]) if found else {}
    return [JobState(str(job), kind, _explained(store / JOBS, states.get(str(job), ""), job)) for job, kind in found]


def _explained(folder: Path, state: str, job: int) -> str:
    silent = "FAILED" in state and not any(folder.glob(f"{job}[._]*out"))
    # Slurm ends a job whose output it cannot open, without any message.
    return f"{state} without any output: can the nodes write into {folder}?" if silent else state


def check_shared(path: Path) -> None:
    """Check that a path is not in the memory of this machine, where no other node could see it.

    Raises:
        SubmissionError: the path is in the memory of this machine.
    """
    kind, mount = file_system(path)
    if kind in _IN_MEMORY:
        raise SubmissionError(
            f"the store must be on a disk that all nodes share, but {path} is in this machine's memory ({kind} at "
            f"{mount}); choose a path on the cluster's parallel file system"
        )


def _states(ids: Sequence[str]) -> dict[str, str]:
    """Return the states of jobs by their ids, from squeue, or from sacct for jobs that squeue has forgotten."""
    found: dict[str, list[str]] = {}
    # Asked for several jobs, squeue fails for all of them if it does not know one.
    for job in ids:
        for line in _printed("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%K|%T|%R"):
            task, state, reason = (part.strip() for part in line.split("|", 2))
            found.setdefault(job, []).append(state if task.isdecimal() else f"{state} {reason}".strip())
    forgotten = [job for job in ids if job not in found]
    if forgotten:
        known = ("--noheader", "--parsable2", "--allocations", f"--jobs={','.join(forgotten)}", "--format=JobID,State")
        for line in _printed("sacct", *known):
            name, _, state = line.partition("|")
            found.setdefault(name.partition("_")[0], []).append(state)
    return {job: _counted(states) for job, states in found.items()}


def _counted(states: Sequence[str]) -> str:
    """Return the state of a job, or how many of an array's tasks are in each state."""
    return states[0] if len(states) == 1 else ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _check(flags: Mapping[str, str]) -> None:
    """Check that the partition has what is asked for, as far as sinfo reports it."""
    if not shutil.which("sbatch"):
        raise SubmissionError(
            "sbatch must be on the PATH to submit a job, but is not; submit from a login node of the cluster, or print "
            "the script with --dry-run"
        )
    rows = _partitions()
    wanted = flags.get("partition", "") or next((row.name for row in rows if row.default), "")
    ours = [row for row in rows if row.name == wanted]
    if not rows or not wanted:
        return  # without sinfo's report the check is left to sbatch
    if not ours:
        names = ", ".join(sorted({row.name for row in rows}))
        raise SubmissionError(f"--partition must be one of this cluster's, {names}, but is {wanted}")
    most = {
        "nodes": (flags.get("nodes", "1"), sum(row.nodes for row in ours), ""),
        "gpus-per-node": (
            str(_gpus(f"gpu:{flags.get('gpus-per-node', '0')}")),
            max(row.gpus for row in ours),
            "a node of ",
        ),
        "cpus-per-node": (flags.get("cpus-per-task", "1"), max(row.cpus for row in ours), "a node of "),
    }
    for name, (asked, there, whose) in most.items():
        if asked.isdecimal() and int(asked) > there:
            raise SubmissionError(
                f"--{name} must be at most {there}, the most that {whose}partition {wanted} has, but is {asked}"
            )


@dataclass(frozen=True)
class _Nodes:
    """Nodes of one kind in a partition."""

    name: str
    default: bool
    nodes: int
    gpus: int
    cpus: int


def _partitions() -> list[_Nodes]:
    """Return the nodes of the cluster's partitions by sinfo; empty if it does not report them."""
    lines = _printed("sinfo", "--noheader", "--exact", "--format=%P|%D|%G|%c")
    rows = [line.split("|") for line in lines if line.count("|") == 3]
    return [
        _Nodes(name.strip().rstrip("*"), name.strip().endswith("*"), int(nodes), _gpus(generic), int(cpus))
        for name, nodes, generic, cpus in rows
    ]


def _gpus(generic: str) -> int:
    """Return how many GPUs are in a list of generic resources, such as ``gpu:a100:4(S:0-1),nvme:1``."""
    counts = re.findall(r"gpu:(?:[^:,()]+:)?(\d+)", generic)
    return sum(int(count) for count in counts)


def _printed(*command: str) -> list[str]:
    """Return the lines that a command of Slurm prints; none if it is not installed or fails."""
    if not shutil.which(command[0]):
        return []
    done = _call(*command)
    return [] if done.returncode else done.stdout.splitlines()


def _call(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    # Slurm's commands would take the variables of a job or step as flags.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    kept = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
    try:
        return subprocess.run(
            command, input=text, env=outside | kept, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmissionError(f"{command[0]} must answer within 60 s, but: {error}") from error
