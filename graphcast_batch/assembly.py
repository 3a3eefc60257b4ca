"""A RunConfig becomes the parts of a run, put together: source, weights, plan, store, and a worker's bench."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, Literal

import numpy as np
from pydantic import JsonValue

from graphcast_batch.config import STEP_HOURS, Architecture, DatasetInputs, RunConfig, Task, Times, dump_config
from graphcast_batch.errors import InputError
from graphcast_batch.inputs.archive import Archive, SyntheticArchive
from graphcast_batch.inputs.checks import check_inputs
from graphcast_batch.inputs.datasets import DatasetFiles
from graphcast_batch.inputs.sources import open_source
from graphcast_batch.inputs.statistics import Statistics, compute_statistics, read_statistics, write_statistics
from graphcast_batch.model.channels import Channels
from graphcast_batch.model.checkpoint import Checkpoint
from graphcast_batch.model.forcings import forcing
from graphcast_batch.model.normalisation import normalisation
from graphcast_batch.model.weights import Weights
from graphcast_batch.outputs.store import Store
from graphcast_batch.pipeline import Bench
from graphcast_batch.plan import Case, Plan, plan_cases, plan_layout, plan_times

AnySource = Archive | DatasetFiles | SyntheticArchive
_VERSIONS: Final = ("graphcast-batch", "jax", "dm-haiku", "numpy", "xarray", "zarr")
_RESOLUTION_TOLERANCE: Final = 1e-3  # degrees


@dataclass(frozen=True, eq=False)
class Run:
    """What a configuration says, held against what is there.

    Attributes:
        config: as it was given.
        source: of states and truth.
        weights: of the network.
        channels: places of the task's variables.
        plan: what is to be made.
    """

    config: RunConfig
    source: AnySource
    weights: Weights
    channels: Channels
    plan: Plan


def assemble(config: RunConfig) -> Run:
    """Opens inputs and weights and plans the Cases; writes nothing and uses no device.

    Raises:
        GraphcastBatchError: something is missing, or one part does not fit another.
    """
    weights = Weights(config.model.weights)
    source = open_source(config.inputs, weights.task.pressure_levels)
    _check_resolution(weights.architecture, source)
    channels = weights.channels(source.dims)
    layout = plan_layout(weights.task, source.grid, config.steps, source.dims)
    cases, aside = _cases(config, source, weights.task)
    return Run(config, source, weights, channels, Plan(cases, layout, aside))


def lay_out(run: Run, precision: Literal["float32", "bfloat16"]) -> Store:
    """Makes the run's store, or takes up the one that is there; statistics that were computed are kept in it.

    Raises:
        StoreMismatchError: the store was made by something else.
        StoreError: it cannot be written.
        CheckpointError: the weights do not fit the task.
        StatisticsError: a constant is missing.
    """
    checkpoint = run.weights.checkpoint(run.channels)
    folder = run.config.store / "statistics"
    given = run.config.model.statistics or (folder if folder.exists() else None)
    statistics = (
        read_statistics(given) if given else computed_statistics(run.source, run.weights.task, run.config.times)
    )
    store = Store.create_or_extend(
        run.config.store,
        run.plan,
        identity=_identity(run, checkpoint, statistics, precision),
        provenance=_provenance(run, checkpoint, precision),
        config_text=dump_config(run.config),
    )
    if not folder.exists():
        write_statistics(statistics, folder)
    return store


def statistics_of(config: RunConfig) -> Statistics:
    """Normalisation statistics of what a run reads: of its whole archive, or of a synthetic planet at the run's times.

    Raises:
        GraphcastBatchError: the inputs cannot be read, or do not suffice.
    """
    weights = Weights(config.model.weights)
    source = open_source(config.inputs, weights.task.pressure_levels)
    return computed_statistics(source, weights.task, config.times)


def computed_statistics(source: AnySource, task: Task, times: Times | None = None) -> Statistics:
    """Normalisation statistics of all that a source holds, with forcings where it has none.

    Args:
        source: of states.
        task: names the variables.
        times: initial times to take, each with the frame before, from a source that holds every time.
    """
    wanted = None
    if source.times is None and times is not None:
        init_times = np.array(plan_times(times))
        wanted = np.union1d(init_times, init_times - np.timedelta64(STEP_HOURS, "h"))
    return compute_statistics(source, task, forcing, None if wanted is None else list(wanted))


def worker_bench(config: RunConfig, source: AnySource, precision: Literal["float32", "bfloat16"], name: str) -> Bench:
    """What a worker needs for any Case of a run whose store is laid out.

    Args:
        config: of the run.
        source: of states.
        precision: of the network.
        name: of the worker.

    Raises:
        GraphcastBatchError: a part is missing or does not fit.
    """
    # Only here is a device touched; planning must not wait for one.
    from graphcast_batch.model.forecaster import Forecaster

    weights = Weights(config.model.weights)
    channels = weights.channels(source.dims)
    store = Store.open(config.store)
    forecaster = Forecaster(
        weights.checkpoint(channels),
        read_statistics(store.path / "statistics").by_kind,
        source.grid,
        channels,
        precision,
        config.model.steps_per_call,
    )
    check = partial(check_inputs, task=weights.task, grid=source.grid, resolution=weights.architecture.resolution)
    return Bench(source, check, forecaster, weights.task, store, name)


def _cases(config: RunConfig, source: AnySource, task: Task) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    if isinstance(source, DatasetFiles):
        return source.cases(config.steps, task)
    assert config.times is not None
    return plan_cases(plan_times(config.times), config.steps, source.times, task.input_frames)


def _check_resolution(architecture: Architecture, source: AnySource) -> None:
    expected, found = architecture.resolution, source.grid.resolution
    if expected and abs(expected - found) > _RESOLUTION_TOLERANCE:
        raise InputError(
            f"{source.origin} must be on a grid of {expected:g}°, which the weights were trained for, but is on "
            f"{source.grid}; give inputs of that resolution, or weights for this one"
        )


def _identity(run: Run, checkpoint: Checkpoint, statistics: Statistics, precision: str) -> Mapping[str, JsonValue]:
    """What makes two forecasts from one state the same."""
    constants = normalisation(run.channels, statistics.by_kind)
    inputs = run.config.inputs
    digest = hashlib.sha256(b"".join(part.tobytes() for part in constants)).hexdigest()
    return {
        "weights": checkpoint.sha256,
        "statistics": digest,
        "precision": precision,
        # More dataset files may join a store, under whatever pattern; another archive may not.
        "inputs": inputs.kind if isinstance(inputs, DatasetInputs) else inputs.model_dump(mode="json"),
    }


def _provenance(run: Run, checkpoint: Checkpoint, precision: str) -> Mapping[str, JsonValue]:
    return {
        "title": "GraphCast forecasts",
        "source": checkpoint.description,
        "weights_sha256": checkpoint.sha256,
        "weights_license": checkpoint.license,
        "architecture": checkpoint.architecture.model_dump(mode="json", exclude_none=True),
        "task": checkpoint.task.model_dump(mode="json"),
        "precision": precision,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
        "config": run.config.model_dump(mode="json", exclude_none=True),
    }
