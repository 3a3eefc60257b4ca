"""Years of an archive become what is usual at each hour of the day and day of the year; and that is read again.

As WeatherBench 2 has it (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019): over all years and the 30 days
before and after, weighted with a triangle; in a year without a 29 February its last day stands for day 366 too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.scoring import Fields, Part, part_of
from graphcast_batch.inputs.states import Timeline
from graphcast_batch.outputs import climatology as written
from graphcast_batch.plan import Kept
from graphcast_batch.variables import VARIABLES

Floats = NDArray[np.float64]
REACH: Final = 30
"""Days; a window of 61."""
_BIN_BYTES: Final = 3 * 2**29
"""Of the sums of a piece: 13 levels at 1° fit. What does not is read level by level, which chunks may make slow."""
_TIMES_AT_ONCE: Final = 8
Spread = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[BaseException | None]]
"""Calls a function with each tuple of arguments; results in their order, and for a call that failed its exception."""


@dataclass(frozen=True)
class Piece:
    """What is worked out at once.

    Attributes:
        name: of the variable.
        levels: which of the source's levels.
        hour: of the day.
        place: which of the hours.
        days: which days of the year, counted from 0.
    """

    name: str
    levels: slice
    hour: int
    place: int
    days: slice


def make_climatology(source: Timeline, path: Path, times: NDArray[np.datetime64], spread: Spread) -> None:
    """Writes the climatology of all variables of a source that change and that this program knows.

    Args:
        source: of the fields.
        path: where it is to be; nothing may be there.
        times: (time,) those to take, whole hours.
        spread: where the pieces are worked out.

    Raises:
        EvaluationError: at an hour of the day some day of the year has no time near it, or fewer pieces were made than
            there are.
        StoreError: something is at the path, or it cannot be written.
        InputError: the source cannot be read.
    """
    on_levels = {
        name: "level" in dims
        for name, dims in sorted(source.dims.items())
        if "time" in dims and name in VARIABLES and VARIABLES[name].kind in ("surface", "level")
    }
    hours = sorted(set(_hours(times).tolist()))
    _check_covered(source, times, hours)
    span = f"{times.min().astype('datetime64[h]')} to {times.max().astype('datetime64[h]')}"
    described = {"source": source.origin, "period": span, "window_days": str(2 * REACH + 1)}
    draft = written.lay_out(path, on_levels, hours, source.levels, source.grid, described)
    pieces = [(draft, source, times, piece) for piece in _pieces(source, on_levels, hours)]
    done = 0
    for result in spread(fill_piece, pieces):
        if isinstance(result, BaseException):
            raise result
        done += 1
    if done < len(pieces):
        raise EvaluationError(
            f"a climatology needs all its {len(pieces)} pieces, but was stopped after {done}; run it again"
        )
    written.publish(draft, path)


def fill_piece(draft: Path, source: Timeline, times: NDArray[np.datetime64], piece: Piece) -> None:
    """Works out one piece and writes it.

    Args:
        draft: to write into.
        source: of the fields.
        times: those to take.
        piece: which.

    Raises:
        EvaluationError: a value is not finite.
        StoreError: the draft cannot be written.
        InputError: the source cannot be read.
    """
    weights = window(piece.days)
    near = np.flatnonzero(weights.any(axis=0))
    count, totals, squares = _sums(source, times, piece, near)
    total = weights[:, near] @ count
    mean, square = (np.tensordot(weights[:, near], part, 1) / total[_across(part)] for part in (totals, squares))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    written.fill(draft, piece.name, piece.place, piece.days, piece.levels, mean, deviation)


def window(days: slice) -> Floats:
    """(day, day of the year) weight of each day of the year, from 0 on, for some of them: a triangle, all round."""
    apart = np.abs(np.subtract.outer(np.arange(written.DAYS)[days], np.arange(written.DAYS)))
    return np.asarray(np.maximum(0.0, 1 - np.minimum(apart, written.DAYS - apart) / REACH))


@dataclass(frozen=True, eq=False)
class Climatology:
    """What is usual, read from what `make_climatology` or WeatherBench 2 wrote.

    Attributes:
        path: of the zarr group.
        kept: the points of the forecasts.
    """

    path: Path
    kept: Kept

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Means at valid times.

        Raises:
            EvaluationError: it lacks a variable, level, hour or point.
        """
        opened, part = self._opened
        self.check(names, levels)
        places = list(zip(self._places(_hours(times)), _days(times), strict=True))
        return {name: np.stack([_field(opened[name], *at, levels, part) for at in places]) for name in names}

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
                "it from an archive that holds them, or narrow scores.variables and scores.levels"
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
    def _opened(self) -> tuple[xr.Dataset, Part]:
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


def _field(array: xr.DataArray, hour: int, day: int, levels: Sequence[int], part: Part) -> NDArray[np.float32]:
    at = array.isel(hour=hour, dayofyear=day)
    if "level" in at.dims:
        at = at.sel(level=list(levels)).transpose("level", "latitude", "longitude")
    else:
        at = at.transpose("latitude", "longitude")
    return part.of(np.asarray(at.values, np.float32))


def _pieces(source: Timeline, on_levels: Mapping[str, bool], hours: Sequence[int]) -> Iterator[Piece]:
    """As many levels at once as there is memory for, and as many days as a shard has."""
    bins = (written.BLOCK + 2 * REACH) * source.grid.size * 16
    some = max(1, _BIN_BYTES // bins)
    for name, levelled in on_levels.items():
        for first in range(0, len(source.levels) if levelled else 1, some):
            for place, hour in enumerate(hours):
                for day in range(0, written.DAYS, written.BLOCK):
                    days = slice(day, min(day + written.BLOCK, written.DAYS))
                    yield Piece(name, slice(first, first + some), hour, place, days)


def _sums(
    source: Timeline, times: NDArray[np.datetime64], piece: Piece, near: NDArray[np.intp]
) -> tuple[Floats, Floats, Floats]:
    """For some days of the year how many times there are, and the sums of their values and of the squares of these."""
    of_day = np.full(written.DAYS, -1)
    of_day[near] = np.arange(near.size)
    mine = times[(_hours(times) == piece.hour) & np.any([np.isin(days, near) for days in _both_days(times)], axis=0)]
    count, sums = np.zeros(near.size), np.zeros(0)
    for first in range(0, mine.size, _TIMES_AT_ONCE):
        some = mine[first : first + _TIMES_AT_ONCE]
        values = source.fields([piece.name], some, source.levels[piece.levels])[piece.name].values.astype(np.float64)
        _refuse_gaps(source, piece.name, some, values)
        sums = sums if sums.size else np.zeros((2, near.size, *values.shape[1:]))
        for days in _both_days(some):
            for n in np.flatnonzero(np.isin(days, near)):
                bin_ = of_day[days[n]]
                count[bin_] += 1
                sums[0, bin_] += values[n]
                sums[1, bin_] += values[n] ** 2
    return count, sums[0], sums[1]


def _refuse_gaps(source: Timeline, name: str, times: NDArray[np.datetime64], values: Floats) -> None:
    whole = np.isfinite(values.reshape(times.size, -1)).all(axis=1)
    if not whole.all():
        raise EvaluationError(
            f"{source.origin} must be finite everywhere for a climatology, but {name} is not at "
            f"{times[~whole][0].astype('datetime64[h]')}; mend it, or take other times"
        )


def _across(fields: Floats) -> tuple[slice | None, ...]:
    """Index that lays one number for each field over its points."""
    return (slice(None), *(None,) * (fields.ndim - 1))


def _both_days(times: NDArray[np.datetime64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Day of the year of each time, counted from 0; and 365 too for the last day of a year without it, -1 elsewhere."""
    days = _days(times)
    years = times.astype("datetime64[Y]")
    common = ((years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")).astype(np.int64) == written.DAYS - 1
    return days, np.where(common & (days == written.DAYS - 2), written.DAYS - 1, -1)


def _check_covered(source: Timeline, times: NDArray[np.datetime64], hours: Sequence[int]) -> None:
    near = window(slice(None))
    for hour in hours:
        count = np.zeros(written.DAYS)
        for days in _both_days(times[_hours(times) == hour]):
            np.add.at(count, days[days >= 0], 1)
        bare = np.flatnonzero(near @ count <= 0)
        if bare.size:
            raise EvaluationError(
                f"a climatology must have times within {REACH} days of each day of the year, but {source.origin} has "
                f"none at {hour:02} UTC near day {bare[0] + 1} and {bare.size - 1} more; give whole years"
            )


def _hours(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return np.asarray((times - times.astype("datetime64[D]")) // np.timedelta64(1, "h"), np.int64)


def _days(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return np.asarray((times.astype("datetime64[D]") - times.astype("datetime64[Y]")).astype(np.int64))
