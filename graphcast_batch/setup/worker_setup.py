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
from graphcast_batch.models.base import Model, Weights
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.pipeline.ports import LimitsOf, Scorer
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.setup.resources import MemoryUse, configured_cache
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.setup.run_statistics import STATISTICS_FOLDER
from graphcast_batch.stores.store_kinds import open_store


def worker_context(
    config: RunConfig, source: AnySource, use: MemoryUse, name: str, scorer: Scorer | None = None
) -> WorkerContext:
    """Return what a worker needs for any Case of a run whose store is laid out; the model is on the device then.

    Args:
        config: config of the run.
        source: source of initial states and truth.
        use: precision of the network, and how it uses the memory.
        name: name of the worker.
        scorer: scores the forecasts online; None to leave them unscored.

    Raises:
        GraphcastBatchError: a part is missing or does not fit.
    """
    weights = MODELS[config.model.implementation].weights(config.model.weights)
    store = open_store(config.store)
    model = _loaded_model(config, weights, source, use)
    check = partial(check_inputs, task=weights.task, grid=source.grid, resolution=weights.architecture.resolution)
    calls = use.batch_size, scorer, use.steps
    return WorkerContext(source, check, model, store, partial(_limits, config), name, *calls)


def _loaded_model(config: RunConfig, weights: Weights, source: AnySource, use: MemoryUse) -> Model:
    """Load the model that a config chooses; nothing before this touches a device, as planning must not wait for one."""
    grid, channels = source.grid, weights.channels(source.dims)
    return MODELS[config.model.implementation].load(
        weights.checkpoint(channels),
        read_statistics(config.store / STATISTICS_FOLDER).by_kind,
        grid,
        channels,
        use.precision,
        steps_per_call=use.steps,
        memory=use.mode,
        cache=configured_cache(config),
    )


def _limits(config: RunConfig, start: xr.Dataset) -> LimitsOf:
    """Return the limits of a forecast: those of the config, and else those of weather, if the start may be weather."""
    chosen = config.limits if isinstance(config.limits, dict) else {}
    judged = config.limits != "off" and _could_be_weather(start)

    def limits_of(name: str, level: int | None) -> Limits | None:
        return chosen.get(name) or (forecast_limits(name, level) if judged else None)

    return limits_of


def _could_be_weather(frames: xr.Dataset) -> bool:
    """Return whether all values occur on Earth; inputs with others are noise, with which programs are tried."""
    for name, array in frames.data_vars.items():
        for level in array["level"].values.tolist() if "level" in array.dims else [None]:
            low, high = limits(str(name), level) or (-np.inf, np.inf)
            values = array.values if level is None else array.sel(level=level).values
            if not (low <= values.min() and values.max() <= high):
                return False
    return True
