"""Compute count, mean and squared deviations of values, and of changes over a model step, in one block of an archive.

The results of two blocks can be merged into those of both together, so that blocks may be computed in any process.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import StatisticsError
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.inputs.quality.values import find_gap

Forcing = Callable[[str, NDArray[np.datetime64], NDArray[np.float32], NDArray[np.float32]], NDArray[np.floating]]
"""Computes a forcing: name, (time,) datetime64, (lat,) degrees, (lon,) degrees -> (time, ...) values."""

Frames = Mapping[np.datetime64, NDArray[np.floating]]
"""Values ([level,] point) of a variable, by time."""

_LEVELS: Final = 8
_POINTS: Final = 2**13
"""Points of a tile: its float64 values fit into a core's cache, and OpenBLAS uses one thread below 10 000 elements."""
_ONES: Final = np.ones(_POINTS)
_PLAUSIBLE: Final = 1e30
"""Magnitude that no field comes near: larger values, and NaN, are searched for missing values."""
_ROUNDING: Final = 1e-12
"""A standard deviation below this fraction of the mean is due to float64 rounding: the variable is constant."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of numbers, (level,) or scalar.

    The moments of two parts can be merged into those of both together (Chan, Golub and LeVeque 1983, "Algorithms for
    computing the sample variance: analysis and recommendations", The American Statistician 37), so that the order and
    size of the parts do not matter, apart from rounding. The mean is kept as an origin near the data and an offset from
    it: as one float64, a large mean would lose digits that a small standard deviation needs.

    Attributes:
        count: number of values at each level.
        origin: a number near the values, in their unit.
        offset: difference of the mean and the origin.
        squares: sum of squared deviations from the mean.
    """

    count: int
    origin: NDArray[np.float64]
    offset: NDArray[np.float64]
    squares: NDArray[np.float64]

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of the numbers of both."""
        count = self.count + other.count
        shift = (other.origin - self.origin) + (other.offset - self.offset)
        return Moments(
            count,
            self.origin,
            np.asarray(self.offset + shift * (other.count / count)),
            np.asarray(self.squares + other.squares + np.square(shift) * (self.count * other.count / count)),
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """Arithmetic mean."""
        return np.asarray(self.origin + self.offset)

    @property
    def stddev(self) -> NDArray[np.float64]:
        """Population standard deviation; exactly 0 if all numbers are equal."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation <= _ROUNDING * np.abs(self.mean), 0.0, deviation)


@dataclass(frozen=True, eq=False)
class Tally:
    """Moments of values and of their changes over a model step, by variable."""

    values: Mapping[str, Moments]
    changes: Mapping[str, Moments]

    def merge(self, other: "Tally") -> "Tally":
        """Return the moments of the values and changes of both."""
        return Tally(_merged(self.values, other.values), _merged(self.changes, other.changes))


@dataclass(frozen=True, eq=False)
class ArchiveBlock:
    """A part of an archive whose moments are computed independently.

    Attributes:
        names: variables of the block.
        changing: those of them whose changes are computed too.
        levels: levels in hPa of variables on levels.
        before: (time,) times before the block that are one step before times of the block; their values are used for
            changes only.
        pieces: times of the block, split into (time,) parts that are read at once.
        step: time between the two values of a change.
    """

    names: tuple[str, ...]
    changing: tuple[str, ...]
    levels: tuple[int, ...]
    before: NDArray[np.datetime64]
    pieces: tuple[NDArray[np.datetime64], ...]
    step: np.timedelta64


def tally_block(source: Timeline, forcing: Forcing, block: ArchiveBlock) -> Tally:
    """Compute the moments of one block; no more than a piece and the step before it is in memory.

    Raises:
        StatisticsError: a value is not finite.
        InputError: the source cannot be read.
    """
    tally = Tally({}, {})
    before = _arrays(source, forcing, block.changing, block, block.before)
    recent = {name: _by_time(array, block.before) for name, array in before}
    for times in block.pieces:
        part, recent = _tally_piece(source, forcing, block, times, recent)
        tally = tally.merge(part)
    return tally


def _tally_piece(
    source: Timeline, forcing: Forcing, block: ArchiveBlock, times: NDArray[np.datetime64], recent: Mapping[str, Frames]
) -> tuple[Tally, dict[str, Frames]]:
    """Compute the moments of some times of a block.

    This is a function of its own so that the memory of a piece is freed before the next one is read.

    Args:
        source: source of the fields.
        forcing: computes forcings that the source lacks.
        block: the block.
        times: (time,) times of the piece.
        recent: frames of the step before the piece, by variable.

    Returns:
        The moments, and the frames of the last step, by variable.
    """
    tally, latest = Tally({}, {}), dict[str, Frames]()
    for name, array in _arrays(source, forcing, block.names, block, times):
        changing, own, earlier = name in block.changing, _by_time(array, times), recent.get(name, {})
        values, changes = moments({**earlier, **own}, times, block.step, changing=changing)
        _check_finite(values, array)
        tally = tally.merge(Tally({name: values}, {name: changes} if changes else {}))
        if changing:
            # Copies, because a view would keep all fields of the piece in memory.
            copies = {time: frame.copy() for time, frame in _last_step(own, times, block.step).items()}
            latest[name] = {**_last_step(earlier, times, block.step), **copies}
    return tally, latest


@np.errstate(invalid="ignore", over="ignore")
def moments(
    frames: Frames, times: NDArray[np.datetime64], step: np.timedelta64, *, changing: bool
) -> tuple[Moments, Moments | None]:
    """Compute the moments of values and of their changes over a step in one pass, in float64, without warnings.

    Args:
        frames: frames at the times, and frames one step before a time if the change at that time is to count.
        times: (time,) times whose values and changes count.
        step: time between the two values of a change.
        changing: whether to compute changes.

    Returns:
        Moments of the values, and of the changes; None for the latter if there are no changes.
    """
    stamps = _in_steps(np.asarray([time for time in frames if np.any((times == time) | (times == time + step))]), step)
    own = np.isin(stamps, times)
    follows = np.append(False, np.diff(stamps) == step) & own & changing
    swept = [np.atleast_2d(frames[time]) for time in stamps]
    near, values, changes = _sweep(swept, own, follows)
    points, shape = swept[0].shape[-1], frames[stamps[0]].shape[:-1]
    counts = np.minimum(_POINTS, points - np.arange(0, points, _POINTS))
    of_values = _joined(near[own], values[:, own], counts, shape)
    if not np.any(follows):
        return of_values, None
    return of_values, _joined(np.diff(near, axis=0)[follows[1:]], changes[:, follows], counts, shape)


def _in_steps(stamps: NDArray[np.datetime64], step: np.timedelta64) -> NDArray[np.datetime64]:
    """Sort times so that each is directly after the time one step before it, if that is there."""
    return stamps[np.lexsort((stamps, (stamps - stamps[0]) % step))]


def _sweep(
    frames: Sequence[NDArray[np.floating]], own: NDArray[np.bool_], follows: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and squared deviations of the values and changes in the tiles of frames.

    Each tile is converted to float64 once. Its first value is subtracted, so that mean and squared deviations can be
    computed in one pass: one of n numbers is within sqrt(n) standard deviations of their mean, so that the rounding
    error is n roundings at worst, 2e-12.

    Args:
        frames: frames, (level, point) each.
        own: (frame,) whether the values of each frame count.
        follows: (frame,) whether the changes of each frame since the one before it count.

    Returns:
        First values of the tiles, (frame, level, tile); and for values and for changes an array (2, frame, level, tile)
        of the mean less the first value and the sum of squared deviations, 0 where they do not count.
    """
    near = np.stack([frame[:, ::_POINTS] for frame in frames]).astype(np.float64)
    values, changes = np.zeros((2, 2, *near.shape))
    room = np.empty((2, _LEVELS, _POINTS))
    for levels, points, tile in _tiles(frames[0].shape):
        for place, frame in enumerate(frames):
            part = frame[levels, points]
            now, before = (room[(place - back) % 2, : part.shape[0], : part.shape[1]] for back in (0, 1))
            now[:] = part
            now -= near[place, levels, tile, np.newaxis]
            if own[place]:
                values[:, place, levels, tile] = _mean_and_squares(now)
            if follows[place]:
                changes[:, place, levels, tile] = _mean_and_squares(np.subtract(now, before, out=before))
    return near, values, changes


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, int]]:
    """Yield levels, points and number of every tile of a frame."""
    levels, points = shape
    for tile, start in enumerate(range(0, points, _POINTS)):
        for level in range(0, levels, _LEVELS):
            yield slice(level, level + _LEVELS), slice(start, start + _POINTS), tile


def _mean_and_squares(numbers: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and sum of squared deviations, (level,), of (level, point) numbers near 0."""
    points = numbers.shape[1]
    mean = np.vecdot(numbers, _ONES[:points]) / points
    return mean, np.maximum(np.vecdot(numbers, numbers) - points * np.square(mean), 0.0)


def _joined(
    near: NDArray[np.float64], found: NDArray[np.float64], counts: NDArray[np.intp], shape: tuple[int, ...]
) -> Moments:
    """Merge tiles into moments.

    Args:
        near: (frame, level, tile) first values.
        found: (2, frame, level, tile) means less the first values, and sums of squared deviations.
        counts: (tile,) numbers of points.
        shape: shape of the moments.
    """
    means, squares = found
    origin, total = near[0, :, 0], len(near) * int(counts.sum())
    offsets = near - origin[:, np.newaxis] + means
    offset = (offsets * counts).sum((0, 2)) / total
    deviations = (squares + counts * np.square(offsets - offset[:, np.newaxis])).sum((0, 2))
    return Moments(total, origin.reshape(shape), offset.reshape(shape), deviations.reshape(shape))


def _merged(one: Mapping[str, Moments], other: Mapping[str, Moments]) -> dict[str, Moments]:
    return {**one, **{name: one[name].merge(found) if name in one else found for name, found in other.items()}}


def _arrays(
    source: Timeline, forcing: Forcing, names: Sequence[str], block: ArchiveBlock, times: NDArray[np.datetime64]
) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield variables at some times, read from the source or computed."""
    if not names or not times.size:
        return
    held = source.fields([name for name in names if name in source.dims], times, block.levels)
    for name in names:
        yield name, held[name] if name in held else _computed(source, forcing, name, times)


def _computed(source: Timeline, forcing: Forcing, name: str, times: NDArray[np.datetime64]) -> xr.DataArray:
    values = np.asarray(forcing(name, times, source.grid.latitude, source.grid.longitude))
    dims = ("time", *(f"axis_{axis}" for axis in range(1, values.ndim)))
    return xr.DataArray(values, dims=dims, coords={"time": times}, name=name)


def _by_time(array: xr.DataArray, times: NDArray[np.datetime64]) -> Frames:
    """Return values as ([level,] point) by time; values without time are those at the one given time."""
    values = array.values if "time" in array.dims else array.values[np.newaxis]
    levels = (array.sizes["level"],) if "level" in array.dims else ()
    shape = (values.shape[0], *levels, math.prod(values.shape[1 + len(levels) :]))
    return dict(zip(times, values.reshape(shape), strict=True))


def _last_step(frames: Frames, times: NDArray[np.datetime64], step: np.timedelta64) -> Frames:
    """Return the frames within the last step of some times, from which later changes are computed."""
    return {time: frame for time, frame in frames.items() if time > times[-1] - step}


def _check_finite(found: Moments, array: xr.DataArray) -> None:
    # No value is larger than this, so that the data need not be searched again.
    reach = np.abs(found.mean) + np.sqrt(found.squares)
    gap = None if np.all(reach < _PLAUSIBLE) else find_gap(array)
    if gap:
        raise StatisticsError(f"statistics cannot be computed: {gap}")
