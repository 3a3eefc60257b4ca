"""A RunConfig becomes the parts of a run, put together: source, weights, plan, store, and a worker's bench."""

import difflib
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.config import (
    STEP_HOURS,
    Architecture,
    DatasetInputs,
    Implementation,
    RunConfig,
    Task,
    Times,
    dump_config,
)
from graphcast_batch.credentials import bare
from graphcast_batch.errors import ConfigError, GridError, InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.archive import Archive, SyntheticArchive
from graphcast_batch.inputs.checks import check_inputs, check_statistics, faults_of_values, find_faults
from graphcast_batch.inputs.datasets import DatasetFiles
from graphcast_batch.inputs.findings import Finding, notices
from graphcast_batch.inputs.sources import open_source, resolution_remedy
from graphcast_batch.inputs.states import COMPUTABLE, times_of_inputs
from graphcast_batch.inputs.statistics import (
    Spread,
    Statistics,
    compute_statistics,
    held_task,
    in_this_process,
    read_statistics,
    write_statistics,
)
from graphcast_batch.inputs.synthetic import SyntheticPlanet
from graphcast_batch.limits import Limits, forecast_limits, limits
from graphcast_batch.memory import Call, MemoryMode, steps_in_call
from graphcast_batch.model.cache import Cache, users_folder
from graphcast_batch.model.channels import Channels
from graphcast_batch.model.checkpoint import Checkpoint
from graphcast_batch.model.forcings import forcing
from graphcast_batch.model.graphs import cached_graphs
from graphcast_batch.model.normalisation import normalisation
from graphcast_batch.model.weights import Weights
from graphcast_batch.outputs import archive
from graphcast_batch.outputs.store import NONE, OUTPUTS, Store
from graphcast_batch.pipeline import Bench, Forecasts, LimitsOf, Scorer
from graphcast_batch.plan import Case, Plan, plan_cases, plan_layout, plan_times

Precision = Literal["float32", "bfloat16"]
Pieces = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[BaseException | None]]
AnySource = Archive | DatasetFiles | SyntheticArchive
_STATISTICS: Final = "statistics"
_ROOM: Final = 0.7
"""Share of a device's memory that may be planned with; the rest is for what is not counted."""
_ITEM_BYTES: Final[Mapping[Precision, int]] = {"float32": 4, "bfloat16": 2}
_COMPRESSION: Final = 1.37
"""Of weather by the codec of the store, measured: see DECISIONS.md, 4."""
_PIECE: Final = 4
"""Times of an archive that are made and written at once."""
_WASTE: Final = 4.0
"""Bytes read for each that is needed, from which on it is worth a word: 13 of 37 levels alone make 2.8."""
_VERSIONS: Final = ("graphcast-batch", "jax", "dm-haiku", "numpy", "xarray", "zarr")


@dataclass(frozen=True, eq=False)
class Run:
    """What a configuration says, held against what is there.

    Attributes:
        config: as it was given.
        source: of states and truth.
        checkpoint: weights with their task and architecture.
        channels: places of the task's variables.
        statistics: for normalisation; None where they are still to be computed from the inputs.
        plan: what is to be made.
    """

    config: RunConfig
    source: AnySource
    checkpoint: Checkpoint
    channels: Channels
    statistics: Statistics | None
    plan: Plan


def assemble(config: RunConfig, *, able: bool = True) -> Run:
    """Opens inputs, weights and statistics and plans the Cases; writes nothing and uses no device.

    Args:
        config: of the run.
        able: whether only Cases that the inputs can start are planned, and others set aside.

    Raises:
        GraphcastBatchError: something is missing, or one part does not fit another.
    """
    weights = Weights(config.model.weights)
    source = _open_source(config, weights)
    channels = weights.channels(source.dims)
    _check_limited(config, weights.task)
    layout = plan_layout(weights.task, source.grid, config.steps, source.dims, config.outputs)
    cases, aside = _cases(config, source, weights.task, able=able)
    statistics = _given_statistics(config)
    if statistics:
        origin = str(config.model.statistics or config.store / _STATISTICS)
        check_statistics(statistics.by_kind, origin, weights.task, lambda: source.held(cases[0], weights.task))
        normalisation(channels, statistics.by_kind)
    return Run(config, source, weights.checkpoint(channels), channels, statistics, Plan(cases, layout, aside))


def lay_out(run: Run, precision: Precision, spread: Spread) -> Store:
    """Makes the run's store, or takes up the one that is there; its statistics are kept in it.

    Args:
        run: what to make.
        precision: of the network.
        spread: where statistics are computed, if they must be.

    Raises:
        StoreMismatchError: the store was made by something else.
        StoreError: it cannot be written.
        StatisticsError: they cannot be computed from the inputs.
    """
    statistics = settled_statistics(run, spread)
    store = Store.create_or_extend(
        run.config.store,
        run.plan,
        identity=_identity(run, statistics, precision),
        provenance=_provenance(run, precision),
        config_text=dump_config(run.config),
    )
    if not (store.path / _STATISTICS).exists():
        write_statistics(statistics, store.path / _STATISTICS)
    return store


def settled_statistics(run: Run, spread: Spread = in_this_process) -> Statistics:
    """The statistics of a run, given or computed, with a constant for everything that goes in or comes out.

    Args:
        run: what to make.
        spread: where they are computed, if they must be.

    Raises:
        StatisticsError: they cannot be computed from the inputs, or do not suffice.
        InputError: the inputs cannot be read.
    """
    statistics = run.statistics or statistics_of(run.config, None, spread)
    normalisation(run.channels, statistics.by_kind)
    return statistics


def kept_store(run: Run) -> Store | None:
    """The store that is there already, if it may be taken up.

    Raises:
        StoreMismatchError: it was made by something else, as far as can be told without a device or its statistics.
        StoreError: none can be made there.
    """
    Store.check_place(run.config.store)
    if not Store.exists(run.config.store):
        return None
    store = Store.open(run.config.store)
    known = _identity(run, run.statistics, run.config.model.precision)
    unknown = {key: value for key, value in store.identity.items() if key in ("precision", "statistics")}
    store.refuse_other(run.plan.layout, {**unknown, **known})
    return store


def resolved_precision(precision: Literal["auto", "float32", "bfloat16"], *, accelerated: bool) -> Precision:
    """The precision that ``auto`` stands for: bfloat16, the published one, on an accelerator; float32 on CPU."""
    if precision != "auto":
        return precision
    return "bfloat16" if accelerated else "float32"


def faults(source: AnySource, case: Case, task: Task, resolution: float) -> list[Finding]:
    """Every reason why a Case cannot be run with the inputs it would read; reads them, and uses no device.

    Args:
        source: of states.
        case: to look at.
        task: of the weights.
        resolution: that the weights were trained for, degrees; 0 for any.
    """
    try:
        problems = source.findings(case, task)
        if problems:
            return problems + faults_of_values(source.held(case, task))
        return find_faults(source.read(case, task), task, source.grid, resolution)
    except (InputError, GridError) as error:
        return [_unreadable(error)]


def statistics_of(config: RunConfig, times: Times | None, spread: Spread = in_this_process) -> Statistics:
    """Normalisation statistics of what a run reads.

    Args:
        config: of the run.
        times: take these and the times one step before each; without them all that the inputs hold, or, where they
            hold every time, the run's own.
        spread: where they are computed.

    Raises:
        GraphcastBatchError: the inputs cannot be read, or do not suffice.
    """
    weights = Weights(config.model.weights)
    source = _open_source(config, weights)
    return computed_statistics(source, weights.task, times or (config.times if source.times is None else None), spread)


def computed_statistics(
    source: AnySource, task: Task | None = None, times: Times | None = None, spread: Spread = in_this_process
) -> Statistics:
    """Normalisation statistics of a source, with forcings where it has none.

    Args:
        source: of states.
        task: names the variables; without it all that the source holds and this program knows.
        times: take these and the times one step before each; without them all that the source holds.
        spread: where they are computed.

    Raises:
        StatisticsError: the source lacks a variable or time, or nothing changes in it.
    """
    wanted = None
    if times is not None:
        init_times = np.array(plan_times(times))
        wanted = list(np.union1d(init_times, init_times - np.timedelta64(STEP_HOURS, "h")))
    return compute_statistics(source, task or held_task(source), forcing, wanted, spread)


def doubts(run: Run) -> list[str]:
    """What a person should know before a run, although it does not stop it."""
    source = run.source
    init_times = np.array([case.init_time for case in run.plan.cases])
    found = notices(run.checkpoint.description, source.provenance, init_times)
    cost = source.cost(run.plan.cases[0], run.checkpoint.task)
    if cost and cost.factor > _WASTE:
        chunks = " x ".join(map(str, cost.worst_chunks))
        found.append(
            f"reading one Case fetches {cost.factor:.0f} times the bytes it needs, most of them for {cost.worst} in "
            f"chunks of {chunks}: a copy of the inputs with one time a chunk reads faster"
        )
    return found + _space_doubt(run) + _cache_doubt(run.config)


def _space_doubt(run: Run) -> list[str]:
    place = next(folder for folder in (run.config.store, *run.config.store.parents) if folder.exists())
    compression = 1.0 if run.config.outputs.compression == "none" else _COMPRESSION
    needed, free = run.plan.store_bytes / compression, shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"all forecasts need about {needed / 1e9:.3g} GB, of which some may be there already, but {free / 1e9:.3g} GB "
        f"are free at {place}: make room, or what does not fit is left for another run"
    ]


def _cache_doubt(config: RunConfig) -> list[str]:
    cache = _cache(config)
    if config.cache == "off" or (cache and cache.writable):
        return []
    where = f"the cache {cache.folder} cannot be written" if cache else "there is no home folder to keep a cache in"
    return [
        f"{where}, so that each worker builds graphs and compiles programs for itself; give another folder (cache: "
        "FOLDER), or do without one (cache: off)"
    ]


def _cache(config: RunConfig) -> Cache | None:
    folder = users_folder() if config.cache is None else config.cache
    return Cache(folder).check() if isinstance(folder, Path) else None


def reading(run: Run) -> dict[str, str]:
    """How the inputs are understood, by what a person calls each part."""
    cost = run.source.cost(run.plan.cases[0], run.checkpoint.task)
    rows = {"inputs": run.source.origin, "layout": run.source.spoken, **run.source.changes}
    if cost:
        rows["reading"] = f"{cost.touched_bytes / 1e6:.3g} MB a Case, of which {cost.wanted_bytes / 1e6:.3g} MB go in"
    return rows


def needed_bytes(run: Run, precision: Precision, mode: MemoryMode | None = None, *, accelerated: bool = False) -> int:
    """What a worker's device holds while it computes; see `Call`.

    Args:
        run: what to make.
        precision: of the network.
        mode: of the network; without it that which the config asks for, or the leaner one.
        accelerated: whether the device is an accelerator.
    """
    memory = run.config.model.memory
    call = _call(run.config, run.checkpoint.architecture, run.source.grid, run.channels, precision, accelerated)
    return call.bytes(mode or ("lean" if memory == "auto" else memory))


def device_needs(run: Run) -> dict[str, int]:
    """What a worker's device holds while it computes, by what the run may turn out to compute on."""
    model, wanted = run.config.model, run.config.workers.device
    modes: tuple[MemoryMode, ...] = ("fast", "lean") if model.memory == "auto" else (model.memory,)
    found = {}
    for device, accelerated in (("cpu", False), ("gpu", True)):
        precision = resolved_precision(model.precision, accelerated=accelerated)
        for mode in modes if wanted in (device, "auto") else ():
            needed = needed_bytes(run, precision, mode, accelerated=accelerated)
            found[f"{precision} on {device.upper()}, {mode}"] = needed
    return found


def _call(
    config: RunConfig,
    architecture: Architecture,
    grid: Grid,
    channels: Channels,
    precision: Precision,
    accelerated: bool,
) -> Call:
    return Call(
        architecture,
        grid,
        channels.inputs,
        channels.outputs,
        item_bytes=_ITEM_BYTES[precision],
        accelerated=accelerated,
        steps=steps_in_call(config.steps, config.model.steps_per_call),
        cases=config.model.cases_per_call,
    )


def check_memory(run: Run, precision: Precision, workers: int, available: int) -> None:
    """Refuses a run whose workers cannot have the memory that a Case needs.

    Args:
        run: what to make.
        precision: of the network.
        workers: how many share the memory.
        available: bytes, of a device or a machine.

    Raises:
        ConfigError: with the numbers.
    """
    needed = needed_bytes(run, precision)
    if needed * workers <= available:
        return
    remedy = "take fewer workers" if needed <= available else "take a coarser grid, a smaller model or a larger machine"
    raise ConfigError(
        f"{workers} workers must have {needed / 1e9:.3g} GB each, as a Case on {run.plan.layout.grid} needs at least "
        f"in {precision}, but there are {available / 1e9:.3g} GB for all; {remedy}"
    )


def machine_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def synthetic_archive(
    path: Path, resolution: float, levels: Sequence[int], times: NDArray[np.datetime64], seed: int, spread: Pieces
) -> None:
    """Writes weather of the synthetic planet as a zarr archive.

    Args:
        path: where it is to be; nothing may be there.
        resolution: degrees, a divisor of 180.
        levels: hPa.
        times: (time,) datetime64, ascending.
        seed: of the weather.
        spread: calls a function with each of many lists of arguments, and gives the results, or exceptions, in order.

    Raises:
        GridError: the resolution divides no half circle.
        StoreError: something is at the path, or it cannot be written.
    """
    source = SyntheticArchive(SyntheticPlanet(seed), resolution, levels)
    draft = archive.lay_out(path, source.dims, source.grid, source.levels, times)
    pieces = [(draft, source, start, times[start : start + _PIECE]) for start in range(0, times.size, _PIECE)]
    for result in spread(_fill_piece, pieces):
        if isinstance(result, BaseException):
            raise result
    archive.publish(draft, path)


def _fill_piece(draft: Path, source: SyntheticArchive, first: int, times: NDArray[np.datetime64]) -> None:
    archive.fill(draft, first, source.fields(tuple(source.dims), times, source.levels))


def worker_bench(
    config: RunConfig, source: AnySource, precision: Precision, name: str, scorer: Scorer | None = None
) -> Bench:
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
    weights = Weights(config.model.weights)
    store = Store.open(config.store)
    forecasts = _forecasts(config, weights, source, precision)
    check = partial(check_inputs, task=weights.task, grid=source.grid, resolution=weights.architecture.resolution)
    together = config.model.cases_per_call
    return Bench(source, check, forecasts, weights.task, store, partial(_limits, config), name, together, scorer)


def _forecasts(config: RunConfig, weights: Weights, source: AnySource, precision: Precision) -> Forecasts:
    """The implementation that the config chooses; only here is a device touched, as planning must not wait for one."""
    model, grid, channels = config.model, source.grid, weights.channels(source.dims)
    statistics = read_statistics(config.store / _STATISTICS).by_kind
    parts = (weights.checkpoint(channels), statistics, grid, channels, precision, model.steps_per_call)
    if model.implementation == "deepmind":
        from graphcast_batch.model.deepmind import DeepmindForecaster

        return DeepmindForecaster(*parts)
    from graphcast_batch.model.forecaster import Forecaster
    from graphcast_batch.model.programs import CompiledOnce, compiled_once

    cache, memory = _cache(config), _memory_mode(config, weights.architecture, grid, channels, precision)
    program = (weights.architecture, weights.task, grid.shape, precision, model.steps_per_call, memory)
    with compiled_once(cache, "setup", *program):
        forecaster = Forecaster(*parts, cached_graphs(weights.architecture, grid, cache), memory)
    return CompiledOnce(forecaster, cache, *program)


def _memory_mode(
    config: RunConfig, architecture: Architecture, grid: Grid, channels: Channels, precision: Precision
) -> MemoryMode:
    """What ``auto`` stands for on the device of this process."""
    from graphcast_batch.model.forecaster import backend, device_bytes

    if config.model.memory != "auto":
        return config.model.memory
    accelerated = backend() != "cpu"
    room = max(1, len(os.sched_getaffinity(0)) // config.workers.threads)
    workers = min(config.workers.count or room, room)  # on this machine: the others of the count may be elsewhere
    available = device_bytes() if accelerated else machine_bytes() // workers
    needed = _call(config, architecture, grid, channels, precision, accelerated).bytes("fast")
    return "fast" if needed <= _ROOM * available or not available else "lean"


def _unreadable(error: InputError | GridError) -> Finding:
    """The remedy, if the error names one, apart from what was found."""
    found, separator, remedy = str(error).rpartition("; ")
    otherwise = f"{remedy}, or leave the Case out" if separator else "leave the Case out"
    return Finding("the data", "be readable", found or remedy, otherwise)


def _open_source(config: RunConfig, weights: Weights) -> AnySource:
    resolution = weights.architecture.resolution
    needed = [name for name in weights.task.input_variables if name not in COMPUTABLE]
    source = open_source(config.inputs, weights.task.pressure_levels, resolution, needed)
    if not source.grid.fits(resolution):
        remedy = resolution_remedy(config.inputs, source.grid.resolution, resolution)
        raise InputError(
            f"{source.origin} must be on a grid of {resolution:g}°, which the weights were trained for, "
            f"but is on {source.grid}; {remedy}, or give weights for this one"
        )
    return source


def _check_limited(config: RunConfig, task: Task) -> None:
    targets = task.target_variables
    for name in config.limits if isinstance(config.limits, dict) else ():
        if name not in targets:
            near = difflib.get_close_matches(name, targets, n=1)
            hint = f"did you mean {near[0]}?" if near else f"take one of {', '.join(sorted(targets))}"
            raise ConfigError(f"limits: each must be of a variable that is predicted, but {name} is not; {hint}")


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


def _given_statistics(config: RunConfig) -> Statistics | None:
    """Those that the configuration names, else those that the store has kept from computing them."""
    kept = config.store / _STATISTICS
    folder = config.model.statistics or (kept if kept.exists() else None)
    return read_statistics(folder) if folder else None


def _cases(
    config: RunConfig, source: AnySource, task: Task, *, able: bool
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    if isinstance(source, DatasetFiles):
        return source.cases(config.steps, task)
    assert config.times is not None
    if not able:
        return tuple(Case(time, config.steps) for time in plan_times(config.times)), ()
    cases, aside = _startable(plan_times(config.times), config.steps, source, task)
    problems = {case: source.findings(case, task) for case in cases} if source.findings(cases[0], task) else {}
    startable = tuple(case for case in cases if not problems.get(case))
    if not startable:
        raise InputError(
            f"{source.origin} cannot start any of {len(cases)} Cases: {'; '.join(map(str, problems[cases[0]]))}"
        )
    unable = tuple((case.key, "; ".join(map(str, found))) for case, found in problems.items() if found)
    return startable, aside + unable


def _startable(
    init_times: list[np.datetime64], steps: int, source: AnySource, task: Task
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    """Those whose input times are held; where none are, the error names the variables that are not."""
    try:
        return plan_cases(init_times, steps, times_of_inputs(source, task), task.input_frames)
    except ConfigError as error:
        problems = source.findings(Case(init_times[0], steps), task)
        if not problems:
            raise
        raise ConfigError(
            f"none of the {len(init_times)} initial times can be run; the first, {Case(init_times[0], steps).key}: "
            f"{'; '.join(map(str, problems))}"
        ) from error


def _identity(
    run: Run, statistics: Statistics | None, precision: Literal["auto", "float32", "bfloat16"]
) -> Mapping[str, JsonValue]:
    """What makes two forecasts from one state the same, as far as it is known."""
    inputs = run.config.inputs
    known: dict[str, JsonValue] = {
        "weights": run.checkpoint.sha256,
        # More dataset files may join a store, under whatever pattern; another archive may not.
        "inputs": _files_of_any_name(inputs)
        if isinstance(inputs, DatasetInputs)
        else bare(inputs.model_dump(mode="json")),
    }
    if run.config.model.implementation != "native":  # which a store that says nothing was made by
        known["implementation"] = run.config.model.implementation
    if not run.config.outputs.forecasts:
        known[OUTPUTS] = NONE
    if precision != "auto":
        known["precision"] = precision
    if statistics:
        constants = normalisation(run.channels, statistics.by_kind)
        known["statistics"] = hashlib.sha256(b"".join(part.tobytes() for part in constants)).hexdigest()
    return known


def _files_of_any_name(inputs: DatasetInputs) -> JsonValue:
    """How dataset files are read, if not as they are; a store that says their kind alone was made of such."""
    read = inputs.model_dump(mode="json", include={"names", "units"}, exclude_defaults=True)
    return {"kind": inputs.kind, **read} if read else inputs.kind


def _provenance(run: Run, precision: str) -> Mapping[str, JsonValue]:
    checkpoint = run.checkpoint
    return {
        "title": "GraphCast forecasts",
        "source": checkpoint.description,
        "weights_sha256": checkpoint.sha256,
        "weights_license": checkpoint.license,
        "architecture": checkpoint.architecture.model_dump(mode="json", exclude_none=True),
        "task": checkpoint.task.model_dump(mode="json"),
        "precision": precision,
        "implementation": run.config.model.implementation,
        "versions": {"python": platform.python_version(), **_versions(run.config.model.implementation)},
        "config": run.config.model_dump(mode="json", exclude_none=True),
    }


def _versions(implementation: Implementation) -> dict[str, str]:
    found = {name: version(name) for name in _VERSIONS}
    if implementation == "deepmind":
        from graphcast_batch.model.deepmind import installed_package

        package = installed_package()
        found[package.name] = package.version
    return found
