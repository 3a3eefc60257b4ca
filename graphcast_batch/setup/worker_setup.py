"""Build what a worker needs for any Case of a run: model, checks, limits and store."""

from functools import partial

import numpy as np
import xarray as xr

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.inputs.quality.checks import check_inputs
from graphcast_batch.inputs.quality.limits import Limits, forecast_limits, limits
from graphcast_batch.inputs.statistics import (
    read_statistics,
)
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.models.graphs import cached_graphs
from graphcast_batch.pipeline import LimitsOf, Model, Scorer, WorkerContext
from graphcast_batch.setup.resources import Precision, configured_cache, memory_mode
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.setup.run_statistics import STATISTICS_FOLDER
from graphcast_batch.stores.store_kinds import open_store


def worker_context(
    config: RunConfig, source: AnySource, precision: Precision, name: str, scorer: Scorer | None = None
) -> WorkerContext:
    """What a worker needs for any Case of a run whose store is laid out.

    Args:
        config: of the run.
        source: of states.
        precision: of the network.
        name: of the worker.
        scorer: of the forecasts, if the run scores them.

    Raises:
        GraphcastBatchError: a part is missing or does not fit.
    """
    weights = ConfiguredWeights(config.model.weights)
    store = open_store(config.store)
    forecasts = _forecasts(config, weights, source, precision)
    check = partial(check_inputs, task=weights.task, grid=source.grid, resolution=weights.architecture.resolution)
    together = config.model.cases_per_call
    return WorkerContext(
        source, check, forecasts, weights.task, store, partial(_limits, config), name, together, scorer
    )


def _forecasts(config: RunConfig, weights: ConfiguredWeights, source: AnySource, precision: Precision) -> Model:
    """The implementation that the config chooses; only here is a device touched, as planning must not wait for one."""
    model, grid, channels = config.model, source.grid, weights.channels(source.dims)
    statistics = read_statistics(config.store / STATISTICS_FOLDER).by_kind
    parts = (weights.checkpoint(channels), statistics, grid, channels, precision, model.steps_per_call)
    if model.implementation == "deepmind":
        from graphcast_batch.models.deepmind import DeepmindForecaster

        return DeepmindForecaster(*parts)
    from graphcast_batch.models.graphcast.forecaster import Forecaster
    from graphcast_batch.models.graphcast.programs import CompiledOnce, compiled_once

    cache, memory = configured_cache(config), memory_mode(config, weights.architecture, grid, channels, precision)
    program = (weights.architecture, weights.task, grid.shape, precision, model.steps_per_call, memory)
    with compiled_once(cache, "setup", *program):
        forecaster = Forecaster(*parts, cached_graphs(weights.architecture, grid, cache), memory)
    return CompiledOnce(forecaster, cache, *program)


def _limits(config: RunConfig, start: xr.Dataset) -> LimitsOf:
    """What a forecast from a start may hold: as the config says, and else what `forecast_limits` says of weather."""
    chosen = config.limits if isinstance(config.limits, dict) else {}
    judged = config.limits != "off" and _could_be_weather(start)

    def limits_of(name: str, level: int | None) -> Limits | None:
        return chosen.get(name) or (forecast_limits(name, level) if judged else None)

    return limits_of


def _could_be_weather(frames: xr.Dataset) -> bool:
    """Whether the Earth has such values; others pass the checks of inputs only as noise, to try programs with."""
    for name, array in frames.data_vars.items():
        for level in array["level"].values.tolist() if "level" in array.dims else [None]:
            low, high = limits(str(name), level) or (-np.inf, np.inf)
            values = array.values if level is None else array.sel(level=level).values
            if not (low <= values.min() and values.max() <= high):
                return False
    return True
