"""Submit a run to Slurm."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.cluster.slurm import submit as slurm
from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import ConfigError
from graphcast_batch.figures.store_figures import check_figures
from graphcast_batch.setup.resources import comfortable_bytes, memory_uses
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.setup.store_identity import existing_store

_OF_MEMORY: Final = ("--mem", "--exclusive")
"""Beginnings of the flags of sbatch that decide how much memory a job gets."""
_BESIDE_BYTES: Final = 2 * 2**30
"""Memory of a node beside that of its workers: for the driver, for Ray and for its object store."""


@dataclass(frozen=True)
class Submission:
    """Jobs that were submitted to Slurm; `submit` returns it.

    Attributes:
        store: folder of the store that the run writes.
        folder: that holds the scripts and the output of the jobs.
        script: text of the batch script.
        job: id of the job; None after a dry run.
        evaluation: id of the job that scores the forecasts afterwards; None if none was asked for.
    """

    store: Path
    folder: Path
    script: str
    job: str | None = None
    evaluation: str | None = None


def submit(
    config: AnyPath,
    *,
    nodes: int = 1,
    gpus_per_node: int = 0,
    cpus_per_node: int = 8,
    time: str = "1:00:00",
    partition: str | None = None,
    account: str | None = None,
    array: str | None = None,
    flags: Sequence[str] = (),
    evaluate_after: bool = False,
    dry_run: bool = False,
) -> Submission:
    """Submit a run to Slurm as jobs that requeue themselves until all Cases are made.

    >>> submitted = gb.submit("hindcast.yaml", nodes=4, gpus_per_node=4, time="12:00:00")
    >>> gb.status(submitted.store)

    Args:
        config: path of the run's config.
        nodes: number of nodes of the Ray cluster.
        gpus_per_node: number of GPUs, and so of workers, on each node; 0 computes on CPUs.
        cpus_per_node: number of cores on each node.
        time: time limit of a job in Slurm's notation, such as ``12:00:00``.
        partition: Slurm partition.
        account: Slurm account.
        array: tasks of a job array, such as ``1-16%8``: independent jobs of one node instead of a Ray cluster.
        flags: other flags of sbatch. Unless one of them sets the memory, what `plan` predicts is asked for.
        evaluate_after: whether to submit a second job that scores the forecasts once the first has ended.
        dry_run: whether to return the script without submitting anything.

    Raises:
        ConfigError: the options contradict each other or the config.
        SubmissionError: there is no Slurm, or it refuses the job.
        GraphcastBatchError: the run cannot be made.
    """
    if array and nodes > 1:
        raise ConfigError(
            f"the jobs of an --array have one node each, but --nodes is {nodes}; leave one of the two out"
        )
    path = Path(config)
    run = _checked(path, gpus_per_node)
    store = run.config.store
    asked = {"nodes": nodes, "gpus-per-node": gpus_per_node or None, "cpus-per-task": cpus_per_node, "time": time}
    asked |= {"partition": partition, "account": account, "array": array, "chdir": str(Path.cwd())}
    if not any(flag.startswith(_OF_MEMORY) for flag in flags):
        asked["mem"] = f"{_megabytes(run, nodes, gpus_per_node, cpus_per_node)}M"
    job = slurm.Job(
        "array" if array else "ray",
        path.resolve(),
        store.absolute() / slurm.JOBS,
        (sys.executable, "-m", "graphcast_batch"),
        tuple((name, str(value)) for name, value in asked.items() if value is not None),
        tuple(flags),
    )
    folder, script = store.absolute() / slurm.JOBS, slurm.script(job)
    if dry_run:
        return Submission(store, folder, script)
    slurm.check_shared(store)
    name = slurm.submit(job)
    return Submission(store, folder, script, name, slurm.submit(job.evaluation(name)) if evaluate_after else None)


def _megabytes(run: RunSetup, nodes: int, gpus_per_node: int, cpus_per_node: int) -> int:
    """Return the memory to ask for on each node, in MiB: that of its workers in their fastest way, and of Ray."""
    workers = run.config.workers
    room = gpus_per_node or max(1, cpus_per_node // workers.threads)
    count = min(math.ceil(workers.count / nodes), room if gpus_per_node else workers.count) if workers.count else room
    count = min(count, len(run.plan.cases))  # a worker without a Case does not start
    fastest = memory_uses(run, accelerated=bool(gpus_per_node), workers=count * nodes)[0]
    return math.ceil((count * comfortable_bytes(fastest) + _BESIDE_BYTES) / 2**20)


def _checked(config: Path, gpus_per_node: int) -> RunSetup:
    """Open a run, and check that it can be made with the workers asked for."""
    assembled = assemble(load_config(config))
    wanted = assembled.config.workers.device
    if wanted != "auto" and (wanted == "gpu") != bool(gpus_per_node):
        raise ConfigError(
            f"workers.device in {config} and --gpus-per-node must go together, but are {wanted} and {gpus_per_node}; "
            "set workers.device: auto, or change one of the two"
        )
    if assembled.config.figures:
        check_figures(assembled.config.figures, assembled.plan.layout)
    existing_store(assembled)
    return assembled
