"""Report what a user should know before a run, although it does not stop the run."""

import shutil
from typing import Final

import numpy as np

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.inputs.findings import input_warnings
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.models.base import steps_in_call
from graphcast_batch.setup.resources import configured_cache
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.text import counted

_COMPRESSION: Final = 1.37
"""Ratio by which the codec of the store compresses weather, as measured: see DECISIONS.md, 4."""


_WASTE: Final = 4.0
"""Ratio of bytes read to bytes needed above which a warning is given: reading 13 of 37 levels alone makes 2.8."""


def run_warnings(run: RunSetup) -> list[str]:
    """Return what a user should know before a run, although it does not stop the run."""
    source = run.source
    init_times = np.array([case.init_time for case in run.plan.cases])
    found = input_warnings(run.checkpoint.description, source.provenance, init_times)
    first = run.plan.cases[0]
    found += _waste_warning(source.cost(first, run.checkpoint.task), "one Case", "the inputs with one time")
    if run.members:
        cost = run.members.cost(0, first.init_time)
        found += _waste_warning(cost, "one member", "ensemble.perturbations.path with one time of one member")
    return found + _call_warning(run.config) + _space_warning(run) + _cache_warning(run.config)


def _call_warning(config: RunConfig) -> list[str]:
    """Warn of calls that are shorter than asked for, since all calls of a forecast have the same number of steps."""
    wanted = config.model.steps_per_call
    if wanted == "auto" or wanted > config.steps or config.steps % wanted == 0:
        return []
    return [
        f"model.steps_per_call: {wanted} makes calls of {counted(steps_in_call(config.steps, wanted), 'step')}, the "
        f"largest divisor of {counted(config.steps, 'step')} up to {wanted}; {config.steps - config.steps % wanted} or "
        f"{config.steps + -config.steps % wanted} steps would have calls of {wanted}"
    ]


def _waste_warning(cost: ReadCost | None, what: str, better: str) -> list[str]:
    if cost is None or cost.factor <= _WASTE:
        return []
    chunks = " x ".join(map(str, cost.worst_chunks))
    return [
        f"reading {what} fetches {cost.factor:.0f} times the bytes it needs, most of them for {cost.worst} in "
        f"chunks of {chunks}: a copy of {better} a chunk reads faster"
    ]


def _space_warning(run: RunSetup) -> list[str]:
    place = next(folder for folder in (run.config.store, *run.config.store.parents) if folder.exists())
    compression = 1.0 if run.config.outputs.compression == "none" else _COMPRESSION
    needed, free = run.store_bytes / compression, shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"all forecasts need about {needed / 1e9:.3g} GB, of which some may be there already, but {free / 1e9:.3g} GB "
        f"are free at {place}: make room, or Cases that do not fit are left for another run"
    ]


def _cache_warning(config: RunConfig) -> list[str]:
    cache = configured_cache(config)
    if config.cache == "off" or (cache and cache.writable):
        return []
    where = f"the cache {cache.folder} cannot be written" if cache else "there is no home folder to keep a cache in"
    return [
        f"{where}, so that each worker builds graphs and compiles programs for itself; give another folder (cache: "
        "FOLDER), or do without one (cache: off)"
    ]


def reading(run: RunSetup) -> dict[str, str]:
    """Return how the inputs were interpreted, as rows of a table."""
    cost = run.source.cost(run.plan.cases[0], run.checkpoint.task)
    rows = {"inputs": run.source.origin, "layout": run.source.layout, **run.source.changes}
    if cost:
        rows["reading"] = (
            f"{cost.touched_bytes / 1e6:.3g} MB a Case, of which {cost.wanted_bytes / 1e6:.3g} MB are needed"
        )
    if run.members:
        rows["initial states"] = f"{run.members}: {', '.join(run.members.names)}"
    return rows
