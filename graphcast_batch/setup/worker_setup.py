"""Build what a worker needs for any Case of a run: model, checks, limits and store."""

from functools import partial

import numpy as np
import xarray as xr

from graphcast_batch.config.model_section import CheckpointWeights
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import CheckpointError
from graphcast_batch.inputs.quality.checks import check_inputs
from graphcast_batch.inputs.quality.limits import Limits, forecast_limits, limits
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.inputs.statistics import Statistics, read_statistics
from graphcast_batch.models.base import Checkpoint, Model
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.pipeline.ensemble_cases import EnsembleCases
from graphcast_batch.pipeline.ports import LimitsOf, Scorer
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.setup.ensemble_store import drop_members, ensembles_of
from graphcast_batch.setup.member_starts import perturbation_of_members, weights_of_members
from graphcast_batch.setup.resources import MemoryUse, configured_cache, kept_checkpoints
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.setup.run_statistics import STATISTICS_FOLDER
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store


def worker_context(
    config: RunConfig,
    source: AnySource,
    use: MemoryUse,
    name: str,
    scorer: Scorer | None = None,
    host_room: int = 0,
    members: MemberArchives | None = None,
) -> WorkerContext:
    """Return what a worker needs for any Case of a run whose store is laid out; the model is on the device then.

    Args:
        config: config of the run.
        source: source of initial states and truth.
        use: precision of the network, and how it uses the memory.
        name: name of the worker.
        scorer: scores the forecasts online; None to leave them unscored.
        host_room: memory of the host for this worker, in bytes; more than it needs is used for checkpoints.
        members: members of the analysis ensemble that the config names; None if it names none.

    Raises:
        GraphcastBatchError: a part is missing or does not fit.
    """
    weights = MODELS[config.model.implementation].weights(config.weights)
    store = open_store(config.store)
    channels, statistics = weights.channels(source.dims), read_statistics(config.store / STATISTICS_FOLDER)
    checkpoint = weights.checkpoint(channels)
    _check_weights(config, store, checkpoint)
    model = _loaded_model(config, checkpoint, channels, statistics, source, use)
    check = partial(check_inputs, task=weights.task, grid=source.grid, resolution=weights.architecture.resolution)
    perturb = perturbation_of_members(config, statistics, weights.task, source.grid, members)
    kept = kept_checkpoints(use, checkpoint, host_room)
    of_members = weights_of_members(config, store.members, checkpoint, channels, kept)
    ensembles = _ensembles(config, store, scorer, name)
    calls = use.batch_size, scorer, use.steps, perturb, of_members, ensembles
    return WorkerContext(source, check, model, store, partial(_limits, config), name, *calls)


def _ensembles(config: RunConfig, store: Store, scorer: Scorer | None, name: str) -> EnsembleCases | None:
    """Return what computes what is kept of all members together; None if nothing is."""
    of_ensembles = ensembles_of(store) if config.combines_members else None
    if of_ensembles is None:
        return None
    drop = None if config.outputs.members == "all" else partial(drop_members, store, config=config)
    return EnsembleCases(store, of_ensembles, config.outputs.ensemble, scorer, name, drop)


def _check_weights(config: RunConfig, store: Store, checkpoint: Checkpoint) -> None:
    """Refuse weights that are not those that the store was laid out for: their file may have been replaced since."""
    expected = store.members[0].weights_sha256 if store.members else store.identity.get("weights")
    if expected not in (None, checkpoint.sha256):
        where = config.weights.path if isinstance(config.weights, CheckpointWeights) else "model.weights"
        raise CheckpointError(
            f"{where} must hold the weights that {store.path} was laid out for, with the checksum {expected}, but has "
            f"{checkpoint.sha256}; put the file back, and run again"
        )


def _loaded_model(
    config: RunConfig,
    checkpoint: Checkpoint,
    channels: Channels,
    statistics: Statistics,
    source: AnySource,
    use: MemoryUse,
) -> Model:
    """Load the model that a config chooses; nothing before this touches a device, as planning must not wait for one."""
    return MODELS[config.model.implementation].load(
        checkpoint,
        statistics.by_kind,
        source.grid,
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
