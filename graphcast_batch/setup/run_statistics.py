"""Read the normalization statistics of a run, or compute them from its inputs."""

from typing import Final

import numpy as np

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.inputs.statistics import (
    Executor,
    Statistics,
    compute_statistics,
    held_task,
    read_statistics,
    run_serially,
)
from graphcast_batch.models.forcings import forcing
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.plan import plan_times
from graphcast_batch.setup.run_source import AnySource, open_run_source
from graphcast_batch.spec import Task

STATISTICS_FOLDER: Final = "statistics"
"""Folder in a store for the normalization statistics of its forecasts."""


def statistics_of(config: RunConfig, times: TimesConfig | None, executor: Executor = run_serially) -> Statistics:
    """Compute the normalization statistics of what a run reads.

    Args:
        config: config of the run.
        times: times to use, with the times one step before each; by default all times of the inputs, or, if the inputs
            have every time, those of the run.
        executor: runs parts of the computation in parallel.

    Raises:
        GraphcastBatchError: the inputs cannot be read, or lack what is needed.
    """
    weights = MODELS[config.model.implementation].weights(config.weights)
    source = open_run_source(config, weights)
    return computed_statistics(
        source, weights.task, times or (config.times if source.times is None else None), executor
    )


def computed_statistics(
    source: AnySource, task: Task | None = None, times: TimesConfig | None = None, executor: Executor = run_serially
) -> Statistics:
    """Compute the normalization statistics of a source; forcings that it lacks are computed.

    Args:
        source: source of states.
        task: task that names the variables; by default all known variables of the source.
        times: times to use, with the times one step before each; by default all times of the source.
        executor: runs parts of the computation in parallel.

    Raises:
        StatisticsError: the source lacks a variable or a time, or its fields do not change.
    """
    task, wanted = task or held_task(source), None
    if times is not None:
        init_times = np.array(plan_times(times))
        wanted = list(np.union1d(init_times, init_times - task.step))
    return compute_statistics(source, task, forcing, wanted, executor)


def given_statistics(config: RunConfig) -> Statistics | None:
    """Read the statistics that a config names, else those that the store keeps; None if there are neither."""
    kept = config.store / STATISTICS_FOLDER
    folder = config.model.statistics or (kept if kept.exists() else None)
    return read_statistics(folder) if folder else None
