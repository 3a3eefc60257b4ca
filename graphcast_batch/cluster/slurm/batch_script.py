"""Write the batch script of a Slurm job that makes or scores the forecasts of a config."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.errors import SubmissionError
from graphcast_batch.text import is_plain

Kind = Literal["ray", "array", "evaluate"]
_WARNING_SECONDS: Final = 300
"""How long before its end a job is warned to stop handing out work; a short job is warned in its last quarter."""
_UNQUOTED: Final = re.compile(r"[\w%+,./=@^-][\w%+,./:=@^-]*", re.ASCII)
"""Text that needs no quotes in an #SBATCH line."""
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
# Flags on the command line of sbatch override the #SBATCH lines below. Five minutes before the end of its time, and
# when it is preempted, the job stops handing out work, and requeues itself while work is left.
# To change at a site: how graphcast-batch is found, under "site". In a container: GRAPHCAST_BATCH="apptainer exec
# --nv image.sif graphcast-batch". CONFIG, its store and this folder must be on a disk that all nodes share, and the
# cache of compiled programs should be (cache: in CONFIG). Ray keeps its sockets in TMPDIR, which must be local and
# short. A node that does not join Ray within five minutes ends the job;
# GRAPHCAST_BATCH_LAUNCH="--without-missing --wait 60" goes on without that node after one minute.
# Examine some nodes before:   srun --nodes=2 graphcast-batch doctor CONFIG
"""
_SITE: Final = """\
# --- site
# module load python/3.11 cuda/12.4
# source /path/to/.venv/bin/activate
program=(${GRAPHCAST_BATCH:-graphcast-batch})
"""
_BODY: Final = """\
# --- check that each node sees the program, the config and the folder
mkdir -p -m 700 "$folder" || exit 1
nodes=(srun --ntasks-per-node=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK})
"${nodes[@]}" bash -c '
  fail() { echo "$(hostname): $1" >&2; exit 2; }
  command -v "$1" >/dev/null || fail "$1 must be on the PATH, but is not; see \\"site\\" in the batch script"
  [[ -r $2 ]] || fail "the config $2 must be readable, but is not; put it on a disk that all nodes share"
  [[ -d $3 ]] || fail "the folder $3 must be on a disk that all nodes share, but is not there"
' check "${program[0]}" "$config" "$folder" || exit 2

# --- near the end of the job ask it to stop by a file: a signal to the step would end Ray as well
warned=
trap 'warned=1; touch "$folder/drain"' USR1
if [[ -z ${SLURM_JOB_END_TIME:-} ]]; then  # Slurm 22.05 does not set it
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
# For a step that has lost a node srun does not return the exit code of the command.
[[ -r $folder/done ]] && code=$(<"$folder/done")
((code == 143)) && code=75  # asked to stop before it could listen
case $code in 0 | 3 | 75) rm -rf "$folder" ;; esac  # after other codes keep the logs of Ray in it

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
    """A job for Slurm.

    Attributes:
        kind: what the job does.
        config: configuration of the run; None if the script takes it as its argument.
        folder: folder for scripts, output and the files by which nodes meet; None for the one where the script is
            submitted.
        program: words of the command that starts graphcast-batch on the nodes; empty to find it under "site" in the
            script.
        flags: values of the flags of sbatch by their names; empty for a flag without a value.
        more: other flags of sbatch, passed on as they are.
    """

    kind: Kind
    config: Path | None = None
    folder: Path | None = None
    program: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()

    def evaluation(self, job: str) -> "Job":
        """Return the job that scores the forecasts of another job once that has ended, whether it succeeded or not.

        Args:
            job: id of the job that makes the forecasts.
        """
        kept = {name: value for name, value in self.flags if name not in ("array", "nodes", "gpus-per-node", "mem")}
        return replace(self, kind="evaluate", flags=(*kept.items(), ("dependency", f"afterany:{job}")))


def script(job: Job) -> str:
    """Return the text of the batch script of a job.

    Raises:
        SubmissionError: a path or flag cannot be written in a batch script.
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
        "no-kill": "",  # goes on after the loss of a node
        "open-mode": "append",
        # In a file name % begins a pattern (sbatch(1), "filename pattern").
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


def _warning(time: str) -> int:
    """Return how many seconds before its end a job is warned.

    Args:
        time: the job's limit of time as Slurm writes it; empty if it has none.
    """
    endless = not time or time.upper() in ("UNLIMITED", "INFINITE")
    return _WARNING_SECONDS if endless else min(_WARNING_SECONDS, time_seconds(time) // 4)


def time_seconds(time: str) -> int:
    """Convert a time as Slurm writes it (minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S; sbatch(1), --time) to seconds.

    Raises:
        SubmissionError: the text is not such a time.
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


def _check_text(job: Job) -> None:
    """Refuse text that would end a line of the script, or have another meaning in it."""
    paths = {"the config": job.config, "the store's folder": job.folder, "the program": " ".join(job.program)}
    given = {name: str(value) for name, value in paths.items() if value} | {f"--{name}": v for name, v in job.flags}
    for name, value in [*given.items(), *(("a flag after --", flag) for flag in job.more)]:
        if not is_plain(value):
            raise SubmissionError(
                f"{name} must be text without line breaks and other control characters, to be written in a batch "
                f"script, but is {value!r}; choose another name"
            )
    if "\\" in str(job.folder):  # with one, Slurm does not put the job's number into the name of the output
        raise SubmissionError(
            f"the store's folder must have no backslash in its path, which is special to Slurm, but is {job.folder}; "
            "choose another store"
        )
    if job.more and not job.more[0].startswith("-"):
        raise SubmissionError(f"after -- flags of sbatch must follow, such as --qos=low, but {job.more[0]!r} is given")


def _quoted(text: str) -> str:
    """Quote text for an #SBATCH line: in quotes of either kind a backslash escapes (Slurm, `get_argument`)."""
    if _UNQUOTED.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
