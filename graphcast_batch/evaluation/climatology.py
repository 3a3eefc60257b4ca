"""Years of an archive become what is usual at each hour of the day and day of the year; and that is read again.

As WeatherBench 2 has it (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019): over all years and the 30 days
before and after, weighted with a triangle; in a year without a 29 February its last day stands for day 366 too.
The archive is read once: what each day of the year has over all years is kept on disk, a variable at a time, and the
window goes over that. Of precipitation all values are kept, as quantiles cannot be had from sums.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation import climatology_store as written
from graphcast_batch.evaluation.case_scoring import Fields, ScoredSubset, part_of
from graphcast_batch.evaluation.climatology_store import ClimatologyDraft
from graphcast_batch.evaluation.derived import DERIVATIONS
from graphcast_batch.evaluation.metrics import DRY_BELOW
from graphcast_batch.inputs.case_inputs import Timeline, fewest_times
from graphcast_batch.plan import OutputGrid
from graphcast_batch.variables import HOUR, VARIABLES

Floats = NDArray[np.float64]
REACH: Final = 30
"""Days; a window of 61."""
_HEAVY_ABOVE: Final = 2 / 3
"""Of what is wet: light precipitation is twice as frequent as heavy (Rodwell et al. 2010, doi 10.1002/qj.656)."""
_DAYS_BYTES: Final = 2**29
"""Of what is gathered of some days at once, unless a single one has more."""
_READ_BYTES: Final = 2**27
_POINTS: Final = 2**15
"""That a window goes over at once: 50 MB of float64."""
_SORTED: Final = 2**23
"""Values that are sorted at once."""
_VALUES: Final = "-values"
_NOTHING: Final = np.zeros(0, np.float32)
Executor = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[BaseException | None]]
"""Calls a function with each tuple of arguments; results in their order, and for a call that failed its exception."""


@dataclass(frozen=True, eq=False)
class ClimatologyPart:
    """Some days of the year of one variable at some hours of the day, whose times are read at once.

    Attributes:
        name: of the variable.
        hours: of the day, by which of all hours they are.
        days: of the year, counted from 0.
        times: (time,) of all years.
    """

    name: str
    hours: dict[int, int]
    days: range
    times: NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Window:
    """Some days of the year of one variable at an hour and some levels, with those near them.

    Attributes:
        name: of the variable.
        hour: which of the hours, counted from 0.
        levels: which of the levels; the first for a variable that has none.
        days: of the year, counted from 0; a whole block.
        count: (day of the year,) how many times there are.
    """

    name: str
    hour: int
    levels: slice
    days: slice
    count: Floats


def make_climatology(source: Timeline, path: Path, times: NDArray[np.datetime64], executor: Executor) -> None:
    """Writes the climatology of all variables of a source that change and that this program knows.

    A worker holds 1 GB, or twice a field on all levels in float64 if that is more. Beside the path there is as much
    again on disk as the largest variable of it takes uncompressed, or as all values of a precipitation. What was made
    before it was stopped is taken up.

    Args:
        source: of the fields.
        path: where it is to be; nothing may be there.
        times: (time,) those to take, whole hours.
        executor: where the pieces are worked out.

    Raises:
        EvaluationError: there is no variable, a time is none, no whole hour or lacks a variable, at an hour of the day
            some day of the year has no time near it, or fewer pieces were made than there are.
        StoreError: something is at the path, or it cannot be written.
        InputError: the source cannot be read.
    """
    on_levels = {
        name: "level" in dims
        for name, dims in sorted(source.dims.items())
        if "time" in dims
        and (name in DERIVATIONS or (name in VARIABLES and VARIABLES[name].kind in ("surface", "level")))
    }
    _check_held(source, list(on_levels), times)
    hours = sorted(set(_hours(times).tolist()))
    counts = [_counts(times[_hours(times) == hour]) for hour in hours]
    _check_covered(source, counts, hours)
    span = f"{times.min().astype('datetime64[h]')} to {times.max().astype('datetime64[h]')}"
    described = {"source": source.origin, "period": span, "window_days": str(2 * REACH + 1)}
    rainy = [name for name in on_levels if _is_rain(name)]
    units = {name: DERIVATIONS[name].units for name in on_levels if name in DERIVATIONS}
    draft = ClimatologyDraft.lay_out(path, on_levels, units, rainy, hours, source.levels, source.grid, times, described)
    for name, levelled in on_levels.items():
        if not draft.finished(name):
            levels = len(source.levels) if levelled else 1
            together = written.levels_together(levels, source.grid)
            pieces = _pieces(source, name, levels, hours, times)
            _all_of(executor, gather_days, [(draft, source, piece) for piece in pieces if not _kept(draft, piece)])
            windows = (
                Window(name, n, slice(level, level + together), slice(first, first + written.BLOCK), counts[n])
                for n in range(len(hours))
                for first in range(0, written.DAYS, written.BLOCK)
                for level in range(0, levels, together)
            )
            _all_of(executor, fill_window, [(draft, source.grid.shape, window) for window in windows])
            draft.finish(name)
    draft.publish()


def gather_days(draft: ClimatologyDraft, source: Timeline, piece: ClimatologyPart) -> None:
    """Keeps the mean and the variance over years of some days; of precipitation all values too.

    Args:
        draft: to keep them in.
        source: of the fields.
        piece: which days.

    Raises:
        EvaluationError: a value is not finite.
        StoreError: the draft cannot be written.
        InputError: the source cannot be read.
    """
    sums: dict[tuple[int, int], Floats] = {}
    every: dict[tuple[int, int], list[NDArray[np.float32]]] = {}
    for time, field in _fields(source, piece):
        values = field.astype(np.float64)
        for at in _bins(piece, time):
            found = sums.setdefault(at, np.zeros((2, *field.shape)))
            found[0] += values
            found[1] += values * values
            every.setdefault(at, []).append(field if _is_rain(piece.name) else _NOTHING)
    for at in _bins(piece, *piece.times):
        mean, square = sums.pop(at) / len(every[at])
        if _is_rain(piece.name):
            draft.keep(piece.name, *at, np.stack(every[at]), _VALUES)
        draft.keep(piece.name, *at, np.stack([mean, np.maximum(square - mean**2, 0)]).astype(np.float32))


def fill_window(draft: ClimatologyDraft, shape: tuple[int, int], window: Window) -> None:
    """Lays the window over what days have, and writes what comes out.

    Args:
        draft: to read from and to write into.
        shape: of the grid.
        window: of which variable, hour and levels.

    Raises:
        StoreError: the draft cannot be read or written.
    """
    weights = triangle(window.days)
    near = np.flatnonzero(weights.any(axis=0) & (window.count > 0))
    kept = [draft.kept(window.name, window.hour, int(day)) for day in near]
    mean, executor = _smoothed(weights[:, near] * window.count[near], kept, window.levels)
    found = {"": mean, written.SPREAD: executor}
    if _is_rain(window.name):
        values = [draft.kept(window.name, window.hour, int(day), _VALUES) for day in near]
        found[written.DRY], found[written.HEAVY] = _of_rain(weights[:, near], values, DRY_BELOW[window.name])
    for kind, fields in found.items():
        draft.fill(window.name + kind, window.hour, window.days, window.levels, fields.reshape(len(fields), -1, *shape))


def triangle(days: slice) -> Floats:
    """(day, day of the year) weight of each day of the year, from 0 on, for some of them: a triangle, all round."""
    apart = np.abs(np.subtract.outer(np.arange(written.DAYS)[days], np.arange(written.DAYS)))
    return np.asarray(np.maximum(0.0, 1 - np.minimum(apart, written.DAYS - apart) / REACH))


def weighted_quantile(values: NDArray[np.floating], weights: Floats, share: float) -> Floats:
    """Quantiles of weighted values: with equal weights NumPy's own, between two values on a line.

    With Kish's effective sample size for the number of values (Akinshin 2023, "Weighted quantile estimators",
    https://arxiv.org/abs/2304.07265, type 7), as xarray has it.

    Args:
        values: (point, value), those of a point ascending.
        weights: the same shape, 0 or more.
        share: 0..1 of the weights that are below.

    Returns:
        (point,); NaN where all weights are 0.
    """
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = total**2 / np.vecdot(weights, weights)[:, np.newaxis]
        first = (size - 1) * share / size
        below = np.clip(np.cumsum(weights, axis=-1) / total, first, first + 1 / size)
        return np.asarray(np.vecdot(values, np.diff(below, axis=-1, prepend=first)) * size[:, 0])


@dataclass(frozen=True, eq=False)
class Climatology:
    """What is usual, read from what `make_climatology` or WeatherBench 2 wrote.

    Attributes:
        path: of the zarr group.
        kept: the points of the forecasts.
    """

    path: Path
    kept: OutputGrid

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Means at valid times.

        Raises:
            EvaluationError: it lacks a variable, level, hour or point.
        """
        opened, part = self._opened
        self.check(names, levels)
        places = list(zip(self._places(_hours(times)), _days(times), strict=True))
        return {name: np.stack([_field(opened[name], *at, levels, part) for at in places]) for name in names}

    def deviations(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Standard deviations at valid times.

        Raises:
            EvaluationError: it lacks a variable, level, hour or point.
        """
        found = self.fields([name + written.SPREAD for name in names], times, levels)
        return {name: found[name + written.SPREAD] for name in names}

    def gaussian(self, names: Sequence[str], levels: Sequence[int]) -> tuple[str, ...]:
        """Those of some variables whose quantiles follow from mean and standard deviation: all but precipitation.

        Raises:
            EvaluationError: it lacks the standard deviation of one.
        """
        chosen = tuple(name for name in names if not _is_rain(name))
        self.check([name + written.SPREAD for name in chosen], levels)
        return chosen

    def rainy(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some variables of which it holds what SEEPS needs.

        Raises:
            EvaluationError: it cannot be read.
        """
        opened, _ = self._opened
        rainy = (name for name in names if _is_rain(name))
        return tuple(name for name in rainy if name + written.DRY in opened and name + written.HEAVY in opened)

    def heavy(self, name: str, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """(time, latitude, longitude) m, the least precipitation that is heavy; NaN where it never rains."""
        return self.fields([name + written.HEAVY], times, ())[name + written.HEAVY]

    def dry(self, name: str) -> NDArray[np.float32]:
        """(latitude, longitude) share of dry times, over all days and hours."""
        return self._opened[1].of(_mean_of(self.path, name + written.DRY))

    def check(self, names: Sequence[str], levels: Sequence[int]) -> None:
        """Looks whether all is there.

        Raises:
            EvaluationError: it lacks a variable, level or point, or covers less than a year.
        """
        opened, _ = self._opened
        absent = [name for name in names if name not in opened]
        lacking = [level for level in levels if level not in opened.get("level", xr.DataArray([])).values]
        if absent or (lacking and any("level" in opened[name].dims for name in names if name in opened)):
            what = ", ".join(absent) if absent else f"the levels {lacking} hPa"
            raise EvaluationError(
                f"the climatology {self.path} must hold {what}, but has {', '.join(map(str, opened.data_vars))}; make "
                "it from an archive that holds them, with --derived if they are, or narrow the section scores"
            )
        if opened.sizes["dayofyear"] != written.DAYS:
            raise EvaluationError(
                f"the climatology {self.path} must have all {written.DAYS} days of the year, but has "
                f"{opened.sizes['dayofyear']}; make it from whole years"
            )

    def _places(self, hours: NDArray[np.int64]) -> list[int]:
        known = self._opened[0]["hour"].values.tolist()
        absent = sorted(set(hours.tolist()) - set(known))
        if absent:
            raise EvaluationError(
                f"the climatology {self.path} must have the hours at which forecasts are valid, but lacks {absent} and "
                f"has {known}; make it with a time every so many hours"
            )
        return [known.index(hour) for hour in hours.tolist()]

    @cached_property
    def _opened(self) -> tuple[xr.Dataset, ScoredSubset]:
        try:
            opened: xr.Dataset = xr.open_zarr(self.path, chunks=None)
            axes = opened["latitude"].values, opened["longitude"].values
            opened["hour"], opened["dayofyear"]
        except (OSError, KeyError, ValueError) as error:
            raise EvaluationError(
                f"{self.path} must be a climatology over hour, dayofyear, latitude and longitude, but cannot be read "
                f"as one: {error}; make it with graphcast-batch climatology"
            ) from error
        origin = f"climatology {self.path}"
        return opened, part_of(origin, axes, (self.kept.latitude, self.kept.longitude), "make one on that grid")


@cache
def _mean_of(path: Path, name: str) -> NDArray[np.float32]:
    """Over hours and days, once in a process: it takes seconds."""
    array = xr.open_zarr(path, chunks=None)[name].transpose("hour", "dayofyear", "latitude", "longitude")
    hours = [array.isel(hour=hour).values.mean(axis=0, dtype=np.float64) for hour in range(array.sizes["hour"])]
    return np.asarray(np.mean(hours, axis=0), np.float32)


def _field(array: xr.DataArray, hour: int, day: int, levels: Sequence[int], part: ScoredSubset) -> NDArray[np.float32]:
    at = array.isel(hour=hour, dayofyear=day)
    if "level" in at.dims:
        # A list of levels makes zarr look for each by itself, also where it is all of them.
        at = at if at["level"].values.tolist() == list(levels) else at.sel(level=list(levels))
        at = at.transpose("level", "latitude", "longitude")
    else:
        at = at.transpose("latitude", "longitude")
    return part.of(np.asarray(at.values, np.float32))


def _all_of(executor: Executor, function: Callable[..., None], pieces: Sequence[tuple[Any, ...]]) -> None:
    done = 0
    for result in executor(function, pieces):
        if isinstance(result, BaseException):
            raise result
        done += 1
    if done < len(pieces):
        raise EvaluationError(
            f"a climatology needs all its pieces, but was stopped after {done} of {len(pieces)}; run it again to go on"
        )


def _pieces(
    source: Timeline, name: str, levels: int, hours: Sequence[int], times: NDArray[np.datetime64]
) -> Iterator[ClimatologyPart]:
    """As many days at once as there is memory for, of all hours if there is for one day of them."""
    years = np.unique(times.astype("datetime64[Y]")).size
    size = levels * source.grid.size * (16 + (4 * years if _is_rain(name) else 0))
    together = min(len(hours), max(1, _DAYS_BYTES // size))
    step = min(written.BLOCK, max(1, _DAYS_BYTES // (size * together)))
    for start in range(0, len(hours), together):
        some = {hour: start + n for n, hour in enumerate(hours[start : start + together])}
        here = times[np.isin(_hours(times), list(some))]
        for first in range(0, written.DAYS, step):
            days = range(first, min(first + step, written.DAYS))
            mine = here[np.any([np.isin(of_year, days) for of_year in _both_days(here)], axis=0)]
            if mine.size:
                yield ClimatologyPart(name, some, days, mine)


def _bins(piece: ClimatologyPart, *times: np.datetime64) -> list[tuple[int, int]]:
    """Hour and day of a piece that times belong to, each once."""
    stamps = np.array(times)
    places = [piece.hours[hour] for hour in _hours(stamps).tolist()]
    pairs = {pair for days in _both_days(stamps) for pair in zip(places, days.tolist(), strict=True)}
    return sorted((place, day) for place, day in pairs if day in piece.days)


def _kept(draft: ClimatologyDraft, piece: ClimatologyPart) -> bool:
    return all(draft.keeps(piece.name, *at) for at in _bins(piece, *piece.times))


def _fields(source: Timeline, piece: ClimatologyPart) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
    """The field of one time after another."""
    levels = source.levels if "level" in source.dims[piece.name] else ()
    some = max(1, _READ_BYTES // (4 * source.grid.size * max(1, len(levels))))
    for first in range(0, piece.times.size, some):
        times = piece.times[first : first + some]
        fields = source.fields([piece.name], times, levels)[piece.name].values
        for time, field in zip(times, fields, strict=True):
            if not np.isfinite(field).all():
                raise EvaluationError(
                    f"{source.origin} must be finite everywhere for a climatology, but {piece.name} is not at "
                    f"{time.astype('datetime64[h]')}; mend it, or take other times"
                )
            yield time, field


def _smoothed(
    weights: Floats, kept: Sequence[NDArray[np.float32]], levels: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of days together.

    Args:
        weights: (window, day).
        kept: of each day mean and variance, ([2, level,] latitude, longitude).
        levels: which.

    Returns:
        (window, point) both, level after level.
    """
    flat = [each.reshape(2, -1, *each.shape[-2:])[:, levels].reshape(2, -1) for each in kept]
    points = flat[0].shape[1]
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean, executor = np.empty((2, len(weights), points), np.float32)
    for run in (slice(first, first + _POINTS) for first in range(0, points, _POINTS)):
        means, variances = np.stack([each[:, run] for each in flat], axis=1).astype(np.float64)
        # Beside a value near them, so that their squares lose no digits.
        origin = means[len(means) // 2].copy()
        means -= origin
        middle = shares @ means
        mean[:, run] = origin + middle
        executor[:, run] = np.sqrt(np.maximum(shares @ (variances + means**2) - middle**2, 0))
    return mean, executor


def _of_rain(
    weights: Floats, kept: Sequence[NDArray[np.float32]], dry_below: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of dry values, and the least heavy value.

    In the former too nearer days count more. In WeatherBench 2 they do not; over a whole year, which is all that SEEPS
    takes of it, the share is the same.

    Args:
        weights: (window, day).
        kept: of each day all values, (value, latitude, longitude) m.
        dry_below: m, less is dry.

    Returns:
        (window, point) 0..1, and m; the latter NaN where nothing is wet.
    """
    flat = [each.reshape(len(each), -1) for each in kept]
    of_value = np.repeat(weights, [len(each) for each in flat], axis=1)
    points, some = flat[0].shape[1], max(1, _SORTED // of_value.shape[1])
    dry, heavy = np.empty((2, len(weights), points), np.float32)
    for run in (slice(first, first + some) for first in range(0, points, some)):
        values = np.concatenate([each[:, run] for each in flat]).T
        order = np.argsort(values, axis=-1)
        values = np.take_along_axis(values, order, axis=-1)
        wet = values >= dry_below
        for n, of_window in enumerate(of_value):
            each = of_window[order]
            dry[n, run] = np.where(wet, 0.0, each).sum(axis=-1) / of_window.sum()
            heavy[n, run] = weighted_quantile(values, np.where(wet, each, 0.0), _HEAVY_ABOVE)
    return dry, heavy


def _is_rain(name: str) -> bool:
    return name in DRY_BELOW


def _counts(times: NDArray[np.datetime64]) -> Floats:
    """(day of the year,) how many times there are."""
    days = np.concatenate(_both_days(times))
    return np.bincount(days[days >= 0], minlength=written.DAYS).astype(np.float64)


def _both_days(times: NDArray[np.datetime64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Day of the year of each time, counted from 0; and 365 too for the last day of a year without it, -1 elsewhere."""
    days = _days(times)
    years = times.astype("datetime64[Y]")
    common = ((years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")).astype(np.int64) == written.DAYS - 1
    return days, np.where(common & (days == written.DAYS - 2), written.DAYS - 1, -1)


def _check_held(source: Timeline, names: Sequence[str], times: NDArray[np.datetime64]) -> None:
    if not names:
        raise EvaluationError(
            f"a climatology needs a variable that this program knows and that changes, but {source.origin} has "
            f"{', '.join(sorted(source.dims))}; rename its variables"
        )
    if not times.size:
        raise EvaluationError(
            f"a climatology needs times at which all variables are held, but {source.origin} has none: "
            f"{fewest_times(source, names)}; add what is missing, or leave those variables out of the archive"
        )
    odd = times[times != times.astype("datetime64[h]")]
    if odd.size:
        raise EvaluationError(
            f"a climatology is of whole hours, but {source.origin} has {odd.size} times such as "
            f"{odd[0].astype('datetime64[s]')}; give whole hours with --first, --last and --every-hours"
        )
    held = source.times_of(names)
    absent = times[:0] if held is None else times[~np.isin(times, held)]
    if absent.size:
        raise EvaluationError(
            f"{source.origin} must hold {', '.join(names)} at all times of a climatology, but does not at "
            f"{absent.size} of {times.size}, the first {absent[0].astype('datetime64[m]')}: "
            f"{fewest_times(source, names)}; take other times"
        )


def _check_covered(source: Timeline, counts: Sequence[Floats], hours: Sequence[int]) -> None:
    near = triangle(slice(None))
    for hour, count in zip(hours, counts, strict=True):
        bare = np.flatnonzero(near @ count <= 0)
        if bare.size:
            raise EvaluationError(
                f"a climatology must have times within {REACH} days of each day of the year, but {source.origin} has "
                f"none at {hour:02} UTC near day {bare[0] + 1} and {bare.size - 1} more; give whole years"
            )


def _hours(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return np.asarray((times - times.astype("datetime64[D]")) // HOUR, np.int64)


def _days(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return np.asarray((times.astype("datetime64[D]") - times.astype("datetime64[Y]")).astype(np.int64))
