"""Three files, or one pass over an archive, become the constants that the model's inputs and outputs are normalised by.

As published with GraphCast (Lam et al. 2023): mean and stddev of every variable, by level where it has levels, over
times and grid points, each point counting once; and the stddev of its change over 6 h.
"""

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config import STEP_HOURS, Task
from graphcast_batch.errors import InputError, StatisticsError
from graphcast_batch.inputs.checks import find_gap
from graphcast_batch.inputs.gridded import level_hint
from graphcast_batch.inputs.opening import load, open_netcdf
from graphcast_batch.inputs.states import COMPUTABLE, STEP, Timeline

Forcing = Callable[[str, NDArray[np.datetime64], NDArray[np.float32], NDArray[np.float32]], NDArray[np.floating]]
"""Name, (time,) datetime64, (lat,) degrees, (lon,) degrees -> (time, ...) values of a forcing variable."""

_KINDS: Final = ("mean", "stddev", "diffs_stddev")
_BLOCK_BYTES: Final = 2**27
_ROUNDING: Final = 1e-12
"""A deviation below this share of the mean is float64 rounding: the variable is constant."""

_DAYS_A_YEAR: Final = 365.24219
_WAVE: Final = math.sqrt(0.5)
"""Standard deviation of a sine over whole periods."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Normalisation constants; variables are scalar or by ``level`` (hPa, int32, ascending), float64.

    Attributes:
        mean: in the unit of the variable.
        stddev: the same.
        diffs_stddev: of the change over 6 h, the same; may lack variables that never change.
    """

    mean: xr.Dataset
    stddev: xr.Dataset
    diffs_stddev: xr.Dataset

    @property
    def by_kind(self) -> dict[str, xr.Dataset]:
        """The three datasets by the names of the attributes."""
        return {kind: getattr(self, kind) for kind in _KINDS}


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of numbers seen so far, (level,) or scalar.

    Two of them merge into those of all numbers together (Chan, Golub and LeVeque 1983, "Algorithms for computing the
    sample variance: analysis and recommendations", The American Statistician 37), so that the order and size of the
    parts do not matter but for rounding.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.floating], axes: tuple[int, ...]) -> "Moments":
        """Of an array over some of its axes, in float64."""
        exact = values.astype(np.float64)
        mean = exact.mean(axis=axes, keepdims=True)
        squares = np.square(exact - mean).sum(axis=axes)
        return cls(math.prod(exact.shape[axis] for axis in axes), mean.reshape(squares.shape), np.asarray(squares))

    def merge(self, other: "Moments") -> "Moments":
        """Of the numbers of both."""
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            np.asarray(self.mean + shift * (other.count / count)),
            np.asarray(self.squares + other.squares + np.square(shift) * (self.count * other.count / count)),
        )

    @property
    def stddev(self) -> NDArray[np.float64]:
        """Population standard deviation; exactly 0 where all numbers are equal."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation <= _ROUNDING * np.abs(self.mean), 0.0, deviation)


def read_statistics(folder: Path) -> Statistics:
    """Reads the three files of a folder, named ``mean_by_level.nc`` or ``stats_mean_by_level.nc`` and so on.

    What the model needs of them is checked when it picks its constants: the published files hold much else.

    Raises:
        StatisticsError: a file is missing, there twice, cannot be read, or holds something other than constants.
    """
    return Statistics(**{kind: _read(_find(folder, kind)) for kind in _KINDS})


def write_statistics(statistics: Statistics, folder: Path) -> None:
    """Writes ``mean_by_level.nc``, ``stddev_by_level.nc``, ``diffs_stddev_by_level.nc``, each whole or not at all."""
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
) -> Statistics:
    """Statistics of a task's variables in one pass over an archive, in float64.

    The sine and cosine of year and day progress get the values of whole years and days, which are within 2 % of the
    published ones: those of a short archive would make the rest of the year an outlier. Where a variable is constant
    its stddev is given as 1; where it never changes with time, as humidity high up may, its stddev stands for that of
    its changes. An attribute says so.

    Args:
        source: fields at absolute times.
        task: which variables, on which levels.
        forcing: computes the forcing variables that the source lacks.
        times: which times; None for all that the source holds.

    Raises:
        StatisticsError: a variable, level or time is missing, a value is not finite, no two times are 6 h apart, or a
            variable that the model feeds back never changes on any level, as when an archive repeats one frame.
        InputError: the source cannot be read.
    """
    stamps = _sorted_times(source, times)
    names = sorted({*task.input_variables, *task.target_variables, *task.forcing_variables})
    _check_held(source, task, names)
    tally = _Tally(source, task, forcing)
    fixed = [name for name in names if name in source.dims and "time" not in source.dims[name]]
    tally.add_fixed(fixed, stamps[:1])
    moving = [name for name in names if name not in _PROGRESS and name not in fixed]
    for block in _blocks(stamps, moving, source, task):
        tally.add_moving(moving, block)
    return _statistics(tally, [name for name in names if name in _PROGRESS], task, stamps)


def _wave_of(period_hours: float) -> tuple[float, float, float]:
    """Mean, stddev and stddev of the 6 h change of a sine of time, over whole periods."""
    return 0.0, _WAVE, 2 * math.sin(math.pi * STEP_HOURS / period_hours) * _WAVE


_PROGRESS: Final[Mapping[str, tuple[float, float, float]]] = {
    "year_progress_sin": _wave_of(24 * _DAYS_A_YEAR),
    "year_progress_cos": _wave_of(24 * _DAYS_A_YEAR),
    "day_progress_sin": _wave_of(24),
    "day_progress_cos": _wave_of(24),
}


class _Tally:
    """Moments of values and of their 6 h changes, by variable, gathered block by block."""

    def __init__(self, source: Timeline, task: Task, forcing: Forcing) -> None:
        self.values: dict[str, Moments] = {}
        self.changes: dict[str, Moments] = {}
        self._source = source
        self._levels = task.pressure_levels
        self._changing = {*task.target_variables, *task.forcing_variables}
        self._forcing = forcing
        self._recent: dict[str, xr.DataArray] = {}

    def add_fixed(self, names: Sequence[str], times: NDArray[np.datetime64]) -> None:
        """Takes in variables that have no time."""
        for name, array in self._source.fields(names, times, self._levels).data_vars.items():
            _add(self.values, str(name), array)

    def add_moving(self, names: Sequence[str], times: NDArray[np.datetime64]) -> None:
        """Takes in a block of times, all later than those before."""
        held = self._source.fields([name for name in names if name in self._source.dims], times, self._levels)
        for name in names:
            array = held[name] if name in held else self._computed(name, times)
            _add(self.values, name, array)
            if name in self._changing:
                self._add_changes(name, array)

    def _add_changes(self, name: str, array: xr.DataArray) -> None:
        before = self._recent.get(name)
        joined = array if before is None else xr.concat([before, array], "time")
        times = joined["time"].values
        later = np.flatnonzero(np.isin(times - STEP, times) & (times >= array["time"].values[0]))
        if later.size:
            earlier = np.searchsorted(times, times[later] - STEP)
            change = joined.values[later].astype(np.float64) - joined.values[earlier]
            _add(self.changes, name, joined.isel(time=later).copy(data=change))
        self._recent[name] = joined.isel(time=times > times[-1] - STEP).copy()

    def _computed(self, name: str, times: NDArray[np.datetime64]) -> xr.DataArray:
        grid = self._source.grid
        values = np.asarray(self._forcing(name, times, grid.latitude, grid.longitude))
        dims = ("time", *(f"axis_{axis}" for axis in range(1, values.ndim)))
        return xr.DataArray(values, dims=dims, coords={"time": times}, name=name)


def _add(moments: dict[str, Moments], name: str, array: xr.DataArray) -> None:
    gap = find_gap(array)
    if gap:
        raise StatisticsError(f"statistics cannot be computed: {gap}")
    axes = tuple(axis for axis, dim in enumerate(array.dims) if dim != "level")
    part = Moments.of(array.values, axes)
    moments[name] = moments[name].merge(part) if name in moments else part


def _sorted_times(
    source: Timeline, times: Sequence[np.datetime64] | NDArray[np.datetime64] | None
) -> NDArray[np.datetime64]:
    wanted = source.times if times is None else np.asarray(times, "datetime64[ns]")
    if wanted is None or not wanted.size:
        raise StatisticsError(
            f"statistics need the times to compute them over, but none are given and {source.origin} holds "
            f"{'every time' if source.times is None else 'none'}; give times"
        )
    stamps = np.unique(wanted)
    absent = stamps[~np.isin(stamps, stamps if source.times is None else source.times)]
    if absent.size:
        raise StatisticsError(
            f"statistics are to be computed over times that {source.origin} holds, but it lacks "
            f"{', '.join(map(str, absent))}"
        )
    if not np.any(np.isin(stamps - STEP, stamps)):
        raise StatisticsError(
            f"the change over {STEP_HOURS} h needs two times {STEP_HOURS} h apart, but {source.origin} gives none "
            f"among {stamps.size} times from {stamps[0]} to {stamps[-1]}; give more times"
        )
    return stamps


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


def _blocks(
    times: NDArray[np.datetime64], names: Sequence[str], source: Timeline, task: Task
) -> list[NDArray[np.datetime64]]:
    """The times in parts that fit into memory."""
    levels = [len(task.pressure_levels) if "level" in source.dims.get(name, ()) else 1 for name in names]
    length = max(1, _BLOCK_BYTES // max(1, 4 * sum(levels) * source.grid.size))
    return [times[start : start + length] for start in range(0, times.size, length)]


def _statistics(tally: _Tally, progress: Sequence[str], task: Task, times: NDArray[np.datetime64]) -> Statistics:
    fed_back = {*task.input_variables} & {*task.target_variables}
    variables: dict[str, dict[str, xr.Variable]] = {kind: {} for kind in _KINDS}
    for name, moments in tally.values.items():
        variables["mean"][name] = _constant(moments.mean)
        variables["stddev"][name] = _positive(moments.stddev)
    for name, moments in tally.changes.items():
        if name in fed_back:
            _check_changes(name, moments.stddev)
        variables["diffs_stddev"][name] = _changes(moments.stddev, variables["stddev"][name].values)
    for name in progress:
        for kind, value in zip(_KINDS, _PROGRESS[name], strict=True):
            variables[kind][name] = _constant(np.asarray(value))
    attributes = {
        "timestep_hours": STEP_HOURS,
        "date_start": str(times[0].astype("datetime64[m]")),
        "date_end": str(times[-1].astype("datetime64[m]")),
        "times": int(times.size),
    }
    level = {"level": ("level", np.asarray(task.pressure_levels, np.int32), {"units": "hPa"})}
    return Statistics(**{kind: xr.Dataset(found, coords=level, attrs=attributes) for kind, found in variables.items()})


def _constant(values: NDArray[np.float64]) -> xr.Variable:
    return xr.Variable(("level",) if values.ndim else (), values)


def _positive(stddev: NDArray[np.float64]) -> xr.Variable:
    """With 1 in place of 0, by which nothing can be divided."""
    found = _constant(np.where(stddev == 0, 1.0, stddev))
    if np.any(stddev == 0):
        found.attrs["note"] = "1 stands where the data are constant"
    return found


def _changes(stddev: NDArray[np.float64], of_values: NDArray[np.float64]) -> xr.Variable:
    """With the stddev of the values in place of 0: the model's outputs are scaled by it, and it has their size."""
    found = _constant(np.where(stddev == 0, of_values, stddev))
    if np.any(stddev == 0):
        found.attrs["note"] = "the stddev of the values stands where the data never change"
    return found


def _check_changes(name: str, stddev: NDArray[np.float64]) -> None:
    if np.all(stddev == 0):
        raise StatisticsError(
            f"{name} must change between times {STEP_HOURS} h apart for its changes to have a scale, but it never "
            "does; look whether the data repeat one frame, give other times, or a folder of statistics"
        )


def _find(folder: Path, kind: str) -> Path:
    names = (f"{kind}_by_level.nc", f"stats_{kind}_by_level.nc")
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) != 1:
        what = "both are there; remove one" if found else "neither is there"
        raise StatisticsError(f"the folder {folder} must hold one of {' and '.join(names)}, but {what}")
    return found[0]


def _read(path: Path) -> xr.Dataset:
    try:
        with open_netcdf(path) as dataset:
            loaded = load(dataset, str(path))
    except InputError as error:
        raise StatisticsError(f"the statistics {path} cannot be read: {error}") from error
    foreign = [str(name) for name, array in loaded.data_vars.items() if array.dims not in ((), ("level",))]
    if foreign or not loaded.data_vars:
        what = f"{', '.join(foreign)} with other dimensions" if foreign else "nothing"
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
        raise StatisticsError(f"the level of {path} must be whole hPa, each once, but is {levels.tolist()}")
    return exact.assign_coords(level=("level", whole.astype(np.int32), {"units": "hPa"})).sortby("level")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
