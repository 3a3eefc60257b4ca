"""Make a climatology from the years of an archive, with WeatherBench 2's window over neighboring days of the year.

Rasp et al. 2024, https://doi.org/10.1029/2023MS004019: statistics are taken over all years and the 30 days before and
after, weighted with a triangle; in a year without a 29 February its last day stands for day 366 too. The archive is
read once: the statistics of each day of the year over all years are kept on disk, a variable at a time, and the window
is applied to them. Of precipitation all values are kept, as quantiles cannot be computed from sums.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation import climatology_store as written
from graphcast_batch.evaluation.climatology_store import ClimatologyDraft
from graphcast_batch.evaluation.climatology_window import (
    REACH,
    Floats,
    days_of_year_twice,
    hours_of_day,
    is_precipitation,
    precipitation_categories,
    smoothed_mean_and_deviation,
    times_per_day,
    triangle,
)
from graphcast_batch.evaluation.derived import DERIVATIONS
from graphcast_batch.evaluation.pointwise_statistics import DRY_BELOW
from graphcast_batch.inputs.case_inputs import Timeline, fewest_times
from graphcast_batch.variables import VARIABLES

_DAYS_BYTES: Final = 2**29
"""The most bytes of sums gathered at once, unless a single day has more."""
_READ_BYTES: Final = 2**27
_VALUES: Final = "-values"
_NOTHING: Final = np.zeros(0, np.float32)
Executor = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[BaseException | None]]
"""Calls a function with each tuple of arguments. Yields results in their order; for a failed call, its exception."""


@dataclass(frozen=True, eq=False)
class ClimatologyPiece:
    """Some days of the year of one variable at some hours of the day, which one call of `gather_days` reads.

    Attributes:
        name: of the variable.
        hours: index among all hours of the climatology, by hour of the day.
        days: of the year, counted from 0.
        times: (time,) the times of all years that belong to these days and hours.
    """

    name: str
    hours: dict[int, int]
    days: range
    times: NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Window:
    """Days of the year of one variable at one hour and some levels that one call of `fill_window` computes.

    Attributes:
        name: of the variable.
        hour: index of the hour, counted from 0.
        levels: indices of the levels; the first for a variable that is not on levels.
        days: of the year, counted from 0; a complete block.
        count: (day of the year,) how many times the archive has.
    """

    name: str
    hour: int
    levels: slice
    days: slice
    count: Floats


def make_climatology(source: Timeline, path: Path, times: NDArray[np.datetime64], executor: Executor) -> None:
    """Write the climatology of all variables of a source that vary in time and that this program knows.

    A worker needs 1 GB of memory, or twice a field on all levels in float64 if that is more. While it is being made,
    the climatology needs additional disk space beside the path: as much as its largest variable takes uncompressed, or
    as all values of a precipitation. A climatology that was interrupted is resumed.

    Args:
        source: of the fields.
        path: of the climatology to write; must not exist.
        times: (time,) times to include, whole hours.
        executor: calls functions on the pieces, in parallel if it can.

    Raises:
        EvaluationError: there is no variable or no time, a time is not a whole hour or lacks a variable, a day of the
            year has no time near it at some hour of the day, or the executor stopped before all pieces were done.
        StoreError: the path exists, or cannot be written.
        InputError: the source cannot be read.
    """
    on_levels = {
        name: "level" in dims
        for name, dims in sorted(source.dims.items())
        if "time" in dims
        and (name in DERIVATIONS or (name in VARIABLES and VARIABLES[name].kind in ("surface", "level")))
    }
    _check_held(source, list(on_levels), times)
    hours = sorted(set(hours_of_day(times).tolist()))
    counts = [times_per_day(times[hours_of_day(times) == hour]) for hour in hours]
    _check_covered(source, counts, hours)
    span = f"{times.min().astype('datetime64[h]')} to {times.max().astype('datetime64[h]')}"
    described = {"source": source.origin, "period": span, "window_days": str(2 * REACH + 1)}
    seeps_variables = [name for name in on_levels if is_precipitation(name)]
    units = {name: DERIVATIONS[name].units for name in on_levels if name in DERIVATIONS}
    draft = ClimatologyDraft.lay_out(
        path, on_levels, units, seeps_variables, hours, source.levels, source.grid, times, described
    )
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


def gather_days(draft: ClimatologyDraft, source: Timeline, piece: ClimatologyPiece) -> None:
    """Compute mean and variance over years of some days and keep them in a draft; of precipitation all values too.

    Args:
        draft: of the climatology.
        source: of the fields.
        piece: variable, hours and days.

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
            every.setdefault(at, []).append(field if is_precipitation(piece.name) else _NOTHING)
    for at in _bins(piece, *piece.times):
        mean, square = sums.pop(at) / len(every[at])
        if is_precipitation(piece.name):
            draft.keep(piece.name, *at, np.stack(every[at]), _VALUES)
        draft.keep(piece.name, *at, np.stack([mean, np.maximum(square - mean**2, 0)]).astype(np.float32))


def fill_window(draft: ClimatologyDraft, shape: tuple[int, int], window: Window) -> None:
    """Apply the window to the statistics of single days, and write the results into a draft.

    Args:
        draft: to read from and to write into.
        shape: of the grid, (latitude, longitude).
        window: variable, hour, levels and days.

    Raises:
        StoreError: the draft cannot be read or written.
    """
    weights = triangle(window.days)
    near = np.flatnonzero(weights.any(axis=0) & (window.count > 0))
    kept = [draft.kept(window.name, window.hour, int(day)) for day in near]
    mean, deviation = smoothed_mean_and_deviation(weights[:, near] * window.count[near], kept, window.levels)
    found = {"": mean, written.DEVIATION: deviation}
    if is_precipitation(window.name):
        values = [draft.kept(window.name, window.hour, int(day), _VALUES) for day in near]
        found[written.DRY], found[written.HEAVY] = precipitation_categories(
            weights[:, near], values, DRY_BELOW[window.name]
        )
    for kind, fields in found.items():
        draft.fill(window.name + kind, window.hour, window.days, window.levels, fields.reshape(len(fields), -1, *shape))


def _all_of(executor: Executor, function: Callable[..., None], pieces: Sequence[tuple[Any, ...]]) -> None:
    """Call a function on all pieces; raise the first exception, or an error if the executor stopped early."""
    done = 0
    for result in executor(function, pieces):
        if isinstance(result, BaseException):
            raise result
        done += 1
    if done < len(pieces):
        raise EvaluationError(
            f"a climatology needs all its pieces, but was stopped after {done} of {len(pieces)}; run the command again "
            "to resume"
        )


def _pieces(
    source: Timeline, name: str, levels: int, hours: Sequence[int], times: NDArray[np.datetime64]
) -> Iterator[ClimatologyPiece]:
    """Divide the days of a variable into pieces that fit into memory, with all hours together where that fits."""
    years = np.unique(times.astype("datetime64[Y]")).size
    size = levels * source.grid.size * (16 + (4 * years if is_precipitation(name) else 0))
    together = min(len(hours), max(1, _DAYS_BYTES // size))
    step = min(written.BLOCK, max(1, _DAYS_BYTES // (size * together)))
    for start in range(0, len(hours), together):
        some = {hour: start + n for n, hour in enumerate(hours[start : start + together])}
        here = times[np.isin(hours_of_day(times), list(some))]
        for first in range(0, written.DAYS, step):
            days = range(first, min(first + step, written.DAYS))
            mine = here[np.any([np.isin(of_year, days) for of_year in days_of_year_twice(here)], axis=0)]
            if mine.size:
                yield ClimatologyPiece(name, some, days, mine)


def _bins(piece: ClimatologyPiece, *times: np.datetime64) -> list[tuple[int, int]]:
    """Return the pairs of hour index and day that times of a piece belong to, each pair once."""
    stamps = np.array(times)
    places = [piece.hours[hour] for hour in hours_of_day(stamps).tolist()]
    pairs = {pair for days in days_of_year_twice(stamps) for pair in zip(places, days.tolist(), strict=True)}
    return sorted((place, day) for place, day in pairs if day in piece.days)


def _kept(draft: ClimatologyDraft, piece: ClimatologyPiece) -> bool:
    """Whether a draft has the statistics of all days of a piece."""
    return all(draft.keeps(piece.name, *at) for at in _bins(piece, *piece.times))


def _fields(source: Timeline, piece: ClimatologyPiece) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
    """Read the field of one time after another; refuse values that are not finite."""
    levels = source.levels if "level" in source.dims[piece.name] else ()
    some = max(1, _READ_BYTES // (4 * source.grid.size * max(1, len(levels))))
    for first in range(0, piece.times.size, some):
        times = piece.times[first : first + some]
        fields = source.fields([piece.name], times, levels)[piece.name].values
        for time, field in zip(times, fields, strict=True):
            if not np.isfinite(field).all():
                raise EvaluationError(
                    f"{source.origin} must be finite everywhere for a climatology, but {piece.name} is not at "
                    f"{time.astype('datetime64[h]')}; repair it, or choose other times"
                )
            yield time, field


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
            f"the times of a climatology must be whole hours, but {source.origin} has {odd.size} times such as "
            f"{odd[0].astype('datetime64[s]')}; give whole hours with --first, --last and --every-hours"
        )
    held = source.times_of(names)
    absent = times[:0] if held is None else times[~np.isin(times, held)]
    if absent.size:
        raise EvaluationError(
            f"{source.origin} must hold {', '.join(names)} at all times of a climatology, but does not at "
            f"{absent.size} of {times.size}, the first {absent[0].astype('datetime64[m]')}: "
            f"{fewest_times(source, names)}; choose other times"
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
