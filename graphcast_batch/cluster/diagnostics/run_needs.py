"""Check what a run needs against what there is: space for its forecasts, memory for its workers, and a cache."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from graphcast_batch.cluster.diagnostics.diagnosis import Diagnosis
from graphcast_batch.cluster.diagnostics.survey import unwritable
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError, GraphcastBatchError
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.setup.resources import check_memory, fitting_use, memory_uses
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.setup.run_warnings import run_warnings
from graphcast_batch.text import counted


@dataclass(frozen=True)
class Nodes:
    """The nodes that the workers of a run would run on.

    Attributes:
        count: number of nodes.
        cpus: number of cores of all nodes together.
        gpus: number of GPUs of all nodes together.
        memory_bytes: memory that processes may use on the node that has the least.
    """

    count: int
    cpus: int
    gpus: int
    memory_bytes: int


def of_run(place: Path, config: RunConfig | None, nodes: Nodes) -> list[Diagnosis]:
    """Check that there is room for what a run writes, and memory for its workers.

    Args:
        place: the folder that contains, or will contain, the store.
        config: configuration of the run; None to report only what is free.
        nodes: what the workers would run on.
    """
    free, inodes = disk_usage(place).free, os.statvfs(place).f_favail
    text = f"{free / 1e9:.3g} GB" + (f" and {inodes} files" if inodes else "") + " are free"
    if config is None:
        return [Diagnosis("ok", "space", text)]
    try:
        run = assemble(config)
    except GraphcastBatchError as error:
        return [Diagnosis("ok", "space", text), Diagnosis("problem", "run", str(error))]
    plan = run.plan
    files = run.files
    findings = [Diagnosis("note", "run", warning) for warning in run_warnings(run)] + _memory(run, nodes)
    if 0 < inodes < files:
        text = f"the run makes {files} files, but {inodes} are left at {place}; set outputs.max_files, or make room"
        return [*findings, Diagnosis("problem", "space", text)]
    wanted = f"{run.store_bytes / 1e9:.3g} GB before compression, and {files} files"
    case_bytes = plan.layout.case_bytes
    if free < case_bytes:
        text = f"{text}, but one Case alone is {case_bytes / 1e9:.3g} GB before compression; make room"
        return [*findings, Diagnosis("problem", "space", text)]
    return [*findings, Diagnosis("ok", "space", f"{text}; the run makes {wanted}")]


def _memory(run: RunSetup, nodes: Nodes) -> list[Diagnosis]:
    """Compare the memory that the workers of the fullest node need with what there is."""
    workers, cases = run.config.workers, len(run.plan.cases)
    if not nodes.count:  # none could be examined
        return []
    accelerated = workers.device != "cpu" and bool(nodes.gpus)
    room = nodes.gpus if accelerated else max(1, nodes.cpus // workers.threads)
    count = math.ceil(min(cases, workers.count or room) / nodes.count)
    uses = memory_uses(run, accelerated=accelerated, workers=count * nodes.count)
    use = fitting_use(uses, nodes.memory_bytes // count)
    on_device = f", and {use.device_bytes / 1e9:.3g} GB on its device" if accelerated else ""
    text = (
        f"{counted(count, 'worker')} a node, each with {use.host_bytes / 1e9:.3g} GB{on_device} ({use}), of "
        f"{nodes.memory_bytes / 1e9:.3g} GB"
    )
    try:
        check_memory(run, uses, count, nodes.memory_bytes)
    except ConfigError as error:
        return [Diagnosis("problem", "workers", str(error))]
    if use.host_bytes * count > nodes.memory_bytes:
        return [Diagnosis("note", "workers", f"{text}, which may be too little; take fewer workers (workers.count)")]
    return [Diagnosis("ok", "workers", text)]


def of_cache(config: RunConfig | None) -> Diagnosis:
    """Check the folder in which a run keeps graphs and compiled programs."""
    wanted = config.cache if config else None
    folder = users_folder() if wanted is None else wanted
    if not isinstance(folder, Path):
        return Diagnosis("note", "cache", "none: each worker compiles for itself")
    try:
        Cache(folder).check()
    except ConfigError as error:
        return Diagnosis("problem", "cache", str(error))
    fault = unwritable(next(parent for parent in (folder, *folder.parents) if parent.exists()))
    if fault:
        text = f"{folder} must be writable, but is not: {fault}; choose another with cache: FOLDER, or set cache: off"
        return Diagnosis("problem", "cache", text)
    return Diagnosis("ok", "cache", str(folder))
