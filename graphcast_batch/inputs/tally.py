"""Compute count, mean and squared deviations of the values and 6 h changes in one block of an archive.

Tallies merge into those of all their numbers together, so that blocks may be tallied in any process.
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
"""Name, (time,) datetime64, (lat,) degrees, (lon,) degrees -> (time, ...) values of a forcing variable."""

Frames = Mapping[np.datetime64, NDArray[np.floating]]
"""([level,] point) values of a variable by time."""

_LEVELS: Final = 8
_POINTS: Final = 2**13
"""Of a tile: its float64 stay in a core's cache, and OpenBLAS has one thread for dot products below 10 000."""
_ONES: Final = np.ones(_POINTS)
_PLAUSIBLE: Final = 1e30
"""Fields are far below; whatever is above, or no number, is looked at closely."""
_ROUNDING: Final = 1e-12
"""A deviation below this share of the mean is float64 rounding: the variable is constant."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of numbers seen so far, (level,) or scalar.

    Two of them merge into those of all numbers together (Chan, Golub and LeVeque 1983, "Algorithms for computing the
    sample variance: analysis and recommendations", The American Statistician 37), so that the order and size of the
    parts do not matter but for rounding. The mean is kept as a number near the data and what it lies beside it: as one
    float64 a large mean would lose digits that a small deviation needs.

    Attributes:
        count: of numbers, at each level.
        origin: near them, in their unit.
        offset: of the mean from the origin.
        squares: sum of squared deviations from the mean.
    """

    count: int
    origin: NDArray[np.float64]
    offset: NDArray[np.float64]
    squares: NDArray[np.float64]

    def merge(self, other: "Moments") -> "Moments":
        """Of the numbers of both."""
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
        """Population standard deviation; exactly 0 where all numbers are equal."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation <= _ROUNDING * np.abs(self.mean), 0.0, deviation)


@dataclass(frozen=True, eq=False)
class Tally:
    """Moments of values and of their 6 h changes, by variable."""

    values: Mapping[str, Moments]
    changes: Mapping[str, Moments]

    def merge(self, other: "Tally") -> "Tally":
        """Of what both have seen."""
        return Tally(_merged(self.values, other.values), _merged(self.changes, other.changes))


@dataclass(frozen=True, eq=False)
class ArchiveBlock:
    """A part of an archive that is tallied by itself.

    Attributes:
        names: variables to take in.
        changing: those of them whose changes count too.
        levels: hPa, of variables on levels.
        before: (time,) times one step before those of the block that are not in it; their values do not count.
        pieces: of the times of the block, (time,) each; so much is read at once.
        step: time over which changes count.
    """

    names: tuple[str, ...]
    changing: tuple[str, ...]
    levels: tuple[int, ...]
    before: NDArray[np.datetime64]
    pieces: tuple[NDArray[np.datetime64], ...]
    step: np.timedelta64


def tally_block(source: Timeline, forcing: Forcing, block: ArchiveBlock) -> Tally:
    """Tallies one block, of which it holds no more than a piece and the step before.

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
    """Tallies some times of a block, given the frames of the step before by variable; also returns the latest frames.

    A function of its own, so that nothing of a piece is still held while the next one is read.
    """
    tally, latest = Tally({}, {}), dict[str, Frames]()
    for name, array in _arrays(source, forcing, block.names, block, times):
        changing, own, earlier = name in block.changing, _by_time(array, times), recent.get(name, {})
        values, changes = moments({**earlier, **own}, times, block.step, changing=changing)
        _check_finite(values, array)
        tally = tally.merge(Tally({name: values}, {name: changes} if changes else {}))
        if changing:
            # Copies, because a view holds all that was read with it.
            copies = {time: frame.copy() for time, frame in _last_step(own, times, block.step).items()}
            latest[name] = {**_last_step(earlier, times, block.step), **copies}
    return tally, latest


@np.errstate(invalid="ignore", over="ignore")
def moments(
    frames: Frames, times: NDArray[np.datetime64], step: np.timedelta64, *, changing: bool
) -> tuple[Moments, Moments | None]:
    """Of values and, in the same sweep, of their changes over a step; in float64. What is not finite gives no warning.

    Args:
        frames: at the times, and those a step before the times wherever their changes are to count.
        times: (time,) those whose values and changes count.
        step: time over which changes count.
        changing: whether changes count at all.

    Returns:
        Moments of the values, and of the changes, None where there is none.
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
    """Times in an order in which each follows at once upon the one a step before, if that is there."""
    return stamps[np.lexsort((stamps, (stamps - stamps[0]) % step))]


def _sweep(
    frames: Sequence[NDArray[np.floating]], own: NDArray[np.bool_], follows: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What tiles of frames lie near, and mean and squared deviations of their values and changes beside that.

    Every tile is brought to float64 once. Less its first value it is near 0, so that one pass gives its mean and its
    squares: one of n numbers lies within sqrt(n) deviations of their mean, which costs n roundings at worst, 2e-12.

    Args:
        frames: (level, point) each.
        own: (frame,) whether its values count.
        follows: (frame,) whether its changes since the frame before it count.

    Returns:
        (frame, level, tile), first values; twice (2, frame, level, tile), mean less the first value, and sum of squared
        deviations; 0 where they do not count.
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
    """Levels, points and number of every tile of a frame."""
    levels, points = shape
    for tile, start in enumerate(range(0, points, _POINTS)):
        for level in range(0, levels, _LEVELS):
            yield slice(level, level + _LEVELS), slice(start, start + _POINTS), tile


def _mean_and_squares(numbers: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sum of squared deviations, (level,), of (level, point) numbers near 0."""
    points = numbers.shape[1]
    mean = np.vecdot(numbers, _ONES[:points]) / points
    return mean, np.maximum(np.vecdot(numbers, numbers) - points * np.square(mean), 0.0)


def _joined(
    near: NDArray[np.float64], found: NDArray[np.float64], counts: NDArray[np.intp], shape: tuple[int, ...]
) -> Moments:
    """Moments, of the given shape, of tiles: what they lie near, their means beside it and squares, and their sizes."""
    means, squares = found
    origin, total = near[0, :, 0], len(near) * int(counts.sum())
    offsets = near - origin[:, np.newaxis] + means
    offset = (offsets * counts).sum((0, 2)) / total
    executor = (squares + counts * np.square(offsets - offset[:, np.newaxis])).sum((0, 2))
    return Moments(total, origin.reshape(shape), offset.reshape(shape), executor.reshape(shape))


def _merged(one: Mapping[str, Moments], other: Mapping[str, Moments]) -> dict[str, Moments]:
    return {**one, **{name: one[name].merge(found) if name in one else found for name, found in other.items()}}


def _arrays(
    source: Timeline, forcing: Forcing, names: Sequence[str], block: ArchiveBlock, times: NDArray[np.datetime64]
) -> Iterator[tuple[str, xr.DataArray]]:
    """Variables at some times, held or computed."""
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
    """The values as ([level,] point) by time; at the one time given where they have none."""
    values = array.values if "time" in array.dims else array.values[np.newaxis]
    levels = (array.sizes["level"],) if "level" in array.dims else ()
    shape = (values.shape[0], *levels, math.prod(values.shape[1 + len(levels) :]))
    return dict(zip(times, values.reshape(shape), strict=True))


def _last_step(frames: Frames, times: NDArray[np.datetime64], step: np.timedelta64) -> Frames:
    """Those of the last step of some times, which later ones change from."""
    return {time: frame for time, frame in frames.items() if time > times[-1] - step}


def _check_finite(found: Moments, array: xr.DataArray) -> None:
    # No value is further out than this, so that the data need not be gone through once more.
    reach = np.abs(found.mean) + np.sqrt(found.squares)
    gap = None if np.all(reach < _PLAUSIBLE) else find_gap(array)
    if gap:
        raise StatisticsError(f"statistics cannot be computed: {gap}")
