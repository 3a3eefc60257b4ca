"""What a person asks of Slurm becomes the text of a batch script, a job, and what is known of it afterwards."""

import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.cluster.file_systems import file_system
from graphcast_batch.errors import SubmissionError
from graphcast_batch.text import is_plain

Kind = Literal["ray", "array", "evaluate"]
JOBS: Final = "slurm"
"""Folder of a store with the scripts of its jobs, what they printed, and where their nodes meet."""
_WARNING_SECONDS: Final = 300
"""How long before its end a job is told to stop handing out work; of a short one the last quarter."""
_UNQUOTED: Final = re.compile(r"[\w%+,./=@^-][\w%+,./:=@^-]*", re.ASCII)
"""Text that means itself in an #SBATCH line."""
_IN_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs")
_WHAT: Final[Mapping[Kind, str]] = {
    "ray": "One Ray cluster over all nodes of the job, with a worker on each GPU, makes the Cases of a config.",
    "array": "Each task of a job array, on a node of its own, makes Cases of one config; they share them by leases.",
    "evaluate": "The forecasts of a config are scored on all nodes of the job.",
}
_FLAGS: Final[Mapping[Kind, str]] = {
    "ray": "--nodes=4 --gpus-per-node=4 --cpus-per-task=32 --time=12:00:00 --partition=gpu",
    "array": "--array=1-16%8 --gpus-per-node=1 --cpus-per-task=8 --time=6:00:00 --partition=gpu",
    "evaluate": "--cpus-per-task=32 --time=2:00:00 --partition=cpu",
}
_ADVICE: Final = """\
# Launch:   sbatch {flags} slurm/{kind}.sbatch CONFIG
# or, with checks before and the store's status after:   graphcast-batch submit CONFIG --help
#
# Flags of sbatch come before the lines below. It goes on by itself: five minutes before the end of its time it stops
# handing out work and requeues itself while work is left, as it does when it is preempted.
# To change at a site: how graphcast-batch is found, under "site". In a container: GRAPHCAST_BATCH="apptainer exec
# --nv image.sif graphcast-batch". CONFIG, its store and this folder must be on a disk that all nodes share, caches of
# compiled programs had better be (cache: in CONFIG); Ray keeps its sockets in TMPDIR, which must be local and short.
# A node that does not join Ray within five minutes ends the job; GRAPHCAST_BATCH_LAUNCH="--without-missing --wait 60"
# goes on without it after one. Look at some nodes before:   srun --nodes=2 graphcast-batch doctor CONFIG
"""
_SITE: Final = """\
# --- site
# module load python/3.11 cuda/12.4
# source /path/to/.venv/bin/activate
program=(${GRAPHCAST_BATCH:-graphcast-batch})
"""
_BODY: Final = """\
# --- each node must see the same
mkdir -p -m 700 "$folder" || exit 1
nodes=(srun --ntasks-per-node=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK})
"${nodes[@]}" bash -c '
  fail() { echo "$(hostname): $1" >&2; exit 2; }
  command -v "$1" >/dev/null || fail "$1 must be on the PATH, but is not; see \\"site\\" in the batch script"
  [[ -r $2 ]] || fail "the config $2 must be readable, but is not; put it on a disk that all nodes share"
  [[ -d $3 ]] || fail "the folder $3 must be on a disk that all nodes share, but is not there"
' check "${program[0]}" "$config" "$folder" || exit 2

# --- the end of the job: a file asks to stop, as a signal to the step would end Ray as well
warned=
trap 'warned=1; touch "$folder/drain"' USR1
if [[ -z ${SLURM_JOB_END_TIME:-} ]]; then  # which Slurm 22.05 does not tell
  read -r start end < <(squeue --noheader --jobs="$SLURM_JOB_ID" --format="%S %e")
  SLURM_JOB_START_TIME=$(date -d "$start" +%s 2>/dev/null) && SLURM_JOB_END_TIME=$(date -d "$end" +%s 2>/dev/null) \\
    && export SLURM_JOB_START_TIME SLURM_JOB_END_TIME
fi

"${nodes[@]}" --no-kill --kill-on-bad-exit=0 "${program[@]}" launch --folder "$folder" \\
  ${GRAPHCAST_BATCH_LAUNCH:-} -- "${program[@]}" COMMAND "$config" &
step=$!
while :; do
  wait "$step"
  code=$?
  kill -0 "$step" 2>/dev/null || break  # else a signal has only interrupted the wait
done
# Of a step that has lost a node, srun tells something else than the command's exit code.
[[ -r $folder/done ]] && code=$(<"$folder/done")
((code == 143)) && code=75  # asked to stop before it could listen
case $code in 0 | 3 | 75) rm -rf "$folder" ;; esac  # of all else it holds what Ray said

if ((code == 75)); then
  if [[ $warned ]] && ((SECONDS < 60)); then
    echo "warned in its first minute of the end of its time, the job is not requeued; give it more --time" >&2
  elif scontrol requeue "$SLURM_JOB_ID"; then
    sleep 600  # Slurm ends this shell; if it exited by itself, the job would count as done
  else
    echo "work is left, but the job could not be requeued; submit it again" >&2
  fi
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """What is asked of Slurm.

    Attributes:
        kind: of the job.
        config: of the run; None for what the script is given as its argument.
        folder: for scripts, output and the nodes' meeting; None for where the script is submitted.
        program: that runs on the nodes; empty for what ``site`` says.
        flags: of sbatch, by their names; empty text for one without a value.
        more: other flags of sbatch, as they are.
    """

    kind: Kind
    config: Path | None = None
    folder: Path | None = None
    program: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()

    def evaluation(self, job: str) -> "Job":
        """What scores the forecasts that a job makes, once it has ended, however it ended."""
        kept = {name: value for name, value in self.flags if name not in ("array", "nodes", "gpus-per-node")}
        return replace(self, kind="evaluate", flags=(*kept.items(), ("dependency", f"afterany:{job}")))


def script(job: Job) -> str:
    """The text of the batch script.

    Raises:
        SubmissionError: a path or flag cannot stand in one.
    """
    _check_text(job)
    output = "%A_%a.out" if job.kind == "array" else "%j.out"
    warning = _warning(dict(job.flags).get("time", ""))
    own = {
        "job-name": f"graphcast-{job.kind}",
        "nodes": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "8",
        **({"array": "1-4"} if job.kind == "array" else {}),
        "time": "01:00:00",
        "signal": f"B:USR1@{warning}",
        "requeue": "",
        "no-kill": "",  # for the loss of a node
        "open-mode": "append",
        # In which % begins a pattern (sbatch(1), "filename pattern").
        "output": f"{str(job.folder).replace('%', '%%')}/{output}" if job.folder else f"graphcast-{output}",
    }
    asked = (own | dict(job.flags)).items()
    flags = [f"--{name}={_quoted(value)}" if value else f"--{name}" for name, value in asked]
    more = [" ".join(map(_quoted, job.more))] if job.more else []
    site = f"program=({shlex.join(job.program)})\n" if job.program else _SITE
    usage = f"name the config: sbatch slurm/{job.kind}.sbatch CONFIG"
    folder = f"{shlex.quote(str(job.folder))}/" if job.folder else '"$SLURM_SUBMIT_DIR"/graphcast-'
    parts = [
        f"#!/bin/bash\n# {_WHAT[job.kind]}\n",
        "#\n" + _ADVICE.format(flags=_FLAGS[job.kind], kind=job.kind) if job.config is None else "",
        "".join(f"#SBATCH {flag}\n" for flag in [*flags, *more]),
        "set -uo pipefail\n\n",
        f"config={shlex.quote(str(job.config))}\n" if job.config else f"config=${{1:?{usage}}}\n",
        f'folder={folder}"$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}"\n\n',
        site + "\n",
        _BODY.replace("COMMAND", "evaluate" if job.kind == "evaluate" else "run"),
    ]
    return "".join(parts)


def submit(job: Job) -> str:
    """Hands a job to sbatch; its script is kept in the job's folder.

    Returns:
        the job's id.

    Raises:
        SubmissionError: there is no Slurm here, it has not what is asked for, or it does not take the job.
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
        raise SubmissionError(f"sbatch has not taken the job: {done.stderr.strip()}; see its script with --dry-run")
    name = done.stdout.strip().partition(";")[0]
    (job.folder / f"{name}-{job.kind}.sbatch").write_text(text, encoding="utf-8")
    return name


@dataclass(frozen=True)
class JobState:
    """What Slurm knows of a job that was submitted for a store.

    Attributes:
        job: its id.
        kind: what it does.
        state: Slurm's word for it, for an array how many tasks are in which; empty if Slurm has forgotten it, or is not
            here.
    """

    job: str
    kind: str
    state: str


def jobs(store: Path) -> list[JobState]:
    """The jobs that were submitted for a store, in the order of their ids."""
    scripts = [re.fullmatch(r"(\d+)-(\w+)\.sbatch", path.name) for path in (store / JOBS).glob("*.sbatch")]
    found = sorted((int(match[1]), match[2]) for match in scripts if match)
    states = _states([str(job) for job, _ in found]) if found else {}
    return [JobState(str(job), kind, _explained(store / JOBS, states.get(str(job), ""), job)) for job, kind in found]


def _explained(folder: Path, state: str, job: int) -> str:
    silent = "FAILED" in state and not any(folder.glob(f"{job}[._]*out"))
    # Slurm ends a job whose output it cannot open, and tells nobody.
    return f"{state} without a word: are the nodes able to write into {folder}?" if silent else state


def check_shared(path: Path) -> None:
    """Refuses a place that surely no other node sees.

    Raises:
        SubmissionError: it is in the memory of this machine.
    """
    kind, mount = file_system(path)
    if kind in _IN_MEMORY:
        raise SubmissionError(
            f"the store must be on a disk that all nodes share, but {path} is in this machine's memory ({kind} at "
            f"{mount}); choose a path on the cluster's parallel file system"
        )


def _check_text(job: Job) -> None:
    """Refuses what would end a line of the script, or mean something else in it."""
    paths = {"the config": job.config, "the store's folder": job.folder, "the program": " ".join(job.program)}
    given = {name: str(value) for name, value in paths.items() if value} | {f"--{name}": v for name, v in job.flags}
    for name, value in [*given.items(), *(("a flag after --", flag) for flag in job.more)]:
        if not is_plain(value):
            raise SubmissionError(
                f"{name} must be text without line breaks and other control characters, to stand in a batch script, "
                f"but is {value!r}; name it otherwise"
            )
    if "\\" in str(job.folder):  # which has Slurm take the name of the output as it is, without the job's number
        raise SubmissionError(
            f"the store's folder must have no backslash in its path, which Slurm gives a meaning, but is {job.folder}; "
            "choose another store"
        )
    if job.more and not job.more[0].startswith("-"):
        raise SubmissionError(f"after -- flags of sbatch must follow, such as --qos=low, but {job.more[0]!r} does")


def _quoted(text: str) -> str:
    """Text as an #SBATCH line gives it back: in quotes of either kind a backslash escapes (Slurm, `get_argument`)."""
    if _UNQUOTED.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _states(ids: Sequence[str]) -> dict[str, str]:
    """What squeue knows of jobs, and sacct of those that squeue has forgotten, by id."""
    found: dict[str, list[str]] = {}
    # squeue refuses all of several jobs where it knows none of one.
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
    """The state of a job, or how many of an array's tasks are in which."""
    return states[0] if len(states) == 1 else ", ".join(f"{count} {state}" for state, count in Counter(states).items())


def _check(flags: Mapping[str, str]) -> None:
    """Holds what is asked for against what the partition has, as far as sinfo tells."""
    if not shutil.which("sbatch"):
        raise SubmissionError(
            "sbatch must be on the PATH to submit a job, but is not; submit from a login node of the cluster, or print "
            "the script with --dry-run"
        )
    rows = _partitions()
    wanted = flags.get("partition", "") or next((row.name for row in rows if row.default), "")
    ours = [row for row in rows if row.name == wanted]
    if not rows or not wanted:
        return  # what cannot be asked is left to sbatch
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
                f"--{name} must be at most {there}, what {whose}partition {wanted} has, but is {asked}"
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
    """What the cluster has, as sinfo tells; nothing where it does not."""
    lines = _printed("sinfo", "--noheader", "--exact", "--format=%P|%D|%G|%c")
    rows = [line.split("|") for line in lines if line.count("|") == 3]
    return [
        _Nodes(name.strip().rstrip("*"), name.strip().endswith("*"), int(nodes), _gpus(generic), int(cpus))
        for name, nodes, generic, cpus in rows
    ]


def _gpus(generic: str) -> int:
    """How many GPUs a list of generic resources tells of, such as ``gpu:a100:4(S:0-1),nvme:1``."""
    counts = re.findall(r"gpu:(?:[^:,()]+:)?(\d+)", generic)
    return sum(int(count) for count in counts)


def _warning(time: str) -> int:
    """Seconds before the end of a job of so much time when it is warned."""
    endless = not time or time.upper() in ("UNLIMITED", "INFINITE")
    return _WARNING_SECONDS if endless else min(_WARNING_SECONDS, time_seconds(time) // 4)


def time_seconds(time: str) -> int:
    """Seconds of a time as Slurm writes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S (sbatch(1), --time).

    Raises:
        SubmissionError: it is none.
    """
    match = re.fullmatch(r"(?:(\d{1,5})-)?(\d{1,7})(?::(\d{1,2}))?(?::(\d{1,2}))?", time, re.ASCII)
    if not match:
        raise SubmissionError(f"--time must be like 90 (minutes), 1:30:00 or 2-12:00:00, but is {time!r}")
    days, *parts = (int(part) if part else None for part in match.groups())
    first, second, third = parts
    if days is None:
        hours, minutes, seconds = (first, second, third) if third is not None else (0, first, second)
    else:
        hours, minutes, seconds = first, second, third
    return (((days or 0) * 24 + (hours or 0)) * 60 + (minutes or 0)) * 60 + (seconds or 0)


def _printed(*command: str) -> list[str]:
    """Lines that one of Slurm's commands prints; none if it is not here or fails."""
    if not shutil.which(command[0]):
        return []
    done = _call(*command)
    return [] if done.returncode else done.stdout.splitlines()


def _call(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    # The variables of a job or step would pass for flags that were given here.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    kept = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
    try:
        return subprocess.run(
            command, input=text, env=outside | kept, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmissionError(f"{command[0]} must answer within 60 s, but: {error}") from error
