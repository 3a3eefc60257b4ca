"""Read normalization statistics from three files, or compute them in one pass over an archive.

The statistics are those published with GraphCast (Lam et al. 2023): mean and standard deviation of every variable, by
level if it has levels, over times and grid points, where each point counts equally; and the standard deviation of its
change over a model step. The archive is cut into blocks, whose sums are computed in any process and merged in one fixed
order: bit-identical results protect a user who repeats a study with another number of workers from different forecasts.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError, StatisticsError
from graphcast_batch.inputs.case_inputs import COMPUTABLE, Timeline, fewest_times
from graphcast_batch.inputs.formats.opening import load, open_netcdf
from graphcast_batch.inputs.layouts.contents import level_hint
from graphcast_batch.inputs.tally import ArchiveBlock, Forcing, Tally, tally_block
from graphcast_batch.spec import Task
from graphcast_batch.variables import VARIABLES

_KINDS: Final = ("mean", "stddev", "diffs_stddev")
_PIECE_BYTES: Final = 2**27
"""Largest size of the fields that are read at once, in float32."""
_STEPS_A_BLOCK: Final = 32
"""Least length of a block: reading the step before it, for the changes, adds 3 % at most."""

_MOST_LISTED: Final = 4
"""Largest number of times in a message."""
_DAYS_A_YEAR: Final = 365.24219
_WAVE: Final = math.sqrt(0.5)
"""Standard deviation of a sine over whole periods."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Normalization statistics; variables are float64, scalar or by ``level`` (hPa, int32, ascending).

    Attributes:
        mean: mean of each variable, in the unit of the variable.
        stddev: standard deviation of each variable, in its unit.
        diffs_stddev: standard deviation of the change over a model step, in the unit of the variable; may lack
            variables that never change.
    """

    mean: xr.Dataset
    stddev: xr.Dataset
    diffs_stddev: xr.Dataset

    @property
    def by_kind(self) -> dict[str, xr.Dataset]:
        """The three datasets by the names of the attributes."""
        return {kind: getattr(self, kind) for kind in _KINDS}


Executor = Callable[
    [Callable[[Timeline, Forcing, ArchiveBlock], Tally], Sequence[tuple[Timeline, Forcing, ArchiveBlock]]],
    Iterable[Tally | BaseException],
]
"""Calls a function with each tuple of arguments; yields results in their order, or the exception of a failed call."""


def run_serially(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function with each tuple of arguments, one after another; an exception is raised at once."""
    for arguments in argument_lists:
        yield function(*arguments)


def read_statistics(folder: Path) -> Statistics:
    """Read the three files of a folder, named ``mean_by_level.nc`` or ``stats_mean_by_level.nc`` and so on.

    Variables and levels are not checked here: the published files hold more than a model needs, and the model checks
    those that it uses.

    Raises:
        StatisticsError: a file is missing, there under both names, cannot be read, or does not hold statistics.
    """
    return Statistics(**{kind: _read(_find(folder, kind)) for kind in _KINDS})


def write_statistics(statistics: Statistics, folder: Path) -> None:
    """Write ``mean_by_level.nc``, ``stddev_by_level.nc`` and ``diffs_stddev_by_level.nc``, each in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, dataset in statistics.by_kind.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as private:
            draft = Path(private) / "draft.nc"
            dataset.to_netcdf(draft, engine="netcdf4")
            _flush(draft)
            draft.replace(folder / f"{kind}_by_level.nc")


def compute_statistics(
    source: Timeline,
    task: Task,
    forcing: Forcing,
    times: Sequence[np.datetime64] | NDArray[np.datetime64] | None = None,
    executor: Executor = run_serially,
) -> Statistics:
    """Compute the statistics of a task's variables in one pass over an archive, in float64.

    The sine and cosine of year and day progress get the values of full years and days, which are within 2 % of the
    published ones: with those of a short archive the rest of the year would be an outlier. The standard deviation of a
    constant variable is set to 1. If a variable never changes with time, as humidity at high levels may, the standard
    deviation of its values is used for that of its changes. An attribute of the variable states both.

    Args:
        source: source of the fields.
        task: task with the variables and levels.
        forcing: computes the forcing variables that the source lacks.
        times: times of the statistics; None for all at which the source holds every variable of the task.
        executor: runs the computation of the blocks. The result does not depend on it, to the last bit, because the
            same blocks are merged in the same order.

    Raises:
        StatisticsError: a variable, level or time is missing, a value is not finite, no two times are a step apart, a
            variable that the model feeds back never changes on any level, as when an archive repeats one frame, or
            the executor stopped before all blocks were done.
        InputError: the source cannot be read.
    """
    names = sorted({*task.input_variables, *task.target_variables, *task.forcing_variables})
    _check_held(source, task, names)
    stamps = _sorted_times(source, task, names, times)
    blocks = _blocks(source, task, names, stamps)
    tally, done = Tally({}, {}), 0
    for part in executor(tally_block, [(source, forcing, block) for block in blocks]):
        if isinstance(part, BaseException):
            raise part
        tally, done = tally.merge(part), done + 1
    if done < len(blocks):
        raise StatisticsError(
            f"statistics need all {len(blocks)} blocks of {source.origin}, but were stopped after {done}; run it again"
        )
    return _statistics(tally, [name for name in names if name in _PROGRESS], task, stamps)


def held_task(source: Timeline) -> Task:
    """Return a task for statistics with every known variable and every level that a source holds, and every forcing.

    No variable of the task is fed back, so that a variable that never changes does not prevent the statistics of the
    others: the standard deviation of its values is used for that of its changes.

    Raises:
        StatisticsError: the source holds no variable that a model can predict.
    """
    held = {name: variable.kind for name, variable in VARIABLES.items() if name in source.dims}
    targets = tuple(name for name, kind in held.items() if kind in ("surface", "level"))
    if not targets:
        known = [name for name, variable in VARIABLES.items() if variable.kind in ("surface", "level")]
        raise StatisticsError(
            f"{source.origin} must hold at least one of {', '.join(known)} for statistics, but holds "
            f"{', '.join(sorted(source.dims)) or 'nothing'}; rename its variables"
        )
    forcings = tuple(name for name in VARIABLES if name in COMPUTABLE)
    static = tuple(name for name, kind in held.items() if kind == "static")
    return Task(
        input_variables=forcings + static,
        target_variables=targets,
        forcing_variables=forcings,
        pressure_levels=source.levels,
    )


_PROGRESS: Final[Mapping[str, float]] = {
    "year_progress_sin": 24 * _DAYS_A_YEAR,
    "year_progress_cos": 24 * _DAYS_A_YEAR,
    "day_progress_sin": 24,
    "day_progress_cos": 24,
}
"""Periods in hours of the forcings that are sines or cosines of time."""


def _wave_of(period_hours: float, step_hours: int) -> tuple[float, float, float]:
    """Return mean, standard deviation and standard deviation of the change over a step of a sine over full periods."""
    return 0.0, _WAVE, 2 * math.sin(math.pi * step_hours / period_hours) * _WAVE


def _sorted_times(
    source: Timeline, task: Task, names: Sequence[str], times: Sequence[np.datetime64] | NDArray[np.datetime64] | None
) -> NDArray[np.datetime64]:
    moving = [name for name in names if name not in _PROGRESS and "time" in source.dims.get(name, ())]
    held = source.times_of(moving) if moving else source.times
    stamps = np.unique(np.asarray(() if held is None else held, "datetime64[ns]") if times is None else times)
    if not stamps.size:
        raise StatisticsError(
            "statistics need times to compute them over, but none are given and "
            + (f"{source.origin} holds every time; give times" if held is None else _never_together(source, moving))
        )
    absent = stamps[~np.isin(stamps, stamps if held is None else held)]
    if absent.size:
        raise StatisticsError(
            f"statistics are to be computed over times at which {source.origin} holds all of {', '.join(moving)}, but "
            f"it lacks {', '.join(map(str, absent[:_MOST_LISTED]))}"
            + (f" and {absent.size - _MOST_LISTED} more" if absent.size > _MOST_LISTED else "")
            + f": {fewest_times(source, moving)}; give other times"
        )
    if not np.any(np.isin(stamps - task.step, stamps)):
        raise StatisticsError(
            f"the change over {task.step_hours} h needs two times {task.step_hours} h apart, but {source.origin} gives "
            f"none among {stamps.size} times from {stamps[0]} to {stamps[-1]}; give more times"
        )
    return stamps


def _never_together(source: Timeline, moving: Sequence[str]) -> str:
    return (
        f"no time of {source.origin} holds all variables: {fewest_times(source, moving)}; add what is missing, or give "
        "the config of a run whose task does not need it"
    )


def _check_held(source: Timeline, task: Task, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in source.dims and name not in COMPUTABLE]
    if absent:
        raise StatisticsError(
            f"statistics of the task need the variables {', '.join(absent)}, but {source.origin} has "
            f"{', '.join(sorted(source.dims)) or 'none'}; add them, or give a folder of statistics"
        )
    levelled = [name for name in names if "level" in source.dims.get(name, ())]
    lacking = [level for level in task.pressure_levels if level not in source.levels]
    if levelled and lacking:
        raise StatisticsError(
            f"statistics of {', '.join(levelled)} need the levels {list(task.pressure_levels)} hPa, but "
            f"{source.origin} lacks {lacking} and has {list(source.levels)}; {level_hint(source.levels)}"
        )


def _blocks(source: Timeline, task: Task, names: Sequence[str], stamps: NDArray[np.datetime64]) -> list[ArchiveBlock]:
    """Return the blocks of an archive in the order in which they are merged."""
    fixed = tuple(name for name in names if name in source.dims and "time" not in source.dims[name])
    moving = [name for name in names if name not in _PROGRESS and name not in fixed]
    changing = {*task.target_variables, *task.forcing_variables}
    blocks = [ArchiveBlock(fixed, (), task.pressure_levels, stamps[:0], (stamps[:1],), task.step)] if fixed else []
    for group, piece in _groups(source, task, moving):
        counted = tuple(name for name in group if name in changing)
        for pieces in _cut(source, task, stamps, piece):
            times = np.concatenate(pieces)
            before = times - task.step
            before = before[np.isin(before, stamps) & (before < times[0])]
            blocks.append(ArchiveBlock(group, counted, task.pressure_levels, before, pieces, task.step))
    return blocks


def _groups(source: Timeline, task: Task, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield groups of variables that are read together, each with the number of times: complete chunks, if they fit."""
    chunk: int = getattr(source, "time_chunk", 1)
    widths = {name: len(task.pressure_levels) if "level" in source.dims.get(name, ()) else 1 for name in names}
    room = _PIECE_BYTES // (4 * source.grid.size)
    groups: list[list[str]] = [[]]
    for name in names:
        if groups[-1] and chunk * sum(widths[member] for member in [*groups[-1], name]) > room:
            groups.append([])
        groups[-1].append(name)
    for group in filter(None, groups):
        times = room // sum(widths[name] for name in group)
        yield tuple(group), times // chunk * chunk or max(1, times)


def _cut(
    source: Timeline, task: Task, stamps: NDArray[np.datetime64], piece: int
) -> Iterator[tuple[NDArray[np.datetime64], ...]]:
    """Yield blocks of times as tuples of pieces, which begin and end at the bounds of chunks."""
    indices = np.arange(stamps.size) if source.times is None else np.searchsorted(source.times, stamps)
    times_a_step = int(np.max(np.searchsorted(stamps, stamps + task.step) - np.arange(stamps.size)))
    pieces_a_block = -(-_STEPS_A_BLOCK * times_a_step // piece)
    for block in _runs(indices // (piece * pieces_a_block)):
        yield tuple(stamps[block][part] for part in _runs(indices[block] // piece))


def _runs(numbers: NDArray[np.intp]) -> Iterator[slice]:
    """Return the slices of consecutive equal numbers."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), numbers.size]
    return (slice(start, stop) for start, stop in pairwise(edges))


def _statistics(tally: Tally, progress: Sequence[str], task: Task, times: NDArray[np.datetime64]) -> Statistics:
    fed_back = {*task.input_variables} & {*task.target_variables}
    variables: dict[str, dict[str, xr.Variable]] = {kind: {} for kind in _KINDS}
    for name, moments in tally.values.items():
        variables["mean"][name] = _constant(moments.mean)
        variables["stddev"][name] = _positive(moments.stddev)
    for name, moments in tally.changes.items():
        if name in fed_back:
            _check_changes(name, moments.stddev, task)
        variables["diffs_stddev"][name] = _changes(moments.stddev, variables["stddev"][name].values)
    for name in progress:
        for kind, value in zip(_KINDS, _wave_of(_PROGRESS[name], task.step_hours), strict=True):
            variables[kind][name] = _constant(np.asarray(value))
    attributes = {
        "timestep_hours": task.step_hours,
        "date_start": str(times[0].astype("datetime64[m]")),
        "date_end": str(times[-1].astype("datetime64[m]")),
        "times": int(times.size),
    }
    level = {"level": ("level", np.asarray(task.pressure_levels, np.int32), {"units": "hPa"})}
    return Statistics(**{kind: xr.Dataset(found, coords=level, attrs=attributes) for kind, found in variables.items()})


def _constant(values: NDArray[np.float64]) -> xr.Variable:
    return xr.Variable(("level",) if values.ndim else (), values)


def _positive(stddev: NDArray[np.float64]) -> xr.Variable:
    """Replace 0 by 1, because values are divided by the standard deviation."""
    found = _constant(np.where(stddev == 0, 1.0, stddev))
    if np.any(stddev == 0):
        found.attrs["note"] = "1 stands where the data are constant"
    return found


def _changes(stddev: NDArray[np.float64], of_values: NDArray[np.float64]) -> xr.Variable:
    """Replace 0 by the standard deviation of the values: the model's outputs are scaled by it."""
    found = _constant(np.where(stddev == 0, of_values, stddev))
    if np.any(stddev == 0):
        found.attrs["note"] = "the stddev of the values stands where the data never change"
    return found


def _check_changes(name: str, stddev: NDArray[np.float64], task: Task) -> None:
    if np.all(stddev == 0):
        raise StatisticsError(
            f"{name} must change between times {task.step_hours} h apart for its changes to have a scale, but it never "
            "does; look whether the data repeat one frame, give other times, or a folder of statistics"
        )


def _find(folder: Path, kind: str) -> Path:
    names = (f"{kind}_by_level.nc", f"stats_{kind}_by_level.nc")
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) != 1:
        what = "both are there; remove one" if found else "neither is there; give another folder"
        raise StatisticsError(f"the folder {folder} must hold one of {' and '.join(names)}, but {what}")
    return found[0]


def _read(path: Path) -> xr.Dataset:
    try:
        with open_netcdf(path) as dataset:
            loaded = load(dataset, str(path))
    except InputError as error:
        raise StatisticsError(f"the statistics {path} cannot be read: {error}") from error
    others = [str(name) for name, array in loaded.data_vars.items() if array.dims not in ((), ("level",))]
    if others or not loaded.data_vars:
        what = f"{', '.join(others)} with other dimensions" if others else "nothing"
        raise StatisticsError(
            f"the statistics {path} must hold numbers or numbers by level, but hold {what}; "
            "give files as published with GraphCast"
        )
    return _by_whole_level(loaded, path)


def _by_whole_level(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    exact = dataset.astype(np.float64)
    if "level" not in dataset.dims:
        return exact
    levels = dataset["level"].values if "level" in dataset.coords else np.asarray([np.nan])
    whole = np.round(levels.astype(np.float64))
    if not np.all(np.isclose(levels, whole)) or len(set(whole)) < whole.size:
        raise StatisticsError(
            f"the level of {path} must be whole hPa, each once, but is {levels.tolist()}; give files as published with "
            "GraphCast"
        )
    return exact.assign_coords(level=("level", whole.astype(np.int32), {"units": "hPa"})).sortby("level")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
