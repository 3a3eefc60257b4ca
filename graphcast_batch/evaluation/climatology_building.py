"""Make a climatology from the years of an archive, with WeatherBench 2's window over neighboring days of the year.

Rasp et al. 2024, https://doi.org/10.1029/2023MS004019: statistics are taken over all years and the 30 days before and
after, weighted with a triangle; in a year without a 29 February its last day stands for day 366 too. The archive is
read once: the statistics of each day of the year over all years are kept on disk, a variable at a time, and the window
is applied to them. Of precipitation all values are kept, as quantiles cannot be computed from sums.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation import climatology_store as written
from graphcast_batch.evaluation.climatology_store import ClimatologyContents, ClimatologyDraft
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
from graphcast_batch.text import byte_size
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
        levels: hPa; empty for a variable that is not on levels.
        times: (time,) the times of all years that belong to these days and hours.
    """

    name: str
    hours: dict[int, int]
    days: range
    levels: Sequence[int]
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


@dataclass(frozen=True, eq=False)
class ClimatologyPlan:
    """What a climatology is made of, and what it consists of.

    Attributes:
        source: of the fields.
        contents: of the climatology.
        counts: for each hour of the day, (day of the year,) how many times there are.
    """

    source: Timeline
    contents: ClimatologyContents
    counts: Sequence[Floats]

    def __str__(self) -> str:
        found = self.contents
        levelled = f" on {len(found.levels)} levels" if any(found.on_levels.values()) else ""
        return (
            f"{len(found.on_levels)} variables{levelled} at {len(found.hours)} hours of the day on {found.grid}, from "
            f"{found.times.size} times: {byte_size(found.bytes)} in {found.files} files before compression, and up to "
            f"{byte_size(found.most_days_bytes)} beside them while they are made"
        )


def plan_climatology(
    source: Timeline,
    times: NDArray[np.datetime64] | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> ClimatologyPlan:
    """Plan a climatology; reads no fields and writes nothing.

    Args:
        source: of the fields.
        times: (time,) times to include, whole hours; None for all at which the source holds the variables.
        variables: names of variables of the source; None for all that vary in time and that this program knows.
        levels: hPa; None for all of the source.

    Raises:
        EvaluationError: there is no variable, level or time, the source lacks a variable or level that was chosen, a
            time is not a whole hour or lacks a variable, or a day of the year has no time near it at some hour of the
            day.
    """
    known = {name: "level" in dims for name, dims in sorted(source.dims.items()) if _varies(name, dims)}
    on_levels = known if variables is None else {name: known[name] for name in _chosen(source, known, variables)}
    if times is None:
        held = source.times_of(list(on_levels)) if on_levels else None
        times = np.zeros(0, "datetime64[ns]") if held is None else held
    _check_held(source, list(on_levels), times)
    hours = sorted(set(hours_of_day(times).tolist()))
    counts = [times_per_day(times[hours_of_day(times) == hour]) for hour in hours]
    _check_covered(source, counts, hours)
    span = f"{times.min().astype('datetime64[h]')} to {times.max().astype('datetime64[h]')}"
    contents = ClimatologyContents(
        on_levels,
        {name: DERIVATIONS[name].units for name in on_levels if name in DERIVATIONS},
        [name for name in on_levels if is_precipitation(name)],
        hours,
        _chosen_levels(source, levels) if any(on_levels.values()) else (),
        source.grid,
        times,
        {"source": source.origin, "period": span, "window_days": str(2 * REACH + 1)},
    )
    return ClimatologyPlan(source, contents, counts)


def make_climatology(plan: ClimatologyPlan, path: Path, executor: Executor) -> None:
    """Write a climatology.

    A worker needs 1 GB of memory, or twice a field on all levels in float64 if that is more. While it is being made,
    the climatology needs additional disk space beside the path: as much as its largest variable takes uncompressed, or
    as all values of a precipitation. A climatology that was interrupted is resumed.

    Args:
        plan: of the climatology.
        path: of the climatology to write; must not exist.
        executor: calls functions on the pieces, in parallel if it can.

    Raises:
        EvaluationError: a value is not finite, or the executor stopped before all pieces were done.
        StoreError: the path exists, has no room for the climatology, or cannot be written.
        InputError: the source cannot be read.
    """
    source, contents = plan.source, plan.contents
    draft = ClimatologyDraft.lay_out(path, contents)
    for name in contents.on_levels:
        if not draft.finished(name):
            levels = contents.levels_of(name)
            together = written.levels_together(levels, source.grid)
            pieces = _pieces(contents, name)
            _all_of(executor, gather_days, [(draft, source, piece) for piece in pieces if not _kept(draft, piece)])
            windows = (
                Window(name, n, slice(level, level + together), slice(first, first + written.BLOCK), plan.counts[n])
                for n in range(len(contents.hours))
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


def _pieces(contents: ClimatologyContents, name: str) -> Iterator[ClimatologyPiece]:
    """Divide the days of a variable into pieces that fit into memory, with all hours together where that fits."""
    hours, times = contents.hours, contents.times
    years = np.unique(times.astype("datetime64[Y]")).size
    size = contents.levels_of(name) * contents.grid.size * (16 + (4 * years if is_precipitation(name) else 0))
    together = min(len(hours), max(1, _DAYS_BYTES // size))
    step = min(written.BLOCK, max(1, _DAYS_BYTES // (size * together)))
    levels = contents.levels if contents.on_levels[name] else ()
    for start in range(0, len(hours), together):
        some = {hour: start + n for n, hour in enumerate(hours[start : start + together])}
        here = times[np.isin(hours_of_day(times), list(some))]
        for first in range(0, written.DAYS, step):
            days = range(first, min(first + step, written.DAYS))
            mine = here[np.any([np.isin(of_year, days) for of_year in days_of_year_twice(here)], axis=0)]
            if mine.size:
                yield ClimatologyPiece(name, some, days, levels, mine)


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
    some = max(1, _READ_BYTES // (4 * source.grid.size * max(1, len(piece.levels))))
    for first in range(0, piece.times.size, some):
        times = piece.times[first : first + some]
        fields = source.fields([piece.name], times, piece.levels)[piece.name].values
        for time, field in zip(times, fields, strict=True):
            if not np.isfinite(field).all():
                raise EvaluationError(
                    f"{source.origin} must be finite everywhere for a climatology, but {piece.name} is not at "
                    f"{time.astype('datetime64[h]')}; repair it, or choose other times"
                )
            yield time, field


def _varies(name: str, dims: Sequence[str]) -> bool:
    """Whether a variable varies in time and is one that this program knows."""
    return "time" in dims and (
        name in DERIVATIONS or (name in VARIABLES and VARIABLES[name].kind in ("surface", "level"))
    )


def _chosen(source: Timeline, known: Mapping[str, bool], variables: Sequence[str]) -> list[str]:
    absent = [name for name in variables if name not in known]
    if absent:
        raise EvaluationError(
            f"the variables of a climatology must be some of those of {source.origin}, {', '.join(known)}, but "
            f"{', '.join(absent)} is not; correct --variable, or name a derived variable with --derived"
        )
    return sorted(set(variables))


def _chosen_levels(source: Timeline, levels: Sequence[int] | None) -> tuple[int, ...]:
    chosen = source.levels if levels is None else tuple(sorted(set(levels)))
    absent = [str(level) for level in chosen if level not in source.levels]
    if absent or not chosen:
        raise EvaluationError(
            f"the levels of a climatology must be some of those that {source.origin} holds, "
            f"{', '.join(map(str, source.levels)) or 'none'} hPa, but {', '.join(absent) or 'none'} hPa were chosen; "
            "correct --levels"
        )
    return chosen


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
