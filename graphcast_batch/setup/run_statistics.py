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
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.plan import plan_times
from graphcast_batch.setup.run_source import AnySource, open_run_source
from graphcast_batch.spec import STEP_HOURS, Task

STATISTICS_FOLDER: Final = "statistics"


def statistics_of(config: RunConfig, times: TimesConfig | None, executor: Executor = run_serially) -> Statistics:
    """Normalisation statistics of what a run reads.

    Args:
        config: of the run.
        times: take these and the times one step before each; without them all that the inputs hold, or, where they
            hold every time, the run's own.
        executor: where they are computed.

    Raises:
        GraphcastBatchError: the inputs cannot be read, or do not suffice.
    """
    weights = ConfiguredWeights(config.model.weights)
    source = open_run_source(config, weights)
    return computed_statistics(
        source, weights.task, times or (config.times if source.times is None else None), executor
    )


def computed_statistics(
    source: AnySource, task: Task | None = None, times: TimesConfig | None = None, executor: Executor = run_serially
) -> Statistics:
    """Normalisation statistics of a source, with forcings where it has none.

    Args:
        source: of states.
        task: names the variables; without it all that the source holds and this program knows.
        times: take these and the times one step before each; without them all that the source holds.
        executor: where they are computed.

    Raises:
        StatisticsError: the source lacks a variable or time, or nothing changes in it.
    """
    wanted = None
    if times is not None:
        init_times = np.array(plan_times(times))
        wanted = list(np.union1d(init_times, init_times - np.timedelta64(STEP_HOURS, "h")))
    return compute_statistics(source, task or held_task(source), forcing, wanted, executor)


def given_statistics(config: RunConfig) -> Statistics | None:
    """Those that the configuration names, else those that the store has kept from computing them."""
    kept = config.store / STATISTICS_FOLDER
    folder = config.model.statistics or (kept if kept.exists() else None)
    return read_statistics(folder) if folder else None
